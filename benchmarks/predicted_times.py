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
    """Of the requests at one rate: seconds, median and p95."""

    ttft: float
    ttft_p95: float
    tpot: float
    tpot_p95: float

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Times:
        ttfts, tpots = [one.ttft for one in answers], [one.tpot for one in answers]
        return cls(statistics.median(ttfts), percentile(ttfts, 0.95), statistics.median(tpots), percentile(tpots, 0.95))


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
    figures = {"ttft": "TTFT p50", "ttft_p95": "TTFT p95", "tpot": "TPOT p50", "tpot_p95": "TPOT p95"}
    lines = ["| rate | requests | " + " | ".join(figures.values()) + " | p50 within 15 % |", "|---" * 7 + "|"]
    for one in found:
        cells = []
        for figure in figures:
            predicted, measured = (1000 * value for value in one.pair(figure))
            cells.append(f"{predicted:.1f} / {measured:.1f} ({one.error(figure):+.0%})")
        verdict = "met" if one.is_met else "**missed**"
        lines.append(f"| {one.rate:.2f}/s ({one.part:.2f}) | {one.requests} | {' | '.join(cells)} | {verdict} |")
    return "\n".join(lines)
