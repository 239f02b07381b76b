"""Accelerators beyond a pool's budget, for old and new replicas side by side: which swap may count on them.

Swaps in flight come first; those that begin now share what is left, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.budget import SwapRoom
from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.situation import Mix, Situation
from adaptive_operator.decide.swaps import surge_accelerators


def with_surge(situations: Sequence[Situation], surge: int) -> list[Situation]:
    """Situations with what each may count on beyond the budget: a swap in flight its need, the others what is left."""
    needs = {s.model.key: _used_by_swap(s, s.swap.target) for s in situations if s.swap is not None}
    left = max(0, surge - sum(needs.values()))
    return [
        replace(
            s, surge=0 if s.model.spec.accelerators.budget is not None else min(surge, needs.get(s.model.key, left))
        )
        for s in situations
    ]


def find_without_surge(acting: Mapping[str, Situation], asked: Mapping[str, Proposal]) -> list[str]:
    """Keys of models that have to plan without: swaps that begin now share what is left, the first by name has it."""
    free = max((s.surge for s in acting.values() if s.swap is None), default=0)
    without: list[str] = []
    for key in sorted(key for key, s in acting.items() if s.swap is None and s.surge > 0):
        need = surge_need(acting[key], asked[key].replicas)
        if need <= free:
            free -= need
        else:
            without.append(key)
    return without


def swap_rooms(situations: Sequence[Situation], proposals: Sequence[Proposal]) -> list[SwapRoom]:
    """Who may use accelerators beyond the budget, swaps in flight first."""
    pairs = [(s, p) for s, p in zip(situations, proposals, strict=True) if s.model.spec.mode is Mode.ACTIVE]
    pairs.sort(key=lambda pair: (pair[0].swap is None, pair[0].model.key))
    rooms = [
        SwapRoom(s.model.key, surge_accelerators(s, p.replicas), surge_need(s, p.replicas))
        for s, p in pairs
        if s.model.spec.accelerators.budget is None  # a model's own budget has no surge
    ]
    return [room for room in rooms if room.extra > 0]


def surge_need(situation: Situation, target: Mix) -> int:
    """Accelerators that old replicas hold beside those of the target while they are exchanged.

    What is held already is not beyond the budget: a model that only gives needs none.
    """
    return max(0, surge_accelerators(situation, target) - max(situation.cost(target), situation.held))


def _used_by_swap(situation: Situation, target: Mix) -> int:
    """What a swap in flight needs beyond its target, or still holds: old replicas hold theirs until they are gone."""
    return max(surge_need(situation, target), situation.held - situation.cost(target))
