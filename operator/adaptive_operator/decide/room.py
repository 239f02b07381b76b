"""Room on nodes: a replica's accelerators have to be on one node, so what is free in all may be free for nobody.

A change of replicas is gone through as `plan/steps.py` carries it out, with each new replica on the node that has most
free, as schedulers spread pods, and the largest first of those that start together. Knows neither loads nor qualities.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from adaptive_operator.observe.observation import ModelObservation, NodeRoom, PodObservation, PodPhase

_NOWHERE: Final = -1
_LEAVING: Final = (PodPhase.TERMINATING, PodPhase.FAILED)


@dataclass(frozen=True, slots=True)
class Change:
    """Replicas of one tier before and after. `rate`: what one of them serves (requests/s)."""

    tier: str
    accelerators: int
    rate: float
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class _Leaving:
    """A replica that goes. `home`: its node."""

    accelerators: int
    rate: float
    tier: str
    home: int


@dataclass(frozen=True, slots=True)
class Room:
    """What is free on each node (accelerators), and where one model's replicas are.

    `homes`: by tier, the node of each replica that is wanted, by ordinal. `spare`: accelerators that the model may take
    before anything of it drains. `unplaced`: accelerators of each of its replicas that is wanted
    and that no node holds.
    """

    free: tuple[int, ...]
    homes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    spare: int = 0
    unplaced: tuple[int, ...] = ()

    def holds(self, changes: Sequence[Change]) -> bool:
        """Do nodes have room for all replicas that a change starts, each when it is its turn?

        Example: two nodes with 1 free each hold no replica of 2, unless the model's own one of 1 drains first on one of
        them. Replicas of one accelerator fit wherever the budget allows them.
        """
        starts = _started(changes)
        if not starts or starts[-1] < 2:
            return True
        free, spare, leaving = list(self.free), self.spare, self._leaving(changes)
        while starts:
            spare += _drain(leaving, starts[0] - spare, free)
            if spare < starts[0]:
                return True  # what is missing then is budget, not room
            together = _affordable(starts, spare)
            if not all(_place(free, size) for size in reversed(starts[:together])):
                return False
            spare -= sum(starts[:together])
            starts = starts[together:]
        return True

    def after(self, changes: Sequence[Change]) -> Room:
        """The same nodes when what the change starts is there, as far as it fits, and nothing has drained yet."""
        free = list(self.free)
        for size in reversed(_started(changes)):
            _place(free, size)
        return replace(self, free=tuple(free))

    def most_more(self, tier: str, sizes: Mapping[str, int]) -> int:
        """Replicas of a tier that fit at most beside those that are there, if all of the model's other tiers left."""
        free = list(self.free)
        for other, homes in self.homes:
            for home in homes if other != tier else ():
                if home != _NOWHERE:
                    free[home] += sizes[other]
        return sum(accelerators // sizes[tier] for accelerators in free)

    def _leaving(self, changes: Sequence[Change]) -> list[_Leaving]:
        """Replicas that go: of each tier the highest ordinals, the highest first."""
        homes = dict(self.homes)
        return [
            _Leaving(c.accelerators, c.rate, c.tier, home)
            for c in changes
            for home in reversed(_padded(homes.get(c.tier, ()), c.before)[c.after :])
        ]


def find_room(
    models: Iterable[ModelObservation], nodes: Sequence[NodeRoom], wanted: Mapping[str, Mapping[str, int]]
) -> dict[str, Room]:
    """Where the replicas that are wanted of each model are, and what is left for new ones, by key.

    Empty where it is no question: on one node, or where nobody knows the nodes. What is to come has its place first.
    What leaves a node that takes no new pods makes room on none.
    `wanted`: replicas by tier, by key of the model.
    """
    if len(nodes) < 2:
        return {}
    places, models = {node.name: i for i, node in enumerate(nodes) if node.is_open}, list(models)
    free = [node.free for node in nodes]
    coming = {model.key: find_coming(model, wanted[model.key], places) for model in models}
    leaving = {m.key: _free_by_leaving(m, places, wanted[m.key], len(nodes)) for m in models if coming[m.key]}
    unplaced: dict[str, list[int]] = {}
    for size, key in sorted(((size, key) for key, sizes in coming.items() for size in sizes), reverse=True):
        if not _keep_place(free, leaving[key], size):
            unplaced.setdefault(key, []).append(size)
    return {
        model.key: Room(
            tuple(free),
            tuple(_homes(model.pods, places, wanted[model.key])),
            unplaced=tuple(unplaced.get(model.key, ())),
        )
        for model in models
    }


def find_coming(model: ModelObservation, wanted: Mapping[str, int], nodes: Container[str]) -> list[int]:
    """Accelerators of each replica that is wanted and has no place on these nodes: its pod waits, or is not made yet.

    `wanted`: replicas by tier. Example: a StatefulSet asks for 2, one pod is there, 3 are wanted: two replicas.
    """
    coming: list[int] = []
    sizes = {tier.name: tier.replica.accelerators for tier in model.spec.tiers}
    pods = {(pod.stateful_set, pod.ordinal): pod for pod in model.pods}
    for tier, count in sorted(wanted.items()):
        sets = [item for item in model.stateful_sets if item.tier == tier]
        for item in sets:
            kept = (pods.get((item.name, ordinal)) for ordinal in range(min(item.replicas, count)))
            coming += [item.accelerators for pod in kept if _has_no_place(pod, nodes)]
        unmade = count - sum(item.replicas for item in sets)
        coming += [sizes[tier]] * unmade if tier in sizes else []
    return coming


def take_room(nodes: Sequence[NodeRoom], sizes: Iterable[int]) -> tuple[NodeRoom, ...]:
    """The nodes with less free: replicas of so many accelerators each are to come there, as far as they fit."""
    free = [node.free for node in nodes]
    for size in sorted(sizes, reverse=True):
        _place(free, size)
    return tuple(replace(node, free=left) for node, left in zip(nodes, free, strict=True))


def capacity_for(nodes: Iterable[NodeRoom], size: int) -> int:
    """Accelerators of all nodes that replicas of `size` accelerators can use. Example: 3 and 3 hold 4 of size 2."""
    return sum(node.capacity // size * size for node in nodes if node.is_open)


def _homes(
    pods: Iterable[PodObservation], places: Mapping[str, int], wanted: Mapping[str, int]
) -> Iterable[tuple[str, tuple[int, ...]]]:
    by_tier: dict[str, dict[int, int]] = {}
    for pod in pods:
        if pod.phase not in _LEAVING:
            by_tier.setdefault(pod.tier, {})[pod.ordinal] = places.get(pod.node, _NOWHERE)
    for tier, count in sorted(wanted.items()):
        there = by_tier.get(tier, {})
        yield tier, tuple(there.get(ordinal, _NOWHERE) for ordinal in range(count))


def _has_no_place(pod: PodObservation | None, nodes: Container[str]) -> bool:
    """One that ends leaves its place to the next of its name, unless its node takes no new pods."""
    if pod is None or pod.phase is PodPhase.TERMINATING:
        return pod is None or pod.node not in nodes
    return not pod.node and pod.phase is not PodPhase.FAILED


def _free_by_leaving(
    model: ModelObservation, places: Mapping[str, int], wanted: Mapping[str, int], nodes: int
) -> list[int]:
    """By node, the accelerators of replicas that are not wanted any more."""
    free = [0] * nodes
    kept = {item.name: min(item.replicas, wanted.get(item.tier, 0)) for item in model.stateful_sets}
    for pod in model.pods:
        if pod.node in places and pod.ordinal >= kept.get(pod.stateful_set, 0):
            free[places[pod.node]] += pod.accelerators
    return free


def _keep_place(free: list[int], leaving: list[int], size: int) -> bool:
    """A place for a replica that is to come: what is free, or what its model leaves and what is free beside that."""
    if _place(free, size):
        return True
    both = [now + then for now, then in zip(free, leaving, strict=True)]
    place = max(range(len(both)), key=both.__getitem__)
    if both[place] < size:
        return False
    left = min(leaving[place], size)
    leaving[place] -= left
    free[place] -= size - left
    return True


def _started(changes: Sequence[Change]) -> list[int]:
    """Accelerators of each replica that is started, the smallest first, which is how they are started."""
    return sorted(c.accelerators for c in changes for _ in range(c.after - c.before))


def _affordable(sizes: Sequence[int], spare: int) -> int:
    """How many of these start together within `spare` accelerators."""
    return sum(1 for used in itertools.accumulate(sizes) if used <= spare)


def _drain(leaving: list[_Leaving], missing: int, free: list[int]) -> int:
    """Take replicas out of `leaving` for so many accelerators, as `plan/victims.py` would; how many came free."""
    released = 0
    while leaving and released < missing:
        over = missing - released
        victim = min(leaving, key=lambda v: (v.accelerators < over, abs(v.accelerators - over), v.rate, v.tier))
        leaving.remove(victim)
        released += victim.accelerators
        if victim.home != _NOWHERE:
            free[victim.home] += victim.accelerators
    return released


def _padded(homes: tuple[int, ...], count: int) -> tuple[int, ...]:
    return (homes + (_NOWHERE,) * count)[:count]


def _place(free: list[int], size: int) -> bool:
    """Put one replica where most is free; False where it fits nowhere."""
    place = max(range(len(free)), key=free.__getitem__, default=None)
    if place is None or free[place] < size:
        return False
    free[place] -= size
    return True
