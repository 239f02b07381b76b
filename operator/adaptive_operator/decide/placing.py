"""Room on nodes among the models of a pool: what each may count on, and who has it of those that start together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.room import Change, Room, capacity_for, find_room
from adaptive_operator.decide.situation import Mix, Situation, TierState, room_within
from adaptive_operator.observe.observation import NodeRoom, PoolObservation


def with_room(situations: Sequence[Situation], observation: PoolObservation) -> list[Situation]:
    """Situations with what is free on nodes, for models of which a replica takes more than one accelerator.

    What nobody holds of the pool may be granted for old and new replicas side by side: then nothing drains first. Where
    the budget is more than nodes have, nodes are added for pods that wait: whatever the budget allows fits.
    """
    if observation.budget > sum(node.capacity for node in observation.nodes):
        return list(situations)
    rooms = find_room(observation.models, observation.nodes, {s.model.key: s.wanted for s in situations})
    unheld = max(0, observation.budget + observation.surge - sum(s.held for s in situations))
    return [
        replace(s, room=replace(rooms[s.model.key], spare=unheld)) if rooms and largest_replica(s) > 1 else s
        for s in situations
    ]


def has_room(situation: Situation, mix: Mix, limit: int) -> bool:
    """Do nodes have room for what a mix starts, within `limit` accelerators?"""
    room = room_within(situation, limit)
    return room is None or room.holds(_changes(situation, mix))


def find_without_room(acting: Mapping[str, Situation], asked: Mapping[str, Proposal]) -> dict[str, Situation]:
    """Models that have to plan anew, by key, with the room that is left to them.

    What starts in the same pass shares it: the first by name has it.
    """
    without: dict[str, Situation] = {}
    free = next((s.room.free for s in acting.values() if s.room is not None), ())
    for key in sorted(acting) if free else ():
        situation = acting[key]
        room = replace(situation.room or Room(()), free=free)
        changes = _changes(situation, asked[key].replicas)
        if situation.room is not None and not room.holds(changes) and situation.room.holds(changes):
            without[key] = replace(situation, room=room)  # alone it would have had room
        else:
            free = room.after(changes).free
    return without


def room_by_size(models: Sequence[Situation], others: Sequence[Situation], nodes: Sequence[NodeRoom]) -> dict[int, int]:
    """Accelerators that replicas of at least so many can have, by size; of `others` is taken off what they keep."""
    sizes = sorted({t.accelerators for s in models for t in s.tiers if t.accelerators > 1}) if len(nodes) > 1 else []
    return {size: max(0, capacity_for(nodes, size) - sum(_held_by_larger(s, size) for s in others)) for size in sizes}


def places_held(situations: Sequence[Situation]) -> dict[int, int]:
    """Replicas of so many accelerators, by size, for which these models would leave room if they gave up all.

    Only replicas that are as large count: smaller ones mostly lie on different nodes.
    """
    sizes = {t.accelerators for s in situations for t in s.tiers if t.accelerators > 1}
    return {size: sum(t.wanted * (t.accelerators // size) for s in situations for t in s.tiers) for size in sizes}


def most_placeable(situation: Situation, tier: TierState, held: Mapping[int, int]) -> int | None:
    """Replicas of a tier that nodes may hold at most, if the model's other tiers and `held` left; None: no bound.

    `held`: places that all models of the pool hold, this one included, by size (`places_held`).
    """
    if situation.room is None or tier.accelerators < 2:
        return None
    own = places_held([situation])[tier.accelerators]
    sizes = {t.name: t.accelerators for t in situation.tiers}
    return tier.wanted + situation.room.most_more(tier.name, sizes) + held.get(tier.accelerators, own) - own


def largest_replica(situation: Situation) -> int:
    """Accelerators of the largest replica of any tier."""
    return max((tier.accelerators for tier in situation.tiers), default=1)


def _held_by_larger(situation: Situation, size: int) -> int:
    """Accelerators that replicas of at least this size keep, of a model that is not planned."""
    return sum(t.accelerators * max(t.wanted, t.existing) for t in situation.tiers if t.accelerators >= size)


def _changes(situation: Situation, mix: Mix) -> list[Change]:
    return [
        Change(
            tier.name,
            tier.accelerators,
            tier.card.requests_per_second if tier.card else 0.0,
            tier.wanted,
            mix.get(tier.name, 0),
        )
        for tier in situation.tiers
    ]
