"""Statistics of paired measurements: how many times faster, and how sure that is. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# One-sided 90 % quantiles of Student's t by degrees of freedom, from 1; the last one stands for all above (slightly
# cautious). Any table of the distribution has them.
_T90 = (
    3.078, 1.886, 1.638, 1.533, 1.476, 1.440, 1.415, 1.397, 1.383, 1.372,
    1.363, 1.356, 1.350, 1.345, 1.341, 1.337, 1.333, 1.330, 1.328, 1.325,
)  # fmt: skip
TOLERANCE = 0.95  # a target counts as met when the lower bound reaches this much of it


@dataclass(frozen=True, slots=True)
class PairedRatio:
    """Ratios of pairs measured right after each other: median, extremes, and the lower 90 % confidence bound."""

    median: float
    lowest: float
    highest: float
    lower_bound: float  # NaN with fewer than two pairs

    def meets(self, target: float) -> bool:
        """Whether the target counts as reached; without a bound it does not."""
        return self.lower_bound >= TOLERANCE * target


def paired_ratio(ours: Sequence[float], peer: Sequence[float]) -> PairedRatio:
    """Ratios ours / peer of equally long series of positive figures (at least one pair).

    The bound is that of the mean of the logarithms (ratios multiply: 2x and 0.5x average to 1x): one-sided, from
    Student's t. Worked: ratios 1.0, 1.1, 1.21 have mean log .0953, standard error .0550, t .90 of 2 degrees 1.886:
    exp(.0953 - .1038) = 0.992.
    """
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    logs = [math.log(ratio) for ratio in ratios]
    bound = math.nan
    if len(logs) > 1:
        error = statistics.stdev(logs) / math.sqrt(len(logs))
        bound = math.exp(statistics.fmean(logs) - _T90[min(len(logs) - 2, len(_T90) - 1)] * error)
    return PairedRatio(statistics.median(ratios), min(ratios), max(ratios), bound)


def relative_spread(values: Sequence[float]) -> float:
    """(max - min) / median: how much a series moved."""
    return (max(values) - min(values)) / statistics.median(values)
