"""Which tier next, and which replica of it: a smooth weighted choice and a least-loaded one, both deterministic.

Deliberately does not know why a tier has its share, nor HTTP: a replica is a name with requests in flight.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from inference_pods.router.endpoints import Replica
from inference_pods.router.shares import SharePlan
from inference_pods.router.table import RouteKey

ASIDE_FIRST_SECONDS: Final = 1.0  # a replica that refused is left alone this long, doubled at each further refusal
ASIDE_MAX_SECONDS: Final = 8.0
_NOISE: Final = 1e-9  # of adding and taking away fractions


@dataclass(frozen=True, slots=True)
class Turn:
    """One request as the choice sees it: its size, where the usual one is 1, and how much it leans towards each key, in
    usual requests; empty: towards none."""

    size: float = 1.0
    leanings: Sequence[float] = ()


USUAL: Final = Turn()


class SmoothChoice:
    """Weighted round robin that spreads: shares .75/.25 give ABAA, not AAAB; over n requests each is within 1 of
    n·share.

    Requests that lean change who goes where, not the shares: each key's part of the sizes stays its share, give or take
    what leanings and sizes amount to. They never lean to a key without a share.
    """

    def __init__(self) -> None:
        self._credits: dict[RouteKey, float] = {}
        self._has_leaned = False

    def peek(self, keys: Sequence[RouteKey], plan: SharePlan, turn: Turn = USUAL) -> RouteKey:
        """The key whose turn it is, among `keys` (never empty, best first). Without shares: the first."""
        weights = self._weights(keys, plan)
        if weights is None:
            return keys[0]
        leanings = dict(zip(keys, turn.leanings, strict=True)) if turn.leanings else {}
        able = [key for key in keys if weights[key] > 0] if leanings else keys
        return max(
            able, key=lambda key: self._credits.get(key, 0.0) + weights[key] * turn.size + leanings.get(key, 0.0)
        )

    def charge(self, chosen: RouteKey, keys: Sequence[RouteKey], plan: SharePlan, turn: Turn = USUAL) -> None:
        """Account for a request whose turn went to `chosen` among `keys`; the credits of `keys` keep their sum."""
        weights = self._weights(keys, plan)
        if weights is None:
            return
        for key in keys:
            self._credits[key] = self._credits.get(key, 0.0) + weights[key] * turn.size
        self._credits[chosen] -= turn.size
        self._has_leaned |= bool(turn.leanings)

    def forget_leanings(self) -> None:
        """Nothing leans any more: what keys were ahead or behind because of it is not made up for."""
        if self._has_leaned:
            self._credits, self._has_leaned = {}, False

    def keep_only(self, keys: Collection[RouteKey]) -> None:
        """Forget the credits of routes that are gone."""
        self._credits = {key: credit for key, credit in self._credits.items() if key in keys}

    @staticmethod
    def _weights(keys: Sequence[RouteKey], plan: SharePlan) -> dict[RouteKey, float] | None:
        total = sum(plan.of(key) for key in keys)
        return {key: plan.of(key) / total for key in keys} if total > 0 else None


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """What one replica may hold of this router's requests, in requests of load 1 (see `Route.load`).

    `queued`: requests that wait inside it, where they cannot change tier any more. `decoding`: whole answers that it
    works on at once; an answer that is not streamed shows nothing before its end, so those beyond count as queued.
    """

    in_flight: int
    queued: float = math.inf
    decoding: float = math.inf


@dataclass(slots=True)
class _Standing:
    """What a replica holds, as load: a request at a lower level weighs less than one."""

    requests: int = 0
    in_flight: float = 0
    awaiting: float = 0  # streams without their first token
    whole: float = 0  # answers that are not streamed
    last_turn: int = 0
    failures: int = 0
    aside_until: float = 0.0

    def queued(self, limits: ReplicaLimits) -> float:
        """Requests that wait inside the replica, as far as this router can see."""
        started = self.in_flight - self.awaiting
        return self.awaiting + min(max(started - limits.decoding, 0.0), self.whole)

    def has_room(self, limits: ReplicaLimits) -> bool:
        return self.in_flight < limits.in_flight - _NOISE and self.queued(limits) < limits.queued - _NOISE


class ReplicaBook:
    """Requests in flight and waiting per replica, and which replicas failed a moment ago (passive health)."""

    def __init__(self) -> None:
        self._standings: dict[str, _Standing] = {}
        self._turn = 0

    def least_loaded(
        self, replicas: Iterable[Replica], limits: ReplicaLimits, now: float, avoid: Collection[str] = ()
    ) -> Replica | None:
        """The replica with room (below both limits) and the fewest requests; equals take turns.

        Replicas put aside come last: they are tried only when all others are put aside too or absent. `avoid` is
        absolute.
        """
        best: tuple[bool, float, int] | None = None
        chosen: Replica | None = None
        all_aside = True
        for replica in replicas:
            if replica.uid in avoid:
                continue
            standing = self._standings.get(replica.uid) or _Standing()
            aside = standing.aside_until > now
            all_aside &= aside
            rank = (aside, standing.in_flight, standing.last_turn)
            if standing.has_room(limits) and (best is None or rank < best):
                best, chosen = rank, replica
        if best is not None and best[0] and not all_aside:
            return None  # a healthy replica is merely full: wait for it rather than bother a failing one
        return chosen

    def start(self, replica: Replica, *, streams: bool, load: float = 1) -> None:
        standing = self._standings.setdefault(replica.uid, _Standing())
        self._turn += 1
        standing.requests += 1
        standing.in_flight += load
        standing.awaiting += load * streams
        standing.whole += load * (not streams)
        standing.last_turn = self._turn

    def note_first_token(self, replica: Replica, load: float = 1) -> None:
        """One of its streams has left the replica's queue."""
        self._standings[replica.uid].awaiting -= load

    def finish(self, replica: Replica, *, streams: bool, awaiting: bool, load: float = 1) -> None:
        """The request is over; `awaiting`: a stream that never had its first token."""
        standing = self._standings[replica.uid]
        standing.requests -= 1
        standing.in_flight -= load
        standing.awaiting -= load * awaiting
        standing.whole -= load * (not streams)
        if not standing.requests:  # so that the noise of adding fractions does not pile up
            standing.in_flight = standing.awaiting = standing.whole = 0

    def queued(self, replica: Replica, limits: ReplicaLimits) -> float:
        standing = self._standings.get(replica.uid)
        return standing.queued(limits) if standing else 0.0

    def in_flight(self, replica: Replica) -> float:
        """Load that it holds: the number of its requests where all have load 1."""
        standing = self._standings.get(replica.uid)
        return standing.in_flight if standing else 0

    def put_aside(self, replica: Replica, now: float) -> None:
        """The replica refused or broke: leave it alone for 1, 2, 4, then 8 s."""
        standing = self._standings.setdefault(replica.uid, _Standing())
        standing.aside_until = now + min(ASIDE_FIRST_SECONDS * 2**standing.failures, ASIDE_MAX_SECONDS)
        standing.failures = min(standing.failures + 1, 8)

    def mark_healthy(self, replica: Replica) -> None:
        standing = self._standings.get(replica.uid)
        if standing is not None:
            standing.failures, standing.aside_until = 0, 0.0

    def is_aside(self, replica: Replica, now: float) -> bool:
        standing = self._standings.get(replica.uid)
        return standing is not None and standing.aside_until > now

    def keep_only(self, uids: Collection[str]) -> None:
        """Forget replicas that are gone and idle; those with streams in flight stay until the last one ends."""
        self._standings = {uid: s for uid, s in self._standings.items() if uid in uids or s.requests > 0}
