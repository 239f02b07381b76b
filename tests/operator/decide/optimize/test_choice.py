"""The choice of configurations: within every limit, and no further from the best one than the gap that is allowed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from adaptive_operator.decide.optimize import choice
from adaptive_operator.decide.optimize.choice import Effort, best_rows, choose
from adaptive_operator.decide.optimize.configurations import Configurations
from adaptive_operator.decide.optimize.master import find_prices


def draw(seed: int, models: int, limits: int, tightness: float) -> tuple[Configurations, np.ndarray]:
    """Random configurations: the first of each model holds nothing and is worth least; larger ones are worth more."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 7, models)
    owner = np.repeat(np.arange(models), sizes)
    first = np.searchsorted(owner, np.arange(models))
    use = rng.integers(0, 5, (len(owner), limits)).astype(float)
    worth = use.sum(axis=1) * rng.uniform(0.5, 2.0, len(owner)) * rng.pareto(1.5, models)[owner]
    use[first], worth[first] = 0.0, -1.0
    return Configurations(owner, first, use.astype(np.int64), worth, use), np.floor(use.sum(axis=0) * tightness)


def chosen(listed: Configurations, limits: np.ndarray, gap: float) -> tuple[np.ndarray, float]:
    """Rows, and the bound that the prices prove."""
    scale = float(np.abs(listed.worth).sum())
    found = find_prices(listed, limits, np.zeros(len(limits)), scale, 1e-4)
    rows = choose(listed, limits, found.prices, found.bound, Effort(gap, 500, 60.0))
    assert rows is not None
    return rows, found.bound


def best(listed: Configurations, limits: np.ndarray) -> float:
    """The plain binary program's answer."""
    one = np.zeros((len(listed.first), len(listed.owner)))
    one[listed.owner, np.arange(len(listed.owner))] = 1.0
    result = milp(
        -listed.worth,
        integrality=np.ones(len(listed.owner)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one, 1, 1), LinearConstraint(listed.use.T, -np.inf, limits)],
        options={"mip_rel_gap": 0.0},
    )
    return -float(result.fun)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 3), st.sampled_from([0.02, 0.1, 0.3, 1.0]))
def test_a_few_models_get_the_best_of_all_combinations(seed: int, models: int, limits: int, tightness: float) -> None:
    listed, most = draw(seed, models, limits, tightness)
    rows, _ = chosen(listed, most, gap=1e-6)
    spans = [range(a, b) for a, b in itertools.pairwise([*listed.first, len(listed.owner)])]
    fitting = [pick for pick in itertools.product(*spans) if (listed.use[list(pick)].sum(axis=0) <= most).all()]
    assert listed.worth[rows].sum() == pytest.approx(max(listed.worth[list(pick)].sum() for pick in fitting))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(60, 90), st.integers(1, 4), st.sampled_from([0.05, 0.15, 0.4]))
def test_many_models_get_what_is_within_the_limits_and_the_gap(
    seed: int, models: int, limits: int, tightness: float
) -> None:
    listed, most = draw(seed, models, limits, tightness)
    gap = 1e-3 * float(np.abs(listed.worth[best_rows(listed, listed.worth)]).sum())
    rows, bound = chosen(listed, most, gap)
    assert listed.owner[rows].tolist() == list(range(models))
    assert (listed.use[rows].sum(axis=0) <= most).all()
    assert bound >= best(listed, most) - 1e-6
    assert listed.worth[rows].sum() >= best(listed, most) - 1.001 * gap


def test_where_nothing_fits_but_nothing_everybody_gets_nothing() -> None:
    listed, _ = draw(3, 70, 2, 0.0)
    held = listed.use.sum(axis=1) > 0
    rows, _ = chosen(listed, np.zeros(2), gap=1e-6)
    assert not held[rows].any()


def test_where_all_fits_everybody_gets_the_best_without_a_search() -> None:
    listed, most = draw(4, 70, 2, 1.0)
    rows, _ = chosen(listed, most, gap=0.0)
    assert rows.tolist() == best_rows(listed, listed.worth).tolist()


@pytest.mark.parametrize("gaps", [0.0, 0.5, -0.5])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_gap_is_kept_where_the_best_choice_is_worth_next_to_nothing(seed: int, gaps: float) -> None:
    """What is refused weighs against what is served, so the worth of all together passes zero."""
    listed, most = draw(seed, 40, 2, 0.15)
    gap = 1e-3 * float(np.abs(listed.worth[best_rows(listed, listed.worth)]).sum())
    shifted = listed.worth - np.where(listed.owner == 0, best(listed, most) - gaps * gap, 0.0)
    rows, _ = chosen(replace(listed, worth=shifted), most, gap)
    assert shifted[rows].sum() >= gaps * gap - 1.001 * gap


def test_a_choice_that_is_worth_less_than_nothing_is_near_enough_to_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gap is relative to what was found: (bound + loss) / loss is above 1, and may be little more."""
    listed, most = draw(9, 60, 2, 0.1)
    asked: list[float] = []

    def watched(*args: Any, options: dict[str, float], **others: Any) -> Any:
        asked.append(options["mip_rel_gap"])
        return milp(*args, options=options, **others)

    monkeypatch.setattr(choice, "milp", watched)
    rows, _ = chosen(listed, most, gap=1e6)
    assert asked
    assert max(asked) < 1
    assert listed.worth[rows].sum() >= listed.worth[listed.first].sum()


def test_minimums_that_do_not_fit_leave_the_gap_as_it_is() -> None:
    """Without a replica each model is worth less by far than all that it could serve."""
    listed, most = draw(5, 60, 2, 0.03)
    worth = listed.worth.copy()
    worth[listed.first] = -1e4
    rows, _ = chosen(replace(listed, worth=worth), most, gap=0.1)
    assert worth[rows].sum() >= best(replace(listed, worth=worth), most) - 0.1001


def test_an_answer_of_the_relaxation_that_is_not_a_solution_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    listed, most = draw(6, 60, 2, 0.1)
    shares = np.zeros(len(listed.owner))
    shares[best_rows(listed, listed.worth)] = 1.0
    expected, _ = chosen(listed, most, gap=1e-6)
    monkeypatch.setattr(choice, "linprog", lambda *args, **options: SimpleNamespace(x=shares, status=4))
    rows, _ = chosen(listed, most, gap=1e-6)
    assert (listed.use[rows].sum(axis=0) <= most).all()
    assert listed.worth[rows].sum() == pytest.approx(listed.worth[expected].sum())


def test_without_limits_everybody_gets_the_best() -> None:
    listed, _ = draw(4, 70, 1, 1.0)
    free = replace(listed, use=np.zeros((len(listed.owner), 0)))
    rows, _ = chosen(free, np.zeros(0), gap=0.0)
    assert rows.tolist() == best_rows(listed, listed.worth).tolist()


def test_nothing_is_chosen_where_not_even_nothing_is_within_the_limits() -> None:
    listed, most = draw(4, 30, 2, 0.1)
    found = choose(listed, -most - 1, np.zeros(2), 1e9, Effort(1e-3, 500, 60.0))
    assert found is None


def test_the_same_configurations_get_the_same_choice() -> None:
    listed, most = draw(8, 80, 3, 0.1)
    assert chosen(listed, most, gap=0.1)[0].tolist() == chosen(listed, most, gap=0.1)[0].tolist()
