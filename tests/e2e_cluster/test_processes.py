import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.cluster import processes
from e2e.cluster.processes import ProcessSpec, Record
from e2e.cluster.settings import Cluster, ClusterError


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster("test", tmp_path)
    yield cluster
    processes.stop(processes.read_records(cluster), 0)


@pytest.fixture(autouse=True)
def _forget_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """The started processes outlive the caller on purpose; Python's warning about that is not wanted here."""
    monkeypatch.setattr("subprocess.Popen.__del__", lambda self: None)


def sleeper(name: str = "sleeper", seconds: str = "60") -> ProcessSpec:
    return ProcessSpec(name, (sys.executable, "-c", f"import time; print('awake', flush=True); time.sleep({seconds})"))


def alive(cluster: Cluster, name: str = "sleeper") -> Record:
    record = processes.read_record(cluster, name)
    assert record is not None
    assert record.is_alive()
    return record


@given(name=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")), start=st.integers(0, 2**62))
def test_the_start_time_is_found_whatever_the_program_is_called(name: str, start: int):
    fields = ["S", *["1"] * 18, str(start), "5"]
    assert processes.parse_stat(f"42 ({name}) " + " ".join(fields)) == (42, "S", start)


def test_a_started_process_is_recorded_and_in_a_session_of_its_own(cluster: Cluster):
    processes.start(cluster, sleeper())
    record = alive(cluster)
    assert os.getsid(record.pid) == record.pid


def test_a_process_as_wanted_is_adopted(cluster: Cluster):
    assert processes.ensure(cluster, sleeper())
    first = alive(cluster)
    assert not processes.ensure(cluster, sleeper())
    assert alive(cluster).pid == first.pid


def test_a_changed_command_line_restarts_the_process(cluster: Cluster):
    processes.ensure(cluster, sleeper())
    first = alive(cluster)
    assert processes.ensure(cluster, sleeper(seconds="61"))
    assert alive(cluster).pid != first.pid
    assert not first.is_alive()


def test_a_process_in_the_middle_of_an_exec_is_still_the_same(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    processes.ensure(cluster, sleeper())
    record = alive(cluster)
    monkeypatch.setattr(Path, "read_bytes", lambda _path: b"")
    assert record.is_alive()


def test_a_changed_configuration_file_restarts_the_process(cluster: Cluster):
    config = cluster.folder / "config"
    config.write_text("a")
    spec = replace(sleeper(), files=(config,))
    processes.ensure(cluster, spec)
    config.write_text("b")
    assert processes.ensure(cluster, spec)


def test_a_killed_process_is_seen_as_gone_and_started_again(cluster: Cluster):
    processes.ensure(cluster, sleeper())
    record = alive(cluster)
    processes.stop([record], 0)
    assert not record.is_alive()
    assert processes.ensure(cluster, sleeper())


@pytest.mark.parametrize(
    "change",
    [{"start_ticks": 1}, {"boot_id": "another boot"}, {"path": "/another/program"}],
    ids=["started at another time", "from before a reboot", "another program"],
)
def test_a_process_that_only_has_the_same_pid_is_left_alone(cluster: Cluster, change: dict[str, object]):
    processes.start(cluster, sleeper())
    own = alive(cluster)
    stranger = replace(own, **change)
    assert not stranger.is_alive()
    processes.stop([stranger], 0)
    assert own.is_alive()


def test_a_process_that_ignores_the_polite_signal_is_killed_after_the_grace(cluster: Cluster):
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    processes.start(cluster, ProcessSpec("deaf", (sys.executable, "-c", code)))
    record = alive(cluster, "deaf")
    deadline = time.monotonic() + 20
    while b"deaf" not in processes.log_file(cluster, "deaf").read_bytes() and time.monotonic() < deadline:
        time.sleep(0.02)
    processes.stop([record], grace_seconds=0.2)
    assert not record.is_alive()


def test_the_message_about_a_dead_process_has_its_last_words_and_the_remedy(cluster: Cluster):
    processes.start(cluster, ProcessSpec("broken", (sys.executable, "-c", "raise SystemExit('port is taken')")))
    record = processes.read_record(cluster, "broken")
    deadline = time.monotonic() + 20
    while record is not None and record.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(ClusterError, match=r"broken ended(.|\n)*port is taken(.|\n)*down --name test"):
        processes.check_alive(cluster, "broken")


def test_half_a_record_counts_as_none(cluster: Cluster):
    cluster.records.mkdir()
    (cluster.records / "odd.pid").write_text("12 (x")
    (cluster.records / "odd.spec").write_text("")
    assert processes.read_record(cluster, "odd") is None
    assert processes.read_records(cluster) == []
