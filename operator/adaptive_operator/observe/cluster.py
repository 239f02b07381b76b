"""Reads the cluster, live and once per pass: AdaptiveModels, AcceleratorPools and everything that carries our label.

Lists come from the store, not from a watch cache: counted from an old view, the budget would be handed out twice.
Parses nothing: `pools.py` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from adaptive_operator.kube import ForbiddenError, KubeClient, KubeError, NotFoundError
from adaptive_operator.names import (
    KIND,
    LABEL_MANAGED_BY,
    MANAGED_BY,
    POOL_KIND,
    endpoint_service_name,
    router_name,
    routing_table_name,
    tier_service_name,
)
from adaptive_operator.observe.manifests import Raw, metadata_of, without_managed_fields

CHILD_KINDS: Final = (
    "Deployment",
    "Service",
    "ConfigMap",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "PodDisruptionBudget",
)
SELECTOR: Final = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
_MAX_CONCURRENT_GETS: Final = 8


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Raw objects as read in one pass."""

    models: Sequence[Raw]
    pods: Sequence[Raw] = ()
    stateful_sets: Sequence[Raw] = ()
    children: Mapping[str, Sequence[Raw]] = field(default_factory=dict)  # by kind
    pools: Sequence[Raw] = ()  # AcceleratorPools
    pools_trouble: str | None = None  # why they cannot be read, with the remedy


class InventoryError(Exception):
    """The models could be read, their children could not: nothing may be decided, and the models say so."""

    def __init__(self, models: Sequence[Raw], error: KubeError) -> None:
        super().__init__(str(error))
        self.models, self.error = models, error


class ClusterReader:
    """Reads the given namespaces, or all of them when there are none given."""

    def __init__(self, kube: KubeClient, namespaces: Iterable[str] = ()) -> None:
        self._kube = kube
        self._namespaces: tuple[str | None, ...] = tuple(sorted(set(namespaces))) or (None,)

    async def read(self) -> Snapshot:
        """One snapshot. Raises KubeError when not even the models can be read, else InventoryError."""
        models = await self._list(KIND, None)
        try:
            pools, trouble = await self._read_pools()
            if not models:
                return Snapshot(models, pools=pools, pools_trouble=trouble)
            return replace(await self._read_children(models), pools=pools, pools_trouble=trouble)
        except KubeError as error:
            raise InventoryError(models, error) from error

    async def _read_pools(self) -> tuple[Sequence[Raw], str | None]:
        """AcceleratorPools, or why this operator never gets to see them; raises KubeError when it may the next time."""
        if self._namespaces != (None,):
            return (), "pools are of the cluster, and this operator sees its namespaces only (chart: scope cluster)"
        try:
            return await self._kube.list(POOL_KIND, None), None
        except NotFoundError:
            return (), "their definition is not installed (kubectl apply -f crds/, or crds.enabled in the chart)"
        except ForbiddenError as error:
            return (), f"the operator may not read them ({error}): update the chart's ClusterRole"

    async def _read_children(self, models: Sequence[Raw]) -> Snapshot:
        kinds = ("Pod", "StatefulSet", *CHILD_KINDS)
        lists = await asyncio.gather(*(self._list(kind, SELECTOR) for kind in kinds))
        found = dict(zip(kinds, lists, strict=True))
        strangers = await self._find_strangers(models, found)
        children = {kind: (*found[kind], *strangers.get(kind, ())) for kind in CHILD_KINDS}
        return Snapshot(models, found["Pod"], found["StatefulSet"], children)

    async def _list(self, kind: str, selector: str | None) -> list[Raw]:
        pages = await asyncio.gather(*(self._kube.list(kind, namespace, selector) for namespace in self._namespaces))
        return [raw for page in pages for raw in page]

    async def _find_strangers(self, models: Sequence[Raw], found: Mapping[str, Sequence[Raw]]) -> dict[str, list[Raw]]:
        """Objects that carry a child's name without our label: somebody else's, or ours with the label edited away.

        Asked for by name, and only for names that the lists do not have: none in the steady state.
        """
        known = {
            (k, metadata_of(raw).get("namespace"), metadata_of(raw).get("name")) for k in found for raw in found[k]
        }
        missing = [wanted for model in models for wanted in _child_names(model) if wanted not in known]
        limit = asyncio.Semaphore(_MAX_CONCURRENT_GETS)
        strangers: dict[str, list[Raw]] = {}
        for raw in await asyncio.gather(*(self._get(limit, *wanted) for wanted in missing)):
            if raw is not None:
                strangers.setdefault(raw["kind"], []).append(raw)
        return strangers

    async def _get(self, limit: asyncio.Semaphore, kind: str, namespace: str, name: str) -> Raw | None:
        async with limit:
            try:
                return without_managed_fields(await self._kube.get(kind, namespace, name))
            except NotFoundError:
                return None


def _child_names(model: Raw) -> list[tuple[str, str, str]]:
    metadata = metadata_of(model)
    if metadata.get("deletionTimestamp"):
        return []
    namespace, name = str(metadata["namespace"]), str(metadata["name"])
    router = [(kind, namespace, router_name(name)) for kind in ("Deployment", "ServiceAccount", "Role", "RoleBinding")]
    services = [endpoint_service_name(name), *(tier_service_name(name, tier) for tier in _tier_names(model))]
    table = ("ConfigMap", namespace, routing_table_name(name))
    # Made only for several routers: asking for it otherwise would be a question without an answer in each pass.
    routing = (model.get("spec") or {}).get("routing") or {}
    budget = [("PodDisruptionBudget", namespace, router_name(name))] if routing.get("routerReplicas", 1) != 1 else []
    return [*router, table, *budget, *(("Service", namespace, service) for service in services)]


def _tier_names(model: Raw) -> list[str]:
    tiers: Any = (model.get("spec") or {}).get("tiers")
    return [str(t["name"]) for t in tiers if isinstance(t, dict) and "name" in t] if isinstance(tiers, list) else []
