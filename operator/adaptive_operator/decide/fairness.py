"""Who may have how much of an AcceleratorPool: reservations, first replicas, minimums, then the rest by weight.

Pure arithmetic over whole accelerators; knows neither tiers nor demand. What one model does not want is there for the
others, so the pool is never idle while somebody wants it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.decide.budget import serve_first, split
from adaptive_operator.names import short_hash
from adaptive_operator.observe.observation import PoolShare


@dataclass(frozen=True, slots=True)
class Party:
    """A share and the models it is for; a model that no share names is a party of its own."""

    members: tuple[str, ...]  # keys, sorted
    reservation: int = 0
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Want:
    """What one model asks for, in accelerators."""

    demand: int
    minimum: int = 0  # part of the demand
    holds: bool = True  # something already: comes first where minimums do not fit all
    first: int = 0  # of the minimum, what it needs to serve at all
    kept: int = 0  # of the demand, what it keeps in any case; of all models, no more than the budget


@dataclass(frozen=True, slots=True)
class Row:
    """What takes part in a division by weight: never less than `base`, never more than `top`."""

    base: int
    top: int
    weight: int = 1


def build_parties(shares: Iterable[PoolShare], keys: Iterable[str]) -> tuple[Party, ...]:
    """One party per share that has members, and one per model without a share. Keys are `namespace/name`."""
    left, parties = set(keys), []
    for share in sorted(shares, key=lambda share: (share.model == "", share.namespace, share.model)):
        found = {key for key in left if _is_for(share, key)}
        left -= found
        if found:
            parties.append(Party(tuple(sorted(found)), share.reservation, share.weight))
    return (*parties, *(Party((key,)) for key in sorted(left)))


def hash_shares(shares: Iterable[PoolShare], division: PoolDivision = PoolDivision.WEIGHTED) -> str:
    """Of how a pool is divided, shares in whatever order; empty where it is by weight and it promises nothing."""
    told = sorted(f"{share.namespace}/{share.model} {share.reservation} {share.weight}" for share in shares)
    told = told if division is PoolDivision.WEIGHTED else [division.value, *told]
    return short_hash(*told) if told else ""


def divide(parties: Sequence[Party], wants: Mapping[str, Want], budget: int) -> dict[str, int]:
    """Accelerators by model: no more than it asks for, and together no more than the budget.

    Example, budget 8, everybody asks for 8: a has 2 reserved, b and c nothing, weights 1, 1 and 2: a 2, b 2, c 4.
    """
    reserved = _reserve(parties, wants, budget)
    bases = _with_minimums(reserved, wants, budget)
    rows = {
        party.members[0]: Row(
            sum(bases[key] for key in party.members), sum(wants[key].demand for key in party.members), party.weight
        )
        for party in parties
    }
    amounts = fill_by_weight(rows, budget)
    parts: dict[str, int] = {}
    for party in parties:
        members = {key: Row(bases[key], wants[key].demand) for key in party.members}
        parts.update(fill_by_weight(members, amounts[party.members[0]]))
    return parts


def fill_by_weight(rows: Mapping[str, Row], available: int) -> dict[str, int]:
    """Whole units in proportion to weight, each within its row's bounds; bases have to fit.

    Each gets its exact part or that rounded up: what rounding leaves goes to the largest fractions, ties by key.
    """
    if sum(row.top for row in rows.values()) <= available:
        return {key: row.top for key, row in rows.items()}
    level = _find_level(rows, available)
    exact = {key: _at_level(row, level) for key, row in rows.items()}
    given = {key: math.floor(amount) for key, amount in exact.items()}
    order = sorted((key for key in rows if given[key] < exact[key]), key=lambda key: (given[key] - exact[key], key))
    for key in order[: available - sum(given.values())]:
        given[key] += 1
    return given


def _is_for(share: PoolShare, key: str) -> bool:
    return key == f"{share.namespace}/{share.model}" if share.model else key.startswith(f"{share.namespace}/")


def _reserve(parties: Sequence[Party], wants: Mapping[str, Want], budget: int) -> dict[str, int]:
    """What is kept, and reservations as far as they are wanted; in proportion where there is too little for all."""
    kept = {party.members[0]: sum(wants[key].kept for key in party.members) for party in parties}
    wanted = {}
    for party in parties:
        demand = sum(wants[key].demand for key in party.members)
        wanted[party.members[0]] = max(0, min(party.reservation, demand) - kept[party.members[0]])
    more, reserved = split(wanted, budget - sum(kept.values())), {}
    for party in parties:
        rows = {key: Row(wants[key].kept, wants[key].demand) for key in party.members}
        reserved.update(fill_by_weight(rows, kept[party.members[0]] + more[party.members[0]]))
    return reserved


def _with_minimums(reserved: Mapping[str, int], wants: Mapping[str, Want], budget: int) -> dict[str, int]:
    """Reservations raised to minimums in rounds, as far as the budget goes, so that none ends what others serve with.

    First what each needs to serve at all; then the rest, in proportion where it does not fit: of those that hold
    something, then of the others.
    """
    owed = {key: min(want.minimum, want.demand) for key, want in wants.items()}
    firsts = {key: (max(0, min(want.first, owed[key]) - reserved[key]), want.holds) for key, want in wants.items()}
    given = serve_first(firsts, budget - sum(reserved.values()))
    bases = {key: reserved[key] + given[key] for key in wants}
    for holds in (True, False):
        missing = {key: max(0, owed[key] - bases[key]) for key, want in wants.items() if want.holds is holds}
        bases |= {key: bases[key] + more for key, more in split(missing, budget - sum(bases.values())).items()}
    return bases


def _find_level(rows: Mapping[str, Row], available: int) -> Fraction:
    """The level (accelerators per weight) at which all rows together have `available`. Exact, by bisection."""
    points = sorted({Fraction(bound, row.weight) for row in rows.values() for bound in (row.base, row.top)})
    low, high = 0, len(points) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if sum(_at_level(row, points[middle]) for row in rows.values()) <= available:
            low = middle
        else:
            high = middle - 1
    here = points[low]
    rising = sum(row.weight for row in rows.values() if row.base <= here * row.weight < row.top)
    spare = sum((-_at_level(row, here) for row in rows.values()), Fraction(available))
    return here + spare / rising if rising else here


def _at_level(row: Row, level: Fraction) -> Fraction:
    return min(max(level * row.weight, Fraction(row.base)), Fraction(row.top))
