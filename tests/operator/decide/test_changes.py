"""What counts as changed since the last plan, and when all of the pool is planned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import adaptive_operator.decide.optimize.solve as solving
from adaptive_operator.decide.changes import PLANS_PER_WHOLE, find_changed, remember
from adaptive_operator.decide.optimize.fallback import keep
from adaptive_operator.decide.optimize.milp import Relaxed, relax
from adaptive_operator.decide.optimize.problem import Counts, Limit, PlannedModel, PlannedTier, Problem, exceeded
from adaptive_operator.decide.optimize.solve import Method, PoolPlan, SolveSettings, solve
from adaptive_operator.observe.observation import LastPlan
from tests.operator.decide.optimize.instances import small_problem

UNHURRIED = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
BUDGET = 100
ANY_SIZE = SolveSettings(exact_models=0, incremental_models=0)
Edit = Callable[[PlannedModel], PlannedModel]

problems = st.builds(
    small_problem, seed=st.integers(0, 1_000_000), models=st.integers(2, 8), starts=st.booleans(), nested=st.booleans()
)


def carried_out(problem: Problem, counts: Counts) -> Problem:
    """The same program once these replicas are there."""
    return replace(problem, models=tuple(_with_present(model, counts[model.key]) for model in problem.models))


def _with_present(model: PlannedModel, counts: tuple[int, ...]) -> PlannedModel:
    columns = (replace(c, present=n) for c, n in zip(model.columns, counts, strict=True))
    return replace(model, columns=tuple(columns))


def kept_plan(problem: Problem, gap: float = 0.0, method: Method = Method.MASTER) -> PoolPlan:
    """A plan that keeps what is there, for tests that need no solver."""
    plan = solve(Problem((), ()))
    return replace(plan, counts=keep(problem), gap=gap, method=method)


def fitting(problem: Problem) -> Problem:
    """The program with what `keep` leaves of its replicas."""
    return carried_out(problem, keep(problem))


def after_whole(problem: Problem) -> LastPlan:
    """What is remembered of a plan of all models that keeps what is there."""
    last = remember(problem, kept_plan(problem), None, None, BUDGET, ANY_SIZE)
    assert last is not None
    return last


def edited(problem: Problem, edit: Edit, *keys: str) -> Problem:
    return replace(problem, models=tuple(edit(m) if m.key in keys else m for m in problem.models))


def demand(factor: float) -> Edit:
    """Also of a model that had none."""
    return lambda m: replace(m, classes=tuple(replace(c, demand=(c.demand + 1) * factor - 1) for c in m.classes))


def first_column(**fields: object) -> Edit:
    return lambda m: replace(m, columns=(replace(m.columns[0], **fields), *m.columns[1:]))


def busy(model: PlannedModel) -> PlannedModel:
    return replace(model, classes=tuple(replace(item, demand=20.0) for item in model.classes))


def rates(factor: float) -> Edit:
    return lambda m: replace(m, columns=tuple(replace(c, rate=c.rate * factor) for c in m.columns))


def higher_minimum(model: PlannedModel) -> PlannedModel:
    tier: PlannedTier = model.tiers[0]
    return replace(model, tiers=(replace(tier, low=tier.low + 1), *model.tiers[1:]))


CASES: dict[str, tuple[Edit, bool]] = {
    "a demand a little higher is the same": (demand(1.05), False),
    "a demand a little lower is the same": (demand(0.96), False),
    "a demand well above what it was is another": (demand(1.3), True),
    "a demand well below what it was is another": (demand(0.7), True),
    "a demand that is gone is another": (
        lambda m: replace(m, classes=tuple(replace(c, demand=0.0) for c in m.classes)),
        True,
    ),
    "rates that are corrected a little are the same": (rates(0.97), False),
    "rates that are corrected a lot are others": (rates(0.7), True),
    "more demand and lower rates, each a little, are another load together": (
        lambda m: rates(0.95)(demand(1.07)(m)),
        True,
    ),
    "less demand and higher rates, each a little, are another load together": (
        lambda m: rates(1.06)(demand(0.94)(m)),
        True,
    ),
    "demand and rates that move the same way are the same load": (lambda m: rates(1.07)(demand(1.08)(m)), False),
    "another floor": (lambda m: replace(m, floor=m.floor + 0.01), True),
    "another weight": (lambda m: replace(m, weight=m.weight + 1), True),
    "another minimum": (higher_minimum, True),
    "another budget of its own": (lambda m: replace(m, most_accelerators=7), True),
    "another size of its replicas": (first_column(accelerators=5), True),
    "another load time": (first_column(load_seconds=400.0), True),
    "replicas that the last plan did not give it": (first_column(present=9), True),
    "a tier less": (lambda m: replace(m, tiers=m.tiers[1:], columns=m.columns[2:], routes=m.routes[1:]), True),
}


@pytest.mark.parametrize("name", CASES)
def test_what_counts_as_changed(name: str) -> None:
    edit, is_another = CASES[name]
    problem = edited(fitting(small_problem(7, models=6)), busy, "demo/m3")
    last = after_whole(problem)
    assert find_changed(edited(problem, edit, "demo/m3"), last, BUDGET) == ({"demo/m3"} if is_another else set())


@pytest.mark.parametrize(
    ("then", "now", "is_another"),
    [
        pytest.param(0.98, 1.03, True, id="what carried it does not carry a little more"),
        pytest.param(0.93, 0.98, False, id="what carries it has less to spare"),
        pytest.param(1.05, 1.1, False, id="what did not carry it when it was planned still does not"),
    ],
)
def test_a_model_that_lacks_capacity_now_and_did_not_then_has_changed(
    then: float, now: float, is_another: bool
) -> None:
    """`then` and `now`: demand as a part of what its replicas carry."""
    problem = fitting(small_problem(7, models=6))
    model = _with_present(problem.models[0], (1, *[0] * (len(problem.models[0].columns) - 1)))
    rate = model.columns[0].rate

    def loaded(part: float) -> Problem:
        classes = (replace(model.classes[0], demand=part * rate), *(replace(c, demand=0) for c in model.classes[1:]))
        return replace(problem, models=(replace(model, classes=classes), *problem.models[1:]))

    last = after_whole(loaded(then))
    assert find_changed(loaded(now), last, BUDGET) == ({model.key} if is_another else set())


def test_a_model_that_is_new_is_planned() -> None:
    problem = fitting(small_problem(7, models=6))
    without = replace(problem, models=problem.models[1:])
    assert find_changed(problem, after_whole(without), BUDGET) >= {problem.models[0].key}


def test_what_a_model_that_is_gone_held_is_for_those_that_lack_it() -> None:
    """Two models have replicas, the third one's do not carry its load."""
    problem = small_problem(7, models=3)
    full, enough = problem.models[0], (1, *[0] * (len(problem.models[0].columns) - 1))
    leaving, calm, lacking = (
        replace(_with_present(full, enough), key=f"demo/{name}", classes=(replace(full.classes[0], demand=rate),))
        for name, rate in (("leaving", 0.1), ("calm", 0.1), ("lacking", 99.0))
    )
    before = Problem((leaving, calm, lacking), (Limit(full.columns[0].shape, 50),))
    last = after_whole(before)
    assert find_changed(before, last, BUDGET) == frozenset()
    assert find_changed(replace(before, models=(calm, lacking)), last, BUDGET) == {"demo/lacking"}


