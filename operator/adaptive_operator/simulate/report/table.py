"""The figures of a comparison as a table, the same columns for the terminal and for HTML, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from adaptive_operator.simulate.capacity import Capacity
from adaptive_operator.simulate.comparison import Comparison, Judged
from adaptive_operator.simulate.scores import Scores, as_record

SCHEMA_VERSION: Final = 1


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f} %"


def _milliseconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{1000 * value:.0f} ms"


def _fixed(digits: int) -> Callable[[float], str]:
    return lambda value: "–" if math.isnan(value) else f"{value:.{digits}f}"


# Column -> the text of one run.
COLUMNS: Final[Mapping[str, Callable[[Scores], str]]] = {
    "violations": lambda s: _percent(s.violations),
    "unserved": lambda s: _percent(s.unserved),
    "TTFT ok": lambda s: _percent(s.ttft_attainment),
    "TPOT ok": lambda s: _percent(s.tpot_attainment),
    "quality": lambda s: _fixed(4)(s.effective_accuracy),
    "system accuracy": lambda s: _fixed(4)(s.system_accuracy),
    "quality p5": lambda s: _fixed(3)(s.quality_p5),
    "acc.-hours": lambda s: _fixed(2)(s.accelerator_hours),
    "not ready": lambda s: _fixed(2)(s.hours_not_ready),
    "starts/h": lambda s: _fixed(1)(s.starts_per_hour),
    "flaps": lambda s: f"{s.flaps} / {s.flaps_in_15_minutes}",
    "most held": lambda s: str(s.most_held),
    "plan p95": lambda s: _milliseconds(s.plan_p95),
}


def build_rows(judged: Sequence[Judged]) -> list[list[str]]:
    """A header, then one row per policy in the order given."""
    header = ["policy", *COLUMNS]
    return [header, *([item.name, *(column(item.scores) for column in COLUMNS.values())] for item in judged)]


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def build_document(comparison: Comparison, judged: Sequence[Judged]) -> dict[str, Any]:
    """Everything as JSON data: what was run, the figures, the grids of tuned targets and the changes of replicas."""
    return {**_describe_setting(comparison), "policies": [_describe(item) for item in judged]}


def _describe_setting(comparison: Comparison) -> dict[str, Any]:
    scenario = comparison.scenario
    return {
        "schemaVersion": SCHEMA_VERSION,
        "model": scenario.name,
        "budget": scenario.budget,
        "curvesGuessed": scenario.guessed,
        "objective": {
            "ttftSeconds": scenario.ttft_seconds,
            "tpotSeconds": scenario.tpot_seconds,
            "floor": scenario.floor,
        },
        "load": {
            "requestsAtScaleOne": len(comparison.trace),
            "scale": comparison.factor,
            "seed": comparison.seed,
            "seconds": comparison.trace[-1].arrival,
        },
    }


def build_capacity_document(comparison: Comparison, capacities: Sequence[Capacity]) -> dict[str, Any]:
    """Effective capacities as JSON data, with the figures at every scale that was tried."""
    return {
        **_describe_setting(comparison),
        "policies": [
            {
                "policy": item.policy,
                "scale": item.scale,
                "requestsPerSecond": item.requests_per_second,
                "tried": [{"scale": scale, **as_record(scores)} for scale, scores in item.tried.items()],
            }
            for item in capacities
        ],
    }


def _describe(item: Judged) -> dict[str, Any]:
    return {
        **as_record(item.scores),
        "policy": item.name,
        "grid": {str(target): None if math.isnan(part) else part for target, part in item.grid.items()},
        "changesOfReplicas": [
            {"at": round(change.at, 1), "replicas": dict(change.replicas), "reason": change.reason}
            for change in item.result.changes
        ],
    }
