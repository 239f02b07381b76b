"""A test that cannot run here is never a silent success."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needed import COMPLETE_VARIABLE, TRACE_VARIABLE, count_untested, give_up, need_module, need_trace

REASON = "helm is not installed: run x"


def report_of(reason: str) -> pytest.TestReport:
    report = ("test_x.py", 1, f"Skipped: {reason}")
    return pytest.TestReport("test_x.py::test", ("test_x.py", 1, "test"), {}, "skipped", report, "setup")


def skip_reason(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv(COMPLETE_VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception) as caught:
        give_up(REASON)
    return str(caught.value)


def test_without_what_it_needs_a_test_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert REASON in skip_reason(monkeypatch)


def test_where_everything_has_to_be_there_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMPLETE_VARIABLE, "1")
    with pytest.raises(pytest.fail.Exception, match=REASON):
        give_up(REASON)


def test_ci_is_where_everything_has_to_be_there() -> None:
    assert f"export {COMPLETE_VARIABLE}=1" in (Path(__file__).parents[1] / ".ci" / "run").read_text()


def test_the_summary_counts_by_reason_and_leaves_other_skips_out(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = report_of(skip_reason(monkeypatch))
    assert count_untested([given_up, given_up, report_of("this CPU cannot run it")]) == {REASON: 2}


def test_a_module_is_imported_where_it_is_and_missed_aloud_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMPLETE_VARIABLE, "1")
    assert need_module("json", REASON).loads("1") == 1
    with pytest.raises(pytest.fail.Exception, match=REASON):
        need_module("no_such_module", REASON)


@pytest.mark.parametrize("complete", ["", "1"])
def test_without_the_trace_nobody_fails_and_it_is_said_in_red(
    complete: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(COMPLETE_VARIABLE, complete)
    monkeypatch.setenv(TRACE_VARIABLE, str(tmp_path / "conv.csv"))
    with pytest.raises(pytest.skip.Exception) as caught:
        need_trace()
    assert sum(count_untested([report_of(str(caught.value))]).values()) == 1
    (tmp_path / "conv.csv").touch()
    assert need_trace() == tmp_path / "conv.csv"


@pytest.mark.parametrize(("complete", "code", "words"), [("", 5, "7 tests were NOT run"), ("1", 2, "7 errors")])
def test_without_triton_no_file_of_its_tests_is_left_out_in_silence(complete: str, code: int, words: str) -> None:
    folder = Path(__file__).parent / "inference_pods" / "kernels" / "triton"
    hide = "import sys, pytest; sys.modules['triton'] = None; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", hide, "-p", "no:cacheprovider", "-p", "no:randomly", str(folder)]
    environment = {**os.environ, COMPLETE_VARIABLE: complete}
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert words in done.stdout, done.stdout + done.stderr
    assert "triton is not installed" in done.stdout
    assert done.returncode == code
