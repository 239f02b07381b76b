"""Flaps: a mix of replicas that comes back after another one that did not live long. The simulator counts the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from adaptive_operator.decide.wording import fingerprint

LEAST_FLAP_SECONDS: Final = 300.0
_LOADS_OF_A_FLAP: Final = 5.0


def flap_seconds(load_seconds: Iterable[float]) -> float:
    """A mix that lives shorter than this between two equal ones is a flap; `load_seconds`: of a model's tiers."""
    return max(LEAST_FLAP_SECONDS, _LOADS_OF_A_FLAP * max(load_seconds, default=0.0))


@dataclass(frozen=True, slots=True)
class Mixes:
    """The mix that is wanted, since when (seconds), and the one before; mixes as fingerprints."""

    present: str
    since: float
    before: str | None = None


def follow(mixes: Mixes | None, replicas: Mapping[str, int], now: float, shorter_than: float) -> tuple[Mixes, bool]:
    """What is known after this mix was decided on, and whether that is a flap. None: nothing was known before."""
    mix = fingerprint(replicas)
    if mixes is None:
        return Mixes(mix, now), False
    if mix == mixes.present:
        return mixes, False
    return Mixes(mix, now, mixes.present), mix == mixes.before and now - mixes.since < shorter_than


def recall(changes: Iterable[tuple[float, Mapping[str, int]]]) -> Mixes | None:
    """What is known after mixes with the times (seconds) from which on they were wanted, in order; None without any."""
    mixes = None
    for at, replicas in changes:
        mixes, _ = follow(mixes, replicas, at, shorter_than=0.0)
    return mixes


def count_flaps(changes: Iterable[tuple[float, Mapping[str, int]]], shorter_than: float) -> int:
    """Of mixes with the times (seconds) from which on they were wanted, in order."""
    mixes, found = None, 0
    for at, replicas in changes:
        mixes, is_flap = follow(mixes, replicas, at, shorter_than)
        found += is_flap
    return found
