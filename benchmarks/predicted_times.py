"""How far predicted times to the first token, and per token, are off what was measured, as a table.

Knows neither the simulator nor the engine.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_operator.simulate.scores import percentile

MUST = 0.15  # a median may be off by so much


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's times, seconds."""

    ttft: float
    tpot: float


@dataclass(frozen=True, slots=True)
class Times:
    """Of the requests at one rate: seconds; mean, median and p95."""

    ttft_mean: float
    ttft: float
    ttft_p95: float
    tpot_mean: float
    tpot: float
    tpot_p95: float

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Times:
        ttfts, tpots = [one.ttft for one in answers], [one.tpot for one in answers]
        return cls(*_summary(ttfts), *_summary(tpots))


def _summary(seconds: Sequence[float]) -> tuple[float, float, float]:
    return statistics.fmean(seconds), statistics.median(seconds), percentile(seconds, 0.95)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All requests at one rate, predicted and measured."""

    part: float
    rate: float
    requests: int
    predicted: Times
    measured: Times

    def pair(self, figure: str) -> tuple[float, float]:
        """(predicted, measured), seconds."""
        return getattr(self.predicted, figure), getattr(self.measured, figure)

    def error(self, figure: str) -> float:
        """Of the prediction, as a part of what was measured; positive: predicted slower than it was."""
        predicted, measured = self.pair(figure)
        return predicted / measured - 1

    @property
    def is_met(self) -> bool:
        return all(abs(self.error(figure)) <= MUST for figure in ("ttft", "tpot"))


def render(found: Sequence[Comparison]) -> str:
    """A row per rate: predicted / measured milliseconds and how far off, then met or missed."""
    columns = {"mean": "_mean", "p50": "", "p95": "_p95"}
    figures = {f"{times.upper()} {name}": times + end for times in ("ttft", "tpot") for name, end in columns.items()}
    lines = ["| rate | requests | " + " | ".join(figures) + " | p50 within 15 % |", "|---" * (3 + len(figures)) + "|"]
    for one in found:
        cells = []
        for figure in figures.values():
            predicted, measured = (1000 * value for value in one.pair(figure))
            cells.append(f"{predicted:.1f} / {measured:.1f} ({one.error(figure):+.0%})")
        verdict = "met" if one.is_met else "**missed**"
        lines.append(f"| {one.rate:.2f}/s ({one.part:.2f}) | {one.requests} | {' | '.join(cells)} | {verdict} |")
    return "\n".join(lines)
