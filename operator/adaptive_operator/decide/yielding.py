"""A model gives to others that count more what carries its own load, where they refuse requests and the plan says so.

As damped as what `giving.py` gives; to others that count as much or less a model gives quality only.
"""

from __future__ import annotations

from dataclasses import replace

from adaptive_operator.api.status import GainOf
from adaptive_operator.decide.damping import survivors
from adaptive_operator.decide.dip import step_and_life
from adaptive_operator.decide.giving import give_when_agreed, may_give
from adaptive_operator.decide.proposal import Prediction, Proposal
from adaptive_operator.decide.situation import Mix, Situation, as_plan, plan_space


def yield_load(situation: Situation, mix: Mix, limit: int, refused: float) -> Proposal | None:
    """Go to the plan's smaller mix; None where nothing can be given now, or it would lose more than it brings.

    One replica stays where the plan leaves none: a model that has none is not planned, but starts up again.
    `refused`: requests/s of models that count more, which are refused without it, each as many as it counts here.
    """
    mix = mix if any(mix.values()) else _least_replica(situation)
    if not may_give(situation) or situation.cost(mix) >= situation.cost(situation.wanted):
        return None
    space, rate = plan_space(situation, limit), situation.demand.rate or 0.0
    moments = (situation.wanted, survivors(situation, mix, limit), mix)
    now, during, after = (space.fill(as_plan(space, moment), rate).unserved for moment in moments)
    step, life = step_and_life(situation)
    if (after - now) * life + max(0.0, during - after) * step >= refused * life:
        return None
    given = give_when_agreed(situation, dict(mix), limit, rate, "others that count more")
    if given.prediction is None or rate <= 0:
        return given
    return replace(given, prediction=Prediction(1000 * (now - after) / rate, GainOf.REQUESTS, 1000 * during / rate))


def _least_replica(situation: Situation) -> dict[str, int]:
    """One replica of the tier that runs and takes the fewest accelerators."""
    runs = [tier for tier in situation.tiers if tier.wanted > 0]
    stays = min(runs, key=lambda tier: tier.accelerators, default=None)
    return {tier.name: int(tier is stays) for tier in situation.tiers}
