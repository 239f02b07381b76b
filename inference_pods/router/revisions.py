"""Which replica has which levels: as the table says of its revision, corrected by what the replica itself refused.

While a tier's recipe is exchanged, replicas of two revisions serve side by side, each with levels of its own. Knows
neither requests nor shares.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from inference_pods.router.endpoints import Replica
from inference_pods.router.table import Route, RouteKey, RoutingTable

Assigned = tuple[Route, tuple[Replica, ...]]


class ReplicaLevels:
    """Remembers refusals for as long as a replica is there: what one can serve never changes."""

    def __init__(self) -> None:
        self._refused: set[tuple[str, str]] = set()  # replica's uid, level

    def note_refusal(self, replica: Replica, level: str) -> None:
        self._refused.add((replica.uid, level))

    def keep_only(self, uids: Collection[str]) -> None:
        """Forget replicas that are gone."""
        self._refused = {(uid, level) for uid, level in self._refused if uid in uids}

    def assign(self, table: RoutingTable, tier: str, replicas: Sequence[Replica]) -> list[Assigned]:
        """The tier's routes with those of its replicas that have the level, and at last a route for those without any.

        They are sent no level and serve what they serve: nothing is promised of its quality.
        """
        known = _known(table, replicas)
        routes = [route for route in table.routes if route.key.tier == tier]
        assigned = [(route, tuple(r for r in known if self._has(table, r, route.key.level))) for route in routes]
        placed = {replica for _, members in assigned for replica in members}
        stray = tuple(replica for replica in known if replica not in placed)
        plain = RouteKey(tier)
        if stray and all(route.key != plain for route in routes):
            weight = sum(route.weight for route in routes)
            assigned.append((Route(plain, None, None, load=1.0, weight=weight, price=0.0), stray))
        return assigned

    def _has(self, table: RoutingTable, replica: Replica, level: str) -> bool:
        if (replica.uid, level) in self._refused:
            return False
        levels = table.revisions.get(replica.stateful_set)
        return levels is None or level in levels


def _known(table: RoutingTable, replicas: Sequence[Replica]) -> Sequence[Replica]:
    """One whose revision the table does not name yet is left for the next table, which is under way; unless there is
    no other, or the table names none: then it is taken at the table's word, and may refuse."""
    return [replica for replica in replicas if replica.stateful_set in table.revisions] or replicas
