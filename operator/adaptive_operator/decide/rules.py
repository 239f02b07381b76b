"""The rules, in order: the first that has something to say decides for one model.

Each rule is a pure function (Situation, limit) -> Proposal | None, where `limit` is the number of accelerators that the
pool lets this model plan with. Rules propose; swap records, weights and grants are made in `pool.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from adaptive_operator.decide.bounds import follow_spec
from adaptive_operator.decide.correction import is_stale
from adaptive_operator.decide.decision import Finding
from adaptive_operator.decide.demand import Trust
from adaptive_operator.decide.floor import floor_out_of_reach
from adaptive_operator.decide.growth import grow, grow_further
from adaptive_operator.decide.lifecycle import adopt_edit, fit_budget, paused, roll_back, start_up
from adaptive_operator.decide.limits import limit_findings
from adaptive_operator.decide.minimums import merge_findings, unkept_minimums, unplaced_minimums
from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.restoring import restore
from adaptive_operator.decide.revisions import held_back_revisions
from adaptive_operator.decide.situation import Mix, Situation
from adaptive_operator.decide.wording import card_text, mix_text
from adaptive_operator.reasons import Reason

Rule = Callable[[Situation, int], Proposal | None]


def finish_swap(situation: Situation, limit: int) -> Proposal | None:
    """A swap is in flight: it goes on, and only more capacity may overtake it."""
    if situation.swap is None:
        return None
    further = grow_further(situation, limit)
    if further is not None:
        return further
    origin, target = (
        {tier.name: mix.get(tier.name, 0) for tier in situation.tiers}
        for mix in (situation.swap.origin, situation.swap.target)
    )
    message = f"{mix_text(origin)} to {mix_text(target)} under way"
    exchanged = [tier.name for tier in situation.tiers if tier.stale > 0 and tier.wanted > 0]
    if origin == target and exchanged:
        message = f"{', '.join(exchanged)}: exchange of replicas for those of another revision under way"
    return Proposal(_reason_of(situation.swap.reason), message, situation.wanted, situation.memory)


def hold_for_metrics(situation: Situation, limit: int) -> Proposal | None:
    """Demand is unknown or too old: change nothing."""
    if situation.demand.trust is not Trust.NONE or not situation.has_cards:
        return None
    stale = situation.demand.stale
    reason = Reason.HELD_FOR_STALE_METRICS if stale else Reason.HELD_FOR_MISSING_METRICS
    memory = replace(situation.memory, agreed_plan=None, agreed_count=0, agreed_at=None)
    return Proposal(reason, f"replicas stay as they are: {situation.demand.doubt}", situation.wanted, memory)


def stay(situation: Situation, limit: int) -> Proposal:
    """Nothing better is known."""
    memory = replace(situation.memory, agreed_plan=None, agreed_count=0, agreed_at=None)
    return Proposal(Reason.STEADY, f"{mix_text(situation.wanted)} is what is wanted", situation.wanted, memory)


# Rules about a model's life: what they say holds whatever the load, and whatever the pool's plan is.
LIFE: tuple[Rule, ...] = (
    paused,  # the user said so
    roll_back,  # replicas that did not start are lost budget
    start_up,  # a new model serves before anything is measured
    follow_spec,  # what the user edited
    fit_budget,  # invariant: never plan with more than there is
    adopt_edit,  # an edit is a swap, too
    finish_swap,  # one swap at a time
    hold_for_metrics,  # unknown is never zero
)
LOAD: tuple[Rule, ...] = (
    grow,  # capacity at once
    restore,  # quality and thrift with care
)


def propose(situation: Situation, limit: int, load: Sequence[Rule] = LOAD) -> Proposal:
    """The first rule's proposal, with everything a user should know beside it. `load`: the rules about the load."""
    proposal = _first((*LIFE, *load), situation, limit) or stay(situation, limit)
    unmet = floor_out_of_reach(situation)
    if proposal.reason in (Reason.STEADY, Reason.QUALITY_FLOOR_INFEASIBLE):  # nothing can be done, but not all is well
        proposal = next((replace(proposal, reason=f.reason, message=f.message) for f in unmet), proposal)
    if proposal.reason is Reason.STARTING_UP and unmet:
        proposal = replace(proposal, message="; ".join([proposal.message, *(f.message for f in unmet)]))
    return replace(proposal, findings=(*proposal.findings, *_findings(situation, proposal, limit)))


