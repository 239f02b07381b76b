"""What each model has and needs of the accelerators it shares: a situation as a claim."""

from __future__ import annotations

from adaptive_operator.decide.budget import Claim
from adaptive_operator.decide.by_need import acts
from adaptive_operator.decide.demand import Trust
from adaptive_operator.decide.situation import Situation, minimum_mix


def build_claim(situation: Situation) -> Claim:
    """All in accelerators. A model that does not act claims no more than it has."""
    wanted = situation.cost(situation.wanted)
    minimum = situation.cost(minimum_mix(situation, situation.budget))
    return Claim(
        key=situation.model.key,
        held=situation.held,
        wanted=wanted,
        minimum=minimum if acts(situation) else min(minimum, wanted),
        most=situation.budget,
        first=find_first(situation),
        kept=wanted if is_frozen(situation) else 0,
        acts=acts(situation),
    )


def is_frozen(situation: Situation) -> bool:
    """Is it unknown how much it needs, so that its replicas stay as they are?"""
    return acts(situation) and situation.has_cards and situation.demand.trust is Trust.NONE


def find_first(situation: Situation) -> int:
    """Accelerators of the replica that it needs to serve at all: the warm tier's, else the smallest of its minimum.

    0 where no tier has a minimum: whoever sets them all to 0 is ready to be without a replica.
    """
    least = minimum_mix(situation, situation.budget)
    kept = [tier for tier in situation.tiers if least[tier.name] > 0]
    return next(
        (tier.accelerators for tier in sorted(kept, key=lambda t: (t.name != situation.warm, t.accelerators))), 0
    )
