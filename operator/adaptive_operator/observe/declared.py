"""AcceleratorPools as read, and what of the nodes is whose: each node counts for one group of pools only. Pure.

A group is a resource with a node selector; models that name no pool are in the group without a selector.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from adaptive_operator.api.accelerators import Accelerators
from adaptive_operator.api.pool import AcceleratorPoolSpec, AcceleratorPoolStatus, PoolDivision
from adaptive_operator.faults import FaultReason
from adaptive_operator.names import LABEL_POOL
from adaptive_operator.observe.inventory import Advertised, NodeGroup
from adaptive_operator.observe.manifests import Raw, labels_of, metadata_of, template_of
from adaptive_operator.observe.observation import PoolShare
from adaptive_operator.reasons import PoolReason


@dataclass(frozen=True, slots=True)
class PoolTrouble:
    """Why a pool's models keep what they have: its condition's reason and message."""

    reason: PoolReason
    message: str


@dataclass(frozen=True, slots=True)
class DeclaredPool:
    """One AcceleratorPool; `spec` is the default one where the stored one does not parse."""

    name: str
    uid: str
    generation: int
    resource_version: str
    spec: AcceleratorPoolSpec
    status: AcceleratorPoolStatus | None = None  # as last written; None: never, or unreadable
    trouble: PoolTrouble | None = None

    @property
    def group(self) -> NodeGroup:
        """Where its accelerators are."""
        return NodeGroup.of(self.spec.resource, self.spec.node_selector)

    @property
    def shares(self) -> tuple[PoolShare, ...]:
        """What it promises to whom: no reservations where the pool's plan divides, which keeps none."""
        planned = self.spec.division is PoolDivision.PLANNED
        return tuple(
            PoolShare(share.namespace, share.model, 0 if planned else share.reservation or 0, share.weight or 1)
            for share in self.spec.shares
        )


