"""Loads that no machine holds are refused before they are built, with the option, the number and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptive_operator.cli import simulated_loads
from adaptive_operator.cli.__main__ import main
from adaptive_operator.simulate import generators
from adaptive_operator.simulate.comparison import Comparison

EXAMPLES = Path(__file__).parents[3] / "examples"
MODEL = str(EXAMPLES / "simulate" / "uniform.yaml")
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def simulate(*arguments: str) -> int:
    return main(["simulate", "-f", MODEL, "--policy", "full", *arguments])


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        (
            "steady:rate=1e9,seconds=300",
            "about 300,000,000,000 requests, more than the 50,000,000 that are simulated at most; take a lower rate",
        ),
        ("flash:base=1,peak=1e300", "requests, more than the 50,000,000"),
        ("steady:rate=1e308", "about inf requests"),
    ],
)
def test_a_generator_of_too_many_requests_is_refused_before_anything_is_drawn(trace, words, monkeypatch, capsys):
    monkeypatch.setattr(generators, "generate", lambda *_: pytest.fail("drawn"))
    assert simulate("--trace", trace) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: --trace {trace}: about ")
    assert words in told


def test_what_the_models_of_a_pool_have_together_counts(monkeypatch, capsys):
    monkeypatch.setattr(generators, "generate", lambda *_: pytest.fail("drawn"))
    arguments = ["-f", str(EXAMPLES / "pool.yaml"), "--policy", "full", "--trace", "steady:rate=10000"]
    assert main(["simulate", *arguments]) == 1
    assert "about 72,000,000 requests" in capsys.readouterr().err


def test_a_generator_of_more_than_a_year_is_refused(capsys):
    assert simulate("--trace", "steady:rate=1,seconds=1e12") == 1
    assert "'seconds=1e12' is out of range; seconds has to be from 0 to" in capsys.readouterr().err


@pytest.fixture
def trace(tmp_path, monkeypatch) -> str:
    monkeypatch.setattr(Comparison, "parts", lambda _: pytest.fail("scaled"))
    (tmp_path / "trace.csv").write_text(HEADER + "0,10,10\n40,10,10\n90,10,10\n")
    return str(tmp_path / "trace.csv")


def test_a_scale_of_too_many_requests_is_refused_before_anything_is_scaled(trace, capsys):
    assert simulate("--trace", trace, "--scale", "1e12") == 1
    assert capsys.readouterr().err == (
        "error: --scale 1e+12: about 2,000,000,000,000 requests, more than the 50,000,000 that are simulated at most"
        " (2 at scale 1); take a smaller one\n"
    )


def test_a_scale_below_the_limit_lets_a_long_trace_run(trace, monkeypatch):
    monkeypatch.setattr(simulated_loads, "check_size", lambda *_: pytest.fail("too large"))
    with pytest.raises(pytest.fail.Exception, match="too large"):
        simulate("--trace", trace)


def test_a_trace_of_more_than_a_year_is_refused(tmp_path, capsys):
    (tmp_path / "trace.csv").write_text(HEADER + "0,10,10\n1,10,10\n1e300,10,10\n")
    assert simulate("--trace", str(tmp_path / "trace.csv"), "--longest-gap", "1e308") == 1
    assert "it has 1e+300 s, more than 366 days; take less with --minutes" in capsys.readouterr().err
