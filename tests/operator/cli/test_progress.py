"""How far a simulation is, without a terminal."""

from __future__ import annotations

from adaptive_operator.cli.progress import number_runs, show_progress, tell_lines


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_runs_are_numbered_among_all():
    labels = []

    def tell(label):
        labels.append(label)
        return lambda part: None

    numbered = number_runs(tell, 42)
    numbered("tune hpa:0.3")
    numbered("hpa:0.3")
    number_runs(tell, None)("full x2")
    assert labels == ["run 1 of 42: tune hpa:0.3", "run 2 of 42: hpa:0.3", "run 1: full x2"]


def test_lines_are_at_least_15_seconds_apart_and_short_runs_say_nothing():
    lines, clock = [], Clock()
    tell = tell_lines(lines.append, clock)
    for name in ("one", "two"):
        update = tell(name)
        for step in range(1, 11):
            clock.now += 2.0
            update(step / 10)
    assert lines == ["one, 80 %\n", "two, 60 %\n"]


def test_a_pipe_gets_no_bars(capsys):
    with show_progress(3) as tell:
        tell("full")(0.5)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_bars_that_go_away(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    monkeypatch.setenv("TERM", "xterm")
    with show_progress(3) as tell:
        tell("static:full=[1]")(0.5)
    assert "run 1 of 3: static:full=[1]" in capsys.readouterr().err
