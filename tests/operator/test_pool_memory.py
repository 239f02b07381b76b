"""A plan and its prices go into the next; a solver that fails is counted, replaced, and tried again later."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.decide import by_plan
from adaptive_operator.decide.optimize.fallback import keep
from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import Method, PoolPlan, SolveSettings, solve
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.observe.observation import ModelObservation, Planning, PoolObservation, PoolShare
from adaptive_operator.pool_memory import FAILURES, PoolMemory
from adaptive_operator.reasons import Reason
from adaptive_operator.record import build_record, decode_record, encode_record
from adaptive_operator.solving import SolverError, SolverTimeoutError
from stand_ins.plant import DEMO_SETTINGS
from tests.operator.decide.test_by_plan import BUSY, CALM, GPU, free_beside, offer_to_first, pool

MANY = 8
SCARCE = pool(5, busy=(BUSY, 2.5), calm=(CALM, 0.35))
GONE = SolverError("the process ended")


def planned(seen: PoolObservation, name: str, *shares: PoolShare) -> PoolObservation:
    """The same models in an AcceleratorPool that the plan divides."""
    return replace(seen, name=name, division=PoolDivision.PLANNED, shares=shares)


def broken(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
    raise GONE


def fail(memory: PoolMemory) -> None:
    with pytest.raises(SolverError):
        memory.decide_pool(memory.recall(SCARCE), DEMO_SETTINGS)


def test_the_next_plan_knows_the_last_ones_prices() -> None:
    memory = PoolMemory(solve)
    first = memory.recall(SCARCE)
    assert first.prices == {}
    decision = memory.decide_pool(first, DEMO_SETTINGS)
    assert memory.recall(SCARCE).prices == decision.prices
    assert decision.prices[GPU] > 0
    assert memory.recall(replace(SCARCE, name="other")).prices == {}


def test_pools_on_the_same_resource_share_no_prices_no_plan_and_no_failure(few_are_many: None) -> None:
    memory = PoolMemory(Keeping())
    unnamed = large_pool()
    one, other = (planned(unnamed, name) for name in ("one", "other"))
    decided = memory.decide_pool(memory.recall(one), DEMO_SETTINGS)
    assert decided.prices == {GPU: 0.5}
    assert (memory.recall(one).prices, memory.recall(one).last_plan) == (decided.prices, decided.last_plan)
    assert decided.last_plan is not None
    for elsewhere in (other, unnamed):
        assert (memory.recall(elsewhere).prices, memory.recall(elsewhere).last_plan) == ({}, None)
    memory.solver = broken
    for _ in range(FAILURES):
        with pytest.raises(SolverError):
            memory.decide_pool(replace(memory.recall(one), planning=Planning.SOLVED), DEMO_SETTINGS)
    assert [memory.recall(seen).planning for seen in (one, other, unnamed)] == [
        Planning.GREEDY,
        Planning.SOLVED,
        Planning.SOLVED,
    ]


def test_a_large_pool_that_the_plan_divides_is_planned_anew_where_it_changed_a_weight_included(
    few_are_many: None,
) -> None:
    solver = Keeping()
    memory = PoolMemory(solver)
    heavier = (PoolShare("demo", "m000", weight=3),)
    for shares in ((), (), heavier, heavier):
        memory.decide_pool(memory.recall(planned(large_pool(), "gpus", *shares)), DEMO_SETTINGS)
    assert solver.told == [None, frozenset(), {"demo/m000"}, frozenset()]


def test_prices_that_no_plan_confirmed_for_an_hour_are_forgotten_and_with_them_what_changes_are_told_by(
    few_are_many: None,
) -> None:
    memory = PoolMemory(Keeping())
    seen = large_pool()
    memory.decide_pool(memory.recall(seen), DEMO_SETTINGS)
    soon, late = (memory.recall(replace(seen, now=seen.now + seconds)) for seconds in (3600.0, 3601.0))
    assert soon.prices == {GPU: 0.5}
    assert soon.last_plan is not None
    assert late.prices == {}
    assert late.last_plan is None, "prices of a part of the models are not those of the pool"


def test_a_plan_confirms_the_prices_and_a_pass_without_one_does_not() -> None:
    memory = PoolMemory(solve)
    for seconds in (0.0, 2400.0):
        memory.decide_pool(memory.recall(at(SCARCE, seconds)), DEMO_SETTINGS)
    calm = pool(8, a=(CALM, 0.3), b=(CALM, 0.3))
    assert memory.recall(at(calm, 4800.0)).prices[GPU] > 0
    assert not memory.decide_pool(memory.recall(at(calm, 4800.0)), DEMO_SETTINGS).planned
    assert memory.recall(at(SCARCE, 6600.0)).prices == {}


@pytest.mark.parametrize("ends", ["while the next pass is decided", "after it", "when the pool is gone"])
def test_what_a_pass_that_was_given_up_finds_late_is_not_remembered(ends: str) -> None:
    """A time limit ends the wait for a thread, not the thread."""
    memory = PoolMemory(solve)
    old = memory.recall(SCARCE)
    kept: dict[str, float] = {}
    if ends == "when the pool is gone":
        memory.expect({})
    else:
        new = memory.recall(at(SCARCE, 60.0))
        if ends == "after it":
            kept = dict(memory.decide_pool(replace(new, models=large_pool().models), DEMO_SETTINGS).prices)
    memory.decide_pool(old, DEMO_SETTINGS)
    assert memory.recall(at(SCARCE, 75.0)).prices == kept


def test_a_failure_of_a_pass_that_was_given_up_is_counted_and_is_none_of_the_next_ones() -> None:
    causes: list[str] = []
    memory = PoolMemory(broken, causes.append)
    olds = [memory.recall(at(SCARCE, 15.0 * n)) for n in range(FAILURES + 1)][:-1]
    for old in olds:
        with pytest.raises(SolverError):
            memory.decide_pool(old, DEMO_SETTINGS)
    assert causes == ["Failed"] * FAILURES
    assert memory.recall(at(SCARCE, 90.0)).planning is Planning.SOLVED


def at(seen: PoolObservation, seconds: float) -> PoolObservation:
    """So long after SCARCE was seen."""
    return replace(seen, now=SCARCE.now + seconds)


def in_agreement(plans: int, seen: PoolObservation) -> PoolObservation:
    """The same, where so many plans have to agree."""

    def changed(model: ModelObservation) -> ModelObservation:
        scaling = model.spec.scaling.model_copy(update={"plans_in_agreement": plans})
        return replace(model, spec=model.spec.model_copy(update={"scaling": scaling}))

    return replace(seen, models=tuple(map(changed, seen.models)))


GIVING = in_agreement(3, pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35)))  # to what `busy` refuses


def later(seen: PoolObservation, seconds: float) -> PoolObservation:
    """The same models in a later pass, with statuses that tell nothing of an agreement."""
    return replace(seen, now=seen.now + seconds)


@pytest.mark.parametrize("seen", [GIVING, replace(GIVING, name="gpu", division=PoolDivision.PLANNED)], ids=str)
def test_what_plans_began_to_agree_on_is_remembered_though_no_status_tells_it(seen: PoolObservation) -> None:
    memory = PoolMemory(solve)
    first, second = (
        memory.decide_pool(memory.recall(later(seen, passed)), DEMO_SETTINGS).decisions[1] for passed in (0.0, 5.0)
    )
    assert (first.reason, first.memory.agreed_count) == (Reason.HELD_FOR_AGREEMENT, 1)
    assert second.memory.agreed_count == 2
    assert PoolMemory(solve).recall(later(seen, 5.0)) == later(seen, 5.0), "a new process begins anew"


@pytest.mark.parametrize(
    ("expected", "remembers"),
    [
        pytest.param(({GPU: 2}, ()), True, id="a pool with a plan"),
        pytest.param(({}, {GPU}), True, id="a pool without one"),
        pytest.param(({}, ()), False, id="no pool any more"),
    ],
)
def test_what_plans_began_to_agree_on_is_remembered_while_the_pool_is_there(
    expected: tuple[dict[str, int], Collection[str]], remembers: bool
) -> None:
    memory = PoolMemory(solve)
    memory.decide_pool(memory.recall(GIVING), DEMO_SETTINGS)
    memory.expect(*expected)
    assert memory.recall(later(GIVING, 5.0)).models[1].memory.agreed_count == int(remembers)


def test_an_agreement_that_a_status_tells_counts_before_one_that_began() -> None:
    memory = PoolMemory(solve)
    memory.decide_pool(memory.recall(GIVING), DEMO_SETTINGS)
    told = replace(GIVING.models[1].memory, agreed_plan="full=9", agreed_count=2, agreed_at=0.0)
    seen = replace(later(GIVING, 5.0), models=(GIVING.models[0], replace(GIVING.models[1], memory=told)))
    assert memory.recall(seen).models[1].memory == told


def test_pools_that_are_gone_are_forgotten() -> None:
    memory = PoolMemory(solve)
    memory.decide_pool(memory.recall(SCARCE), DEMO_SETTINGS)
    memory.expect({})
    assert memory.recall(SCARCE).prices == {}


def test_the_next_plan_knows_whether_the_last_one_left_free_what_is_free() -> None:
    scene, memory = free_beside(100_000, 85.0), PoolMemory(offer_to_first)
    assert not memory.recall(scene).left_free
    memory.decide_pool(memory.recall(scene), DEMO_SETTINGS)
    assert memory.recall(scene).left_free
    memory.expect({})
    assert not memory.recall(scene).left_free


def test_a_solver_prepares_for_the_largest_pool_that_is_seen() -> None:
    told: list[int] = []
    memory = PoolMemory(solve, prepare=told.append)
    memory.expect({"nvidia.com/gpu": 40, "npu": 3})
    memory.expect({})
    assert told == [40, 0]


def test_how_long_an_answer_took_is_told_with_its_method() -> None:
    told: list[tuple[str, float]] = []
    memory = PoolMemory(solve, note_solved=lambda method, seconds: told.append((method, seconds)))
    memory.decide_pool(memory.recall(SCARCE), DEMO_SETTINGS)
    [(method, seconds)] = told
    assert method == Method.EXACT
    assert seconds > 0


def test_no_answer_is_told_where_no_program_was_asked() -> None:
    told: list[tuple[str, float]] = []
    memory = PoolMemory(solve, note_solved=lambda method, seconds: told.append((method, seconds)))
    memory.decide_pool(memory.recall(pool(8, a=(CALM, 0.3), b=(CALM, 0.3))), DEMO_SETTINGS)
    memory.decide_pool(replace(SCARCE, planning=Planning.GREEDY), DEMO_SETTINGS)
    assert told == []


def test_a_failure_is_counted_and_the_pool_is_shared_by_need_and_after_three_greedily() -> None:
    causes: list[str] = []
    memory = PoolMemory(broken, causes.append)
    for _ in range(FAILURES - 1):
        fail(memory)
        assert memory.without_solver(SCARCE, GONE).planning is Planning.BY_NEED
    fail(memory)
    assert memory.without_solver(SCARCE, GONE).planning is Planning.GREEDY
    assert causes == ["Failed"] * FAILURES
    assert memory.recall(SCARCE).planning is Planning.GREEDY


def test_a_greedy_choice_that_stands_in_is_no_failure_of_a_solver_that_was_not_asked() -> None:
    causes: list[str] = []
    memory = PoolMemory(broken, causes.append)
    memory.decide_pool(replace(SCARCE, planning=Planning.GREEDY), DEMO_SETTINGS)
    assert causes == []


def test_a_plan_that_is_too_far_from_its_bound_counts_as_unsolved() -> None:
    def stopped(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        return replace(solve(problem, changed), gap=0.2)

    causes: list[str] = []
    PoolMemory(stopped, causes.append).decide_pool(SCARCE, DEMO_SETTINGS)
    assert causes == ["Unsolved"]


LATE = SolverTimeoutError("no answer within 20 s")


def late(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
    raise LATE


def test_an_answer_that_takes_too_long_is_counted_apart_and_what_runs_is_kept_as_after_any_failure() -> None:
    causes: list[str] = []
    memory = PoolMemory(late, causes.append)
    fail(memory)
    assert causes == ["TimedOut"]
    kept = decide_pool(memory.without_solver(SCARCE, LATE), DEMO_SETTINGS).decisions
    assert [{tier: n for tier, n in decision.replicas.items() if n} for decision in kept] == [BUSY, CALM]
    told = [finding.message for finding in kept[0].findings if finding.reason is Reason.POOL_NOT_SOLVED]
    assert len(told) == 1


@pytest.mark.parametrize(
    ("error", "cause"), [(LATE, "the solver took too long and"), (GONE, "the solver failed and")], ids=["late", "gone"]
)
def test_what_the_solver_failed_with_is_told_by_its_cause_also_from_the_log(error: SolverError, cause: str) -> None:
    seen = PoolMemory(late).without_solver(SCARCE, error)
    decisions = decide_pool(seen, DEMO_SETTINGS).decisions
    told = [f.message for d in decisions for f in d.findings if f.reason is Reason.POOL_NOT_SOLVED]
    assert len(told) == 2
    assert all(f"was not solved, {cause} what is free is shared by need" in message for message in told)
    record = decode_record(encode_record(build_record(seen, DEMO_SETTINGS, decisions)))
    assert decide_pool(record.observation, record.settings).decisions == decisions


def test_whatever_a_solver_fails_with_is_no_models_defect() -> None:
    def defect(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        raise TypeError("no marginals")

    fail(PoolMemory(defect))


def test_a_solver_that_was_given_up_is_tried_again_and_trusted_when_it_answers() -> None:
    memory = PoolMemory(broken)
    for _ in range(FAILURES):
        fail(memory)
    plannings = [memory.recall(SCARCE).planning for _ in range(20)]
    assert plannings == [Planning.GREEDY] * 19 + [Planning.SOLVED]
    memory.solver = solve
    memory.decide_pool(replace(SCARCE, planning=Planning.SOLVED), DEMO_SETTINGS)
    assert memory.recall(SCARCE).planning is Planning.SOLVED


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools are large from MANY models on, so that a pass over one is short."""
    monkeypatch.setattr(by_plan, "SolveSettings", partial(SolveSettings, incremental_models=MANY - 1))


