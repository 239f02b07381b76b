"""What a policy is, and how one without a planner of its own moves pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from adaptive_operator.simulate.plant import Pod
from adaptive_operator.simulate.world import World


class Policy(Protocol):
    """Decides in one run. An instance is used for one run only."""

    @property
    def name(self) -> str:
        """As people call it on the command line."""

    def begin(self, world: World) -> None:
        """Look at the world before the first request and schedule what is to happen."""


class PoolPolicy(Protocol):
    """Decides for several models that share accelerators, in one run."""

    @property
    def name(self) -> str:
        """As people call it on the command line."""

    def begin_pool(self, worlds: Sequence[World]) -> None:
        """The same for all worlds at once; they have one clock and one set of accelerators."""


@dataclass(frozen=True, slots=True)
class Separate:
    """A policy of its own for each model: who asks first gets what is free."""

    policies: Sequence[Policy]

    @property
    def name(self) -> str:
        """Of all of them."""
        return self.policies[0].name

    def begin_pool(self, worlds: Sequence[World]) -> None:
        """Each with its own world."""
        for policy, world in zip(self.policies, worlds, strict=True):
            policy.begin(world)


@dataclass(slots=True)
class Scaler:
    """Moves pods towards wanted counts, within the budget: what it cannot start now, it starts when pods are gone.

    Surplus pods that are not ready go first, then the youngest; they drain as long as the model's spec allows.
    """

    world: World
    wanted: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Follow pods that go, also those of other models of the pool."""
        self.world.on_change.append(self._start_missing)
        self.world.plant.shared.on_change.append(self._start_missing)

    def set(self, wanted: Mapping[str, int], reason: str) -> None:
        """Want these replicas by tier from now on."""
        self.world.note_change(wanted, reason)
        self.wanted = dict(wanted)
        grace = float(self.world.scenario.spec.scaling.drain_deadline_seconds)
        for tier in sorted({pod.tier for pod in self.world.plant.pods.values()}):
            pods = sorted(self.world.plant.of_tier(tier), key=_by_worth)
            for pod in pods[self.wanted.get(tier, 0) :]:
                self.world.plant.terminate(pod, grace)
        self._start_missing()

    def _start_missing(self) -> None:
        plant, scenario = self.world.plant, self.world.scenario
        for tier, count in self.wanted.items():
            missing = count - len(plant.of_tier(tier))
            for _ in range(missing):
                if not plant.shared.fits(scenario.tier(tier).accelerators):
                    break
                plant.create(tier)


def _by_worth(pod: Pod) -> tuple[bool, float]:
    return (not pod.is_ready, pod.created_at)
