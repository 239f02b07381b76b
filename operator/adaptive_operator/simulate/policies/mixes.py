"""Mixes of replicas by a small integer program, so that large pools need no list of all mixes.

One model, one kind of accelerator: n replicas and x requests/s per tier, within accelerators and rates. Knows no
policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from adaptive_operator.simulate.scenario import Scenario

_GAP: Final = 1e-6
# Weights of what only decides between mixes that are equal otherwise. Small against a permille of quality, and against
# a thousandth of the requests served.
_TIE: Final = 1e-4
_MOST_NODES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Mix:
    """`replicas` by tier without zeros; `served` requests/s by tier."""

    replicas: dict[str, int]
    served: dict[str, float]


@dataclass(frozen=True, slots=True)
class MixProgram:
    """`rates`: requests/s of one replica, in the order of the scenario's tiers (best quality first)."""

    scenario: Scenario
    rates: tuple[float, ...]

    def most(self, floor: float = 0.0) -> Mix:
        """What serves most at a mean quality of at least `floor` (0..1); of equals the one of better quality."""
        scale = max(sum(self.rates), 1e-9)
        gain = [(1.0 + _TIE * tier.quality) / scale for tier in self.scenario.tiers]
        return self._solve(gain, floor, demand=None)

    def most_accurate(self, demand: float) -> Mix:
        """What serves all of `demand` (requests/s) at the highest mean quality; `most()` when nothing serves all.

        Of equals the one with better replicas, and with all accelerators in use.
        """
        if demand <= 0:
            return self._solve([0.0] * len(self.rates), 0.0, demand=0.0)
        gain = [tier.quality / demand for tier in self.scenario.tiers]
        found = self._solve(gain, 0.0, demand=demand)
        return found if found.replicas else self.most()

    def _solve(self, gain: Sequence[float], floor: float, demand: float | None) -> Mix:
        """Maximise gain·x. Variables: n per tier, then x per tier. An empty mix when the program has no solution."""
        tiers, count = self.scenario.tiers, len(self.rates)
        spare = [_TIE * t.quality * t.accelerators / self.scenario.budget for t in tiers]
        serve = np.hstack([-np.diag(self.rates), np.eye(count)])
        hold = np.array([*(t.accelerators for t in tiers), *[0] * count], dtype=float)
        above = np.array([*[0.0] * count, *(t.quality - floor for t in tiers)])
        limits = [
            LinearConstraint(serve, -np.inf, 0.0),
            LinearConstraint(hold, 0.0, self.scenario.budget),
            LinearConstraint(above, 0.0, np.inf),
        ]
        if demand is not None:
            limits.append(LinearConstraint(np.array([0.0] * count + [1.0] * count), demand, demand))
        result = milp(
            -np.array([*spare, *gain]),
            integrality=np.array([1] * count + [0] * count),
            bounds=Bounds(0.0, np.inf),
            constraints=limits,
            options={"mip_rel_gap": _GAP, "node_limit": _MOST_NODES},
        )
        if result.x is None:
            return Mix({}, {})
        numbers = [round(n) for n in result.x[:count]]
        return Mix(
            {tier.name: n for tier, n in zip(tiers, numbers, strict=True) if n > 0},
            {tier.name: max(float(x), 0.0) for tier, x in zip(tiers, result.x[count:], strict=True)},
        )
