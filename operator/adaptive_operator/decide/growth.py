"""Adding capacity, at once when the load is certain: a replica more, or cheaper tiers in place of better ones.

What is wanted counts as supply even while it loads, so one deficit is answered once.
"""

from __future__ import annotations

from dataclasses import replace

from adaptive_operator.api.status import GainOf
from adaptive_operator.decide.candidates import best_plan
from adaptive_operator.decide.damping import agree_on_more, dwell_seconds, is_agreed, moments, survivors
from adaptive_operator.decide.dip import slowest_load_seconds, step_and_life
from adaptive_operator.decide.exchange import exchange_rate, plan_with_a_way_on, staying_rate, worthwhile_plan
from adaptive_operator.decide.hold import after_growth
from adaptive_operator.decide.lack import TOLERANCE, capacity, carries, growth_demand, surely
from adaptive_operator.decide.limits import find_limit
from adaptive_operator.decide.proposal import Prediction, Proposal
from adaptive_operator.decide.situation import Mix, Moves, Situation, as_mix, as_plan, plan_space
from adaptive_operator.decide.spaces import Plan, PlanSpace
from adaptive_operator.decide.swaps import DOWNWARD
from adaptive_operator.decide.wording import mix_text, passes_text, rate_text
from adaptive_operator.observe.observation import PolicyMemory
from adaptive_operator.reasons import Reason

# A demand that surely passes this part of the rate to leave at is acted on without plans in agreement.
_NEAR = 0.95


def grow(situation: Situation, limit: int) -> Proposal | None:
    """Add capacity when the demand passes what is wanted, pending replicas included; None when it does not."""
    demand = growth_demand(situation)
    if demand is None:
        return None
    space = plan_space(situation, limit)
    keep = as_plan(space, situation.wanted)
    if carries(space, keep, demand):
        return _grow_early(situation, space, keep, limit, demand)
    target = _target(situation, space, limit, demand)
    if target is None:
        # What may be chance is not reported: there is nothing to be done about it.
        return (
            None if carries(space, keep, surely(situation, demand)) else _limited(situation, space, keep, limit, demand)
        )
    return grow_to(situation, as_mix(situation, space, target), limit, demand)


def _grow_early(situation: Situation, space: PlanSpace, keep: Plan, limit: int, demand: float) -> Proposal | None:
    """Exchange replicas while those that stay still carry the demand; None where it is no time for that."""
    if demand * situation.settings.exchange_headroom <= space.most(keep):
        return None
    leave = exchange_rate(situation, space, keep, limit)
    if leave is None or demand <= leave:
        return None
    target = worthwhile_plan(situation, space, keep, limit, demand)
    if target is None:
        return None
    mix = as_mix(situation, space, target)
    # For the minutes of an exchange, the part of the cards that is kept back for bursts and errors may be used.
    stays = staying_rate(situation, space, situation.wanted, mix, limit) / situation.settings.utilisation
    if stays < demand:
        return None
    # What is a little below by chance is below for a moment only: at many requests/s plans need not agree on it first.
    if surely(situation, demand) <= _NEAR * leave and not is_agreed(situation, memory := agree_on_more(situation)):
        return _held(situation, memory, "nears", "exchanged in time")
    proposal = _grown(situation, space, mix, limit, demand)
    return replace(proposal, message=_early_text(situation, space, keep, mix, demand, stays))


def _early_text(situation: Situation, space: PlanSpace, keep: Plan, mix: Mix, demand: float, stays: float) -> str:
    nears = f"demand {rate_text(demand)} nears {rate_text(space.most(keep))} of {mix_text(situation.wanted)}"
    return f"{nears}, and what stays during an exchange carries {rate_text(stays)}: swap to {mix_text(mix)} in time"


def grow_to(situation: Situation, mix: Mix, limit: int, demand: float) -> Proposal:
    """Go to a mix that serves more of the demand (requests/s) than what is wanted; for a burst only if it lasts."""
    space = plan_space(situation, limit)
    keep = as_plan(space, situation.wanted)
    if carries(space, keep, surely(situation, demand)) and not is_agreed(situation, memory := agree_on_more(situation)):
        return _held(situation, memory, "passes", "added")
    return _grown(situation, space, dict(mix), limit, demand)


