"""The engine benchmark's markdown: ratios to the peer beside their targets, met or missed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Protocol

from benchmarks.idle import IdleCheck
from benchmarks.paired import PairedRatio, relative_spread
from benchmarks.workload import MEASURES

PAIRS = {"fp32": "F32", "bf16": "F16", "int8": "Q8_0", "int4": "Q4_0"}
# Least ratio to the peer by our tier and measure; what has none is only reported.
MUST: dict[str, dict[str, float]] = {
    "fp32": {"decode 1": 1.1, "decode 8": 1.4, "prefill 512": 1.1},
    "bf16": {"decode 1": 1.3, "decode 8": 1.4, "prefill 512": 1.0},
    "int8": {"decode 1": 1.3, "decode 8": 1.6, "prefill 512": 1.1},
    "int4": {"decode 1": 1.3, "decode 8": 1.4, "prefill 512": 1.0},
}
NESTED_LEAST = 0.9  # of the dedicated tier's speed
_HEADER = (
    "| ours / peer | measure | ours tok/s | peer tok/s | ratio | pairs | lower 90 % | must | |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


class MeasuredSpeeds(Protocol):
    """What the report needs of the results."""

    speeds: dict[str, list[dict[str, float]]]
    gates: list[IdleCheck]

    def ratio(self, ours: str, peer: str, measure: str) -> PairedRatio: ...

    def series(self, side: str, measure: str) -> list[float]: ...


def render_report(conditions: Mapping[str, object], results: MeasuredSpeeds) -> str:
    rows = [
        _row(results, ours, peer, name) for ours, peer in PAIRS.items() if ours in results.speeds for name in MEASURES
    ]
    nested = [
        _row(results, f"nested {level}", level, name)
        for level in PAIRS
        if f"nested {level}" in results.speeds
        for name in MEASURES
    ]
    return "\n".join([describe(conditions, results.gates), "", _HEADER, *rows, *nested])


def describe(conditions: Mapping[str, object], gates: Sequence[IdleCheck]) -> str:
    """The conditions, a line each, and what the idle gate found before the pairs."""
    passed = sum(gate.passed for gate in gates)
    shares = statistics.median(gate.share for gate in gates)
    gate = f"idle gate: {passed} of {len(gates)} passed, median {shares:.0%} idle"
    return "\n".join(f"{name}: {value}" for name, value in conditions.items()) + f"\n{gate}"


def find_target(ours: str, measure: str) -> float | None:
    if ours.startswith("nested"):
        return NESTED_LEAST
    return MUST[ours].get(measure)


def judge(ratio: PairedRatio, target: float | None) -> str:
    if target is None:
        return ""
    return "met" if ratio.meets(target) else "**missed**"


def _row(results: MeasuredSpeeds, ours: str, peer: str, measure: str) -> str:
    ratio, target = results.ratio(ours, peer, measure), find_target(ours, measure)
    speeds = " | ".join(render_speed(results.series(side, measure)) for side in (ours, peer))
    must = "" if target is None else f"{target:.1f}x"
    return (
        f"| {ours} / {peer} | {measure} | {speeds} | {ratio.median:.2f}x | {ratio.lowest:.2f}..{ratio.highest:.2f} "
        f"| {ratio.lower_bound:.2f} | {must} | {judge(ratio, target)} |"
    )


def render_speed(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} ±{relative_spread(values) / 2:.0%}"
