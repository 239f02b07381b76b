"""The same comparison on several seeds: means, and paired differences with their 95 % confidence intervals. Pure.

Policies meet the same arrivals in each seed, so differences are taken per seed: what one seed does to all cancels out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from scipy.special import stdtrit  # scipy.stats has the same, and takes half a second to import

from adaptive_operator.simulate.scores import Scores

# What is compared over seeds, as it is called in JSON.
MEASURES: Final[Mapping[str, Callable[[Scores], float]]] = {
    "violations": lambda s: s.violations,
    "unserved": lambda s: s.unserved,
    "effective_accuracy": lambda s: s.effective_accuracy,
    "system_accuracy": lambda s: s.system_accuracy,
    "accelerator_hours": lambda s: s.accelerator_hours,
    "starts_per_hour": lambda s: s.starts_per_hour,
    "flaps": lambda s: float(s.flaps),
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and half of its 95 % confidence interval; NaN: nothing to tell (an interval needs two values)."""

    mean: float
    half: float

    @property
    def low(self) -> float:
        """The interval's lower end; the mean itself when there is no interval."""
        return self.mean - (0.0 if math.isnan(self.half) else self.half)

    @property
    def high(self) -> float:
        """The interval's upper end; the mean itself when there is no interval."""
        return self.mean + (0.0 if math.isnan(self.half) else self.half)


@dataclass(frozen=True, slots=True)
class Repeated:
    """One policy over all seeds: means, and differences to the reference policy (this minus that), by measure."""

    name: str
    means: Mapping[str, Estimate]
    differences: Mapping[str, Estimate]


def estimate(values: Sequence[float]) -> Estimate:
    """Student's t over the finite values. Example: 1, 2, 3 have mean 2 and half 4.303 · 1 / sqrt(3) = 2.484."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Estimate(math.nan, math.nan)
    if len(known) < 2:
        return Estimate(known[0], math.nan)
    quantile = float(stdtrit(len(known) - 1, 0.975))
    return Estimate(statistics.fmean(known), quantile * statistics.stdev(known) / math.sqrt(len(known)))


def summarize(runs: Sequence[Sequence[tuple[str, Scores]]]) -> list[Repeated]:
    """From (name, figures) by seed and policy, the same policies in each seed; the first policy is the reference."""
    return [_summarize(runs, index) for index in range(len(runs[0]))]


def _summarize(runs: Sequence[Sequence[tuple[str, Scores]]], index: int) -> Repeated:
    means, differences = {}, {}
    for measure, read in MEASURES.items():
        own = [read(seed[index][1]) for seed in runs]
        other = [read(seed[0][1]) for seed in runs]
        means[measure] = estimate(own)
        differences[measure] = estimate([a - b for a, b in zip(own, other, strict=True)])
    return Repeated(runs[0][index][0], means, differences)
