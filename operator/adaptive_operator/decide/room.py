"""Room on nodes: a replica's accelerators have to be on one node, so what is free in all may be free for nobody.

A change of replicas is gone through as `plan/steps.py` carries it out, with each new replica on the node that has most
free, as schedulers spread pods, and the largest first of those that start together. Knows neither loads nor qualities.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

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


class Coming(NamedTuple):
    """So many replicas of a tier that are to come, of so many accelerators each. The largest are the greatest."""

    accelerators: int
    tier: str
    replicas: int


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

    `homes`: by tier, the node of each replica that is wanted and has a pod, by ordinal. `spare`: accelerators that the
    model may take before anything of it drains. `unplaced`: its tiers of which a replica is wanted that no node holds.
    """

    free: tuple[int, ...]
    homes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    spare: int = 0
    unplaced: frozenset[str] = frozenset()

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
    unplaced: dict[str, set[str]] = {}
    for item, key in sorted(((item, key) for key, items in coming.items() for item in items), reverse=True):
        if not all(_keep_place(free, leaving[key], item.accelerators) for _ in range(item.replicas)):
            unplaced.setdefault(key, set()).add(item.tier)
    return {
        model.key: Room(
            tuple(free),
            tuple(_homes(model.pods, places, wanted[model.key])),
            unplaced=frozenset(unplaced.get(model.key, ())),
        )
        for model in models
    }


def find_coming(model: ModelObservation, wanted: Mapping[str, int], nodes: Container[str]) -> list[Coming]:
    """Replicas that are wanted and have no place on these nodes: their pods wait, or are not made yet.

    Counted, not enumerated: anyone may ask for 2^31. `wanted`: replicas by tier. Example: a StatefulSet asks for 2, one
    pod is there, 3 are wanted: two replicas.
    """
    coming: list[Coming] = []
    sizes = {tier.name: tier.replica.accelerators for tier in model.spec.tiers}
    for tier, count in sorted(wanted.items()):
        sets = [item for item in model.stateful_sets if item.tier == tier]
        for item in sets:
            asked = min(item.replicas, count)
            ordinals = {pod.ordinal for pod in model.pods if _keeps_place_of(pod, item.name, asked, nodes)}
            coming.append(Coming(item.accelerators, tier, asked - len(ordinals)))
        if tier in sizes:
            coming.append(Coming(sizes[tier], tier, count - sum(item.replicas for item in sets)))
    return [item for item in coming if item.replicas > 0]


def take_room(nodes: Sequence[NodeRoom], coming: Iterable[Coming]) -> tuple[NodeRoom, ...]:
    """The nodes with less free: these replicas are to come there, the largest first, as far as they fit."""
    free = [node.free for node in nodes]
    for item in sorted(coming, reverse=True):
        all(_place(free, item.accelerators) for _ in range(item.replicas))  # up to the first that fits nowhere
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
        known = min(count, max(there, default=-1) + 1)  # those beyond are nowhere, however many somebody asked for
        yield tier, tuple(there.get(ordinal, _NOWHERE) for ordinal in range(known))


def _keeps_place_of(pod: PodObservation, stateful_set: str, asked: int, nodes: Container[str]) -> bool:
    """Is it one of the replicas that a StatefulSet is asked for, with a place?

    One that ends leaves its place to the next of its name, unless its node takes no new pods.
    """
    if pod.stateful_set != stateful_set or pod.ordinal >= asked:
        return False
    if pod.phase is PodPhase.TERMINATING:
        return pod.node in nodes
    return bool(pod.node) or pod.phase is PodPhase.FAILED


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
