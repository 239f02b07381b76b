"""What was asked for and changes nothing of a simulation is told with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptive_operator.cli.__main__ import main

MODEL = str(Path(__file__).parents[3] / "examples" / "simulate" / "uniform.yaml")
STEADY = "steady:rate=1,seconds=120"


def told_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["simulate", "-f", MODEL, "--budget", "1", "--policy", "full", *arguments]) == 0
    return capsys.readouterr().err


IDLE = {
    "a step after the end": (
        ["--trace", "step:low=1,high=2,seconds=120"],
        "--trace step:low=1,high=2,seconds=120: the rate never changes within the 1",
    ),
    "a step that the minutes cut off": (
        ["--trace", "step:low=1,high=2,at=90", "--minutes", "1"],
        "s that are simulated; let it change earlier, or take more seconds or --minutes",
    ),
    "a loss after the end": (["--trace", STEADY, "--lose", "500:1"], "--lose 500:1: the load is over after 1"),
    "loads that fail after the end": (
        ["--trace", STEADY, "--fail-loads", "int8:hangs:1:500"],
        "--fail-loads int8:hangs:1:500: the load is over after 1",
    ),
    "a gap of a generator": (
        ["--trace", STEADY, "--longest-gap", "700"],
        "--longest-gap is for traces from files, and changes nothing of a generator; leave it out",
    ),
    "equal times of a generator": (["--trace", STEADY, "--allow-equal-times"], "--allow-equal-times is for traces"),
}


@pytest.mark.parametrize("name", IDLE)
def test_what_changes_nothing_is_told_once(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, words = IDLE[name]
    assert told_of(capsys, *arguments).count(words) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--trace", STEADY, "--lose", "60:1", "--fail-loads", "int8:hangs:1:60"],
        ["--trace", "step:low=1,high=2,at=60,seconds=120"],
        ["--trace", "square:low=1,high=2,half-period=60,seconds=120"],
    ],
    ids=["in time", "a step within the load", "a wave within the load"],
)
def test_nothing_is_told_of_what_changes_something(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    told = told_of(capsys, *arguments)
    assert "never changes" not in told
    assert "so nothing comes of it" not in told


def test_times_are_told_to_count_from_the_part_of_a_trace_that_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{second},10,10\n" for second in range(300))
    (tmp_path / "trace.csv").write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}")
    told = told_of(capsys, "--trace", str(tmp_path / "trace.csv"), "--lose", "250:1")
    assert "--lose 250:1: the load is over after 199 s, counted from where the judged part of the trace begins" in told
