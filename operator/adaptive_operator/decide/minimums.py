"""Minimums of the spec that are not kept, and what would let them be: else a user would look for them in vain."""

from __future__ import annotations

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.decision import Finding
from adaptive_operator.decide.placing import has_room
from adaptive_operator.decide.situation import Mix, Situation, TierState
from adaptive_operator.decide.wording import accelerators_text, budget_field, mix_text
from adaptive_operator.reasons import Reason


def unkept_minimums(situation: Situation, mix: Mix) -> tuple[Finding, ...]:
    """Tiers that have less in `mix` than their `replicas.min`, for want of accelerators; empty where all have it.

    Without numbers that move with others' load. Said elsewhere: that nothing fits, and which tiers are left out.
    """
    short = [name for name, least in _written(situation).items() if mix.get(name, 0) < least]
    if not short or not any(mix.values()) or situation.model.spec.mode is Mode.PAUSED:
        return ()
    needed = situation.cost({tier.name: max(tier.least, mix.get(tier.name, 0)) for tier in situation.tiers})
    field = budget_field(situation)
    is_shared = needed <= situation.budget
    where = "with what other models have" if is_shared else f"in {accelerators_text(situation.budget)}"
    told = "; ".join(_text(situation, name, mix, where) for name in short)
    if is_shared:
        rest = "others are owed the rest of the pool" if situation.model.pool else "it takes no more than what is free"
        return (Finding(Reason.BUDGET_SHARED, f"{told}, and {rest}; lower it or raise {field}"),)
    return (Finding(Reason.CAPACITY_LIMITED, f"{told}; lower it or raise {field} to {needed}"),)


def unplaced_minimums(situation: Situation, mix: Mix, limit: int) -> tuple[Finding, ...]:
    """Tiers of which `mix` has no more than the least, where no node has room for a replica that is to come.

    It is asked for all the same: whatever makes room, it is the first to have it. Without numbers that move.
    """
    if situation.room is None or situation.model.spec.mode is Mode.PAUSED:
        return ()
    waiting = [tier for tier in situation.tiers if _waits_for_a_node(situation, tier, mix, limit)]
    if not waiting:
        return ()
    told = "; ".join(
        f"{_least_text(situation, tier)} waits: no node has room for {accelerators_text(tier.accelerators)}"
        for tier in waiting
    )
    remedy = "declare tiers[].replica.accelerators that divide what a node has, move pods off a node, or lower it"
    return (Finding(Reason.CAPACITY_LIMITED, f"{told}: {remedy}"),)


def merge_findings(*groups: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """One finding per reason, in order of their first: a condition tells one of each."""
    told: dict[Reason, list[str]] = {}
    for finding in (finding for group in groups for finding in group):
        told.setdefault(finding.reason, []).append(finding.message)
    return tuple(Finding(reason, ". ".join(messages)) for reason, messages in told.items())


def _written(situation: Situation) -> dict[str, int]:
    """`replicas.min` by tier, without tiers that are left out for a while."""
    bounds = {tier.name: tier.replicas for tier in situation.model.spec.tiers}
    left_out = situation.memory.quarantined_until
    return {
        tier.name: tier.least
        for tier in situation.tiers
        if tier.name not in left_out and (kept := bounds[tier.name]) is not None and kept.min is not None
    }


def _text(situation: Situation, name: str, mix: Mix, where: str) -> str:
    kept, least = mix.get(name, 0), _written(situation)[name]
    others = {other: n for other, n in mix.items() if other != name and n > 0}
    beside = f" beside {mix_text(others)}" if others else ""
    return f"replicas.min {least} of {name} is not kept: {kept} fit{'s' if kept == 1 else ''} {where}{beside}"


def _waits_for_a_node(situation: Situation, tier: TierState, mix: Mix, limit: int) -> bool:
    """Is it asked for by its minimum only, or as the warm tier, with a replica that no node holds?"""
    count = mix.get(tier.name, 0)
    if situation.room is None or tier.accelerators < 2 or not 0 < count <= tier.least:
        return False
    starts = {**situation.wanted, tier.name: count}
    return tier.name in situation.room.unplaced or not has_room(situation, starts, limit)


def _least_text(situation: Situation, tier: TierState) -> str:
    is_warm = tier.name == situation.warm and tier.name not in _written(situation)
    return f"the warm tier {tier.name}" if is_warm else f"replicas.min {tier.least} of {tier.name}"
