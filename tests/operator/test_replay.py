"""Decisions come out the same with the plan of the record, plans up to their gaps, and a bad line ends nothing."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from adaptive_operator import replay
from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.cli.__main__ import main
from adaptive_operator.decide import by_plan
from adaptive_operator.decide.optimize.fallback import keep
from adaptive_operator.decide.optimize.milp import route
from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import Method, PoolPlan, SolveSettings, solve
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.observation import Planning, PoolObservation
from adaptive_operator.pool_memory import PoolMemory
from adaptive_operator.reasons import Reason
from adaptive_operator.record import DecisionRecord, build_record, decode_record, encode_record
from adaptive_operator.replay import Replayed, SolvedAgain, Undecided, Unreadable, replay_lines
from stand_ins.plant import DEMO_SETTINGS, demo_spec, metrics, observe_one
from tests.operator.decide.resting_pool import tell
from tests.operator.decide.test_by_plan import BUSY, CALM, GPU, pool

SCARCE = pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35))
RECORDS = Path(__file__).parent / "records"
PART_FROM = 4  # models: of larger pools only what changed is planned


def record_of(seen: PoolObservation, solver: by_plan.Solver = solve) -> DecisionRecord:
    """A pass over a pool whose solver is this one."""
    decided = decide_pool(seen, DEMO_SETTINGS, solver)
    return build_record(seen, DEMO_SETTINGS, decided.decisions, decided.plan)


def keeping(problem: Problem, changed: Collection[str] | None, gap: float = 0.0) -> PoolPlan:
    """A solver that finds nothing better than what runs, and claims to be that near to the best plan."""
    counts = keep(problem)
    return replace(solve(problem), counts=counts, routing=route(problem, counts), method=Method.KEEP, gap=gap)


def replayed(*records: DecisionRecord) -> list[replay.Outcome]:
    return list(replay_lines([encode_record(record) for record in records]))


def differing(outcomes: list[replay.Outcome]) -> list[tuple[str, ...]]:
    return [item.differs_in for item in outcomes if isinstance(item, Replayed) and item.differs_in]


def test_with_the_plan_of_the_record_all_is_decided_as_it_was_whatever_the_solver_finds_now() -> None:
    record = record_of(SCARCE, keeping)
    assert record.decisions != record_of(SCARCE).decisions, "with another plan it comes out differently"
    outcomes = replayed(record)
    assert [type(item) for item in outcomes] == [Replayed, Replayed, SolvedAgain]
    assert differing(outcomes) == []


GAPS = {"a gap that covers what the plan missed": (100.0, True), "a gap that claims too much": (0.0, False)}


@pytest.mark.parametrize("name", GAPS)
def test_a_plan_that_is_solved_again_is_held_against_the_gap_of_the_record(name: str) -> None:
    gap, is_within = GAPS[name]
    [solved] = [
        item for item in replayed(record_of(SCARCE, partial(keeping, gap=gap))) if isinstance(item, SolvedAgain)
    ]
    assert solved.again.objective > solved.then.objective
    assert solved.is_within is is_within
    assert solved.models == 2


def test_of_a_greedy_choice_no_solver_is_asked_and_it_comes_out_the_same() -> None:
    record = record_of(replace(SCARCE, planning=Planning.GREEDY))
    assert record.plan is not None
    assert (record.plan.method, record.plan.gap, record.plan.bound) == (Method.GREEDY, None, None)
    outcomes = replayed(record)
    assert [type(item) for item in outcomes] == [Replayed, Replayed]
    assert differing(outcomes) == []


def test_a_plan_of_other_models_is_told_and_the_next_record_is_replayed() -> None:
    record = record_of(SCARCE)
    assert record.plan is not None
    other = replace(record, plan=replace(record.plan, counts={"demo/other": {}}))
    first, *rest = replayed(other, record)
    assert isinstance(first, Undecided)
    assert "of other models than the plan: demo/busy, demo/calm, demo/other" in str(first.error)
    assert len(rest) == 3


def test_parts_of_a_pool_are_planned_again_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second pass plans a part of the pool; the record alone tells which."""
    monkeypatch.setattr(by_plan, "SolveSettings", partial(SolveSettings, incremental_models=PART_FROM))
    large = partial(solve, settings=SolveSettings(exact_models=0, incremental_models=PART_FROM))
    asked: list[Collection[str] | None] = []

    def solver(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        asked.append(changed)
        return large(problem, changed)

    monkeypatch.setattr(replay, "solve", solver)
    memory, records = PoolMemory(solver), []
    for most in (2.3, 3.4):
        seen = memory.recall(pool(13, busy=(BUSY, most), **{f"calm{index}": (BUSY, 0.35) for index in range(5)}))
        decided = memory.decide_pool(seen, DEMO_SETTINGS)
        records.append(build_record(seen, DEMO_SETTINGS, decided.decisions, decided.plan))
    whole, part = asked
    assert whole is None
    # Which of five that are alike is to give is a tie.
    giving = {key for key in part if key.startswith("demo/calm")}
    assert part == {"demo/busy"} | giving, "what asks for more, and who was to give and did not yet"
    assert len(giving) == 1

    outcomes = replayed(*records)
    assert asked == [whole, part, whole, part]
    assert differing(outcomes) == []
    solved = [item for item in outcomes if isinstance(item, SolvedAgain)]
    assert [item.again.objective for item in solved] == [pytest.approx(item.then.objective) for item in solved]


def test_what_is_remembered_of_the_last_plan_is_a_small_part_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_plan, "SolveSettings", partial(SolveSettings, incremental_models=1))
    decided = decide_pool(SCARCE, DEMO_SETTINGS)
    seen = replace(SCARCE, last_plan=decided.last_plan)
    assert seen.last_plan is not None
    with_it, without = (encode_record(record_of(item)) for item in (seen, SCARCE))
    assert len(with_it) - len(without) < 0.1 * len(without)