def test_what_the_last_plan_promised_to_somebody_is_not_free_for_others() -> None:
    """One model is to give a replica to another; a third lacks some, and was to have none."""
    [model, *_] = small_problem(7, models=3).models
    column, none = model.columns[0], [0] * (len(model.columns) - 1)
    one, two, three = ((n, *none) for n in (1, 2, 3))
    giving, lacking, taking = (
        replace(_with_present(model, counts), key=key, classes=(replace(model.classes[0], demand=rate),))
        for key, counts, rate in (("giving", three, 0.1), ("lacking", one, 99.0), ("taking", one, 99.0))
    )
    limit = Limit(column.shape, 5 * column.accelerators)
    before = Problem((giving, lacking, taking), (limit,))
    plan = replace(kept_plan(before), counts={"giving": two, "lacking": one, "taking": two})
    last = remember(before, plan, None, None, BUDGET, ANY_SIZE)
    gave = replace(before, models=(_with_present(giving, two), lacking, taking))
    more = replace(gave, limits=(replace(limit, accelerators=6 * column.accelerators),))
    assert find_changed(gave, last, BUDGET) == {"taking"}
    assert find_changed(more, last, BUDGET) is None, "what nobody was promised is for both: two of three"


WHOLE = {
    "another budget of the pool": lambda problem: (problem, BUDGET + 1),
    "another price of an accelerator": lambda problem: (replace(problem, costs={"a100": 2.0}), BUDGET),
    "a limit more": lambda problem: (replace(problem, limits=(*problem.limits, Limit("a100", 50, 2))), BUDGET),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_changes_for_all_has_all_planned(name: str) -> None:
    problem = fitting(small_problem(7, models=6))
    changed, budget = WHOLE[name](problem)
    assert find_changed(problem, after_whole(problem), BUDGET) == frozenset()
    assert find_changed(changed, after_whole(problem), budget) is None


def test_where_more_than_half_changed_all_are_planned() -> None:
    problem = fitting(small_problem(7, models=6))
    last, keys = after_whole(problem), [model.key for model in problem.models]
    assert find_changed(edited(problem, demand(2.0), *keys[:3]), last, BUDGET) == set(keys[:3])
    assert find_changed(edited(problem, demand(2.0), *keys[:4]), last, BUDGET) is None


def test_without_a_last_plan_all_are_planned() -> None:
    assert find_changed(small_problem(7), None, BUDGET) is None


def test_every_twentieth_plan_is_one_of_all_models() -> None:
    problem = fitting(small_problem(7, models=6))
    part = kept_plan(problem, method=Method.INCREMENTAL)
    last, asked = None, []
    for _ in range(2 * PLANS_PER_WHOLE):
        changed = find_changed(problem, last, BUDGET)
        asked.append(changed is None)
        last = remember(problem, kept_plan(problem) if changed is None else part, changed, last, BUDGET, ANY_SIZE)
    assert [index for index, whole in enumerate(asked) if whole] == [0, PLANS_PER_WHOLE]


def test_many_small_steps_add_up_to_a_change() -> None:
    problem = edited(fitting(small_problem(7, models=6)), busy, "demo/m2")
    part = kept_plan(problem, method=Method.INCREMENTAL)
    last, found = after_whole(problem), []
    for _ in range(4):
        problem = edited(problem, demand(1.04), "demo/m2")
        changed = find_changed(problem, last, BUDGET)
        assert changed is not None
        found.append(set(changed))
        last = remember(problem, part, changed, last, BUDGET, ANY_SIZE)
        assert last is not None
    assert found == [set(), set(), {"demo/m2"}, set()], "after the third it was planned, and stands there"


def test_a_plan_of_all_where_a_part_was_asked_for_counts_as_one_of_all() -> None:
    problem = fitting(small_problem(7, models=6))
    last = replace(after_whole(problem), parts=5)
    later = edited(problem, demand(1.05), "demo/m2")
    again = remember(later, kept_plan(later), frozenset(), last, BUDGET, ANY_SIZE)
    assert again == after_whole(later)


def test_a_plan_far_from_its_bound_or_of_a_small_pool_is_not_remembered() -> None:
    problem = fitting(small_problem(7, models=6))
    assert remember(problem, kept_plan(problem, gap=0.04), None, None, BUDGET, ANY_SIZE) is None
    assert remember(problem, kept_plan(problem), None, None, BUDGET, SolveSettings(incremental_models=6)) is None
    assert remember(problem, kept_plan(problem), None, None, BUDGET, SolveSettings(incremental_models=5)) is not None


@UNHURRIED
@given(problem=problems)
def test_in_a_pool_that_is_as_it_was_planned_nothing_has_changed(problem: Problem) -> None:
    plan = solve(problem, settings=ANY_SIZE)
    last = remember(problem, replace(plan, gap=0.0), None, None, BUDGET, ANY_SIZE)
    assert find_changed(carried_out(problem, plan.counts), last, BUDGET) == frozenset()


@UNHURRIED
@given(problem=problems)
def test_where_every_model_changed_all_are_planned(problem: Problem) -> None:
    last = after_whole(fitting(problem))
    assert find_changed(edited(fitting(problem), demand(1.5), *(m.key for m in problem.models)), last, BUDGET) is None


@UNHURRIED
@given(problem=problems, data=st.data())
def test_a_part_is_exactly_what_changed_and_its_plan_passes_no_limit(problem: Problem, data: st.DataObject) -> None:
    before = fitting(problem)
    keys = [model.key for model in before.models]
    moved = data.draw(st.sets(st.sampled_from(keys), max_size=len(keys) // 2))
    now = edited(before, demand(1.5), *moved)
    lowered = data.draw(st.integers(0, 3))
    now = replace(now, limits=tuple(replace(x, accelerators=max(0, x.accelerators - lowered)) for x in now.limits))

    changed = find_changed(now, after_whole(before), BUDGET)

    assert changed == moved
    assert exceeded(now, solve(now, changed, ANY_SIZE).counts) == ()


@pytest.mark.slow
@UNHURRIED
@given(problem=problems)
def test_a_part_that_is_not_near_enough_to_its_bound_is_no_plan(problem: Problem) -> None:
    nothing_is_near = replace(ANY_SIZE, accepted_gap=-1.0)
    assert solve(problem, frozenset(), nothing_is_near) == solve(problem, None, nothing_is_near)


def test_a_small_program_is_solved_once_however_far_it_is_from_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Problem] = []

    def relax_noting(problem: Problem) -> Relaxed:
        asked.append(problem)
        return relax(problem)

    monkeypatch.setattr(solving, "relax", relax_noting)
    solve(small_problem(7), frozenset(), SolveSettings(accepted_gap=-1.0))
    assert len(asked) == 1


def test_the_prices_of_a_plan_of_a_part_stay_those_of_the_last_whole_plan() -> None:
    problem = fitting(replace(small_problem(5, models=60), prices={"a100": 0.7, "h100": 0.3}))
    plan = solve(problem, {"demo/m7"}, SolveSettings(incremental_models=40))
    assert plan.method in (Method.INCREMENTAL, Method.KEEP)
    assert plan.prices == problem.prices