@dataclass
class Keeping:
    """Solves nothing: keeps what runs, and notes what it was told of changes."""

    told: list[Collection[str] | None] = field(default_factory=list)

    def __call__(self, problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        self.told.append(changed)
        return replace(solve(Problem((), ())), counts=keep(problem), prices={GPU: 0.5}, method=Method.INCREMENTAL)


def large_pool(busier: int = 0) -> PoolObservation:
    """Half of the models lack something, so that a program is asked in each pass; `busier` of them lack even more."""
    rates = [(BUSY, 5.0 if index // 2 < busier else 2.5) if index % 2 == 0 else (CALM, 0.35) for index in range(MANY)]
    return pool(5 * MANY // 2, **{f"m{index:03d}": rate for index, rate in enumerate(rates)})


def test_of_a_large_pool_the_solver_is_told_what_changed_since_the_last_plan(few_are_many: None) -> None:
    solver = Keeping()
    memory = PoolMemory(solver)
    calm, busier = large_pool(), large_pool(busier=2)
    for seen in (calm, calm, busier, busier):
        recalled = memory.recall(seen)
        decision = memory.decide_pool(recalled, DEMO_SETTINGS)
        assert memory.recall(seen).last_plan == decision.last_plan
    assert solver.told == [None, frozenset(), {"demo/m000", "demo/m002"}, frozenset()]
    memory.expect({})
    assert memory.recall(calm).last_plan is None


def test_a_plan_that_is_not_followed_is_no_reason_to_plan_all_models_again(few_are_many: None) -> None:
    """What runs stays, and was found good enough: only what changes from now on is news."""
    told: list[Collection[str] | None] = []

    def dividing_otherwise(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        told.append(changed)
        nothing = {model.key: tuple(0 for _ in model.columns) for model in problem.models}
        return replace(Keeping()(problem, changed), counts=nothing, method=Method.MASTER)

    memory = PoolMemory(dividing_otherwise)
    for seen in (large_pool(), large_pool(), large_pool(busier=2)):
        assert not memory.decide_pool(memory.recall(seen), DEMO_SETTINGS).followed
    assert told == [None, frozenset(), {"demo/m000", "demo/m002"}]


def test_a_plan_beyond_its_gap_is_not_compared_with_and_a_small_pool_has_no_need_to(few_are_many: None) -> None:
    memory = PoolMemory(solve)
    memory.decide_pool(memory.recall(SCARCE), DEMO_SETTINGS)
    assert memory.recall(SCARCE).last_plan is None

    def cut_off(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        return replace(Keeping()(problem, changed), gap=0.5)

    memory = PoolMemory(Keeping())
    memory.decide_pool(memory.recall(large_pool()), DEMO_SETTINGS)
    assert memory.recall(large_pool()).last_plan is not None
    memory.solver = cut_off
    memory.decide_pool(memory.recall(large_pool()), DEMO_SETTINGS)
    assert memory.recall(large_pool()).last_plan is None


def test_the_plan_tells_what_it_gives_whom_and_how_long_the_solver_took() -> None:
    decision = PoolMemory(solve).decide_pool(SCARCE, DEMO_SETTINGS)
    plan = decision.plan
    assert plan is not None
    assert plan.counts.keys() == {"demo/busy", "demo/calm"}
    assert all(n > 0 for mix in plan.counts.values() for n in mix.values())
    assert plan.method is Method.EXACT
    assert plan.bound is not None
    assert plan.gap is not None
    assert plan.objective <= plan.bound
    assert plan.seconds is not None
    assert 0 < plan.seconds < 10