def is_bound(situation: Situation, limit: int) -> bool:
    """Has a rule about the model's life something to say? Then no plan of the pool is asked."""
    return _first(LIFE, situation, limit) is not None


def is_swapping(situation: Situation, limit: int) -> bool:
    """Is a swap in flight what its life has to say, before any other rule?"""
    before = LIFE[: LIFE.index(finish_swap)]
    return situation.swap is not None and _first(before, situation, limit) is None


def _first(rules: Sequence[Rule], situation: Situation, limit: int) -> Proposal | None:
    return next((p for rule in rules if (p := rule(situation, limit)) is not None), None)


def _findings(situation: Situation, proposal: Proposal, limit: int) -> tuple[Finding, ...]:
    return (
        *_without_cards(situation),
        *_stale_cards(situation),
        *_left_out(situation, proposal),
        *_metrics(situation),
        *find_limits(situation, proposal.replicas, limit),
    )


def find_limits(situation: Situation, mix: Mix, limit: int) -> tuple[Finding, ...]:
    """What keeps a mix from serving the present demand, and its tiers from their minimums."""
    limits, unkept = limit_findings(situation, mix, limit), unkept_minimums(situation, mix)
    return (
        *merge_findings(limits, unkept, unplaced_minimums(situation, mix, limit)),
        *floor_out_of_reach(situation),  # after the limits: it says more than theirs
    )


def _without_cards(situation: Situation) -> tuple[Finding, ...]:
    unknown = {tier.name for tier in situation.tiers if tier.card is None}
    tiers = [tier for tier in situation.model.spec.tiers if tier.name in unknown]
    late = [tier.name for tier in tiers if tier.curve is not None and tier.card is not None]
    bare = [tier.name for tier in tiers if tier.name not in late]
    told = []
    if bare:
        remedy = "declare tiers[].card to let the load decide"
        told.append(f"spec.tiers {', '.join(bare)} without a card: replicas stay at their minimum; {remedy}")
    if late:
        what = f"tiers[].curve of {', '.join(late)} keeps slo at no rate"
        remedy = "allow more time in slo, or declare tiers[].card.capacityMilliRequestsPerSecond"
        told.append(f"{what}: replicas stay at their minimum; {remedy}")
    return (Finding(Reason.NO_TIER_CARD, "; ".join(told)),) if told else ()


def _stale_cards(situation: Situation) -> tuple[Finding, ...]:
    """One finding for all tiers that are far from their cards, without numbers that move."""
    limits, corrections = situation.settings.correction, situation.memory.corrections
    told = [
        card_text(tier.name, tier.card)
        for tier in situation.tiers
        if tier.card and tier.name in corrections and is_stale(corrections[tier.name], situation.now, limits)
    ]
    if not told:
        return ()
    remedy = (
        "replicas carry no more than that, or still less: measure the tier again with requests like yours, and correct"
        " tiers[].card.capacityMilliRequestsPerSecond"
    )
    return (Finding(Reason.CARD_STALE, f"{'; '.join(told)}: {remedy}"),)


def _left_out(situation: Situation, proposal: Proposal) -> tuple[Finding, ...]:
    memory = proposal.memory
    held_back = held_back_revisions(replace(situation.model, memory=memory))
    causes = {tier: memory.quarantine_causes.get(tier, "it did not start") for tier in sorted(memory.quarantined_until)}
    return tuple(
        Finding(
            Reason.SWAP_ROLLED_BACK,
            f"{tier} goes on with its earlier revision: {cause}; correct the tier or take the edit back"
            if tier in held_back
            else f"{tier} is left out for a while: {cause}",
        )
        for tier, cause in causes.items()
    )


def _metrics(situation: Situation) -> tuple[Finding, ...]:
    if situation.demand.trust is not Trust.NONE:
        return ()
    reason = Reason.HELD_FOR_STALE_METRICS if situation.demand.stale else Reason.HELD_FOR_MISSING_METRICS
    return (Finding(reason, situation.demand.doubt),)


def _reason_of(text: str) -> Reason:
    """The reason kept in a swap record; one that this version does not know reads as a swap in flight."""
    try:
        return Reason(text)
    except ValueError:
        return Reason.HELD_WHILE_SWAPPING
