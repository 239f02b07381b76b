"""Effective capacities as a table and as JSON data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from adaptive_operator.simulate.capacity import Capacity
from adaptive_operator.simulate.comparison import Comparison
from adaptive_operator.simulate.policies.registry import is_tunable
from adaptive_operator.simulate.repeated_capacity import RepeatedCapacity
from adaptive_operator.simulate.report.inputs import Inputs
from adaptive_operator.simulate.report.table import describe_interval, describe_notes, describe_setting, show_estimate
from adaptive_operator.simulate.scores import as_record

_SCALE: Final = show_estimate(1, 2)
_RATE: Final = show_estimate(1, 1)


def build_repeated_capacity_rows(repeated: Sequence[RepeatedCapacity]) -> list[list[str]]:
    """A header, then per policy its means over the seeds with 95 % CIs."""
    rows = [["policy", "scale", "requests/s", *(f"to {name}" for name in repeated[0].ratios)]]
    for item in repeated:
        ratios = [_SCALE(ratio) for ratio in item.ratios.values()]
        rows.append([item.policy, _SCALE(item.scale), _RATE(item.requests_per_second), *ratios])
    return rows


def build_capacity_document(
    comparison: Comparison,
    inputs: Inputs,
    capacities: Sequence[Capacity],
    repeated: Sequence[RepeatedCapacity] = (),
    seeds: Sequence[int] = (),
) -> dict[str, Any]:
    """With the figures at every scale that was tried; over several seeds, those of the first one."""
    document = {
        **describe_setting(comparison, inputs),
        "notes": describe_notes(comparison, any(is_tunable(item.policy) for item in capacities)),
        "policies": [_describe(item) for item in capacities],
    }
    if repeated:
        policies = [_describe_repeated(item) for item in repeated]
        document["repeated"] = {"seeds": list(seeds), "policies": policies}
    return document


def _describe(item: Capacity) -> dict[str, Any]:
    return {
        "policy": item.policy,
        "scale": item.scale,
        "requestsPerSecond": item.requests_per_second,
        "notes": list(item.notes),
        "tried": [{"scale": scale, **as_record(scores)} for scale, scores in item.tried.items()],
    }


def _describe_repeated(item: RepeatedCapacity) -> dict[str, Any]:
    return {
        "policy": item.policy,
        "scales": list(item.scales),
        "scale": describe_interval(item.scale),
        "requestsPerSecond": describe_interval(item.requests_per_second),
        "ratios": {name: describe_interval(ratio) for name, ratio in item.ratios.items()},
    }