def test_a_record_of_the_second_format_has_no_plan_and_is_solved_again() -> None:
    """Written by the version that kept no plans, and told no ages of demand and peak."""
    line = (RECORDS / "format-2.jsonl").read_text()
    assert (decode_record(line).format, decode_record(line).plan) == (2, None)
    outcomes = list(replay_lines([line]))
    assert [type(item) for item in outcomes] == [Replayed, Replayed]
    assert differing(outcomes) == []


def test_swaps_of_the_fourth_format_are_decided_again_as_they_were() -> None:
    """Written by the version that said of an edit in a full budget, and of a lowered budget, that they cost nothing."""
    lines = (RECORDS / "format-4.jsonl").read_text().splitlines()
    told = [decode_record(line).decisions[0] for line in lines]
    assert [decision.reason for decision in told] == [Reason.SPEC_CHANGED, Reason.BUDGET_EXCEEDED]
    assert [decision.swap and decision.swap.predicted_dip_permille for decision in told] == [0, 0]
    outcomes = list(replay_lines(lines))
    assert [type(item) for item in outcomes] == [Replayed, Replayed]
    assert differing(outcomes) == []


def test_a_pool_of_the_fifth_format_is_divided_by_weight_and_decided_again_as_it_was() -> None:
    """Written by the version that divided every AcceleratorPool by reservations and weights."""
    line = (RECORDS / "format-5-pool.jsonl").read_text()
    observation = decode_record(line).observation
    assert (observation.name, observation.division) == ("gpu", PoolDivision.WEIGHTED)
    outcomes = list(replay_lines([line]))
    assert [type(item) for item in outcomes] == [Replayed, Replayed]
    assert differing(outcomes) == []


def test_a_swap_of_the_fifth_format_that_was_not_predicted_is_decided_again_as_it_was() -> None:
    """Written by the version that predicted nothing where a tier had left the spec, whatever its StatefulSet said.

    It told no age of what tiers were measured by.
    """
    line = (RECORDS / "format-5.jsonl").read_text()
    [told] = decode_record(line).decisions
    assert told.swap is not None
    assert told.swap.predicted_gain_permille is None
    outcomes = list(replay_lines([line]))
    assert differing(outcomes) == []
    [again] = [item.again for item in outcomes if isinstance(item, Replayed)]
    assert again.swap is not None
    assert again.swap.predicted_gain_permille == -61
    assert "tiers measured (age 40 s)" in again.inputs


