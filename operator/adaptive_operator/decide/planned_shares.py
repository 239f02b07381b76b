"""The shares of an AcceleratorPool that its plan divides: how much each model counts, and what is told of its part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from adaptive_operator.decide import scarcity
from adaptive_operator.decide.by_need import acts
from adaptive_operator.decide.decision import PoolPart
from adaptive_operator.decide.fairness import build_parties
from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.situation import Situation
from adaptive_operator.decide.wording import accelerators_text
from adaptive_operator.observe.observation import PoolObservation
from adaptive_operator.reasons import Reason, ShareReason

# Without numbers that move, and the same whether the plan is followed in this pass: else the status of a pool at rest
# would be written in each of them. What the plan weighed stands in the model's `lastDecision.pool`.
_WHY: Final[Mapping[ShareReason, str]] = {
    ShareReason.SATISFIED: "has all that it wants",
    ShareReason.PLANNED: "wants more, and others have the rest: the pool's plan moves it only where that serves clearly"
    " more, counted by weight",
    ShareReason.UNMANAGED: "keeps what it has, because its mode is not Active",
    **scarcity.WHY,
}
_LIMITED: Final = frozenset({Reason.BUDGET_SHARED, Reason.GAVE_TO_OTHERS})


def find_weights(pool: PoolObservation) -> dict[str, int]:
    """How many times each model counts, by key: the weight of its share, 1 without one.

    A namespace's weight is that of each of its models: a plan divides nothing among them.
    """
    parties = build_parties(pool.shares, (model.key for model in pool.models))
    return {key: party.weight for party in parties for key in party.members}


def describe_planned_part(situation: Situation, proposal: Proposal, weight: int) -> PoolPart:
    """What a model got by the plan, and why."""
    granted, reason = situation.cost(proposal.replicas), _reason_of(situation, proposal)
    return PoolPart(granted, 0, weight, reason, f"{accelerators_text(granted)} (weight {weight}): {_WHY[reason]}")


def _reason_of(situation: Situation, proposal: Proposal) -> ShareReason:
    if not acts(situation):
        return ShareReason.UNMANAGED
    told = {proposal.reason, *(finding.reason for finding in proposal.findings)}
    if told & _LIMITED:
        return ShareReason.PLANNED
    return scarcity.find_lack(situation, proposal) or ShareReason.SATISFIED
