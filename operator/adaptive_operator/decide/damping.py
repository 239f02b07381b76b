"""Against flapping: dwell, hold after a restart, agreement of plans, and what survives a change.

Capacity is added at once where the load is certain, else when plans in a row see it. All the rest here delays upgrades
and smaller plans only: simulated hours of a load that is steady within ±5 % must not show a single flap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from adaptive_operator.decide.situation import Situation, TierState
from adaptive_operator.decide.swaps import load_seconds
from adaptive_operator.decide.wording import fingerprint
from adaptive_operator.observe.observation import PolicyMemory

_MORE = "more than "  # begins the plan that is agreed on when demand passes what is wanted
_PERIOD_TOLERANCE = 0.9  # passes come a little early at times
_MOMENTS_AT_MOST = 32


def dwell_seconds(situation: Situation) -> float:
    """Least life of a plan before it is shrunk or upgraded."""
    own = situation.model.spec.scaling.dwell_seconds
    if own is not None:
        return float(own)
    slowest = max((load_seconds(situation, tier) for tier in situation.tiers), default=0.0)
    return max(situation.settings.least_dwell_seconds, situation.settings.dwell_load_factor * slowest)


def dwells(situation: Situation) -> bool:
    """Is the last change too young? A swap that ended in this pass is."""
    last = situation.now if situation.swap_ended else situation.memory.last_change_at
    return last is not None and situation.now - last < dwell_seconds(situation)


def is_freshly_started(situation: Situation) -> bool:
    """Has this process acted for less than one hold window? It knows of no peak before its start."""
    return situation.now - situation.acting_since < situation.model.spec.scaling.hold_seconds


def agree(situation: Situation, plan: str, apart: float = 0.0) -> PolicyMemory:
    """Memory with this plan counted, from 1 when it is another one: once per planner period and `apart` seconds."""
    memory = situation.memory
    period = situation.model.spec.scaling.planner_period_seconds or situation.settings.planner_period_seconds
    if memory.agreed_plan != plan or memory.agreed_at is None:
        return replace(memory, agreed_plan=plan, agreed_count=1, agreed_at=_whole(situation.now))
    least = max(_PERIOD_TOLERANCE * period, apart)
    if is_agreed(situation, memory) or situation.now - memory.agreed_at < least:
        return memory
    return replace(memory, agreed_count=memory.agreed_count + 1, agreed_at=_whole(situation.now))


def agree_on_more(situation: Situation) -> PolicyMemory:
    """Memory with a demand counted that passes what is wanted, and may be a burst or chance.

    The first and the last of the plans in agreement lie a panic window apart, so that they see no arrival in common.
    """
    further = situation.model.spec.scaling.plans_in_agreement - 1
    apart = situation.settings.recent_window_seconds / further if further else 0.0
    return agree(situation, f"{_MORE}{fingerprint(situation.wanted)}", apart)


def only_begins(memory: PolicyMemory, plans: int) -> bool:
    """Did a single plan, of three or more that have to agree, see something better or smaller?

    The next one often sees it no longer. Until a second one does it is neither told nor written. What lacks is told.
    """
    return memory.agreed_count == 1 and plans > 2 and not (memory.agreed_plan or _MORE).startswith(_MORE)


def is_agreed(situation: Situation, memory: PolicyMemory) -> bool:
    """Have enough plans in a row agreed?"""
    return memory.agreed_count >= situation.model.spec.scaling.plans_in_agreement


def survivors(situation: Situation, target: Mapping[str, int], limit: int) -> dict[str, int]:
    """Ready replicas at the worst moment of a change: what is given up is gone, what is started is not there yet.

    Example, 4 accelerators, int8 3 · int4 1 to full 1 (2 accelerators) · int4 1: two int8 go, int8 1 · int4 1 survive
    and have to carry the load. To int4 4 it is int8 2 · int4 1: one replica after the other is exchanged.
    """
    rates = {t.name: _rate(t) for t in situation.tiers}
    return min(moments(situation, target, limit), key=lambda mix: sum(rates[name] * n for name, n in mix.items()))


def moments(situation: Situation, target: Mapping[str, int], limit: int) -> list[dict[str, int]]:
    """What serves in each step of a change, the target last: what `plan/steps.py` does, if all goes well.

    New replicas start first as far as `limit` accelerators allow. Only when all that were started are ready, as much is
    drained as the next one needs; changes of very many replicas are looked at in larger steps.
    """
    tiers = sorted(situation.tiers, key=lambda t: t.accelerators)
    left = {t.name: min(t.ready, t.wanted) for t in situation.tiers}
    missing = {t.name: max(0, target.get(t.name, 0) - t.wanted) for t in situation.tiers}
    surplus = {t.name: max(0, t.wanted - target.get(t.name, 0)) for t in situation.tiers}
    free = limit + situation.surge - situation.cost(situation.wanted)
    at_once = max(1, sum(missing.values()) // _MOMENTS_AT_MOST)
    seen: list[dict[str, int]] = []
    while any(missing.values()):
        started = {t.name: 0 for t in tiers}
        for tier in tiers:
            started[tier.name] = min(missing[tier.name], max(0, free) // tier.accelerators)
            free -= started[tier.name] * tier.accelerators
        if any(started.values()):
            seen.append(dict(left))
            left = {name: n + started[name] for name, n in left.items()}
            missing = {name: n - started[name] for name, n in missing.items()}
            continue
        first = next(t for t in tiers if missing[t.name] > 0)
        released = _drain(situation, left, surplus, at_once * first.accelerators - free)
        if released == 0:
            break
        free += released
    return [*seen, {name: max(0, n - surplus[name]) for name, n in left.items()}]


def _drain(situation: Situation, left: dict[str, int], surplus: dict[str, int], accelerators: int) -> int:
    """Give up surplus replicas for so many accelerators, in the order of `plan/victims.py`; how many came free."""
    released = 0
    while released < accelerators:
        over = accelerators - released
        candidates = [t for t in situation.tiers if surplus[t.name] > 0]
        if not candidates:
            break
        tier = min(candidates, key=lambda t: (t.accelerators < over, abs(t.accelerators - over), _rate(t), t.name))
        count = max(1, min(surplus[tier.name], over // tier.accelerators))
        surplus[tier.name] -= count
        left[tier.name] = max(0, left[tier.name] - count)
        released += count * tier.accelerators
    return released


def _rate(tier: TierState) -> float:
    return tier.card.most_requests_per_second if tier.card else 0.0


def _whole(now: float) -> float:
    """Stamps are kept in whole seconds, as status writes them, so that reading them back changes nothing."""
    return float(int(now))
