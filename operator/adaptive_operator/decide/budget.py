"""Sharing a pool: how much each model may plan with, and how much it may hold now. Sum of grants <= budget, always.

Minimums come first, then what is held, then growth by need. No model is shrunk for another one's growth, only for its
minimum. An optimiser over all models can take the place of `split`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """What one model has and needs, in accelerators."""

    key: str
    held: int  # pods that exist, Terminating included, and replicas asked for
    wanted: int  # by the last decision
    minimum: int  # by its bounds and the warm tier
    most: int  # by its own budget


@dataclass(frozen=True, slots=True)
class Share:
    """What one model may plan with: `own` is safe, `limit` includes all that is free."""

    own: int
    limit: int


@dataclass(frozen=True, slots=True)
class SwapRoom:
    """A swap that may go beyond the budget while old and new replicas are side by side."""

    key: str
    both: int  # accelerators of old and new replicas together
    extra: int  # of them, those of the old ones


def shares(claims: Sequence[Claim], budget: int) -> dict[str, Share]:
    """Each model's share before growth. Those that hold something come first where minimums do not fit all.

    Example, budget 4: a holds 4 and needs at least 1, b holds 0 and needs at least 1: a may keep 3, b gets 1.
    """
    minimums = _minimums(claims, budget)
    above = {c.key: max(0, min(c.most, c.wanted) - minimums[c.key]) for c in claims}
    extra = _in_proportion(above, budget - sum(minimums.values()))
    bases = {c.key: minimums[c.key] + extra[c.key] for c in claims}
    free = free_accelerators(claims, bases, budget)
    exceeded = sum(max(bases[c.key], c.held) for c in claims) > budget
    return {c.key: _share(c, bases, free, budget, exceeded) for c in claims}


def free_accelerators(claims: Sequence[Claim], owned: Mapping[str, int], budget: int) -> int:
    """What no model holds or is owed."""
    return max(0, budget - sum(max(owned[c.key], c.held) for c in claims))


def split(needs: Mapping[str, int], free: int) -> dict[str, int]:
    """Free accelerators by need: all of it when there is enough, else in proportion, whole units, stable order."""
    return _in_proportion(needs, free)


def grants(
    claims: Sequence[Claim],
    wishes: Sequence[Mapping[str, int]],
    budget: int,
    surge: int = 0,
    rooms: Sequence[SwapRoom] = (),
) -> dict[str, int]:
    """What each model may hold in this pass: what it holds, then what each of `wishes` asks for, in turn.

    A wish is a map of accelerators by model: minimums, decided replicas, room to make before break. `surge` is there
    for `rooms` only, and for what they hold already.
    """
    granted: dict[str, int] = {}
    left = budget + surge
    for claim in claims:
        granted[claim.key] = min(claim.held, left)
        left -= granted[claim.key]
    left = max(0, left - surge)
    for wish in wishes:
        for claim in claims:
            more = min(left, max(0, min(wish.get(claim.key, 0), claim.most) - granted[claim.key]))
            granted[claim.key] += more
            left -= more
    left = budget + surge - sum(granted.values())
    for room in rooms:
        more = min(left, room.extra, max(0, room.both - granted[room.key]))
        granted[room.key] += more
        left -= more
    return granted


def _share(claim: Claim, bases: Mapping[str, int], free: int, budget: int, exceeded: bool) -> Share:
    """A model may also plan with its own pods on their way out, unless more is held in all than there is."""
    base = bases[claim.key]
    others = sum(bases.values()) - base
    own = base if exceeded else max(base, min(claim.held, claim.most))
    return Share(own, max(own, min(claim.most, own + free, budget - others)))


def _minimums(claims: Sequence[Claim], budget: int) -> dict[str, int]:
    left, minimums = budget, {}
    for claim in sorted(claims, key=lambda c: (c.held == 0, c.key)):
        fits = claim.minimum <= left
        minimums[claim.key] = claim.minimum if fits else left if claim.held else 0
        left -= minimums[claim.key]
    return minimums


def _in_proportion(needs: Mapping[str, int], available: int) -> dict[str, int]:
    """Whole units in proportion to need, never more than needed; the rest by largest fraction, then by key."""
    total = sum(needs.values())
    if total <= available:
        return dict(needs)
    if available <= 0 or total == 0:
        return dict.fromkeys(needs, 0)
    given = {key: need * available // total for key, need in needs.items()}
    rest = available - sum(given.values())
    order = sorted(needs, key=lambda key: (-(needs[key] * available % total), key))
    for key in order[:rest]:
        given[key] += 1
    return given
