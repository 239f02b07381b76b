"""What was told last of a model at rest stands while it is true of a demand near the present one.

Near a border a load that moves by a few per cent would have other words in each pass, and each would be written. Words
only: what is decided, and what decisions remember, is not touched. What lacks is told at once, and a floor that cannot
be kept before all else; what no longer does, when it clearly does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from adaptive_operator.decide.damping import only_begins
from adaptive_operator.decide.decision import Finding
from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.situation import Situation
from adaptive_operator.decide.wording import PASSES, mix_text
from adaptive_operator.reasons import ConditionType, Reason

Propose = Callable[[Situation], Proposal]  # what the model's own rules say of another demand
FindLimits = Callable[[Situation], Sequence[Finding]]  # what limits the proposed replicas at another demand

# In the order in which the condition CapacityLimited tells one of them.
LIMITS: Final = (Reason.CAPACITY_LIMITED, Reason.BUDGET_SHARED, Reason.QUALITY_FLOOR_INFEASIBLE)
# Nothing is done for them, and nothing is remembered: agreement of more than one plan changes the status by itself.
_QUIET: Final = {
    *LIMITS,
    Reason.STEADY,
    Reason.HELD_BY_DWELL,
    Reason.HELD_BY_HOLD_WINDOW,
    Reason.HELD_AFTER_RESTART,
    Reason.HELD_BY_SURVIVOR_CHECK,
}


def let_stand(situation: Situation, proposal: Proposal, propose: Propose, find_limits: FindLimits) -> Proposal:
    """The proposal in the words that were told last, where they still are true or nearly so.

    Only of a model whose replicas, spec and swap are what they were then.
    """
    if situation.settings.standing_band <= 0 or not _is_at_rest(situation, proposal):
        return proposal
    return _with_reason(situation, _with_limit(situation, proposal, find_limits), propose)


def _is_at_rest(situation: Situation, proposal: Proposal) -> bool:
    """Is it about the mix that the status tells of, and does that stay?"""
    status = situation.model.status
    last = status.last_decision if status is not None and not situation.spec_changed else None
    stays = dict(proposal.replicas) == situation.wanted and not proposal.begins_swap and not situation.removed
    return stays and situation.swap is None and last is not None and last.to == mix_text(proposal.replicas)


def _near(situation: Situation) -> Iterator[Situation]:
    """The same situation at demands near the present one, the nearest first."""
    band, seen = situation.settings.standing_band, situation.demand
    rates = (seen.rate, seen.arrivals, seen.peak, seen.lasting)
    for factor in (1 - band / 2, 1 + band / 2, 1 - band, 1 + band):
        rate, arrivals, peak, lasting = (value if value is None else factor * value for value in rates)
        yield replace(situation, demand=replace(seen, rate=rate, arrivals=arrivals, peak=peak, lasting=lasting))


def _with_limit(situation: Situation, proposal: Proposal, find_limits: FindLimits) -> Proposal:
    """With the limit that was told last in place of those of the moment, unless one of these matters more."""
    told = _told_limit(situation)
    now = _limit_of(proposal)
    if told is None or (now is not None and (_is_told_as(told, now) or _rank(now) > _rank(told))):
        return proposal
    stands = _found_near(situation, told, find_limits)
    if stands is None:
        return proposal
    kept = [item for item in proposal.findings if item.reason not in LIMITS or _rank(item) > _rank(stands)]
    dropped = {item.reason for item in proposal.findings} - {item.reason for item in kept}
    proposal = replace(proposal, findings=(*kept, stands))
    if proposal.reason not in dropped:
        return proposal
    return replace(proposal, reason=stands.reason, message=stands.message)


def _limit_of(proposal: Proposal) -> Finding | None:
    """The one that the condition would tell."""
    found = {proposal.reason: proposal.message} | {item.reason: item.message for item in proposal.findings}
    return next((Finding(reason, found[reason]) for reason in LIMITS if reason in found), None)


def _told_limit(situation: Situation) -> Finding | None:
    """What the status tells of the capacity, if that limits the model."""
    status = situation.model.status
    for condition in status.conditions if status is not None else ():
        if condition.type == ConditionType.CAPACITY_LIMITED and condition.reason in LIMITS:
            return Finding(Reason(condition.reason), condition.message)
    return None


def _found_near(situation: Situation, told: Finding, find_limits: FindLimits) -> Finding | None:
    """The finding that was told, at a demand near the present one; else the first that tells of the same limit."""
    alike = None
    for near in (situation, *_near(situation)):
        for finding in find_limits(near):
            if _is_told_as(told, finding):
                return finding
            if alike is None and (finding.reason, _rank(finding)) == (told.reason, _rank(told)):
                alike = finding
    return alike


def _is_told_as(told: Finding, finding: Finding) -> bool:
    """In the same words; a condition may say more after them."""
    return told.reason is finding.reason and told.message.startswith(finding.message)


def _rank(finding: Finding) -> int:
    """How much it matters: that more would serve better, that requests are refused, that the floor is the cause."""
    if finding.reason is Reason.QUALITY_FLOOR_INFEASIBLE:
        return 2
    return int(finding.message.startswith(PASSES))


def _with_reason(situation: Situation, proposal: Proposal, propose: Propose) -> Proposal:
    """With the reason that was told last, where a demand near the present one has it. What lacks is told at once."""
    status = situation.model.status
    told = status.last_decision if status is not None else None
    last = told.reason if told is not None else ""
    begins = only_begins(proposal.memory, situation.model.spec.scaling.plans_in_agreement)
    if told is not None and begins and last == Reason.STEADY:
        return replace(proposal, reason=Reason.STEADY, message=told.message)
    if (proposal.reason not in _QUIET and not begins) or last == proposal.reason:
        return proposal
    if last in LIMITS:
        stands = next((finding for finding in proposal.findings if finding.reason == last and _rank(finding)), None)
        return proposal if stands is None else replace(proposal, reason=stands.reason, message=stands.message)
    if proposal.reason in LIMITS or last not in _QUIET:
        return proposal
    found = next((found for near in _near(situation) if (found := propose(near)).reason == last), None)
    return proposal if found is None else replace(proposal, reason=found.reason, message=found.message)
