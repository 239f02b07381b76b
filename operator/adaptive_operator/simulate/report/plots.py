"""Plots of a comparison as SVG and PNG, drawn with matplotlib: load and quality over time, replicas, and the trade."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from adaptive_operator.simulate.comparison import Judged
from adaptive_operator.simulate.report.series import build_series
from adaptive_operator.simulate.scenario import Scenario

_STYLE: Final[Any] = {
    "svg.hashsalt": "adaptive-llm",  # the same data gives the same file
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
_LEAST_VIOLATIONS: Final = 1e-5  # where zero is drawn on a logarithmic axis
_DOTS_PER_INCH: Final = 150


@dataclass(frozen=True, slots=True)
class Plot:
    """One drawing in both forms; the same data gives the same bytes."""

    svg: str
    png: bytes


def draw_service(judged: Sequence[Judged]) -> Plot:
    """What arrived and what was answered within the objectives, and at which quality, over time."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 5), layout="constrained")
        load, quality = figure.subplots(2, 1, sharex=True)
        for item in judged:
            series = build_series(item.result)
            minutes = [time / 60 for time in series.times]
            load.plot(minutes, series.attained, label=item.name, linewidth=1.0)
            quality.plot(minutes, series.quality, linewidth=1.0)
        first = build_series(judged[0].result)
        load.plot([t / 60 for t in first.times], first.arrivals, color="black", linewidth=0.8, linestyle=":")
        load.set_ylabel("attained/s (dotted: arrivals)")
        floor = judged[0].result.scenario.floor
        quality.axhline(floor, color="black", linewidth=0.8, linestyle="--")
        quality.set_ylabel("quality (dashed: floor)")
        quality.set_xlabel("minutes")
        figure.legend(*load.get_legend_handles_labels(), loc="outside upper center", ncols=min(len(judged), 6))
        return _save(figure)


def draw_replicas(item: Judged) -> Plot:
    """Ready replicas by tier, stacked in accelerators, under what is held."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 2.2), layout="constrained")
        axes = figure.subplots()
        scenario, samples = item.result.scenario, item.result.samples
        minutes = [sample.at / 60 for sample in samples]
        tiers = [tier for tier in scenario.tiers if any(sample.ready.get(tier.name) for sample in samples)]
        heights = [[tier.accelerators * sample.ready.get(tier.name, 0) for sample in samples] for tier in tiers]
        if tiers:
            axes.stackplot(
                minutes, *heights, labels=[t.name for t in tiers], colors=_colours(scenario, tiers), step="post"
            )
        axes.step(minutes, [s.held for s in samples], where="post", color="black", linewidth=0.9, label="held")
        axes.set_ylim(0, (scenario.budget + scenario.surge) * 1.05)
        axes.set_ylabel("accelerators")
        axes.set_title(item.name, loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _save(figure)


def draw_trade(judged: Sequence[Judged]) -> Plot:
    """Quality against violations: to the upper left is better."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        axes = figure.subplots()
        shown = [item for item in judged if math.isfinite(item.scores.effective_accuracy)]  # the others served nothing
        for item in shown:
            place = (max(item.scores.violations, _LEAST_VIOLATIONS), item.scores.effective_accuracy)
            axes.scatter(*place, s=30)
            axes.annotate(item.name, place, xytext=(5, 4), textcoords="offset points")
        if shown:
            axes.set_xscale("log")
        axes.set_xlabel("violations (part of all requests)")
        axes.set_ylabel("quality of what was attained")
        return _save(figure)


def _colours(scenario: Scenario, tiers: Sequence[Any]) -> list[str]:
    """The same colour for a tier in every plot."""
    names = [tier.name for tier in scenario.tiers]
    return [f"C{names.index(tier.name)}" for tier in tiers]


def _save(figure: Figure) -> Plot:
    text, picture = io.StringIO(), io.BytesIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return Plot(text.getvalue(), picture.getvalue())
