"""Accuracy and replica scaling as INFaaS does it, as we read it: one step at a time, by utilisation and attainment.

Every 10 s, while nothing loads: utilisation above the limit (0.9, tuned) or less than 95 % of the last answers within
the objectives asks for +1 replica of the tier in use; without budget for it one replica goes to the next cheaper tier
within the floor. When utilisation after the move would have stayed below 0.7 for 30 s, one replica goes up a tier, else
-1. Utilisation: requests/s of the last 10 s over the cards' rates of all replicas. Source: INFaaS (ATC 2021), which
chooses variants per request and scales them so; its floor is the accuracy that a request asks for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from adaptive_operator.simulate.policies.base import Scaler
from adaptive_operator.simulate.requests import Request
from adaptive_operator.simulate.scenario import ScenarioError, TierModel
from adaptive_operator.simulate.scores import is_attained
from adaptive_operator.simulate.world import World, fixed_table

PERIOD_SECONDS: Final = 10.0
BUSY: Final = 0.9
CALM_PART: Final = 0.7 / 0.9  # of the limit: below it there is room for a better or a smaller mix
CALM_SECONDS: Final = 30.0
LEAST_ATTAINMENT: Final = 0.95
_LEAST_ANSWERS: Final = 20

Mix = dict[str, int]


@dataclass(frozen=True, slots=True)
class Ladder:
    """The moves. `tiers`: within the floor, best quality first."""

    tiers: tuple[TierModel, ...]
    budget: int
    busy: float = BUSY

    def utilisation(self, mix: Mix, rate: float) -> float:
        """Requests/s over what the cards say of the mix."""
        return rate / max(sum(tier.rate * mix.get(tier.name, 0) for tier in self.tiers), 1e-9)

    def more(self, mix: Mix) -> Mix:
        """+1 of the cheapest tier in use, else one replica to the next cheaper tier that has room; else the same."""
        used = [tier for tier in self.tiers if mix.get(tier.name, 0)]
        spent = sum(tier.accelerators * mix[tier.name] for tier in used)
        if spent + used[-1].accelerators <= self.budget:
            return _moved(mix, None, used[-1])
        for old in used:
            new = self._next(old, +1)
            if new is not None and spent - old.accelerators + new.accelerators <= self.budget:
                return _moved(mix, old, new)
        return mix

    def less(self, mix: Mix, rate: float) -> Mix:
        """One replica up a tier (the worst in use first), else one less, if it stays calm after that; else the same."""
        spent = sum(tier.accelerators * mix.get(tier.name, 0) for tier in self.tiers)
        used = [tier for tier in reversed(self.tiers) if mix.get(tier.name, 0)]
        moves = [(old, self._next(old, -1)) for old in used]
        upward = [
            _moved(mix, old, new)
            for old, new in moves
            if new is not None and spent - old.accelerators + new.accelerators <= self.budget
        ]
        fewer = [_moved(mix, used[0], None)] if sum(mix.values()) > 1 else []
        calm = (m for m in (*upward, *fewer) if self.utilisation(m, rate) < CALM_PART * self.busy)
        return next(calm, mix)

    def _next(self, tier: TierModel, step: int) -> TierModel | None:
        index = self.tiers.index(tier) + step
        return self.tiers[index] if 0 <= index < len(self.tiers) else None


@dataclass(slots=True)
class InfaasPolicy:
    """See the module. `busy`: the limit of the utilisation."""

    busy: float = BUSY
    name: str = "infaas"
    _world: World = field(init=False)
    _scaler: Scaler = field(init=False)
    _ladder: Ladder = field(init=False)
    _answers: deque[tuple[float, bool]] = field(default_factory=deque)
    _counted: int = 0
    _calm_since: float | None = None

    def begin(self, world: World) -> None:
        """One replica of the best tier, then a round every 10 s."""
        self._world, self._scaler = world, Scaler(world)
        scenario = world.scenario
        tiers = tuple(t for t in scenario.tiers if t.quality >= scenario.floor and t.accelerators <= scenario.budget)
        if not tiers:
            raise ScenarioError(f"infaas: no tier reaches the floor of {scenario.floor:g}; lower the floor")
        self._ladder = Ladder(tiers, scenario.budget, self.busy)
        world.dispatcher.offer_table(fixed_table(scenario, tuple(tier.name for tier in tiers)))
        world.dispatcher.on_done = self._note
        self._scaler.set({tiers[0].name: 1}, "Start")
        world.events.after(PERIOD_SECONDS, self._round)

    def _note(self, request: Request) -> None:
        self._answers.append((self._world.events.now, is_attained(request, self._world.scenario)))

    def _round(self) -> None:
        world, now = self._world, self._world.events.now
        world.events.after(PERIOD_SECONDS, self._round)
        arrivals = world.dispatcher.counters.arrivals
        rate, self._counted = (arrivals - self._counted) / PERIOD_SECONDS, arrivals
        mix = self._scaler.wanted
        if sum(world.ready().values()) < sum(mix.values()):
            self._answers.clear()  # what is late now is late because of what still loads
            return
        if self._ladder.utilisation(mix, rate) > self.busy or self._attainment(now) < LEAST_ATTAINMENT:
            self._calm_since = None
            self._scaler.set(self._ladder.more(mix), "InfaasUp")
            return
        smaller = self._ladder.less(mix, rate)
        if smaller == mix:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= CALM_SECONDS:
            self._calm_since = None
            self._scaler.set(smaller, "InfaasDown")

    def _attainment(self, now: float) -> float:
        """Of the answers of the last 10 s; 1 while there are too few to tell."""
        while self._answers and self._answers[0][0] < now - PERIOD_SECONDS:
            self._answers.popleft()
        if len(self._answers) < _LEAST_ANSWERS:
            return 1.0
        return sum(attained for _, attained in self._answers) / len(self._answers)


def _moved(mix: Mix, old: TierModel | None, new: TierModel | None) -> Mix:
    moved = dict(mix)
    if old is not None:
        moved[old.name] -= 1
    if new is not None:
        moved[new.name] = moved.get(new.name, 0) + 1
    return {tier: count for tier, count in moved.items() if count > 0}
