"""Rules about a model's life, not its load: pause, start, revisions, failed replicas, a budget that is too small.

They come before the rules about load and need no metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.candidates import best_plan
from adaptive_operator.decide.lack import capacity, growth_demand
from adaptive_operator.decide.placing import has_room
from adaptive_operator.decide.prediction import predict
from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.situation import (
    Mix,
    Moves,
    Situation,
    as_mix,
    build_situation,
    minimum_mix,
    plan_space,
)
from adaptive_operator.decide.swaps import start_failures, surge_accelerators
from adaptive_operator.decide.wording import accelerators_text, budget_field, mix_text, no_budget_text
from adaptive_operator.reasons import Reason

_UNTIL_EDITED_SECONDS = 10 * 365 * 86_400.0  # as good as for ever: an edit of the spec ends it


def paused(situation: Situation, limit: int) -> Proposal | None:
    """Mode Paused: everything stays as it is."""
    if situation.model.spec.mode is not Mode.PAUSED:
        return None
    memory = replace(situation.memory, agreed_plan=None, agreed_count=0, agreed_at=None)
    message = "spec.mode is Paused: replicas stay as they are"
    return Proposal(Reason.PAUSED, message, situation.existing, memory)


def roll_back(situation: Situation, limit: int) -> Proposal | None:
    """Replicas that did not start: leave their tiers out for a while, and go to the best mix without them.

    A tier whose edit did not start is not left out: it goes back to the revision that last worked.
    """
    failures = start_failures(situation)
    if not failures or situation.model.spec.mode is not Mode.ACTIVE:
        return None
    without = _without(situation, failures)
    reverted = [tier for tier in failures if tier in without.held_back]
    keeps = len(reverted) == len(failures) and without.cost(situation.wanted) <= limit
    mix = situation.wanted if keeps else _mix_without(without, limit)
    if mix is None or (mix == situation.wanted and situation.swap is None and not reverted):
        return None
    message = _rollback_text(without, failures, reverted, mix)
    found = predict(without, mix, limit)
    return Proposal(Reason.SWAP_ROLLED_BACK, message, mix, without.memory, found, begins_swap=bool(reverted))


def adopt_edit(situation: Situation, limit: int) -> Proposal | None:
    """Replicas of another revision than the one in force: exchange them, in a swap with a deadline and a way back."""
    stale = [tier for tier in situation.tiers if tier.stale > 0 and tier.wanted > 0]
    if not stale or situation.swap is not None or situation.model.spec.mode is not Mode.ACTIVE:
        return None
    names = ", ".join(tier.name for tier in stale)
    message = f"{names} edited: new replicas take the place of the old ones, which serve until then"
    if any(tier.name in situation.memory.failed_starts for tier in stale):
        message += "; an earlier try failed"
    if surge_accelerators(situation, situation.wanted) > limit + situation.surge:
        message += f". {accelerators_text(limit)} do not hold both at once: one replica after the other goes first"
    found = predict(situation, situation.wanted, limit)
    return Proposal(Reason.SPEC_CHANGED, message, situation.wanted, situation.memory, found, begins_swap=True)


def start_up(situation: Situation, limit: int) -> Proposal | None:
    """Nothing is wanted yet: the best tier that fits and the warm tier, one replica each. Never waits for metrics."""
    if any(situation.wanted.values()) or situation.removed:
        return None
    mix = start_mix(situation, limit)
    if not any(mix.values()):
        resource = situation.model.spec.accelerators.resource
        message = f"not even one replica fits in {accelerators_text(limit)} of {resource}"
        message += f"; raise {budget_field(situation)}, or add a tier with a smaller replica"
        if situation.budget <= 0:
            message = no_budget_text(situation)
        reason = Reason.BUDGET_SHARED if limit < situation.budget else Reason.CAPACITY_LIMITED
        return Proposal(reason, message, mix, situation.memory)
    message = f"first replicas: {mix_text(mix)}"
    return Proposal(Reason.STARTING_UP, message, mix, situation.memory, predict(situation, mix, limit))


def fit_budget(situation: Situation, limit: int) -> Proposal | None:
    """More is wanted than this model may plan with: start nothing, give up what is worth least."""
    if situation.cost(situation.wanted) <= limit:
        return None
    space = plan_space(situation, limit, Moves.REMOVALS)
    plan = best_plan(space, demand_to_keep(situation), situation.settings.exact_plans)
    mix = as_mix(situation, space, plan) if plan is not None else dict.fromkeys(situation.wanted, 0)
    if situation.cost(mix) > limit:
        mix = _trimmed(situation, mix, limit)
    shared = limit < situation.budget
    owed = (
        "others are owed their share of the pool"
        if situation.model.pool
        else "other models need a replica to serve at all"
    )
    cause = owed if shared else "which is the whole budget"
    remedy = f"raise {budget_field(situation)} to keep them"
    wanted = mix_text(situation.wanted)
    message = f"{wanted} hold more than {accelerators_text(limit)}, {cause}: go to {mix_text(mix)}; {remedy}"
    if situation.budget <= 0:
        message = f"{wanted} are given up: {no_budget_text(situation)}"
    reason = Reason.BUDGET_SHARED if shared else Reason.BUDGET_EXCEEDED
    return Proposal(reason, message, mix, situation.memory, predict(situation, mix, limit))


def start_mix(situation: Situation, limit: int) -> dict[str, int]:
    """Minimums (the warm tier first), then one replica of the best tier that fits."""
    mix = minimum_mix(situation, limit)
    spare = limit - situation.cost(mix)
    ranked = sorted((t for t in situation.tiers if t.card and t.high > 0), key=lambda t: -t.quality_permille)
    for tier in ranked:
        if mix[tier.name] > 0:
            break
        if tier.accelerators <= spare and has_room(situation, {**mix, tier.name: 1}, limit):
            mix[tier.name] = 1
            break
    return mix


def known_demand(situation: Situation) -> float:
    """Demand to plan for (requests/s): as measured, else what the weights stand on, else none."""
    measured = growth_demand(situation)
    if measured is not None:
        return measured
    return (situation.memory.planned_demand_milli or 0) / 1000


def demand_to_keep(situation: Situation) -> float:
    """Demand to shrink for (requests/s). What is not known is not zero: all that the replicas carry counts then."""
    known = known_demand(situation)
    return known if growth_demand(situation) is not None else max(known, capacity(situation, situation.wanted))


def _without(situation: Situation, failures: dict[str, str]) -> Situation:
    """The situation with the failed tiers left out."""
    failed = {**situation.memory.failed_starts}
    failed.update({tier: failed.get(tier, 0) + 1 for tier in failures})
    until = {tier: float(int(situation.now + _quarantine_seconds(situation, tier, failed[tier]))) for tier in failures}
    twice = set(failures) & set(situation.held_back)  # what they went back to did not start either
    memory = replace(
        situation.memory,
        proven={tier: inputs for tier, inputs in situation.memory.proven.items() if tier not in twice},
        failed_starts=failed,
        quarantined_until={**situation.memory.quarantined_until, **until},
        quarantine_causes={**situation.memory.quarantine_causes, **failures},
        agreed_plan=None,
        agreed_count=0,
        agreed_at=None,
    )
    model = replace(situation.model, memory=replace(memory, generation=situation.model.generation))
    rebuilt = build_situation(model, situation.now, situation.acting_since, situation.pool_budget, situation.settings)
    return replace(rebuilt, spec_changed=situation.spec_changed, surge=situation.surge, room=situation.room)


def _quarantine_seconds(situation: Situation, tier: str, failed: int) -> float:
    """How long a tier is left alone after so many failed starts in a row."""
    if not _may_try_again(situation, tier):
        return _UNTIL_EDITED_SECONDS
    settings = situation.settings
    return min(settings.quarantine_seconds * 2.0 ** min(failed - 1, 16), settings.most_quarantine_seconds)


def _may_try_again(situation: Situation, tier: str) -> bool:
    """Does something go on serving while the tier is tried: another replica, or its own old one beside the new one?"""
    if sum(situation.wanted.values()) > 1 or tier not in situation.memory.proven:
        return True
    return situation.cost(situation.wanted) + situation.cost({tier: 1}) <= situation.budget


def _rollback_text(without: Situation, failures: Mapping[str, str], reverted: Sequence[str], mix: Mix) -> str:
    """What failed in the pod's own words, what is done about it, and when it is tried again."""
    causes = "; ".join(f"{tier}: {words}" for tier, words in failures.items())
    until = without.memory.quarantined_until
    seconds = {tier: until[tier] - without.now for tier in failures}
    left_out = [f"{tier} left out for {seconds[tier] / 60:.0f} min" for tier in failures if tier not in reverted]
    back = [f"{tier} goes back to the revision that last worked; {_retry_text(seconds[tier])}" for tier in reverted]
    target = [f"Go to {mix_text(mix)}"] if left_out else []
    return f"{causes}. {'; '.join([*target, *left_out, *back])}"


