"""Which of the requests go where, when they are unlike: the tiers' shadow prices order them. PURE.

Loop F's shares say how much of the work each route gets, and that stays so. A request that is smaller than usual takes
little of what is scarce for the quality that it gets there, so it leans towards the dearer route, a larger one towards
the cheaper. Requests of the usual size lean nowhere: a price alone would send all of them to the same route.
Deliberately does not know replicas, nor shares.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from inference_pods.router.table import ReferenceRequest

PULL_REQUESTS: Final = 8.0  # usual requests that a route may be ahead of or behind its share to get those that fit it
_LARGEST_SIZE: Final = 4.0  # of a request, for shares and mean: a body of megabytes would take hundreds of turns
_USUAL_REQUESTS: Final = 50  # requests over which the usual work is averaged
_BYTES_PER_TOKEN: Final = 4  # of English text; other languages are off by a factor that their requests have in common
_OUTPUT_WEIGHT: Final = 2  # work of an output token, where a prompt token is 1: as fair schedulers count (VTC)
_OUTPUT_LIMIT: Final = re.compile(rb'"max_(?:completion_|new_)?tokens"\s*:\s*(\d{1,9})\b')


def leanings(prices: Sequence[float], size: float) -> list[float]:
    """How much a request leans towards each route, in usual requests; empty: nothing sets the routes apart.

    `prices`: of a usual request on each route. `size`: its work, where that of the usual request is 1.
    argmax of q - price·size, less the same for the usual request, leaves price·(1 - size). Prices count relative to
    each other: what they are worth in quality is in the shares already.

    Example: prices .2 and 0, half the usual work: [4.0, 0.0]; twice the usual work or more: [-8.0, 0.0].
    """
    lowest, highest = min(prices), max(prices)
    if highest <= lowest:
        return []
    pull = PULL_REQUESTS * max(1 - size, -1.0)
    return [pull * (price - lowest) / (highest - lowest) for price in prices]


def estimate_work(body: bytes, reference: ReferenceRequest | None) -> float:
    """Work of a request by its JSON body, in reference requests; 1 while no reference is known."""
    found = _OUTPUT_LIMIT.search(body)
    return expected_work(len(body) / _BYTES_PER_TOKEN, int(found[1]) if found else None, reference)


def expected_work(prompt_tokens: float, output_limit: int | None, reference: ReferenceRequest | None) -> float:
    """Work of a request before it is served, in reference requests; 1 while no reference is known.

    The answer's length is not known: it counts as the reference's, or as what the client allows, if that is less.
    """
    if reference is None:
        return 1.0
    output = reference.output_tokens if output_limit is None else min(output_limit, reference.output_tokens)
    expected = reference.prompt_tokens + _OUTPUT_WEIGHT * reference.output_tokens
    return (prompt_tokens + _OUTPUT_WEIGHT * output) / expected


class UsualWork:
    """The mean work of recent requests."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._count = 0

    def size_of(self, work: float) -> float:
        """A request's work, where the usual one is 1, at most `_LARGEST_SIZE`. The first request is usual."""
        return min(work / self._mean, _LARGEST_SIZE) if self._mean > 0 else 1.0

    def record(self, work: float) -> None:
        if self._mean > 0:
            work = min(work, _LARGEST_SIZE * self._mean)
        self._count = min(self._count + 1, _USUAL_REQUESTS)
        self._mean += (work - self._mean) / self._count
