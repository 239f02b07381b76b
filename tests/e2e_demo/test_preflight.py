"""What is checked before the demo starts: disk space. Tools are in test_install.py."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from e2e.demo import preflight
from e2e.demo.preflight import GB, missing
from e2e.demo.settings import Settings


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Cache and state that are not there yet, on one filesystem. The state's path is short, as sockets need it."""
    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ADAPTIVE_STATE", "/nowhere/s")
    return tmp_path


def _set_free(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(gigabytes * GB)))
    monkeypatch.setattr(preflight, "_existing", lambda _: Path("/"))


def _disk_lines(settings: Settings) -> list[str]:
    return [line for line in missing(settings) if "GB free" in line]


@pytest.mark.parametrize(("gigabytes", "lines"), [(11.9, 1), (12, 0), (500, 0)])
def test_a_first_run_needs_twelve_gigabytes(
    monkeypatch: pytest.MonkeyPatch, folders: Path, gigabytes: float, lines: int
) -> None:
    _set_free(monkeypatch, gigabytes)
    assert len(_disk_lines(Settings())) == lines


def test_too_full_a_disk_is_one_line_with_its_remedy(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    _set_free(monkeypatch, 3)
    (line,) = _disk_lines(Settings())
    assert "3.0 GB free" in line
    assert "needs 12 GB" in line
    assert "ADAPTIVE_CACHE and ADAPTIVE_STATE" in line
    assert "\n" not in line


def test_an_existing_cluster_needs_no_disk_here(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    _set_free(monkeypatch, 0)
    assert _disk_lines(Settings(context="mine")) == []


def test_a_cluster_that_is_there_has_its_space(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    _set_free(monkeypatch, 0)
    assert len(_disk_lines(Settings())) == 1
    monkeypatch.setattr(preflight, "find_cluster", lambda _: SimpleNamespace(folder=folders))
    assert _disk_lines(Settings()) == []


def test_a_bad_cluster_name_is_a_line_and_not_a_traceback(folders: Path) -> None:
    assert any("--name 'Not OK'" in line for line in missing(Settings(cluster="Not OK")))


def test_two_disks_are_asked_for_their_own_share(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {path: SimpleNamespace(stat=lambda device=n: SimpleNamespace(st_dev=device)) for n, path in enumerate("cs")}
    monkeypatch.setattr(preflight, "cache_folder", lambda: "c")
    monkeypatch.setattr(preflight, "state_folder", lambda: "s")
    monkeypatch.setattr(preflight, "find_cluster", lambda _: SimpleNamespace(folder=Path("/nowhere/s")))
    monkeypatch.setattr(preflight, "_existing", paths.__getitem__)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=6 * GB))
    (line,) = _disk_lines(Settings())
    assert "needs 7 GB" in line
    assert "set ADAPTIVE_STATE to" in line
