"""Sharing a pool: how much each model may plan with, and how much it may hold now. Sum of grants <= budget, always.

First what models of unknown demand have, then what each model needs to serve at all, then what is held, then minimums
beyond that, then growth by need. No model is shrunk for another one's growth or larger minimum, only for its first
replica. An optimiser over all models can take the place of `split`.
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
    first: int = 0  # of the minimum, what the model needs to serve at all: its warm replica
    kept: int = 0  # of what is wanted, what nobody may take while the budget holds it: how much is needed is unknown
    acts: bool = True  # are decisions carried out? Else it has what it has, whatever is decided


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
    """Each model's share before growth. A minimum beyond the first replica takes only what nobody has.

    Example, budget 4: a holds 4 and needs 1 to serve, b holds 0 and needs 1: a may keep 3, b gets 1. Were the minimum
    of b 3, the rest would wait until a gives something back.
    """
    fixed = {c.key: max(c.held, c.wanted) for c in claims if not c.acts}
    acting = [c for c in claims if c.acts]
    bases = _with_free(claims, fixed | _bases(acting, max(0, budget - sum(fixed.values()))), budget)
    free = free_accelerators(claims, bases, budget)
    exceeded = sum(max(bases[c.key], c.held) for c in claims) > budget
    unowned = budget - sum(bases.values())
    return {c.key: _share(c, bases[c.key], free, unowned, exceeded) for c in claims}


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


def _share(claim: Claim, base: int, free: int, unowned: int, exceeded: bool) -> Share:
    """A model may also plan with its own pods on their way out, unless more is held in all than there is.

    `base`: what it has or is owed; `unowned`: what no model is owed of the budget.
    """
    own = base if exceeded else max(base, min(claim.held, claim.most))
    return Share(own, max(own, min(claim.most, own + free, base + unowned)))


def _bases(claims: Sequence[Claim], budget: int) -> dict[str, int]:
    """What each model has or is owed: in turn its first replica, what it has of its minimum, and what else it has."""
    bases = find_kept(claims, budget)
    firsts = {c.key: (max(0, min(c.first, c.minimum) - bases[c.key]), c.held > 0) for c in claims}
    served = serve_first(firsts, budget - sum(bases.values()))
    bases = {key: base + served[key] for key, base in bases.items()}
    for most in ({c.key: c.minimum for c in claims}, {c.key: c.most for c in claims}):
        has = {c.key: max(0, min(most[c.key], c.most, c.wanted) - bases[c.key]) for c in claims}
        kept = _in_proportion(has, budget - sum(bases.values()))
        bases = {key: base + kept[key] for key, base in bases.items()}
    return bases


def find_kept(claims: Sequence[Claim], budget: int) -> dict[str, int]:
    """What models of unknown demand keep, whoever wants it: unknown is not zero.

    Nothing where the budget does not hold it, or what the others need to go on serving: then all have to be shrunk.
    """
    kept = {c.key: min(c.kept, c.most) for c in claims}
    serving = sum(min(c.first, c.minimum, c.held) for c in claims if kept[c.key] == 0)
    return kept if sum(kept.values()) + serving <= budget else dict.fromkeys(kept, 0)


def serve_first(firsts: Mapping[str, tuple[int, bool]], budget: int) -> dict[str, int]:
    """What each model needs to serve at all, by key. `firsts`: accelerators, and does it hold any already?

    Where they do not fit all, those that hold something come first, by name: a replica cannot be divided.
    """
    left, given = budget, {}
    for key in sorted(firsts, key=lambda key: (not firsts[key][1], key)):
        first, holds = firsts[key]
        given[key] = first if first <= left else left if holds else 0
        left -= given[key]
    return given


def _with_free(claims: Sequence[Claim], bases: Mapping[str, int], budget: int) -> dict[str, int]:
    """With what is missing of minimums, as far as nobody holds or is owed it; in proportion where it is not enough.

    Where not even the first replica fits, a part of it would serve nobody.
    """
    taken = {c.key: max(bases[c.key], c.held) for c in claims}
    able = [c for c in claims if taken[c.key] >= min(c.first, c.minimum)]
    missing = dict.fromkeys(taken, 0) | {c.key: max(0, min(c.minimum, c.most) - taken[c.key]) for c in able}
    given = _in_proportion(missing, max(0, budget - sum(taken.values())))
    return {key: taken[key] + given[key] if given[key] else base for key, base in bases.items()}


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
