"""Effective capacities on several seeds: means with 95 % confidence intervals, and the ratios of each seed. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adaptive_operator.simulate.capacity import Capacity
from adaptive_operator.simulate.repeated import Estimate, estimate


@dataclass(frozen=True, slots=True)
class RepeatedCapacity:
    """One policy over all seeds. `scales` by seed; `ratios` by reference: means of the ratios within each seed."""

    policy: str
    scales: tuple[float, ...]
    scale: Estimate
    requests_per_second: Estimate
    ratios: Mapping[str, Estimate]


def summarize_capacities(runs: Sequence[Sequence[Capacity]], references: Sequence[str]) -> tuple[RepeatedCapacity, ...]:
    """From capacities by seed and policy, the same policies in each seed. References that were not run are left out.

    A seed in which a reference carries nothing has no ratio to it.
    """
    columns = list(zip(*runs, strict=True))
    known = {column[0].policy: column for column in columns if column[0].policy in references}
    shown = [name for name in references if name in known]
    return tuple(
        RepeatedCapacity(
            policy=column[0].policy,
            scales=tuple(item.scale for item in column),
            scale=estimate([item.scale for item in column]),
            requests_per_second=estimate([item.requests_per_second for item in column]),
            ratios={name: estimate(_ratios(column, known[name])) for name in shown},
        )
        for column in columns
    )


def _ratios(own: Sequence[Capacity], other: Sequence[Capacity]) -> list[float]:
    return [a.scale / b.scale if b.scale else math.nan for a, b in zip(own, other, strict=True)]
