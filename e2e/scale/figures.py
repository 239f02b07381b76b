"""What a run found, as numbers, as a table for people and as JSON. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from e2e.scale.audit import ReplicaChanges


@dataclass(frozen=True, slots=True)
class Spread:
    """Of a set of times in seconds; NaN where there are none."""

    count: int
    p50: float
    p95: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """By nearest rank: each figure is a value that was seen."""
        ordered = sorted(values)
        return cls(len(ordered), _rank(ordered, 0.50), _rank(ordered, 0.95), ordered[-1] if ordered else math.nan)

    def __str__(self) -> str:
        return f"{self.p50:.2f} / {self.p95:.2f} / {self.most:.2f} s ({self.count})"


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


@dataclass(slots=True)
class Figures:
    """One run. Times in seconds, memory in bytes, CPU in cores."""

    models: int
    pods: int
    nodes: int
    scrape_seconds: int
    ready_seconds: float = math.nan
    passes_starting: Spread | None = None
    passes_quiet: Spread | None = None
    passes_after: Spread | None = None  # while specs are edited and the load rises
    cpu_starting: float = math.nan
    cpu_quiet: float = math.nan
    rss_quiet: int = 0
    rss_most: int = 0
    quiet_seconds: float = math.nan
    writes_quiet: dict[str, int] = field(default_factory=dict)  # by verb and resource, Lease renewals apart
    lease_writes_quiet: int = 0
    change_to_write: Spread | None = None
    unanswered_changes: int = 0
    step_to_replicas: Spread | None = None
    unanswered_steps: int = 0
    writes_starting: dict[str, int] = field(default_factory=dict)
    program: bool = False
    solved_quiet: Spread | None = None
    solved_after: Spread | None = None
    settle_seconds: float = math.nan  # from all models Ready until quiet was counted
    changes_settling: ReplicaChanges | None = None
    changes_quiet: ReplicaChanges | None = None
    changes_after: ReplicaChanges | None = None
    step_to_quiet: float | None = None  # from the load step to the last write; None: not looked at, or it still writes
    counts: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)  # by end of which part, metric, label

    @property
    def writes_per_minute(self) -> float:
        """When quiet."""
        return 60 * sum(self.writes_quiet.values()) / self.quiet_seconds

    def is_quiet(self) -> bool:
        """Whether nothing was written while nothing happened."""
        return not self.writes_quiet


def format_figures(figures: Figures) -> str:
    """A table in Markdown."""
    writes = f"{figures.writes_per_minute:.1f}" + (f" {figures.writes_quiet}" if figures.writes_quiet else "")
    rows = [
        ("models / pods / nodes", f"{figures.models} / {figures.pods} / {figures.nodes}"),
        ("from the first apply until all models are Ready", f"{figures.ready_seconds:.0f} s"),
        ("a pass while they start, p50 / p95 / max", figures.passes_starting),
        ("a pass when quiet", figures.passes_quiet),
        ("a pass while specs are edited and the load rises", figures.passes_after),
        ("operator CPU while they start / when quiet", f"{figures.cpu_starting:.2f} / {figures.cpu_quiet:.2f} cores"),
        ("operator RSS when quiet / at most", f"{figures.rss_quiet >> 20} / {figures.rss_most >> 20} MiB"),
        ("API writes per minute when quiet", f"{writes} (+ {figures.lease_writes_quiet} Lease renewals)"),
        (
            "from a spec change to the first write, p50 / p95 / max",
            _answered(figures.change_to_write, figures.unanswered_changes),
        ),
        (
            "from a load step to the first replica change, p50 / p95 / max",
            _answered(figures.step_to_replicas, figures.unanswered_steps),
        ),
        ("replica changes until quiet, under a steady load", _changes(figures.changes_settling)),
        ("replica changes when quiet", _changes(figures.changes_quiet)),
        ("replica changes after the edits and the load step", _changes(figures.changes_after)),
    ]
    if figures.program:
        quiet = "it still writes" if figures.step_to_quiet is None else f"{figures.step_to_quiet:.0f} s"
        rows.append(("from the load step to the last write", quiet))
        rows.append(("answers of the pool's program when quiet / afterwards", _both(figures)))
        rows.append(("answers by method, in all", f"{figures.counts.get('end', {}).get(_METHODS, {})}"))
    return "\n".join(["| what | figure |", "|---|---|", *(f"| {what} | {figure} |" for what, figure in rows)])


_METHODS = "adaptive_operator_solver_seconds_count"


def _both(figures: Figures) -> str:
    return f"{figures.solved_quiet}; {figures.solved_after}"


def _changes(found: ReplicaChanges | None) -> str:
    if found is None:
        return ""
    return f"{found.changes} of {found.models} models, at most {found.most} of one; {found.returns} back again"


def _answered(spread: Spread | None, missing: int) -> str:
    return f"{spread}" + (f", {missing} without an answer" if missing else "")


def to_json(value: Any) -> Any:
    """NaN has no place in JSON: null."""
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
