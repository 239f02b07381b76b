"""What a change of replicas brings and costs that no load asked for: an edit, a start, a way back, a smaller budget.

Growth, restores and gifts weigh these numbers before they propose anything, and tell their own. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from adaptive_operator.api.status import GainOf
from adaptive_operator.api.tiers import Tier
from adaptive_operator.decide.cards import TierCard, card_of, card_of_levels
from adaptive_operator.decide.correction import card_milli, corrected
from adaptive_operator.decide.damping import moments
from adaptive_operator.decide.lack import growth_demand
from adaptive_operator.decide.proposal import Prediction
from adaptive_operator.decide.revisions import ready_pods, sets_in_force, sets_of
from adaptive_operator.decide.situation import Mix, Situation, TierState, as_plan, plan_space
from adaptive_operator.observe.observation import ModelObservation, PodPhase, StatefulSetObservation

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
    """Has each replica that is there or wanted a card?"""
    model, tiers = situation.model, {tier.name for tier in situation.model.spec.tiers}
    sets = {item.name for item in model.stateful_sets}
    # Of a tier that left the spec, only its StatefulSet still tells what its replicas serve.
    orphans = (pod for pod in model.pods if pod.tier not in tiers and pod.stateful_set not in sets)
    counts = any(tier.card is None and (tier.existing > 0 or mix.get(tier.name, 0) > 0) for tier in situation.tiers)
    return not counts and all(pod.phase is PodPhase.TERMINATING for pod in orphans)


def _by_revision(situation: Situation) -> Situation:
    """The same situation as things are, with replicas of other revisions as tiers that are not wanted any more.

    So are those of tiers that left the spec.
    """
    model = situation.model
    in_force = sets_in_force(model, situation.held_back)
    made = {item.name for sets in in_force.values() for item in sets}
    specs = {tier.name: tier for tier in model.spec.tiers}
    tiers: list[TierState] = []
    for tier in situation.tiers:
        ready = min(tier.current, tier.current_ready)
        tiers.append(replace(tier, wanted=tier.current, existing=tier.current, ready=ready))
        outdated = (item for item in sets_of(model, tier.name) if item.name not in made)
        tiers += [_leaving(model, item, _card(situation, tier, specs[tier.name], item)) for item in outdated]
    left = (item for item in model.stateful_sets if item.tier not in specs)
    tiers += [_leaving(model, item, _card_of_left(situation, item)) for item in left]
    return replace(situation, tiers=tuple(tier for tier in tiers if tier.existing > 0 or tier.name in specs))


def _leaving(model: ModelObservation, item: StatefulSetObservation, card: TierCard | None) -> TierState:
    """The replicas of a StatefulSet that nobody wants any more, as a tier with what they serve."""
    return TierState(
        name=item.name,
        accelerators=item.accelerators,
        card=card,
        low=0,
        high=item.replicas,
        least=0,
        most=0,
        wanted=item.replicas,
        existing=item.replicas,
        ready=min(item.replicas, ready_pods(model, item)),
        current=item.replicas,
        current_pods=tuple(pod for pod in model.pods if pod.stateful_set == item.name),
    )


def _card(situation: Situation, tier: TierState, spec: Tier, item: StatefulSetObservation) -> TierCard | None:
    """Of another revision, what is written on it; the tier's own where nothing is."""
    if item.levels is None:
        return tier.card
    return _as_measured(situation, item, card_of(spec, situation.settings, item.levels))


def _card_of_left(situation: Situation, item: StatefulSetObservation) -> TierCard | None:
    """Of a tier that left the spec, what is written on its StatefulSet; else nothing is known of it any more."""
    if item.levels is None:
        return None
    return _as_measured(situation, item, card_of_levels(item.levels, situation.settings.default_load_seconds))


def _as_measured(situation: Situation, item: StatefulSetObservation, card: TierCard | None) -> TierCard | None:
    """With what was measured of its tier, if that is of this very card."""
    written = situation.model.memory.corrections.get(item.tier)
    if card is None or written is None or written.card_milli != card_milli(card):
        return card
    return corrected(card, written)