class HomelessError(Exception):
    """A model that names a pool which it cannot be in; reason and message are for its condition."""

    def __init__(self, reason: FaultReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Settled:
    """What one pool may hold, and use beyond it for swaps."""

    budget: int
    surge: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """The budgets of all pools that have one; the others with their trouble; what no pool takes of a resource."""

    budgets: Mapping[str, Settled] = field(default_factory=dict)  # by pool
    troubles: Mapping[str, PoolTrouble] = field(default_factory=dict)
    taken: Mapping[str, int] = field(default_factory=dict)  # by resource: of the nodes that models without a pool use


def parse_declared(raw: Raw) -> DeclaredPool:
    """One pool; a spec that does not parse is a trouble and no error."""
    metadata = metadata_of(raw)
    try:
        spec, trouble = AcceleratorPoolSpec.model_validate(raw.get("spec") or {}), None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        words = f"this operator cannot read spec.{where}: {first['msg']}; correct it, or update CRD and operator"
        spec, trouble = AcceleratorPoolSpec(), PoolTrouble(PoolReason.INVALID_SPEC, words)
    return DeclaredPool(
        name=str(metadata["name"]),
        uid=str(metadata.get("uid", "")),
        generation=int(metadata.get("generation") or 0),
        resource_version=str(metadata.get("resourceVersion", "")),
        spec=spec,
        status=_parse_status(raw),
        trouble=trouble,
    )


def pool_of(raw: Raw, declared: Collection[str]) -> str:
    """The existing pool from which a StatefulSet or pod holds accelerators; empty: none."""
    name = labels_of(raw).get(LABEL_POOL, "")
    return name if name in declared else ""


def is_stray(raw: Raw, declared: Collection[str]) -> bool:
    """Does a StatefulSet or pod hold from a pool that is gone, or that cannot be read?"""
    name = labels_of(raw).get(LABEL_POOL, "")
    return bool(name) and name not in declared


def stands_apart(raw: Raw, engine_labels: Mapping[str, str]) -> bool:
    """Can it be on nodes of a pool only? The pool's selector is told by nothing else once the pool is gone."""
    spec = raw.get("spec") or {}
    asked: Mapping[str, str] = template_of(raw).get("nodeSelector") or spec.get("nodeSelector") or {}
    return any(engine_labels.get(key) != value for key, value in asked.items())


def find_groups(raws: Iterable[Raw]) -> dict[str, NodeGroup]:
    """The nodes of each pool, by its name."""
    return {pool.name: pool.group for pool in map(parse_declared, raws)}


def join_pool(
    accelerators: Accelerators, declared: Mapping[str, DeclaredPool], trouble: str | None
) -> tuple[Accelerators, DeclaredPool | None]:
    """A model's accelerators with the resource of the pool that it names. Raises HomelessError.

    `trouble` is why no pool can be read at all.
    """
    name = accelerators.pool
    if name is None:
        return accelerators, None
    if name not in declared:
        raise HomelessError(FaultReason.UNKNOWN_POOL, _explain_unknown_pool(name, trouble))
    pool = declared[name]
    if accelerators.names_resource and accelerators.resource != pool.spec.resource:
        raise HomelessError(
            FaultReason.POOL_MISMATCH,
            f"spec.accelerators.resource is {accelerators.resource}, and AcceleratorPool {name} has"
            f" {pool.spec.resource}: replicas stay as they are; leave resource out (set it to null where it was written"
            " before), or name another pool",
        )
    return accelerators.model_copy(update={"resource": pool.spec.resource}), pool


def settle_budgets(pools: Sequence[DeclaredPool], advertised: Advertised) -> Settlement:
    """Who may hold how much: pools that name a budget first, by name; then the first that names none has the rest.

    All together never get more of a group's nodes than these advertise, so that no accelerator is promised twice.
    """
    budgets: dict[str, Settled] = {}
    troubles = {pool.name: pool.trouble for pool in pools if pool.trouble is not None}
    left: dict[NodeGroup, int | None] = {}
    first: dict[NodeGroup, str] = {}
    for pool in sorted(pools, key=lambda pool: (pool.spec.budget is None, pool.name)):
        if pool.trouble is not None:
            continue
        there = left.setdefault(pool.group, advertised.count(pool.group))
        found = _settle(pool, there, advertised, first.get(pool.group))
        if isinstance(found, PoolTrouble):
            troubles[pool.name] = found
            continue
        budgets[pool.name] = found
        if there is not None:
            left[pool.group] = there - found.budget - found.surge
        if pool.spec.budget is None:
            first[pool.group] = pool.name
    return Settlement(budgets, troubles, _sum_taken(pools, budgets))


def _sum_taken(pools: Sequence[DeclaredPool], budgets: Mapping[str, Settled]) -> dict[str, int]:
    """By resource, what pools have of the nodes that models without a pool use."""
    taken: dict[str, int] = {}
    for pool in pools:
        if pool.name in budgets and not pool.spec.node_selector:
            mine = budgets[pool.name]
            taken[pool.spec.resource] = taken.get(pool.spec.resource, 0) + mine.budget + mine.surge
    return taken


def _settle(pool: DeclaredPool, there: int | None, advertised: Advertised, first: str | None) -> Settled | PoolTrouble:
    """One pool's budget, of the `there` accelerators that are left in its group; None: nobody can count them."""
    named, surge = pool.spec.budget, pool.spec.surge_accelerators
    if there is None:
        if named is None or advertised.trouble is not None:
            return PoolTrouble(PoolReason.BUDGET_UNKNOWN, _explain_unknown(pool, advertised))
        return Settled(named, surge)
    if first is not None:
        words = f"AcceleratorPool {first} has the same nodes and names no budget either; set budget of both"
        return PoolTrouble(PoolReason.NODES_TAKEN, words)
    if there <= 0 and named != 0:
        return PoolTrouble(PoolReason.NO_ACCELERATORS, _explain_none(pool))
    budget = max(0, there - surge) if named is None else min(named, there)
    return Settled(budget, min(surge, there - budget))


def _explain_unknown(pool: DeclaredPool, advertised: Advertised) -> str:
    if advertised.trouble is not None:
        return (
            f"the nodes could not be asked how many {pool.spec.resource} there are ({advertised.trouble}), so replicas"
            " stay as they are; let the operator list nodes (chart: accelerators.discover)"
        )
    return (
        f"nobody says how many {pool.spec.resource} there are; set budget, or allow the operator to count them on the"
        " nodes (chart: accelerators.discover)"
    )


def _explain_unknown_pool(name: str, trouble: str | None) -> str:
    keeps = "replicas stay as they are"
    if trouble is not None:
        return (
            f"spec.accelerators.pool names AcceleratorPool {name}, but AcceleratorPools cannot be read: {trouble};"
            f" {keeps}. Without pools, leave spec.accelerators.pool out"
        )
    return (
        f"spec.accelerators.pool names AcceleratorPool {name}, which does not exist: {keeps}. Create it, or correct the"
        " name (kubectl get acceleratorpools shows those that there are)"
    )


def _explain_none(pool: DeclaredPool) -> str:
    labels = ",".join(f"{key}={value}" for key, value in sorted(pool.spec.node_selector.items()))
    where = f" with the labels {labels}" if labels else ""
    return (
        f"no node{where} that is Ready, schedulable and open to engine pods advertises {pool.spec.resource} that no"
        " other pool takes; install its device plugin, uncordon or label a node, or correct nodeSelector"
    )


def _parse_status(raw: Raw) -> AcceleratorPoolStatus | None:
    try:
        return AcceleratorPoolStatus.model_validate(raw["status"]) if raw.get("status") else None
    except ValidationError:
        return None
