"""The log has a line per change of decision, stays within its size, and never stops a pass."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adaptive_operator import replay
from adaptive_operator.cli.__main__ import main
from adaptive_operator.decide.decision import Decision, PoolDecision
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decision_log import DecisionLog
from adaptive_operator.observe.observation import Correction
from adaptive_operator.record import decode_record
from adaptive_operator.replay import Replayed, replay_lines
from stand_ins.plant import DEMO_SETTINGS, Model, Plant, demo_spec
from tests.operator.decide.test_by_plan import BUSY, CALM, pool


def surge(now: float) -> float:
    return 1.8 if 10_100 <= now < 10_250 else 0.4


def play(log: DecisionLog, seconds: float = 600) -> Plant:
    """The demo's scenario, each pass noted."""
    plant = Plant([Model("assistant", demo_spec(), surge)])
    end = plant.now + seconds
    while plant.now < end:
        observation = plant.observe()
        log.note(observation, DEMO_SETTINGS, decide_pool(observation, DEMO_SETTINGS).decisions)
        plant.step()
        plant.now += plant.period
    return plant


def test_the_log_of_the_demo_has_its_changes_in_order_and_nothing_twice(tmp_path: Path):
    log = DecisionLog(tmp_path / "log.jsonl", 1 << 20)
    play(log)
    log.close()
    records = [decode_record(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    reasons = [record.decisions[0].reason for record in records]
    for reason in ("StartingUp", "SwappedToCheaperTier", "RestoredTier", "Steady"):
        assert reason in reasons
    assert len(records) < 60  # of 120 passes


def test_a_steady_pool_is_written_once(tmp_path: Path):
    log = DecisionLog(tmp_path / "log.jsonl", 1 << 20)
    plant = play(log, 200)
    before = (tmp_path / "log.jsonl").stat().st_size
    for _ in range(5):
        observation = plant.observe()
        log.note(observation, DEMO_SETTINGS, decide_pool(observation, DEMO_SETTINGS).decisions)
        plant.now += plant.period
    log.close()
    assert (tmp_path / "log.jsonl").stat().st_size == before


def _records(path: Path) -> int:
    return len(path.read_text().splitlines())


MORE: dict[str, Callable[[Decision], Decision]] = {
    "another grant": lambda told: replace(told, accelerators_granted=told.accelerators_granted + 1),
    "a longer hold": lambda told: replace(told, memory=replace(told.memory, hold_seconds=40)),
    "a correction": lambda told: replace(
        told, memory=replace(told.memory, corrections={"full": Correction(800, 900, 10_000.0)})
    ),
    "a failed start": lambda told: replace(told, memory=replace(told.memory, failed_starts={"full": 1})),
}


@pytest.mark.parametrize("name", MORE)
def test_what_later_decisions_stand_on_is_written_too(name: str, tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.jsonl", 1 << 20)
    observation = Plant([Model("assistant", demo_spec(), surge)]).observe()
    [decision] = decide_pool(observation, DEMO_SETTINGS).decisions
    for told in (decision, decision, MORE[name](decision), MORE[name](decision)):
        log.note(observation, DEMO_SETTINGS, [told])
    log.close()
    assert _records(tmp_path / "log.jsonl") == 2


def test_another_plan_is_written_though_the_decisions_are_the_same_and_no_plan_is_none(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.jsonl", 1 << 20)
    seen = pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35))
    decided = decide_pool(seen, DEMO_SETTINGS)
    plan = decided.plan
    assert plan is not None
    other = replace(plan, counts={**plan.counts, "demo/busy": {"int4": 1}})
    nearly = replace(plan, objective=plan.objective + 0.001, seconds=0.2)
    for told in (plan, None, nearly, other, None, other):
        log.note(seen, DEMO_SETTINGS, decided.decisions, told)
    log.close()
    assert _records(tmp_path / "log.jsonl") == 2


def test_a_pool_at_rest_whose_loads_move_a_little_is_written_once_it_has_settled(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log.jsonl", 1 << 22)
    count: list[int] = []
    for turn in range(20):
        factor = 1 + 0.05 * (-1) ** turn
        seen = pool(5, busy=(BUSY, 1.6 * factor), calm=(CALM, 0.35 * factor))
        decided = decide_pool(seen, DEMO_SETTINGS)
        log.note(seen, DEMO_SETTINGS, decided.decisions, decided.plan)
        count.append(_records(tmp_path / "log.jsonl"))
    log.close()
    assert count[-1] == count[1]


def test_the_log_keeps_two_files_of_its_size(tmp_path: Path):
    log = DecisionLog(tmp_path / "log.jsonl", 20_000)
    play(log)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "log.jsonl.1"]
    assert all(path.stat().st_size <= 20_000 for path in tmp_path.iterdir())


def test_a_log_that_cannot_be_written_is_told_and_stops_nothing(tmp_path: Path, caplog):
    log = DecisionLog(tmp_path / "nowhere" / "log.jsonl", 1 << 20)
    with caplog.at_level(logging.WARNING):
        play(log, 10)
    assert "could not be written" in caplog.text


def test_a_replay_comes_out_the_same(tmp_path: Path, capsys):
    log = DecisionLog(tmp_path / "log.jsonl", 1 << 20)
    play(log)
    log.close()
    assert main(["replay", str(tmp_path / "log.jsonl")]) == 0
    told = capsys.readouterr().out
    assert "SwappedToCheaperTier" in told
    assert "0 come out differently" in told


def test_a_replay_names_what_comes_out_differently(tmp_path: Path, capsys):
    log = DecisionLog(tmp_path / "log.jsonl", 1 << 20)
    observation = Plant([Model("assistant", demo_spec(), surge)]).observe()
    decision = decide_pool(observation, DEMO_SETTINGS).decisions[0]
    log.note(observation, DEMO_SETTINGS, [replace(decision, replicas={**decision.replicas, "int8": 9})])
    log.close()
    [replayed] = replay_lines((tmp_path / "log.jsonl").read_text().splitlines())
    assert isinstance(replayed, Replayed)
    assert replayed.differs_in == ("replicas",)
    assert main(["replay", str(tmp_path / "log.jsonl")]) == 1
    assert "differs in replicas" in capsys.readouterr().out


def test_a_record_that_cannot_be_decided_again_is_told_and_the_rest_is_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    log = DecisionLog(tmp_path / "log.jsonl", 1 << 20)
    play(log)
    log.close()
    lines = len((tmp_path / "log.jsonl").read_text().splitlines())
    calls = 0

    def decide(*seen: Any) -> PoolDecision:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ZeroDivisionError("defect")
        return decide_pool(*seen)

    monkeypatch.setattr(replay, "decide_pool", decide)
    assert main(["replay", str(tmp_path / "log.jsonl")]) == 1
    told = capsys.readouterr()
    assert "line 2: could not be decided again: ZeroDivisionError: defect" in told.out
    assert f"{lines - 1} decisions, 0 come out differently; lines that could not be decided again: 1\n" in told.out
    assert told.err == ""


def test_a_file_that_cannot_be_read_is_named_with_the_line(tmp_path: Path, capsys):
    (tmp_path / "log.jsonl").write_text("\n{}\n")
    assert main(["replay", str(tmp_path / "log.jsonl")]) == 1
    assert "line 2: " in capsys.readouterr().err
    assert main(["replay", str(tmp_path / "none.jsonl")]) == 1


def test_a_record_that_no_file_holds_is_told_and_left_out(tmp_path: Path, caplog):
    log = DecisionLog(tmp_path / "log.jsonl", 1000)
    with caplog.at_level(logging.WARNING):
        play(log, 10)
    assert "raise the limit" in caplog.text
    assert list(tmp_path.iterdir()) == []
