"""Which load shows what: the steps, computed from the calibrated capacities. Pure.

Thresholds are the planner's: a mix carries RHO of its replicas' capacity. The third step has to pass what the best
mix that keeps the better tier carries, and to stay below what the budget carries without it, so that only a swap helps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from e2e.demo.settings import DemoError
from e2e.load.arrivals import Step

RHO = 0.9
# The second step, of what one replica of the best tier carries: beyond chance (two standard deviations of the
# operator's 15 s of arrivals), so that it uses the free accelerator before the third step begins.
OVERLOAD = 1.5


@dataclass(frozen=True, slots=True)
class TierCapacity:
    """A tier as the steps need it."""

    name: str
    accelerators: int
    requests_per_second: float  # one replica within the objective


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The steps and why they are what they are."""

    steps: tuple[Step, ...]
    start_carries: float  # requests/s, derated: better tier 1 + warm tier 1
    grown_carries: float  # the most that any mix with the better tier carries
    swapped_carries: float  # the most that any mix without it carries

    def explain(self, best: str) -> list[str]:
        """Lines for the terminal."""
        rates = " → ".join(f"{step.rate_per_second:.2f}" for step in self.steps)
        only_swap = f"above {self.grown_carries:.2f} (the most with {best} kept), below {self.swapped_carries:.2f}"
        return [
            f"load steps {rates} requests/s for {' / '.join(f'{s.duration_seconds:g}' for s in self.steps)} s",
            f"step 2 passes what {best} alone carries; the mix at the start carries {self.start_carries:.2f}",
            f"step 3 needs a swap: it is {only_swap} (without it)",
        ]


def plan_load(tiers: Sequence[TierCapacity], warm: str, budget: int, durations_seconds: Sequence[float]) -> LoadPlan:
    """Steps for `tiers`, best quality first. DemoError when these capacities leave no load that needs a swap."""
    best = tiers[0]
    warm_tier = next(tier for tier in tiers if tier.name == warm)
    cheaper = [tier for tier in tiers if tier is not best]
    start = RHO * (best.requests_per_second + warm_tier.requests_per_second)
    kept = RHO * (best.requests_per_second + most_capacity(cheaper, warm_tier, budget - best.accelerators))
    swapped = RHO * most_capacity(cheaper, warm_tier, budget)
    if swapped <= 1.05 * kept:
        raise DemoError(
            f"no load needs a swap on this machine: with {best.name} kept {kept:.2f} requests/s can be carried, without"
            f" it {swapped:.2f}; {_described(tiers)}. Cheaper tiers must be faster per GPU: is the machine busy?"
        )
    shed = min(OVERLOAD * best.requests_per_second, 0.95 * start)
    rates = (0.5 * best.requests_per_second, shed, (kept + swapped) / 2, 0.5 * best.requests_per_second)
    steps = tuple(Step(round(r, 3), d) for r, d in zip(rates, durations_seconds, strict=True))
    return LoadPlan(steps, start, kept, swapped)


def most_capacity(tiers: Sequence[TierCapacity], warm: TierCapacity, budget: int) -> float:
    """The most that replicas of `tiers` carry on `budget` accelerators, one of them a replica of the warm tier."""
    most: Mapping[int, float] = {0: 0.0}
    free = budget - warm.accelerators
    for used in range(1, free + 1):
        options = [most[used - 1]]
        options += [most[used - t.accelerators] + t.requests_per_second for t in tiers if t.accelerators <= used]
        most = {**most, used: max(options)}
    return warm.requests_per_second + most[max(0, free)]


def _described(tiers: Sequence[TierCapacity]) -> str:
    return ", ".join(f"{t.name} {t.requests_per_second:.2f}/s on {t.accelerators}" for t in tiers)
