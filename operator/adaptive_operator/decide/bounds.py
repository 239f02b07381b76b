"""Tiers and bounds of the spec: what is wanted is moved into them.

They are a user's word, and hold whatever the load is. An edit is followed at once. A minimum that was not kept for want
of accelerators is raised when some are free. An exchange beyond the bounds is for the rules about load.
"""

from __future__ import annotations

from adaptive_operator.decide.candidates import best_plan
from adaptive_operator.decide.growth import replace_wanted
from adaptive_operator.decide.lack import capacity, carries
from adaptive_operator.decide.lifecycle import demand_to_keep, known_demand, start_mix
from adaptive_operator.decide.prediction import predict
from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.situation import (
    Mix,
    Moves,
    Situation,
    TierState,
    as_mix,
    as_plan,
    can_act_on_demand,
    fixed_replicas,
    minimum_mix,
    plan_space,
)
from adaptive_operator.decide.wording import mix_text
from adaptive_operator.reasons import Reason


def follow_spec(situation: Situation, limit: int) -> Proposal | None:
    """A tier left the spec, or bounds do not allow what is wanted: go to the nearest mix that is within them.

    Without an edit, and while demand is unknown or too old, minimums take what is free, and nothing goes for them.
    """
    outside = _outside(situation, limit)
    if not outside and not situation.removed:
        return None
    if _is_edited(situation) or can_act_on_demand(situation) or not situation.has_cards:
        mix = _within_limit(situation, situation.wanted | outside, limit)
    else:
        mix = _topped_up(situation, limit)
    if mix == situation.wanted and not situation.removed:
        return None
    moved = {tier: n for tier, n in outside.items() if mix[tier] != situation.wanted[tier]}
    message = f"{_cause_text(situation, moved)}: go to {mix_text(mix)}"
    return Proposal(_reason(situation, mix), message, mix, situation.memory, predict(situation, mix, limit))


def _is_edited(situation: Situation) -> bool:
    return situation.spec_changed or bool(situation.removed)


def _outside(situation: Situation, limit: int) -> dict[str, int]:
    """Tiers whose wanted replicas are not within their bounds, with the nearest number that is."""
    affordable = {tier.name: tier.low for tier in plan_space(situation, limit).tiers}
    nearest = {tier.name: _within_bounds(situation, tier, affordable) for tier in situation.tiers}
    return {tier: n for tier, n in nearest.items() if n != situation.wanted[tier]}


def _within_bounds(situation: Situation, tier: TierState, affordable: Mix) -> int:
    """What is wanted, moved into the bounds as far as they are affordable. A tier that is left out is not raised.

    A minimum that cannot be paid would else be followed in every pass, past all damping.
    """
    if tier.card is None:
        return fixed_replicas(situation, tier)
    least = min(tier.least, affordable.get(tier.name, 0))
    raised = max(tier.wanted, least) if tier.name not in situation.memory.quarantined_until else tier.wanted
    return min(raised, tier.most)


def _topped_up(situation: Situation, limit: int) -> dict[str, int]:
    """What is wanted and, of what is free, the replicas that minimums lack, the warm tier's first.

    A swap in flight ends first: one that gives capacity up waits for readings, and would go on in the name of this.
    """
    mix, spare = situation.wanted, limit - situation.cost(situation.wanted)
    if situation.swap is not None:
        return mix
    for tier in sorted(situation.tiers, key=lambda t: t.name != situation.warm):
        lacks = 0 if tier.name in situation.memory.quarantined_until else tier.least - tier.wanted
        added = max(0, min(lacks, spare // tier.accelerators))
        mix[tier.name] += added
        spare -= added * tier.accelerators
    return mix


def _within_limit(situation: Situation, mix: dict[str, int], limit: int) -> dict[str, int]:
    """This mix, less what does not fit beside the minimums, or with what the demand needs beside it."""
    if not any(mix.values()) or (situation.removed and mix == minimum_mix(situation, limit)):
        mix = start_mix(situation, limit)
    if situation.cost(mix) > limit:
        space = plan_space(replace_wanted(situation, mix), limit, Moves.REMOVALS)
        plan = best_plan(space, demand_to_keep(situation), situation.settings.exact_plans)
        if plan is None:
            return situation.wanted
        mix = as_mix(situation, space, plan)
    takes = bool(situation.removed) or any(mix[tier] < n for tier, n in situation.wanted.items())
    return _carrying(situation, mix, limit) if takes or can_act_on_demand(situation) else mix


def _carrying(situation: Situation, mix: dict[str, int], limit: int) -> dict[str, int]:
    """This mix, or one that carries the demand where it does not.

    What runs and may stay is kept, but for an edit whose demand is known: else whether an exchange is worth its dip is
    for the rules about load to say.
    """
    demand = _demand_to_carry(situation)
    kept = replace_wanted(situation, {tier: min(n, mix[tier]) for tier, n in situation.wanted.items()})
    free = _is_edited(situation) and can_act_on_demand(situation)
    space = plan_space(kept, limit, Moves.ANY if free else Moves.ADDITIONS)
    if carries(space, as_plan(space, mix), demand):
        return mix
    plan = best_plan(space, demand * situation.settings.growth_headroom, situation.settings.exact_plans)
    return as_mix(kept, space, plan) if plan is not None else mix


def _demand_to_carry(situation: Situation) -> float:
    """Requests/s. While they are not known, no more than was carried before the spec took replicas away.

    Nobody can tell what those of a tier carried that is no longer in the spec.
    """
    demand = known_demand(situation)
    if can_act_on_demand(situation) or situation.removed:
        return demand
    return min(demand, capacity(situation, situation.wanted))


def _reason(situation: Situation, mix: Mix) -> Reason:
    """Without an edit of the spec: an addition, or an exchange by what leaves for what comes."""
    if _is_edited(situation):
        return Reason.SPEC_CHANGED
    leaves = [t.quality_permille for t in situation.tiers if mix[t.name] < t.wanted]
    comes = [t.quality_permille for t in situation.tiers if mix[t.name] > t.wanted]
    if not leaves:
        return Reason.ADDED_REPLICA
    return Reason.SWAPPED_TO_CHEAPER_TIER if comes and max(leaves) > max(comes) else Reason.SPEC_CHANGED


def _cause_text(situation: Situation, moved: Mix) -> str:
    gone = [f"{name} was removed" for name in situation.removed]
    return ", ".join([*gone, *(_bounds_text(situation, t, moved[t.name]) for t in situation.tiers if t.name in moved)])


def _bounds_text(situation: Situation, tier: TierState, count: int) -> str:
    """`int4 has 1 of its replicas.min 3` where it is raised without an edit, else what it keeps."""
    if tier.wanted < count and not _is_edited(situation):
        if tier.name == situation.warm and tier.least <= 1:
            return f"{tier.name} keeps a replica as the warm tier"
        if tier.wanted < tier.least:
            return f"{tier.name} has {tier.wanted} of its replicas.min {tier.least}"
    if 0 < count < tier.least:
        return f"{tier.name} keeps {count} of its replicas.min {tier.least}"
    return f"{tier.name} keeps {count} by its bounds"
