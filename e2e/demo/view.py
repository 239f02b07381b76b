"""The live view: what the last sample and the latest answers say, as a table or as one line. Pure rendering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from e2e.demo.sample import Sample, TierSample
from e2e.load.accounting import Latency, account, latency
from e2e.load.record import RequestRecord

WINDOW_SECONDS = 15.0  # answers that ended within it count as "now"


@dataclass(frozen=True, slots=True)
class LoadState:
    """Where the generator stands."""

    step: int
    steps: int
    rate_per_second: float
    sent: int
    in_flight: int


def recent(records: Sequence[RequestRecord], at: float) -> list[RequestRecord]:
    """Answers of the last seconds."""
    return [record for record in records if record.ended_at >= at - WINDOW_SECONDS]


def render(sample: Sample | None, records: Sequence[RequestRecord], load: LoadState, at: float) -> Group:
    """The view for a terminal."""
    table = Table(title=_headline(records, load, at), title_justify="left", expand=False)
    for column in ("tier", "ready", "weight", "share now", "in flight", "TTFT p95", "TPOT p50"):
        table.add_column(column, justify="left" if column == "tier" else "right")
    if sample is None:
        return Group(table, Text("waiting for the first look at the cluster"))
    for tier in sample.tiers:
        table.add_row(*_row(tier, latency(r for r in recent(records, at) if r.tier_served == tier.name)))
    state = (
        f"GPUs {sample.held}/{_or_dash(sample.budget)} · queue {sample.queue:.0f} · served quality {_quality(sample)}"
    )
    swap = f" · swap: {sample.swap_step}" if sample.swap_step else ""
    why = (Text(text, overflow="fold") for text in explain(sample))
    return Group(table, Text(state + swap), *why)


def explain(sample: Sample) -> list[str]:
    """What was decided and why, what binds, the best other mix: a line each, as `kubectl adaptive explain` says it."""
    said = sample.explanation
    change = f" {said.change};" if said.change else ""
    lines = [f"{sample.reason}:{change} {sample.message}"]
    if said.binding:
        lines.append(f"  binding  {'; '.join(said.binding)}")
    if said.alternative:
        lines.append(f"  instead  {said.alternative}")
    return lines


def find_decisions(samples: Sequence[Sample]) -> list[Sample]:
    """The first look at each decision."""
    decisions = {sample.decided_at: sample for sample in reversed(samples) if sample.decided_at}
    return sorted(decisions.values(), key=lambda sample: sample.at)


def line(sample: Sample | None, records: Sequence[RequestRecord], load: LoadState, at: float) -> str:
    """The view for a log: everything in one line."""
    if sample is None:
        return f"{_headline(records, load, at)} | waiting for the first look at the cluster"
    seen = latency(recent(records, at))
    tiers = " · ".join(f"{t.name} {t.ready}/{t.desired} {_share(t.share)}" for t in sample.tiers)
    return (
        f"{_headline(records, load, at)} | {tiers} | queue {sample.queue:.0f}"
        f" | TTFT p95 {_seconds(seen.ttft_p95_seconds)} TPOT p50 {_seconds(seen.tpot_p50_seconds)}"
        f" | GPUs {sample.held}/{_or_dash(sample.budget)} | quality {_quality(sample)}"
        f" | {sample.reason}{' (' + sample.swap_step + ')' if sample.swap_step else ''}"
    )


def _headline(records: Sequence[RequestRecord], load: LoadState, at: float) -> str:
    total = account(records)
    return (
        f"t={at:.0f}s load {load.rate_per_second:.2f}/s (step {load.step + 1} of {load.steps})"
        f" sent {load.sent} ok {total.ok} failed {total.failed} open {load.in_flight}"
    )


def _row(tier: TierSample, seen: Latency) -> tuple[str, ...]:
    return (
        tier.name,
        f"{tier.ready}/{tier.desired}",
        f"{tier.weight_percent}%",
        _share(tier.share),
        f"{tier.in_flight:.0f}",
        _seconds(seen.ttft_p95_seconds),
        _seconds(seen.tpot_p50_seconds),
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _quality(sample: Sample) -> str:
    return "-" if sample.quality_permille is None else f"{sample.quality_permille / 10:.1f}%"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
