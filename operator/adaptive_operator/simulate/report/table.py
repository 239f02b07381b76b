"""The figures of a comparison as a table, the same columns for the terminal and for HTML, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from adaptive_operator.simulate.comparison import Comparison, Judged, note_comparison
from adaptive_operator.simulate.hints import describe_scenarios
from adaptive_operator.simulate.repeated import Estimate, Repeated
from adaptive_operator.simulate.report.inputs import Inputs
from adaptive_operator.simulate.run import RunResult
from adaptive_operator.simulate.scores import Scores, as_record

SCHEMA_VERSION: Final = 2
_STARTS: Final = "starts/h"
_LEAST_SECONDS: Final = 60.0  # of a run whose starts are told by the hour


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
    _STARTS: lambda s: _fixed(1)(s.starts_per_hour),
    "flaps": lambda s: f"{s.flaps} / {s.flaps_in_15_minutes}",
    "most held": lambda s: str(s.most_held),
    "plan p95": lambda s: _milliseconds(s.plan_p95),
}


def build_rows(judged: Sequence[Judged]) -> list[list[str]]:
    """A header, then one row per policy in the order given, and in a pool one per model below it."""
    rows = [["policy", *COLUMNS]]
    for item in judged:
        rows.append(_row(item.name, item.scores, item.result.seconds))
        if len(item.by_model) > 1:
            pairs = zip(item.results, item.by_model, strict=True)
            rows += [_row(f"  {result.scenario.name}", own, result.seconds) for result, own in pairs]
    return rows


def _row(name: str, scores: Scores, seconds: float) -> list[str]:
    return [name, *(_cell(title, show(scores), seconds) for title, show in COLUMNS.items())]


def _cell(title: str, text: str, seconds: float) -> str:
    """Of a run of seconds, a start that it has anyway would be thousands an hour."""
    return "–" if _STARTS in title and seconds < _LEAST_SECONDS else text


def build_repeated_rows(repeated: Sequence[Repeated], seconds: float) -> list[list[str]]:
    """A header, then per policy its means over the seeds, and its differences to the first policy, with 95 % CIs.

    `seconds` of a run.
    """
    reference = repeated[0].name
    header = ["policy", *REPEATED_COLUMNS, *(f"Δ {name} to {reference}" for name in _DIFFERENCES)]
    rows = [header]
    for item in repeated:
        means = [show(item.means[measure]) for measure, show in REPEATED_COLUMNS.values()]
        shown = [REPEATED_COLUMNS[name] for name in _DIFFERENCES]
        own = item is repeated[0]
        differences = ["–" if own else show(item.differences[measure]) for measure, show in shown]
        cells = zip(header[1:], [*means, *differences], strict=True)
        rows.append([item.name, *(_cell(title, text, seconds) for title, text in cells)])
    return rows


def show_estimate(scale: float, digits: int, unit: str = "") -> Callable[[Estimate], str]:
    """A mean times `scale`, with its interval if it has one."""

    def show(value: Estimate) -> str:
        if math.isnan(value.mean):
            return "–"
        half = "" if math.isnan(value.half) else f" ± {scale * value.half:.{digits}f}"
        return f"{scale * value.mean:.{digits}f}{half}{unit}"

    return show


# Column -> (measure, its text).
REPEATED_COLUMNS: Final[Mapping[str, tuple[str, Callable[[Estimate], str]]]] = {
    "violations": ("violations", show_estimate(100, 2, " %")),
    "unserved": ("unserved", show_estimate(100, 2, " %")),
    "quality": ("effective_accuracy", show_estimate(1, 4)),
    "system accuracy": ("system_accuracy", show_estimate(1, 4)),
    "acc.-hours": ("accelerator_hours", show_estimate(1, 2)),
    _STARTS: ("starts_per_hour", show_estimate(1, 1)),
    "flaps": ("flaps", show_estimate(1, 1)),
}
_DIFFERENCES: Final = ("violations", "system accuracy", _STARTS)


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def build_document(
    comparison: Comparison,
    inputs: Inputs,
    judged: Sequence[Judged],
    repeated: Sequence[Repeated] = (),
    seeds: Sequence[int] = (),
) -> dict[str, Any]:
    """Everything as JSON data: what was simulated, the figures, the grids of tuned parameters, changes of replicas.

    Over several seeds, the policies' own entries are those of the first one.
    """
    document = {
        **describe_setting(comparison, inputs),
        "notes": describe_notes(comparison, any(item.grid for item in judged)),
        "policies": [_describe(item) for item in judged],
    }
    if repeated:
        document["repeated"] = {
            "seeds": list(seeds),
            "reference": repeated[0].name,
            "policies": [_describe_repeated(item) for item in repeated],
        }
    return document


def describe_notes(comparison: Comparison, tuned: bool) -> list[str]:
    """What a reader has to know of the models, and of the load that is tuned on if a policy is."""
    return [*describe_scenarios([model.scenario for model in comparison.models]), *note_comparison(comparison, tuned)]


def _describe_repeated(item: Repeated) -> dict[str, Any]:
    return {
        "policy": item.name,
        "means": {measure: describe_interval(value) for measure, value in item.means.items()},
        "differences": {measure: describe_interval(value) for measure, value in item.differences.items()},
    }


def describe_interval(value: Estimate) -> dict[str, float | None]:
    """For JSON: None in place of NaN."""
    known = {"mean": value.mean, "half95": value.half}
    return {name: None if math.isnan(number) else number for name, number in known.items()}


def describe_setting(comparison: Comparison, inputs: Inputs) -> dict[str, Any]:
    """What was simulated, as JSON data."""
    scenarios = [model.scenario for model in comparison.models]
    guesses = [line for scenario in scenarios for line in scenario.guesses]
    return {
        "schemaVersion": SCHEMA_VERSION,
        "simulated": inputs.as_record(),
        "model": ", ".join(scenario.name for scenario in scenarios),
        "budget": comparison.budget,
        "curvesGuessed": any(scenario.guessed for scenario in scenarios),
        **({"guesses": guesses} if guesses else {}),
        "objectives": {
            scenario.name: {
                "ttftSeconds": scenario.ttft_seconds,
                "tpotSeconds": scenario.tpot_seconds,
                "floor": scenario.floor,
            }
            for scenario in scenarios
        },
        "cards": {
            scenario.name: {tier.name: round(1000 * tier.rate) for tier in scenario.tiers} for scenario in scenarios
        },
        "load": {
            "requestsAtScaleOne": sum(len(model.trace) for model in comparison.models),
            "scale": comparison.factor,
            "seed": comparison.seed,
            "seconds": comparison.seconds,
        },
    }


def _describe(item: Judged) -> dict[str, Any]:
    models = {
        result.scenario.name: {**as_record(own), "changesOfReplicas": _changes(result)}
        for result, own in zip(item.results, item.by_model, strict=True)
    }
    return {
        **as_record(item.scores),
        "policy": item.name,
        "grid": {f"{value:g}": None if math.isnan(part) else part for value, part in item.grid.items()},
        "notes": list(item.notes),
        **({"models": models} if len(models) > 1 else {"changesOfReplicas": _changes(item.result)}),
    }


def _changes(result: RunResult) -> list[dict[str, Any]]:
    return [
        {"at": round(change.at, 1), "replicas": dict(change.replicas), "reason": change.reason}
        for change in result.changes
    ]