def _retry_text(seconds: float) -> str:
    if seconds >= _UNTIL_EDITED_SECONDS - 1:
        return "another try would leave nothing that serves: it waits for the spec to be edited again"
    return f"the edit is tried again in {seconds / 60:.0f} min, or at once when the spec is edited again"


def _mix_without(situation: Situation, limit: int) -> dict[str, int] | None:
    """The best mix of what is left: by demand where it is known, else what the swap came from, else a new start."""
    demand = growth_demand(situation)
    if demand is not None:
        space = plan_space(situation, limit)
        plan = best_plan(space, demand * situation.settings.growth_headroom, situation.settings.exact_plans)
        mix = as_mix(situation, space, plan) if plan is not None else {}
    else:
        origin = situation.swap.origin if situation.swap else situation.wanted
        mix = {t.name: min(max(origin.get(t.name, 0), t.low), t.high) for t in situation.tiers}
    if not any(mix.values()) or situation.cost(mix) > limit:
        mix = start_mix(situation, limit)
    if not any(mix.values()) and situation.room is not None:
        # What failed goes whatever comes after it, and nobody knows what room that leaves.
        return _mix_without(replace(situation, room=None), limit)
    return mix if any(mix.values()) else None


def _trimmed(situation: Situation, mix: dict[str, int], limit: int) -> dict[str, int]:
    """Fewer replicas, from the end of the list, the warm tier last, until the mix fits."""
    last_first = situation.tiers[::-1]
    for tier in sorted(last_first, key=lambda t: t.name == situation.warm):
        over = situation.cost(mix) - limit
        drop = min(mix[tier.name], max(0, -(-over // tier.accelerators)))
        mix = {**mix, tier.name: mix[tier.name] - drop}
    return mix
