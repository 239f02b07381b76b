"""The run as one picture: load, replicas, traffic shares, latency, quality over the same time axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the choice of a backend without display
from matplotlib.axes import Axes

from e2e.demo.summary import Run
from e2e.demo.timeline import Timeline
from e2e.load.record import RequestRecord

COLOURS = ("#1b5e8c", "#3fa7a3", "#e0963a", "#b0435f", "#6b6b6b")
SMOOTHING_SECONDS = 10.0


def draw(run: Run, path: Path) -> None:
    """Write the PNG; small enough for a README."""
    figure, axes = plt.subplots(5, 1, figsize=(10, 11), sharex=True, height_ratios=(1, 1.2, 1, 1.2, 0.9))
    names = [tier.name for tier in run.samples[-1].tiers] if run.samples else []
    _draw_load(axes[0], run)
    _draw_replicas(axes[1], run, names)
    _draw_shares(axes[2], run, names)
    _draw_latency(axes[3], run, names)
    _draw_quality(axes[4], run)
    for axis in axes:
        axis.grid(alpha=0.25)
        for start in run.step_starts[1:]:
            axis.axvline(start, color="#999999", linewidth=0.8, linestyle=":")
        _mark_events(axis, run.timeline)
    axes[-1].set_xlabel("seconds")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def smoothed_rate(times: Sequence[float], at: Sequence[float]) -> list[float]:
    """Events per second around each moment of `at`."""
    half = SMOOTHING_SECONDS / 2
    return [sum(moment - half <= time < moment + half for time in times) / SMOOTHING_SECONDS for moment in at]


def _draw_load(axis: Axes, run: Run) -> None:
    at = _seconds_axis(run)
    axis.plot(at, smoothed_rate([r.due_at for r in run.records], at), color=COLOURS[0], label="arrivals")
    axis.plot(at, smoothed_rate([r.ended_at for r in run.records if r.ok], at), color=COLOURS[2], label="answers")
    ends = [*run.step_starts[1:], at[-1] if at else 0.0]
    for step, start, end in zip(run.steps, run.step_starts, ends, strict=False):
        axis.hlines(step.rate_per_second, start, end, color="#444444", linewidth=1, linestyle="--")
    axis.set_ylabel("requests/s")
    _add_legend(axis)


def _draw_replicas(axis: Axes, run: Run, names: Sequence[str]) -> None:
    at = [sample.at for sample in run.samples]
    for colour, name in zip(COLOURS, names, strict=False):
        tiers = [sample.tier(name) for sample in run.samples]
        axis.step(at, [t.ready if t else 0 for t in tiers], where="post", color=colour, label=f"{name} ready")
        axis.step(at, [t.desired if t else 0 for t in tiers], where="post", color=colour, linestyle=":", linewidth=1)
    axis.step(at, [s.held for s in run.samples], where="post", color="#bbbbbb", label=f"GPUs held of {run.budget}")
    axis.set_ylabel("replicas\n(dotted: desired)")
    _add_legend(axis)


def _draw_shares(axis: Axes, run: Run, names: Sequence[str]) -> None:
    seen = [sample for sample in run.samples if sample.routers_seen]
    shares = [[(tier.share or 0.0) if (tier := s.tier(name)) else 0.0 for s in seen] for name in names]
    if seen and names:
        axis.stackplot([s.at for s in seen], *shares, labels=names, colors=COLOURS[: len(names)], alpha=0.8)
    axis.set_ylim(0, 1)
    axis.set_ylabel("share of traffic")
    _add_legend(axis)


def _draw_latency(axis: Axes, run: Run, names: Sequence[str]) -> None:
    for colour, name in zip(COLOURS, names, strict=False):
        served = [r for r in run.records if r.tier_served == name and r.ttft_seconds is not None]
        axis.scatter([r.due_at for r in served], [_ttft(r) for r in served], s=9, color=colour, label=name)
    axis.axhline(run.ttft_objective_seconds, color="#b0435f", linewidth=1, linestyle="--")
    axis.set_yscale("log")
    axis.set_ylabel("TTFT, s\n(by due time)")
    _add_legend(axis)


def _draw_quality(axis: Axes, run: Run) -> None:
    answered = sorted((r for r in run.records if r.ok and r.quality_permille is not None), key=lambda r: r.ended_at)
    means = []
    for record in answered:
        window = [r.quality_permille or 0 for r in answered if 0 <= record.ended_at - r.ended_at <= SMOOTHING_SECONDS]
        means.append(sum(window) / len(window) / 10)
    axis.plot([r.ended_at for r in answered], means, color=COLOURS[1])
    axis.set_ylabel("served quality, %")


def _mark_events(axis: Axes, timeline: Timeline | None) -> None:
    if timeline is None:
        return
    for name in ("shed_at", "swapped_at", "restored_at"):
        at = getattr(timeline, name)
        if at is not None:
            axis.axvline(at, color="#2e7d32", linewidth=1)
            axis.annotate(
                name.removesuffix("_at"), (at, 1), xycoords=("data", "axes fraction"), fontsize=7, color="#2e7d32"
            )


def _add_legend(axis: Axes) -> None:
    """A legend, unless the run ended before there was anything to show."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper right", fontsize=8)


def _seconds_axis(run: Run) -> list[float]:
    end = max((r.ended_at for r in run.records), default=0.0)
    return [float(second) for second in range(int(end) + 2)]


def _ttft(record: RequestRecord) -> float:
    return max(record.ttft_seconds or 0.0, 0.01)
