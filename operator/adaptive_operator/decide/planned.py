"""Between the rules and the pool's program: situations as a program, its plan as proposals.

The rules about a model's life (pause, start, edits, failed replicas, a swap in flight, missing metrics) come first; the
program plans the models that none of them concerns, within what the others leave. How carefully a plan is adopted is
for `growth.py` and `restoring.py` to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.candidates import best_plan
from adaptive_operator.decide.cards import TierCard
from adaptive_operator.decide.growth import grow_to, is_worth_its_dip
from adaptive_operator.decide.lack import carries, growth_demand, lacks_capacity
from adaptive_operator.decide.optimize.problem import (
    Column,
    Limit,
    PlannedModel,
    PlannedTier,
    Problem,
    RequestClass,
    Route,
)
from adaptive_operator.decide.optimize.solve import PoolPlan
from adaptive_operator.decide.placing import has_room, most_placeable, places_held
from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.restoring import restore_to
from adaptive_operator.decide.rules import is_bound, is_swapping, propose, stay
from adaptive_operator.decide.situation import (
    UNBOUNDED,
    Mix,
    Situation,
    TierState,
    as_plan,
    can_act_on_demand,
    fixed_replicas,
    plan_space,
)


def is_plannable(situation: Situation, limit: int | None = None) -> bool:
    """May the program decide for this model? Its demand is known, it runs, and no rule about its life has its say.

    A swap in flight has, but for one to a mix that does not carry the load: else others would give nothing for what is
    refused until it ends. `limit`: accelerators that it may have in any case; the model's and the pool's budget where
    it is not given.
    """
    if situation.model.spec.mode is not Mode.ACTIVE or not can_act_on_demand(situation):
        return False
    within = situation.budget if limit is None else limit
    if not any(situation.wanted.values()):
        return False
    if situation.swap is not None:
        return lacks_capacity(situation) and is_swapping(situation, within)
    return not is_bound(situation, within)


def build_problem(
    situations: Sequence[Situation],
    resource: str,
    accelerators: int,
    prices: Mapping[str, float],
    weights: Mapping[str, float] | None = None,
    room: Mapping[int, int] | None = None,
) -> Problem:
    """The program of models that are plannable, on `accelerators` that no other model holds or is owed.

    Qualities in permille become fractions; rates are derated as everywhere. `prices`: the last plan's, by resource.
    `weights` by key; 1 where it is not given. Replicas of tiers without a card are paid for beforehand.
    `room`: accelerators that replicas of at least so many can have on the nodes, by size; none where it is not known.
    """
    fixed = sum(_fixed_accelerators(situation) for situation in situations)
    held = places_held(situations)
    models = tuple(sorted((_model(s, resource, weights or {}, held) for s in situations), key=lambda m: m.key))
    budget = Limit(resource, max(0, accelerators - fixed))
    return Problem(models, (budget, *_room_limits(models, budget, room or {})), dict(prices))


def _room_limits(models: Sequence[PlannedModel], budget: Limit, room: Mapping[int, int]) -> list[Limit]:
    """Limits that are narrower than the budget. What is there stays possible, wherever it is."""
    limits = []
    for size, most in sorted(room.items()):
        limit = Limit(budget.shape, most, least_replica=size)
        there = sum(limit.use_of(column) * column.present for model in models for column in model.columns)
        if max(most, there) < budget.accelerators:
            limits.append(replace(limit, accelerators=max(most, there)))
    return limits


def planned_mixes(situations: Sequence[Situation], problem: Problem, plan: PoolPlan) -> dict[str, dict[str, int]]:
    """What the plan wants of each model, as replicas by tier, those of tiers without a card included; by key."""
    models = {model.key: model for model in problem.models}
    return {s.model.key: _planned_mix(s, models[s.model.key], plan.counts[s.model.key]) for s in situations}


def _planned_mix(situation: Situation, model: PlannedModel, counts: Sequence[int]) -> dict[str, int]:
    of_tiers = {column.tier: n for column, n in zip(model.columns, counts, strict=True)}
    return {t.name: of_tiers.get(t.name, 0) if t.card else fixed_replicas(situation, t) for t in situation.tiers}


def propose_mix(situation: Situation, mix: Mix, limit: int) -> Proposal:
    """The plan's mix as a proposal within `limit` accelerators: at once where capacity is missing, else damped.

    Where the mix does not fit yet (others have to give first), or an exchange for it would lose more than it gains, the
    rules do what can be done meanwhile.
    """
    target = {tier.name: mix.get(tier.name, 0) for tier in situation.tiers}
    if situation.cost(target) > limit or not has_room(situation, target, limit):
        return propose(situation, limit)
    if target == situation.wanted:
        return stay(situation, limit)
    demand, space = growth_demand(situation), plan_space(situation, limit)
    if demand is not None:
        now, then = (space.fill(as_plan(space, m), demand).unserved for m in (situation.wanted, target))
        if then < now and not carries(space, as_plan(space, situation.wanted), demand):
            if not is_worth_its_dip(situation, space, target, limit, demand):
                return propose(situation, limit)
            return grow_to(situation, target, limit, demand)
    return restore_to(situation, target, limit) or stay(situation, limit)


def planned_demand(situation: Situation) -> float:
    """Demand to plan for (requests/s): the most of the hold window with headroom, or what is expected if that is more.

    A plan for less than the window's most would be grown at its next peak, and shrunk again.
    """
    seen, expected = situation.demand, situation.expected
    most = max(seen.rate or 0.0, seen.peak or 0.0) * situation.settings.shrink_headroom
    return max(most, expected.upper or 0.0) if expected is not None and expected.settled else most


def _most_wanted(situation: Situation) -> int:
    """Accelerators that a model may be given: by its budget, and no more than its rules would keep for their price.

    What `scaling.idleShrink` gives back at once would lie idle while others could use it. Replicas of tiers without a
    card are not counted.
    """
    space = plan_space(situation, situation.budget)
    if space.accelerator_price > 0:
        kept = best_plan(space, planned_demand(situation), situation.settings.exact_plans)
        return space.limit if kept is None else space.cost(kept)
    return space.limit


def _model(situation: Situation, resource: str, weights: Mapping[str, float], held: Mapping[int, int]) -> PlannedModel:
    tiers = [tier for tier in situation.tiers if tier.card is not None and tier.high > 0]
    routes = [route for tier in tiers for route in _routes(tier)]
    key = situation.model.key
    return PlannedModel(
        key=key,
        tiers=tuple(PlannedTier(t.name, _owed(situation, t), _most_planned(situation, t, held)) for t in tiers),
        columns=tuple(_column(situation, tier, tier.card, resource) for tier in tiers if tier.card),
        routes=tuple(route for route, _ in routes),
        classes=(RequestClass("all", planned_demand(situation), tuple(quality for _, quality in routes)),),
        weight=float(weights.get(key, 1.0)),
        floor=situation.floor_permille / 1000,
        most_accelerators=_most_wanted(situation),
    )


def _most_planned(situation: Situation, tier: TierState, held: Mapping[int, int]) -> int | None:
    """Replicas that a tier may have by its bound, and by the room on nodes; None: as many as the limits allow."""
    placeable = most_placeable(situation, tier, held)
    bounds = [bound for bound in (None if tier.high >= UNBOUNDED else tier.high, placeable) if bound is not None]
    return min(bounds, default=None)


def _owed(situation: Situation, tier: TierState) -> int:
    """Replicas that no plan takes: of the minimum what is there, and the warm tier's first.

    The rest of a minimum waits for what is free, and is followed by the rules. As a bound, one that never fits would
    give its model everything, and no such plan is worth following for the others.
    """
    return min(tier.low, max(tier.wanted, int(tier.name == situation.warm)))


def _column(situation: Situation, tier: TierState, card: TierCard, resource: str) -> Column:
    """A tier on its only shape. What is wanted counts as there while it loads: one deficit is answered once."""
    return Column(
        tier=tier.name,
        shape=resource,
        accelerators=tier.accelerators,
        rate=card.requests_per_second * situation.settings.utilisation,
        load_seconds=card.load_seconds,
        present=tier.wanted,
    )


def _routes(tier: TierState) -> list[tuple[Route, float]]:
    """A route per level with its quality: a faster level takes less of the replica's rate."""
    if tier.card is None:
        return []
    best = tier.card.requests_per_second
    return [
        (Route(f"{tier.name}/{level.name}", ((tier.name, best / level.rate),)), level.quality_permille / 1000)
        for level in tier.card.levels
    ]


def _fixed_accelerators(situation: Situation) -> int:
    return sum(t.accelerators * fixed_replicas(situation, t) for t in situation.tiers if t.card is None)
