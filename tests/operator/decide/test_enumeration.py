"""The best of all plans is the one that looking at every plan finds, though most are not looked at."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.decide import enumeration
from adaptive_operator.decide.enumeration import best_of_all
from adaptive_operator.decide.spaces import Plan, PlanSpace, PlanTier, value


@st.composite
def tiers(draw: st.DrawFn) -> PlanTier:
    """Rates and qualities that are often the same, so that plans are, too; some shed to lower levels."""
    rate = draw(st.sampled_from((0.5, 1.0, 1.0, 1.00005, 1.00075)) | st.floats(0.2, 4.0))
    quality = draw(st.sampled_from((1000, 990, 990, 930, 850)))
    lower = draw(st.lists(st.floats(0.0, float(quality)), max_size=2).map(lambda found: sorted(found, reverse=True)))
    return PlanTier(
        name="any",
        accelerators=draw(st.sampled_from((1, 1, 2, 4))),
        rate=rate,
        quality_permille=quality,
        low=draw(st.sampled_from((0, 0, 1, 2))),
        high=4,
        present=draw(st.integers(0, 2)),
        shed=tuple((rate / 2, permille) for permille in lower),
    )


spaces = st.builds(
    PlanSpace,
    tiers=st.lists(tiers(), min_size=1, max_size=4).map(tuple),
    floor_permille=st.sampled_from((0.0, 900.0, 950.0, 1000.0)),
    limit=st.integers(0, 12),
    accelerator_price=st.sampled_from((0.0, 0.0, 5.0, 300.0)),
)
demands = st.sampled_from((0.0, 1e-7, 1.0, 3.0)) | st.floats(0.0, 15.0)


def ranges_of(space: PlanSpace) -> list[range]:
    return [range(tier.low, tier.high + 1) for tier in space.tiers]


@settings(max_examples=400, deadline=None)
@given(spaces, demands)
def test_it_is_the_plan_of_the_least_value_of_all_that_are_affordable(space: PlanSpace, demand: float) -> None:
    every = itertools.product(*ranges_of(space))
    allowed = [plan for plan in every if any(plan) and space.cost(plan) <= space.limit]
    best = min(allowed, key=lambda plan: value(space, plan, demand), default=None)
    assert best_of_all(space, ranges_of(space), demand) == best


def test_what_is_half_a_step_better_rounds_to_better() -> None:
    """One of 1.00075/s serves 0.75 steps more of a demand of 10/s, and is the better one by a whole step."""
    kinds = ((1.0, 1000), (1.00075, 900))
    space = PlanSpace(tuple(PlanTier(str(q), 1, rate, q, 0, 4, 0) for rate, q in kinds), 0.0, 1)
    assert best_of_all(space, ranges_of(space), 10.0) == (0, 1)


def test_most_plans_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    poured: list[Plan] = []

    def noting(before: enumeration.Poured, counts: list[int], *rest: object) -> enumeration.Poured:
        poured.append(tuple(counts))
        return pour(before, counts, *rest)

    pour = enumeration.pour
    monkeypatch.setattr(enumeration, "pour", noting)
    kinds = ((2, 1.0, 1000), (1, 0.8, 990), (1, 1.0, 965), (2, 1.3, 930), (1, 2.0, 850))
    space = PlanSpace(tuple(PlanTier(str(q), a, rate, q, 0, 4, 0) for a, rate, q in kinds), 900.0, 12)
    assert best_of_all(space, ranges_of(space), 6.0) is not None
    assert len(poured) < 5**5 / 10
