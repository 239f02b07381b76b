"""The end of the demo as text and JSON: the account, what happened when, latency per phase, the verdict. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from e2e.demo.sample import Sample
from e2e.demo.timeline import Baseline, Timeline, most_held
from e2e.demo.view import explain, find_decisions
from e2e.load.accounting import account, account_by_tier, attainment, errors, latency, served_quality_permille
from e2e.load.arrivals import Step
from e2e.load.record import RequestRecord


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that was measured."""

    steps: Sequence[Step]
    step_starts: Sequence[float]  # seconds of the run
    records: Sequence[RequestRecord]
    samples: Sequence[Sample]
    baseline: Baseline | None
    timeline: Timeline | None
    capacities: dict[str, float]  # tier -> calibrated requests/s of one replica
    budget: int
    ttft_objective_seconds: float
    tpot_objective_seconds: float
    stage_seconds: dict[str, float]


def faults(run: Run) -> list[str]:
    """Why the demo did not succeed; empty when it did."""
    found = []
    failed = account(run.records).failed
    if failed:
        found.append(f"{failed} requests failed")
    if most_held(run.samples) > run.budget:
        found.append(f"{most_held(run.samples)} accelerators were held, the budget is {run.budget}")
    if run.baseline is None or run.timeline is None:
        return [*found, "the best tier did not serve before the overload"]
    events = {
        "load was not shed to a cheaper tier": run.timeline.shed_at,
        "replicas were not swapped": run.timeline.swapped_at,
        "quality was not restored": run.timeline.restored_at,
    }
    return found + [text for text, at in events.items() if at is None]


def describe(run: Run) -> str:
    """The summary for the terminal."""
    lines = ["", "Requests", *_account_lines(run), "", "What happened", *_event_lines(run)]
    lines += ["", "Why, in the planner's words", *_why_lines(run), "", "Latency by phase", *_phase_lines(run)]
    capacity = ", ".join(f"{tier} {rate:.2f}/s" for tier, rate in run.capacities.items())
    lines += [
        "",
        f"Accelerators held: at most {most_held(run.samples)} of {run.budget} in {len(run.samples)} looks",
        f"Calibrated, one replica within the objective: {capacity}",
    ]
    return "\n".join(lines)


def as_json(run: Run) -> dict[str, Any]:
    """The same figures for a program."""
    total = account(run.records)
    return {
        "verdict": faults(run) or ["ok"],
        "requests": asdict(total),
        "requestsByTier": {tier: asdict(part) for tier, part in account_by_tier(run.records).items()},
        "servedQualityPermille": served_quality_permille(run.records),
        "seconds": dict(_spans(run)),
        "steps": [asdict(step) for step in run.steps],
        "phases": [asdict(latency(_phase(run, number))) for number in range(len(run.steps))],
        "capacities": run.capacities,
        "acceleratorsHeldMost": most_held(run.samples),
        "acceleratorsBudget": run.budget,
        "stages": {name: round(seconds, 1) for name, seconds in run.stage_seconds.items()},
    }


def _account_lines(run: Run) -> list[str]:
    total = account(run.records)
    lines = [f"  sent {total.sent} = ok {total.ok} + failed {total.failed}"]
    for tier, part in account_by_tier(run.records).items():
        lines.append(f"  {tier:6} {part.sent:5} = ok {part.ok} + failed {part.failed}")
    lines += [f"  {count} x {text}" for text, count in errors(run.records)]
    quality = served_quality_permille(run.records)
    return [*lines, f"  served quality over the run {_percent(quality)}"]


def _event_lines(run: Run) -> list[str]:
    return [f"  {name:58} {_seconds(value)}" for name, value in _spans(run)]


def _why_lines(run: Run) -> list[str]:
    """Of each decision that changed replicas: when, what and why, what bound, and the best other mix."""
    changes = [sample for sample in find_decisions(run.samples) if sample.explanation.change]
    return [
        f"  {'' if number else f'{sample.at:.0f} s':>6}  {text}"
        for sample in changes
        for number, text in enumerate(explain(sample))
    ] or ["  no replicas were changed"]


def _spans(run: Run) -> list[tuple[str, float | None]]:
    """Spans from the load's cause to the effect; None: did not happen."""
    starts, seen = run.step_starts, run.timeline
    if seen is None or len(starts) < len(run.steps):
        return []
    return [
        ("overload → first answer from a cheaper tier (shed)", _span(starts[1], seen.shed_at)),
        ("load beyond the mix → the operator decides to swap", _span(starts[2], seen.swap_decided_at)),
        ("load beyond the mix → swapped, all replicas ready", _span(starts[2], seen.swapped_at)),
        ("load falls → the operator decides to restore", _span(starts[3], seen.restore_decided_at)),
        ("load falls → quality restored", _span(starts[3], seen.restored_at)),
    ]


def _phase_lines(run: Run) -> list[str]:
    lines = [
        f"  {'load':>8}  {'requests':>8}  {'TTFT p50/p95':>15}  {'TPOT p50/p95':>15}  {'in SLO':>7}  {'quality':>8}"
    ]
    for number, step in enumerate(run.steps):
        records = _phase(run, number)
        seen = latency(records)
        met = attainment(records, run.ttft_objective_seconds, run.tpot_objective_seconds)
        lines.append(
            f"  {step.rate_per_second:6.2f}/s  {len(records):8}"
            f"  {_pair(seen.ttft_p50_seconds, seen.ttft_p95_seconds):>15}"
            f"  {_pair(seen.tpot_p50_seconds, seen.tpot_p95_seconds):>15}"
            f"  {'-' if met is None else f'{100 * met:.0f}%':>7}  {_percent(served_quality_permille(records)):>8}"
        )
    return lines


def _phase(run: Run, number: int) -> list[RequestRecord]:
    return [record for record in run.records if record.step == number]


def _span(start: float, end: float | None) -> float | None:
    return None if end is None else end - start


def _seconds(value: float | None) -> str:
    return "did not happen" if value is None else f"{value:6.1f} s"


def _pair(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.2f}/{high:.2f} s"


def _percent(permille: float | None) -> str:
    return "-" if permille is None else f"{permille / 10:.1f}%"