def _held(situation: Situation, memory: PolicyMemory, passes: str, added: str) -> Proposal:
    """A new replica would come when a short burst is over: what is there takes it, at lower levels and tiers."""
    plans = situation.model.spec.scaling.plans_in_agreement
    passed = f"demand {passes} what {mix_text(situation.wanted)} carry, but may be a short burst"
    message = f"{passed}: replicas are {added} if {plans} plans in a row see it"
    return Proposal(Reason.HELD_FOR_AGREEMENT, message, situation.wanted, memory)


def grow_further(situation: Situation, limit: int) -> Proposal | None:
    """While a swap is in flight: go further, but throw away nothing that loads.

    Re-deciding freely while replicas load would start over for ever. A swap towards a better or smaller mix is
    overtaken by any plan that carries the demand. A burst has to show in the stable window first.
    """
    demand = growth_demand(situation)
    if demand is None or situation.swap is None or situation.demand.is_burst:
        return None
    downward = situation.swap.reason in DOWNWARD
    base = replace_wanted(situation, situation.existing) if downward else situation
    space = plan_space(base, limit, Moves.ANY if downward else Moves.KEEP_LOADING)
    keep = as_plan(space, situation.wanted)
    if carries(space, keep, demand):
        return None
    target = _target(base, space, limit, demand) or _way_back(base, space, keep, demand)
    if target is None:
        message = f"demand passes {rate_text(capacity(situation, situation.wanted))}; the swap in flight ends first"
        return Proposal(Reason.HELD_WHILE_SWAPPING, message, situation.wanted, situation.memory)
    proposal = _grown(base, space, as_mix(base, space, target), limit, demand)
    if not downward:
        return proposal
    adds = proposal.reason is Reason.ADDED_REPLICA or _adds(space, keep, target)
    return _seen_from(situation, proposal, demand, adds)


def _way_back(base: Situation, space: PlanSpace, keep: Plan, demand: float) -> Plan | None:
    """What exists, where it serves more of the demand (requests/s) than what is wanted: nothing more of it goes."""
    plan = as_plan(space, base.wanted)
    allowed = all(tier.low <= n <= tier.high for tier, n in zip(space.tiers, plan, strict=True))
    if not allowed or space.cost(plan) > space.limit:
        return None
    now, then = (space.fill(item, demand).unserved for item in (keep, plan))
    return plan if then < now - TOLERANCE * demand else None


def _seen_from(situation: Situation, proposal: Proposal, demand: float, adds: bool) -> Proposal:
    """The proposal in the words of what was wanted, where it was made from what exists."""
    reason, verb = (Reason.ADDED_REPLICA, "go to") if adds else (Reason.SWAPPED_TO_CHEAPER_TIER, "swap to")
    passes = passes_text(situation, demand, capacity(situation, situation.wanted), situation.wanted)
    return replace(proposal, reason=reason, message=f"{passes}: {verb} {mix_text(proposal.replicas)}")


def replace_wanted(situation: Situation, mix: Mix) -> Situation:
    """The same situation, seen from another mix."""
    if all(t.wanted == mix.get(t.name, 0) for t in situation.tiers):
        return situation  # with the spaces that it remembers
    return replace(situation, tiers=tuple(replace(t, wanted=mix.get(t.name, 0)) for t in situation.tiers))


