"""What the options of `kubectl adaptive simulate` take, from text, with what to correct where it makes no sense."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Final

from adaptive_operator.simulate.failing_loads import FailingLoads, Failure
from adaptive_operator.simulate.run import NodeLoss

FAILURES: Final = ", ".join(Failure)
_MOST_ACCELERATORS: Final = 100_000  # as a manifest may say
_MOST_SEEDS: Final = 1000  # the figures of each are kept until the end
_SCRAPE_SECONDS: Final = (1.0, 300.0)  # the operator takes no longer interval; near zero a run would never end


def positive(text: str) -> float:
    """A finite number above 0. Raises ArgumentTypeError, as all of these."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def whole(text: str) -> int:
    """Any whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number") from None


def accelerators(text: str) -> int:
    """From 1 to what a manifest may say."""
    return _positive_whole(text, _MOST_ACCELERATORS)


def seeds(text: str) -> int:
    """How many there are."""
    return _positive_whole(text, _MOST_SEEDS)


def _positive_whole(text: str, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    if value > most:
        raise argparse.ArgumentTypeError(f"{text} is more than {most}, which is the most; take fewer")
    return value


def scrape_seconds(text: str) -> float:
    """An interval between scrapes that the operator can be set to."""
    value, (least, most) = _number(text), _SCRAPE_SECONDS
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from {least:g} to {most:g}")
    return value


def folder(text: str) -> Path:
    """One that is named: an empty text, as of a variable that is not set, would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("no folder is named; e.g. out, or . for this one")
    return Path(text)


def node_loss(text: str) -> NodeLoss:
    """AT:ACCELERATORS[:SECONDS]."""
    numbers = text.split(":")
    try:
        at, accelerators, *rest = (float(number) for number in numbers)
        (seconds,) = rest or (math.inf,)
    except ValueError:
        at, accelerators, seconds = -1.0, 0.0, 0.0
    if not 0 <= at < math.inf or not 1 <= accelerators < math.inf or accelerators % 1 or not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not AT:ACCELERATORS[:SECONDS]; e.g. 600:2:300")
    return NodeLoss(at, int(accelerators), seconds)


def format_node_loss(loss: NodeLoss) -> str:
    """As it is typed."""
    return _joined([_short(loss.at), str(loss.accelerators)], loss.seconds)


def failing_loads(text: str) -> FailingLoads:
    """TIER:HOW[:PART[:AT[:SECONDS]]]."""
    tier, _, more = text.partition(":")
    how, *rest = more.split(":")
    try:
        numbers = [float(number) for number in rest]
        part, at, seconds = (*numbers, *(1.0, 0.0, math.inf)[len(numbers) :])
        found = FailingLoads(tier, Failure(how), part, at, seconds)
    except ValueError:
        found = FailingLoads(tier, part=0.0)
    if not (0 < found.part <= 1 and found.at >= 0 and found.seconds > 0):
        raise argparse.ArgumentTypeError(
            f"{text} is not TIER:HOW[:PART[:AT[:SECONDS]]] with HOW one of {FAILURES}; e.g. int8:crashes:0.5:600"
        )
    return found


def format_failing_loads(failing: FailingLoads) -> str:
    """As it is typed."""
    parts = [failing.tier, failing.failure.value, _short(failing.part), _short(failing.at)]
    return _joined(parts, failing.seconds)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _joined(parts: list[str], seconds: float) -> str:
    return ":".join([*parts, _short(seconds)] if seconds < math.inf else parts)


def _short(number: float) -> str:
    return f"{number:.12g}"
