"""A model gives accelerators to others of its pool: what only its quality depends on, where they refuse requests.

As damped as an upgrade: quality moves with care, and what carries a model's own load is never given.
"""

from __future__ import annotations

from dataclasses import replace

from adaptive_operator.api.status import GainOf
from adaptive_operator.decide.candidates import best_plan
from adaptive_operator.decide.damping import agree, dwells, is_agreed, is_freshly_started, survivors
from adaptive_operator.decide.demand import Trust
from adaptive_operator.decide.dip import step_and_life
from adaptive_operator.decide.lack import capacity, carries
from adaptive_operator.decide.proposal import Prediction, Proposal
from adaptive_operator.decide.situation import Mix, Situation, as_mix, as_plan, plan_space
from adaptive_operator.decide.wording import accelerators_text, fingerprint, mix_text, rate_text
from adaptive_operator.reasons import Reason


def give(situation: Situation, mix: Mix, limit: int, refused: float) -> Proposal | None:
    """Go to the plan's smaller mix, or as near as the own load allows; None where nothing can be given now.

    `refused`: requests/s of others that are refused without it, and would be served with it.
    """
    demand = situation.demand
    if demand.peak is None or not may_give(situation):
        return None
    need = demand.peak * situation.settings.shrink_headroom
    target = _least_mix(situation, situation.cost(mix), need)
    if target is None or not _is_worth_its_dip(situation, target, limit, refused):
        return None
    return give_when_agreed(situation, target, limit, need, "others")


def may_give(situation: Situation) -> bool:
    """Is it the time for it? The readings are fresh, the operator has watched for a hold window, no dwell is on."""
    return situation.demand.trust is Trust.FULL and not is_freshly_started(situation) and not dwells(situation)


def give_when_agreed(situation: Situation, target: dict[str, int], limit: int, need: float, whom: str) -> Proposal:
    """Go to the smaller mix, or wait for plans in agreement. `need`: requests/s that its quality is told for."""
    memory = agree(situation, fingerprint(target))
    if not is_agreed(situation, memory):
        plans = situation.model.spec.scaling.plans_in_agreement
        message = f"{whom} refuse requests for want of what {mix_text(target)} would leave them: {_WAITS.format(plans)}"
        return Proposal(Reason.HELD_FOR_AGREEMENT, message, situation.wanted, memory)
    return _given(situation, target, limit, need, whom)


_WAITS = "waits for {} equal plans in a row"


def _least_mix(situation: Situation, share: int, need: float) -> dict[str, int] | None:
    """The best mix within the plan's share that carries the own demand (requests/s), or within a little more of it."""
    for accelerators in range(share, situation.cost(situation.wanted)):
        space = plan_space(situation, accelerators)
        plan = best_plan(space, need, situation.settings.exact_plans)
        if plan is not None and space.cost(plan) <= accelerators and carries(space, plan, need):
            return as_mix(situation, space, plan)
    return None


def _is_worth_its_dip(situation: Situation, mix: Mix, limit: int, refused: float) -> bool:
    """Own requests lost while replicas are exchanged, against those of others that are served over the plan's life."""
    space, rate = plan_space(situation, limit), situation.demand.rate or 0.0
    step, life = step_and_life(situation)
    lost = space.fill(as_plan(space, survivors(situation, mix, limit)), rate).unserved
    return lost * step < refused * life


def _given(situation: Situation, mix: dict[str, int], limit: int, need: float, whom: str) -> Proposal:
    space = plan_space(situation, limit)
    old, new = (space.fill(as_plan(space, m), need).quality_permille for m in (situation.wanted, mix))
    left = accelerators_text(situation.cost(situation.wanted) - situation.cost(mix))
    during = space.fill(as_plan(space, survivors(situation, mix, limit)), need).unserved
    return Proposal(
        reason=Reason.GAVE_TO_OTHERS,
        message=(
            f"{whom} would refuse requests: leaves them {left}; {mix_text(mix)} carry"
            f" {rate_text(capacity(situation, mix))} at {new:.0f} instead of {old:.0f} permille of quality"
        ),
        replicas=mix,
        memory=replace(
            situation.memory,
            last_restore_at=float(int(situation.now)),
            agreed_plan=None,
            agreed_count=0,
            agreed_at=None,
        ),
        prediction=Prediction(new - old, GainOf.QUALITY, 1000 * during / need if need > 0 else 0.0),
    )
