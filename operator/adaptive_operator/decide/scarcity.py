"""What a model of an AcceleratorPool lacks although no neighbour has it: is the pool too small, or what it may have?"""

from __future__ import annotations

from typing import Final

from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.situation import Mix, Situation
from adaptive_operator.reasons import Reason, ShareReason

_LACKS: Final = frozenset({Reason.CAPACITY_LIMITED, Reason.QUALITY_FLOOR_INFEASIBLE, Reason.BUDGET_EXCEEDED})

WHY: Final = {
    ShareReason.POOL_TOO_SMALL: "wants more than the whole pool can give",
    ShareReason.OWN_LIMITS: "wants more than its own budget, tiers or floor allow",
}


def find_lack(situation: Situation, proposal: Proposal) -> ShareReason | None:
    """None where the model lacks nothing, or others have it."""
    if not _LACKS & {proposal.reason, *(finding.reason for finding in proposal.findings)}:
        return None
    own = situation.budget < situation.pool_budget or not _may_have_more(situation, proposal.replicas)
    return ShareReason.OWN_LIMITS if own or _lacks_quality(situation) else ShareReason.POOL_TOO_SMALL


def _may_have_more(situation: Situation, mix: Mix) -> bool:
    return any(mix.get(tier.name, 0) < tier.most for tier in situation.tiers)


def _lacks_quality(situation: Situation) -> bool:
    """Does no tier reach the floor, however many accelerators there are?"""
    best = max((tier.quality_permille for tier in situation.tiers if tier.most > 0), default=0)
    return situation.has_cards and best < situation.model.spec.quality.floor_permille