def _target(situation: Situation, space: PlanSpace, limit: int, demand: float) -> Plan | None:
    """The best plan that serves more of the demand than what is wanted, and is worth its dip; None: there is none.

    Additions alone come first where they carry the demand with headroom: they are there sooner, and nothing is drained.
    With the headroom they may be left in time, too: noise of the demand must not ask for an exchange at once.
    """
    need = demand * situation.settings.growth_headroom
    additions = plan_space(situation, limit, Moves.ADDITIONS)
    plan = plan_with_a_way_on(situation, space, need, limit, additions)
    if plan is not None and carries(additions, plan, need):
        return as_plan(space, as_mix(situation, additions, plan))
    unserved = space.fill(as_plan(space, situation.wanted), demand).unserved
    for choice in (space, additions):
        plan = best_plan(choice, need, situation.settings.exact_plans)
        if plan is None or unserved - choice.fill(plan, demand).unserved <= TOLERANCE * demand:
            continue
        mix = as_mix(situation, choice, plan)
        if is_worth_its_dip(situation, choice, mix, limit, demand):
            return as_plan(space, mix)
    return None


def is_worth_its_dip(situation: Situation, space: PlanSpace, mix: Mix, limit: int, demand: float) -> bool:
    """Requests lost while replicas are exchanged, against requests gained over the plan's life.

    What would have been gained in the minutes that were seen counts if it is more: a load that has lasted is taken to
    last for as long again. Else one that stays for hours would never be worth an exchange. What passes even the whole
    cards of the larger mix is late on any replica: throughput is left to count, and one that drains still answers.
    """
    step, life = step_and_life(situation)
    # A replica that only restarts is part of both mixes: an exchange would bring it back no sooner.
    ready = as_plan(space, {t.name: min(t.ready, t.wanted) for t in situation.tiers})
    keep, larger = as_plan(space, situation.wanted), as_plan(space, mix)
    plans = [as_plan(space, moment) for moment in moments(situation, mix, limit)]
    if demand * situation.settings.utilisation > space.most(larger):
        step = slowest_load_seconds(situation)
    now, *steps, after = [space.fill(plan, demand).unserved for plan in (ready, *plans)]
    gained = max((now - after) * life, _missed(situation, space, keep, larger))
    return sum(unserved - now for unserved in steps) * step < gained


def _missed(situation: Situation, space: PlanSpace, plan: Plan, larger: Plan) -> float:
    """Requests of the last minutes that a larger plan would have served and `plan` would not; 0 without a history.

    Both are asked what they would have served of the arrivals: it does not matter which mix ran in those minutes.
    """
    seen = situation.model.metrics.history
    known = [rate for rate in seen.bins if rate is not None] if seen is not None else []
    missed = sum(space.fill(plan, rate).unserved - space.fill(larger, rate).unserved for rate in known)
    return missed * seen.bin_seconds if seen is not None else 0.0


def _grown(situation: Situation, space: PlanSpace, mix: dict[str, int], limit: int, demand: float) -> Proposal:
    adds = _adds(space, as_plan(space, situation.wanted), as_plan(space, mix))
    reason = Reason.ADDED_REPLICA if adds else Reason.SWAPPED_TO_CHEAPER_TIER
    verb = "go to" if adds else "swap to"
    passes = passes_text(situation, demand, capacity(situation, situation.wanted), situation.wanted)
    during = space.fill(as_plan(space, survivors(situation, mix, limit)), demand).unserved
    settings, hold = situation.settings, situation.hold_seconds
    held = after_growth(situation.memory, situation.now, hold, dwell_seconds(situation), settings.most_hold_seconds)
    memory = replace(held, last_add_at=float(int(situation.now)), agreed_plan=None, agreed_count=0)
    before = space.fill(as_plan(space, situation.wanted), demand).unserved
    after = space.fill(as_plan(space, mix), demand).unserved
    return Proposal(
        reason=reason,
        message=f"{passes}: {verb} {mix_text(mix)}",
        replicas=mix,
        memory=replace(memory, agreed_at=None),
        prediction=Prediction(1000 * (before - after) / demand, GainOf.REQUESTS, 1000 * during / demand),
    )


def _adds(space: PlanSpace, keep: Plan, plan: Plan) -> bool:
    return plan != keep and all(new >= old for new, old in zip(plan, keep, strict=True))


def _limited(situation: Situation, space: PlanSpace, keep: Plan, limit: int, demand: float) -> Proposal:
    finding = find_limit(situation, space, keep, limit, demand)
    return Proposal(finding.reason, finding.message, situation.wanted, situation.memory)