def test_a_pool_of_the_sixth_format_whose_nodes_nobody_told_is_decided_again_as_it_was() -> None:
    """Written by the version that knew no room on nodes: whatever the budget allows fits."""
    line = (RECORDS / "format-6-giving.jsonl").read_text()
    decoded = decode_record(line)
    assert decoded.observation.nodes == ()
    assert Reason.GAVE_TO_OTHERS in {decision.reason for decision in decoded.decisions}
    outcomes = list(replay_lines([line]))
    assert [type(item) for item in outcomes] == [Replayed, Replayed, SolvedAgain]
    assert differing(outcomes) == []


def test_a_decision_of_the_sixth_format_does_not_stand_on_what_was_told_before_it() -> None:
    """Written by the version that told every pass anew: with the demand, the reason was another one in each."""
    line = (RECORDS / "format-6.jsonl").read_text()
    record = decode_record(line)
    [last] = [model.status.last_decision for model in record.observation.models if model.status is not None]
    assert last is not None
    assert (last.reason, record.decisions[0].reason) == (Reason.HELD_BY_SURVIVOR_CHECK, Reason.STEADY)
    assert differing(list(replay_lines([line]))) == []
    now = [item.again for item in replayed(replace(record, format=7)) if isinstance(item, Replayed)]
    assert now[0].reason is Reason.HELD_BY_SURVIVOR_CHECK


def test_what_stands_of_an_earlier_pass_stands_again_in_its_record() -> None:
    """The record has what was told of the limit, too."""
    seen, settings = pool(5, a=(CALM, 1.0), b=(BUSY, 1.15)), DecideSettings()
    status = tell(seen.models[0], decide_pool(seen, settings).decisions[0], seen.now)
    fallen = replace(seen, models=(replace(seen.models[0], metrics=metrics(0.92), status=status), seen.models[1]))
    decided = decide_pool(fallen, settings)
    assert [finding.reason for finding in decided.decisions[0].findings] == [Reason.BUDGET_SHARED]
    record = build_record(fallen, settings, decided.decisions, decided.plan)
    assert differing(replayed(record)) == []
    assert differing(replayed(replace(record, settings=replace(settings, standing_band=0.0)))) != []


def test_another_prediction_is_another_decision_since_the_fifth_format() -> None:
    model = observe_one(demo_spec(), {"full": 1, "int4": 1}, metrics(1.8))
    record = record_of(PoolObservation(10_000.0, GPU, 4, 1, 0.0, (model,)))
    [decision] = record.decisions
    assert decision.swap is not None
    other = replace(decision, swap=replace(decision.swap, predicted_dip_permille=1))
    assert differing(replayed(replace(record, decisions=(other,)))) == [("swap",)]
    assert differing(replayed(replace(record, decisions=(other,), format=5))) == [("swap",)]
    assert differing(replayed(replace(record, decisions=(other,), format=4))) == []


OTHER_WORDS = {"inputs": "other words", "binding": ("another",), "alternative": "another mix"}


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (1, ()),
        (2, ()),
        (3, ()),
        (4, ()),
        (5, ()),
        (6, ("inputs", "binding", "alternative")),
        (7, ("inputs", "binding", "alternative")),
    ],
)
def test_words_that_earlier_formats_did_not_tell_make_no_decision_of_theirs_another(
    written: int, told: tuple[str, ...]
) -> None:
    record = record_of(SCARCE)
    other = tuple(replace(decision, **OTHER_WORDS) for decision in record.decisions)
    outcomes = replayed(replace(record, format=written, decisions=other))
    assert differing(outcomes) == ([told, told] if told else [])


@pytest.mark.parametrize("written", [2, 6])
def test_another_mix_is_another_decision_in_every_format(written: int) -> None:
    record = record_of(SCARCE)
    other = tuple(replace(decision, replicas={}, inputs="other words") for decision in record.decisions)
    expected = ("replicas",) if written == 2 else ("inputs", "replicas")
    assert differing(replayed(replace(record, format=written, decisions=other))) == [expected, expected]


