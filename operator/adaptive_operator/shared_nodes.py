"""What pools on the same nodes leave each other: one knows nothing of what another one is about to start there.

Knows who decided what in the pass; where a pool's own replicas fit is for `decide/` to say.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.room import find_coming, take_room
from adaptive_operator.decide.situation import wanted_of
from adaptive_operator.observe.inventory import NodeGroup
from adaptive_operator.observe.observation import ModelObservation, NodeRoom
from adaptive_operator.observe.pools import Pool


@dataclass(slots=True)
class SharedNodes:
    """The pools of one pass, and what was decided of them so far."""

    pools: Sequence[Pool]
    _replicas: dict[str, Mapping[str, int]] = field(default_factory=dict)  # decided in this pass, by key of the model
    _turns: dict[NodeGroup, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def turn(self, pool: Pool) -> asyncio.Lock:
        """Held while a pool is decided: of pools on the same nodes one at a time."""
        return self._turns[pool.group]

    def neighbours(self, pool: Pool) -> list[Pool]:
        """Other pools whose replicas go to the same nodes."""
        return [other for other in self.pools if other.key != pool.key and other.group == pool.group]

    def left_to(self, pool: Pool) -> tuple[NodeRoom, ...]:
        """A pool's nodes without what replicas of its neighbours need that are wanted and not there yet."""
        others = [model.observation for other in self.neighbours(pool) for model in other.models]
        names = {node.name for node in pool.nodes if node.is_open}
        coming = [item for model in others for item in find_coming(model, self._wanted(model), names)]
        return take_room(pool.nodes, coming)

    def note(self, models: Iterable[ModelObservation], decisions: Mapping[str, Decision]) -> None:
        """What was decided of a pool's models, for those that are decided after it."""
        acting = (model.key for model in models if model.spec.mode is Mode.ACTIVE and model.key in decisions)
        self._replicas |= {key: decisions[key].replicas for key in acting}

    def _wanted(self, model: ModelObservation) -> Mapping[str, int]:
        decided = self._replicas.get(model.key)
        return wanted_of(model) if decided is None else decided
