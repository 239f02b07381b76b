"""The parts of the policy by themselves: cards, fill, candidates, shares of a budget."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.decide import candidates
from adaptive_operator.decide.budget import Claim, grants, shares, split
from adaptive_operator.decide.candidates import best_plan
from adaptive_operator.decide.cards import card_of, warm_tier
from adaptive_operator.decide.enumeration import best_of_all
from adaptive_operator.decide.fill import Outcome, fill, fill_outcome
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.decide.spaces import PlanSpace, PlanTier, value
from stand_ins.plant import demo_spec, tier

SETTINGS = DecideSettings()


def test_a_declared_card_is_read_in_requests_per_second_with_a_default_load_time():
    bare = {"qualityPermille": 900, "capacityMilliRequestsPerSecond": 650}
    card = card_of(demo_spec(tiers=[tier(0, card=bare)]).tiers[0], SETTINGS)
    assert card is not None
    assert (card.requests_per_second, card.load_seconds, card.source) == (0.65, 60.0, "Declared")


def test_a_tier_without_a_card_has_none():
    assert card_of(demo_spec(tiers=[tier(0, card=None)]).tiers[0], SETTINGS) is None


def card(milli: int, load: int = 60) -> dict[str, int]:
    return {"qualityPermille": 900, "capacityMilliRequestsPerSecond": milli, "loadSeconds": load}


WARM = {
    "fewest accelerators per replica": ([tier(0, card=card(9000)), tier(1, card=card(10))], {}, "int8"),
    "then fewest per request": ([tier(1, card=card(500)), tier(2, card=card(600))], {}, "int4"),
    "then the shortest load": ([tier(1, card=card(500, 10)), tier(2, card=card(500, 20))], {}, "int8"),
    "then the last in the list": ([tier(1, card=card(500)), tier(2, card=card(500))], {}, "int4"),
    "the named one": ([tier(0), tier(1), tier(2)], {"warmTier": "full"}, "full"),
    "not one without a card, if others have one": ([tier(0), tier(2, card=None)], {}, "full"),
    "not one that may not run": ([tier(0), tier(2, replicas={"max": 0})], {}, "full"),
    "without any card, by accelerators": ([tier(0, card=None), tier(2, card=None)], {}, "int4"),
}


@pytest.mark.parametrize("name", WARM)
def test_the_warm_tier_is(name):
    tiers, routing, expected = WARM[name]
    assert warm_tier(demo_spec(tiers=tiers, routing=routing), SETTINGS) == expected


WARM_WITH_FLOOR = {
    # floor, routing -> the warm tier of full 1000, int8 998 and int4 780
    "the cheapest one at the floor": (780, {}, "int4"),
    "not one below it, alone it could serve nobody": (781, {}, "int8"),
    "the best one, if only that reaches it": (999, {}, "full"),
    "the cheapest one, if none reaches it": (1000, {}, "int4"),
    "the named one, below it or not": (999, {"warmTier": "int4"}, "int4"),
}


@pytest.mark.parametrize("name", WARM_WITH_FLOOR)
def test_with_a_floor_the_warm_tier_is(name):
    floor, routing, expected = WARM_WITH_FLOOR[name]
    best = tier(0) if floor < 1000 else tier(0, card=tier(0)["card"] | {"qualityPermille": 999})
    spec = demo_spec(tiers=[best, tier(1), tier(2)], routing=routing, quality={"floorPermille": floor})
    assert warm_tier(spec, SETTINGS) == expected


FILLS = {
    # demand, rates, qualities, floor -> served, unserved, quality
    "all on the best": (0.5, (0.72, 0.6), (1000, 780), 0, (0.5, 0.0), 0.0, 1000.0),
    "the rest on the next": (1.0, (0.72, 0.6), (1000, 780), 0, (0.72, 0.28), 0.0, 938.4),
    "what does not fit waits": (2.0, (0.72, 0.6), (1000, 780), 0, (0.72, 0.6), 0.68, 900.0),
    "a floor bounds the cheaper share": (1.0, (0.5, 0.9), (1000, 800), 900, (0.5, 0.5), 0.0, 900.0),
    "and what is left waits": (1.2, (0.5, 0.9), (1000, 800), 900, (0.5, 0.5), 0.2, 900.0),
    "below the floor alone nothing is served": (1.0, (0.9,), (800,), 900, (0.0,), 1.0, 0.0),
    "nothing asked, quality of the first request": (0.0, (0.72, 0.6), (1000, 780), 0, (0.0, 0.0), 0.0, 1000.0),
}


@pytest.mark.parametrize("name", FILLS)
def test_fill(name):
    demand, rates, qualities, floor, served, unserved, quality = FILLS[name]
    outcome = fill(demand, rates, qualities, floor)
    assert outcome.served == pytest.approx(served, abs=1e-5)
    assert (outcome.unserved, outcome.quality_permille) == pytest.approx((unserved, quality), abs=0.1)


@given(
    st.floats(0, 50),
    st.lists(st.tuples(st.floats(0, 10, allow_subnormal=False), st.integers(0, 1000)), min_size=1, max_size=6),
    st.integers(0, 1000),
)
def test_a_fill_serves_no_more_than_there_is_and_never_falls_below_the_floor(demand, tiers, floor):
    tiers = sorted(tiers, key=lambda t: -t[1])
    outcome = fill(demand, [r for r, _ in tiers], [q for _, q in tiers], floor)
    assert all(0 <= x <= rate + 1e-9 for x, (rate, _) in zip(outcome.served, tiers, strict=True))
    assert sum(outcome.served) + outcome.unserved == pytest.approx(max(demand, 0), abs=1e-5)
    assert outcome.quality_permille >= floor - 1e-6 or sum(outcome.served) == 0


@given(
    st.floats(0, 50),
    st.lists(st.tuples(st.integers(0, 4), st.floats(0, 10), st.integers(0, 1000)), min_size=1, max_size=8),
    st.integers(0, 1000),
)
def test_the_outcome_of_a_fill_is_that_of_the_fill_to_the_last_bit(demand, tiers, floor):
    tiers = sorted(tiers, key=lambda t: -t[2])
    filled = fill(demand, [n * rate for n, rate, _ in tiers], [q for *_, q in tiers], floor)
    steps = [(i, rate, float(q)) for i, (_, rate, q) in enumerate(tiers)]
    outcome = fill_outcome(demand, [n for n, *_ in tiers], steps, floor)
    assert (outcome.unserved, outcome.quality_permille) == (filled.unserved, filled.quality_permille)
    assert outcome.served == pytest.approx(sum(filled.served))


def space(tiers, limit: int, floor: float = 0.0) -> PlanSpace:
    return PlanSpace(tuple(sorted(tiers, key=lambda t: -t.quality_permille)), floor, limit)


plan_tiers = st.builds(
    PlanTier,
    name=st.sampled_from("abcdef"),
    accelerators=st.integers(1, 3),
    rate=st.floats(0.2, 2.0),
    quality_permille=st.integers(500, 1000),
    low=st.integers(0, 1),
    high=st.integers(1, 6),
    present=st.integers(0, 2),
)


def test_plans_are_looked_through_once_however_many_rules_ask_for_the_best(monkeypatch):
    asked: list[int] = []

    def noting(space: PlanSpace, ranges: list[range], demand: float) -> tuple[int, ...] | None:
        asked.append(space.limit)
        return best_of_all(space, ranges, demand)

    monkeypatch.setattr(candidates, "best_of_all", noting)
    best_plan.cache_clear()
    tiers = [PlanTier("full", 2, 1.0, 1000, 0, 4, 0), PlanTier("int4", 1, 1.0, 900, 0, 4, 0)]
    found = [best_plan(space(tiers, limit=4), 2.5, 2000) for _ in range(3)]
    assert found == [(1, 2)] * 3
    assert asked == [4]
    assert best_plan(space(tiers, limit=3), 2.5, 2000) == (0, 3), "another space is another question"
    assert asked == [4, 3]


def test_a_local_search_looks_at_a_plan_once_however_many_moves_lead_to_it(monkeypatch):
    looked: list[tuple[int, ...]] = []
    fill_plan = PlanSpace.fill

    def noting(space: PlanSpace, plan: tuple[int, ...], demand: float) -> Outcome:
        looked.append(plan)
        return fill_plan(space, plan, demand)

    monkeypatch.setattr(PlanSpace, "fill", noting)
    best_plan.cache_clear()
    tiers = [PlanTier("full", 2, 1.0, 1000, 0, 4, 0), PlanTier("int4", 1, 1.0, 900, 0, 4, 0)]
    assert best_plan(space(tiers, limit=4), 2.5, 0) == (1, 2)
    assert len(looked) == len(set(looked)) > 1


@settings(max_examples=60, deadline=None)
@given(st.lists(plan_tiers, min_size=1, max_size=3), st.integers(1, 8), st.floats(0, 6))
def test_the_exact_search_finds_what_looking_at_every_plan_finds(tiers, limit, demand):
    found = space(tiers, limit)
    every = itertools.product(*(range(t.low, 9) for t in found.tiers))
    allowed = [
        p
        for p in every
        if any(p)
        and found.cost(p) <= limit
        and all(n <= max(t.low, t.high) for n, t in zip(p, found.tiers, strict=True))
    ]
    best = min((value(found, p, demand) for p in allowed), default=None)
    plan = best_plan(found, demand, 100_000)
    assert (None if plan is None else value(found, plan, demand)[:3]) == (None if best is None else best[:3])


@settings(max_examples=60, deadline=None)
@given(st.lists(plan_tiers, min_size=2, max_size=4), st.integers(4, 16), st.floats(0.1, 8))
def test_the_local_search_serves_as_much_as_the_exact_one_up_to_one_replica(tiers, limit, demand):
    found = space(tiers, limit)
    exact, local = best_plan(found, demand, 100_000), best_plan(found, demand, 0)
    assert (exact is None) == (local is None)
    if exact is not None and local is not None:
        slack = max(tier.rate for tier in found.tiers)
        assert found.fill(local, demand).unserved <= found.fill(exact, demand).unserved + slack
        assert found.cost(local) <= limit


def claim(key: str, held: int, wanted: int, minimum: int = 1, most: int = 100) -> Claim:
    return Claim(key, held, wanted, minimum, most, first=minimum)


SHARES = {
    # claims, budget -> own, limit
    "alone, everything": ([claim("a", 3, 3)], 4, {"a": (3, 4)}),
    "a newcomer's minimum is taken from who holds all": (
        [claim("a", 4, 4), claim("b", 0, 0)],
        4,
        {"a": (3, 3), "b": (1, 1)},
    ),
    "what is free is offered to both": ([claim("a", 1, 1), claim("b", 1, 1)], 6, {"a": (1, 5), "b": (1, 5)}),
    "own pods on their way out are planned with": ([claim("a", 3, 1), claim("b", 1, 1)], 4, {"a": (3, 3), "b": (1, 1)}),
    "others' are not": ([claim("a", 3, 1), claim("b", 1, 1)], 5, {"a": (3, 4), "b": (1, 2)}),
    "minimums that do not fit go by who holds": (
        [claim("a", 0, 0, 2), claim("b", 2, 2, 2)],
        3,
        {"a": (0, 1), "b": (2, 3)},
    ),
    "a lowered budget is shared in proportion": ([claim("a", 6, 6), claim("b", 2, 2)], 4, {"a": (3, 3), "b": (1, 1)}),
}


@pytest.mark.parametrize("name", SHARES)
def test_shares(name):
    claims, budget, expected = SHARES[name]
    assert {key: (s.own, s.limit) for key, s in shares(claims, budget).items()} == expected


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 20), min_size=1), st.integers(0, 60))
def test_a_split_gives_all_that_is_needed_and_no_more_than_there_is(needs, free):
    given_out = split(needs, free)
    assert sum(given_out.values()) == min(free, sum(needs.values()))
    assert all(0 <= given_out[key] <= need for key, need in needs.items())


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5),
    st.integers(0, 20),
)
def test_grants_keep_the_budget_whatever_is_wished(rows, budget):
    claims = [Claim(f"m{i}", held, held, 0, 9) for i, (held, _, _) in enumerate(rows)]
    wishes = [{f"m{i}": row[j] for i, row in enumerate(rows)} for j in (1, 2)]
    granted = grants(claims, wishes, budget)
    assert sum(granted.values()) <= budget
    if sum(c.held for c in claims) <= budget:
        assert all(granted[c.key] >= c.held for c in claims)