BAD = {
    "no record": b"{}\n",
    "a line that was cut off": encode_record(record_of(SCARCE)).encode()[:2000] + b"\n",
    "a line that is no text": b'{"format":3,"observation":"\xff\xfe"}\n',
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named_and_the_lines_after_it_are_replayed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = encode_record(record_of(SCARCE)).encode() + b"\n"
    path = tmp_path / "log.jsonl"
    path.write_bytes(good + BAD[name] + b"\n" + good)
    assert main(["replay", str(path)]) == 1
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {path}: line 2: ")
    assert told.err.count("\n") == 1
    assert told.out.endswith(
        "4 decisions, 0 come out differently; 2 plans solved again, 0 not within their gaps;"
        " lines that could not be read: 1\n"
    )


def test_of_many_bad_lines_the_first_are_named_and_the_others_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(encode_record(record_of(SCARCE)) + "\n" + 8 * "{\n")
    assert main(["replay", str(path)]) == 1
    told = capsys.readouterr()
    named = [re.sub(r": Invalid JSON.*", "", line) for line in told.err.splitlines()]
    more = f"error: {path}: and 3 more that could not be read"
    assert named == [*(f"error: {path}: line {number}" for number in range(2, 7)), more]
    assert told.out.endswith("lines that could not be read: 8\n")


@pytest.mark.parametrize("lines", [1, 4, 200])
def test_what_is_no_decision_log_is_refused_with_one_line(
    lines: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "README.md"
    path.write_text("# Words\n" * lines)
    assert main(["replay", str(path)]) == 1
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {path}: not a decision log: line 1: Invalid JSON: ")
    assert told.err.endswith("; give one that the operator wrote (JSON lines)\n")
    assert (told.err.count("\n"), told.out) == (1, "")


def test_a_log_of_a_later_version_is_told_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = encode_record(record_of(SCARCE))
    path = tmp_path / "log.jsonl"
    path.write_text('{"format":99}\n' * 6 + f"{record}\n")
    assert main(["replay", str(path)]) == 1
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {path}: line 1: format is 99, this version reads 1 to ")
    assert told.err.count("format is 99") == 5
    assert "2 decisions, 0 come out differently" in told.out


def test_a_log_whose_first_line_was_cut_off_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = encode_record(record_of(SCARCE))
    path = tmp_path / "log.jsonl"
    path.write_text(f"{record[2000:]}\n{record}\n")
    assert main(["replay", str(path)]) == 1
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {path}: line 1: Invalid JSON: ")
    assert "2 decisions, 0 come out differently" in told.out


def test_a_log_as_windows_copies_it_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.jsonl").write_bytes(b"\xef\xbb\xbf" + encode_record(record_of(SCARCE)).encode() + b"\r\n")
    assert main(["replay", str(tmp_path / "log.jsonl")]) == 0
    assert "2 decisions, 0 come out differently" in capsys.readouterr().out


def test_a_bad_line_has_its_number() -> None:
    lines = ["", encode_record(record_of(SCARCE)), "{", encode_record(record_of(SCARCE))]
    assert [item.line for item in replay_lines(lines) if isinstance(item, Unreadable)] == [3]
    assert [item.line for item in replay_lines(lines) if isinstance(item, SolvedAgain)] == [2, 4]


def test_each_plan_is_told_with_its_worth_and_gap_then_and_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(encode_record(record_of(SCARCE)) + "\n")
    assert main(["replay", str(path)]) == 0
    told = capsys.readouterr().out
    assert "line 1: plan of 2 models (Exact) worth" in told
    assert "(within the gaps)" in told

    path.write_text(encode_record(record_of(SCARCE, keeping)) + "\n")
    assert main(["replay", str(path)]) == 1
    told = capsys.readouterr().out
    assert "plan of 2 models (Keep) worth" in told
    assert "(NOT within the gaps)" in told
    assert told.endswith("2 decisions, 0 come out differently; 1 plans solved again, 1 not within their gaps\n")
