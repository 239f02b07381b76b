"""What a change of replicas brings and costs that no load asked for: an edit, a start, a way back, a smaller budget.

Growth, restores and gifts weigh these numbers before they propose anything, and tell their own. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from adaptive_operator.api.tiers import Tier
from adaptive_operator.decide.cards import TierCard, card_of
from adaptive_operator.decide.correction import card_milli, corrected
from adaptive_operator.decide.damping import moments
from adaptive_operator.decide.growth import growth_demand
from adaptive_operator.decide.proposal import GainOf, Prediction
from adaptive_operator.decide.revisions import ready_pods, sets_in_force, sets_of
from adaptive_operator.decide.situation import Mix, Situation, TierState, as_plan, plan_space
from adaptive_operator.observe.observation import StatefulSetObservation

_LEAST_PERMILLE: Final = 1.0  # a smaller part of the requests is none, and what changes is the quality


def predict(situation: Situation, mix: Mix, limit: int) -> Prediction | None:
    """From what serves now to `mix`, within `limit` accelerators, at the demand of the moment.

    None where the demand or what a replica serves is not known: nothing is claimed then.
    """
    demand, seen = growth_demand(situation), _by_revision(situation)
    if demand is None or not _is_known(seen, mix):
        return None
    space = plan_space(seen, limit)
    ready = {tier.name: tier.ready for tier in seen.tiers}
    now, *steps = (space.fill(as_plan(space, m), demand) for m in (ready, *moments(seen, mix, limit)))
    after, worst = steps[-1], max(step.unserved for step in steps)
    served = _permille(now.unserved - after.unserved, demand)
    dip = _permille(worst, demand)
    if abs(served) >= _LEAST_PERMILLE:
        return Prediction(served, GainOf.REQUESTS, dip)
    return Prediction(after.quality_permille - now.quality_permille, GainOf.QUALITY, dip)


def _permille(part: float, demand: float) -> float:
    return 1000 * part / demand if demand > 0 else 0.0


def _is_known(situation: Situation, mix: Mix) -> bool:
    """Has each replica that is there or wanted a card? Of tiers that left the spec nothing is known any more."""
    there = {pod.tier for pod in situation.model.pods} | {item.tier for item in situation.model.stateful_sets}
    counts = any(tier.card is None and (tier.existing > 0 or mix.get(tier.name, 0) > 0) for tier in situation.tiers)
    return not counts and there <= {tier.name for tier in situation.model.spec.tiers}


def _by_revision(situation: Situation) -> Situation:
    """The same situation as things are, with replicas of other revisions as tiers that are not wanted any more."""
    in_force = sets_in_force(situation.model, situation.held_back)
    made = {item.name for sets in in_force.values() for item in sets}
    specs = {tier.name: tier for tier in situation.model.spec.tiers}
    tiers: list[TierState] = []
    for tier in situation.tiers:
        ready = min(tier.current, tier.current_ready)
        tiers.append(replace(tier, wanted=tier.current, existing=tier.current, ready=ready))
        tiers += _outdated(situation, tier, specs[tier.name], made)
    return replace(situation, tiers=tuple(tiers))


def _outdated(situation: Situation, tier: TierState, spec: Tier, made: set[str]) -> Iterator[TierState]:
    """A tier's replicas of each revision that is not in force, with the rates of that revision where they are told."""
    model = situation.model
    for item in sets_of(model, tier.name):
        if item.name in made or item.replicas == 0:
            continue
        ready = min(item.replicas, ready_pods(model, item))
        yield replace(
            tier,
            name=item.name,
            accelerators=item.accelerators,
            card=_card(situation, tier, spec, item),
            low=0,
            high=item.replicas,
            least=0,
            most=0,
            wanted=item.replicas,
            existing=item.replicas,
            ready=ready,
            current=item.replicas,
            current_pods=tuple(pod for pod in model.pods if pod.stateful_set == item.name),
        )


def _card(situation: Situation, tier: TierState, spec: Tier, item: StatefulSetObservation) -> TierCard | None:
    """The tier's own where nothing is written on the replicas. What was measured counts if it is of that very card."""
    if item.levels is None:
        return tier.card
    card, written = card_of(spec, situation.settings, item.levels), situation.model.memory.corrections.get(tier.name)
    if card is None or written is None or written.card_milli != card_milli(card):
        return card
    return corrected(card, written)
