"""From a raw snapshot to pools of models that share accelerators and a budget. Pure.

Models that name an AcceleratorPool are in it, the others share what is left of their resource. A model that cannot be
parsed, or whose budget nobody knows, is set aside with its fault; what it holds still counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydantic import ValidationError

from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.faults import Fault, FaultReason, format_time, unreadable_text
from adaptive_operator.observe.cluster import Snapshot
from adaptive_operator.observe.declared import (
    DeclaredPool,
    HomelessError,
    Settlement,
    is_stray,
    parse_declared,
    pool_of,
    settle_budgets,
    stands_apart,
)
from adaptive_operator.observe.holding import count_held, held_accelerators
from adaptive_operator.observe.inventory import Advertised, NodeGroup
from adaptive_operator.observe.manifests import (
    Raw,
    count_accelerators,
    count_of_replica,
    epoch_of,
    metadata_of,
    model_key,
    owner_uid,
)
from adaptive_operator.observe.models import SeenModel, build_index, describe_validation, parse_model
from adaptive_operator.observe.observation import NodeRoom
from adaptive_operator.observe.pods import has_ended, ordinal_of, stateful_set_of

_LOG = logging.getLogger(__name__)
_NOT_ADVERTISED = Advertised()
# No Lease changes hands that often: a higher epoch was edited by hand. Its child is left alone and the Lease is not
# raised, so that one annotation cannot exhaust the Lease's 32-bit counter for all models.
_EPOCH_TO_FOLLOW = 1_000_000_000


@dataclass(frozen=True, slots=True)
class BlockedModel:
    """An AdaptiveModel for which nothing can be decided; its children are left as they are."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    raw_status: Mapping[str, Any]
    fault: Fault


@dataclass(frozen=True, slots=True)
class Pool:
    """Models that share accelerators of one resource."""

    resource: str
    budget: int  # for these models: what strangers hold is taken off
    models: tuple[SeenModel, ...]  # sorted by key
    held_by_others: int = 0
    total: int = 0  # the budget before that
    surge: int = 0  # beyond the budget, for old and new replicas side by side
    declared: DeclaredPool | None = None  # None: the models of the resource that name no pool
    nodes: tuple[NodeRoom, ...] = ()  # none: nobody counted them, or no replica takes more than one accelerator

    @property
    def name(self) -> str:
        """Of the AcceleratorPool; empty: none."""
        return self.declared.name if self.declared is not None else ""

    @property
    def key(self) -> str:
        """Unique among all pools: a resource has a slash, a pool's name has none."""
        return self.name or self.resource

    @property
    def group(self) -> NodeGroup:
        """The nodes that its replicas go to."""
        return self.declared.group if self.declared is not None else NodeGroup(self.resource)

    @property
    def division(self) -> PoolDivision:
        """How it is divided, if it is an AcceleratorPool."""
        return self.declared.spec.division if self.declared is not None else PoolDivision.WEIGHTED

    @property
    def has_plan(self) -> bool:
        """Does one program over its models divide the accelerators?"""
        return self.division.is_by_plan(self.name)


@dataclass(frozen=True, slots=True)
class Seen:
    """One pass' view of the cluster."""

    pools: tuple[Pool, ...]
    blocked: tuple[BlockedModel, ...]
    highest_epoch: int  # on any child or swap record
    unready: tuple[Pool, ...] = ()  # AcceleratorPools with a trouble; their models are among the blocked ones


def build_pools(
    snapshot: Snapshot, budgets: Mapping[str, int], now: float, advertised: Advertised = _NOT_ADVERTISED
) -> Seen:
    """Sort the snapshot into pools. `budgets` are the operator's, by resource; `now` in seconds since the epoch.

    What nodes advertise counts for a resource for which neither the operator nor a model names a budget.
    """
    index = build_index(snapshot)
    declared = {pool.name: pool for pool in map(parse_declared, snapshot.pools)}
    seen: list[SeenModel] = []
    blocked: list[BlockedModel] = []
    for raw in snapshot.models:
        if metadata_of(raw).get("deletionTimestamp"):
            continue  # its children go with it; what they still hold is counted below
        try:
            seen.append(parse_model(raw, index, declared, snapshot.pools_trouble))
        except ValidationError as error:
            blocked.append(_block(raw, FaultReason.INVALID_SPEC, describe_validation(error), now))
        except HomelessError as error:
            blocked.append(_block(raw, error.reason, str(error), now))
        except Exception as error:  # noqa: BLE001 one odd object, of whatever kind, never hurts the other models
            _LOG.error("model %s cannot be read", metadata_of(raw).get("name"), exc_info=error)
            blocked.append(_block(raw, FaultReason.INTERNAL_ERROR, unreadable_text(error), now))
    settlement = settle_budgets(list(declared.values()), advertised)
    shared, unready = _fill_declared(seen, snapshot, declared, settlement)
    blocked += [_block_in_pool(model, pool, now) for pool in unready for model in pool.models]
    rest = [model for model in seen if not model.observation.pool]
    # One in trouble has no budget that could be taken off: what it holds of common nodes counts as if it were gone.
    apart = {name: pool for name, pool in declared.items() if name in settlement.budgets or pool.spec.node_selector}
    pools, without_budget = _split_pools(rest, snapshot, apart, budgets, advertised, settlement.taken)
    blocked += [_block_without_budget(model, advertised, now) for model in without_budget]
    ready = tuple(replace(pool, nodes=_nodes_of(pool, advertised)) for pool in (*shared, *pools))
    return Seen(ready, tuple(blocked), _highest_epoch(snapshot, seen), unready)


def _nodes_of(pool: Pool, advertised: Advertised) -> tuple[NodeRoom, ...]:
    """The pool's nodes, where any replica of its models takes more than one accelerator."""
    sizes = [tier.replica.accelerators for model in pool.models for tier in model.observation.spec.tiers]
    if max(sizes, default=1) < 2:
        return ()
    return advertised.rooms.get(pool.group, ())


def _fill_declared(
    seen: Iterable[SeenModel], snapshot: Snapshot, declared: Mapping[str, DeclaredPool], settlement: Settlement
) -> tuple[tuple[Pool, ...], tuple[Pool, ...]]:
    """AcceleratorPools with their models: those with a budget, and those with a trouble instead."""
    members: dict[str, list[SeenModel]] = {name: [] for name in declared}
    for model in seen:
        if model.observation.pool:
            members[model.observation.pool].append(model)
    ready: list[Pool] = []
    unready: list[Pool] = []
    for name, pool in sorted(declared.items()):
        models = tuple(sorted(members[name], key=lambda m: m.observation.key))
        held = _held_in_all(snapshot, pool.spec.resource, partial(_holds_from, name, declared))
        others = held - sum(_held_from(m, pool.name, declared) for m in models)
        if name in settlement.budgets:
            mine = settlement.budgets[name]
            budget = max(0, mine.budget - others)
            ready.append(Pool(pool.spec.resource, budget, models, others, mine.budget, mine.surge, pool))
        else:
            told = replace(pool, trouble=settlement.troubles[name])
            unready.append(Pool(pool.spec.resource, 0, models, others, declared=told))
    return tuple(ready), tuple(unready)


def _holds_from(pool: str, declared: Mapping[str, DeclaredPool], raw: Raw) -> bool:
    """`pool` empty: from none that exists."""
    return pool_of(raw, declared) == pool


def _held_from(model: SeenModel, pool: str, declared: Mapping[str, DeclaredPool]) -> int:
    """What a model holds from one pool (empty: from none). What it still holds from an earlier one counts there."""
    seen = model.observation
    here = tuple(item for item in seen.stateful_sets if pool_of(item.manifest, declared) == pool)
    elsewhere = {item.name for item in seen.stateful_sets} - {item.name for item in here}
    pods = tuple(pod for pod in seen.pods if pod.stateful_set not in elsewhere)
    return held_accelerators(replace(seen, stateful_sets=here, pods=pods))


def _split_pools(
    seen: Iterable[SeenModel],
    snapshot: Snapshot,
    declared: Mapping[str, DeclaredPool],
    budgets: Mapping[str, int],
    advertised: Advertised,
    taken: Mapping[str, int],
) -> tuple[tuple[Pool, ...], list[SeenModel]]:
    """Models that name no pool, by resource; `taken` is what AcceleratorPools have of the same nodes."""
    by_resource: dict[str, list[SeenModel]] = {}
    for model in seen:
        by_resource.setdefault(model.observation.spec.accelerators.resource, []).append(model)
    pools: list[Pool] = []
    without_budget: list[SeenModel] = []
    for resource, models in sorted(by_resource.items()):
        asked = [m.observation.spec.accelerators.budget for m in models]
        found = find_budget(resource, asked, budgets, advertised.by_resource)
        if found is None:
            without_budget += models
            continue
        models.sort(key=lambda m: m.observation.key)
        is_named = resource in budgets or not advertised.by_resource.get(resource)
        stray = _find_stray(snapshot, resource, models, declared, advertised.engine_labels)
        own = sum(_held_from(m, "", declared) for m in models)
        strangers = _held_in_all(snapshot, resource, partial(_holds_from, "", declared)) - own
        # A named budget is not about the nodes of pools. Where nodes are counted, those of a pool that is gone are too.
        others = strangers - stray.apart if is_named else strangers
        budget = max(0, found - taken.get(resource, 0))
        # What nobody decides about any more leaves no room, but makes no one shrink.
        kept = min(own, budget - strangers + stray.held)
        pools.append(Pool(resource, max(0, budget - others, kept), tuple(models), others, budget))
    return tuple(pools), without_budget


@dataclass(frozen=True, slots=True)
class _Stray:
    """Accelerators that are held from pools that are gone."""

    held: int = 0
    apart: int = 0  # of these: on nodes that only such a pool had


def _find_stray(
    snapshot: Snapshot,
    resource: str,
    models: Iterable[SeenModel],
    declared: Mapping[str, DeclaredPool],
    engine_labels: Mapping[str, str],
) -> _Stray:
    """Those that are not held by one of `models`, which name no pool (any more)."""
    if not any(is_stray(raw, declared) for raw in (*snapshot.stateful_sets, *snapshot.pods)):
        return _Stray()
    own = {(m.observation.namespace, m.observation.name) for m in models}

    def belongs(raw: Raw) -> bool:
        return is_stray(raw, declared) and model_key(raw) not in own

    held = _held_in_all(snapshot, resource, belongs)
    apart = _held_in_all(snapshot, resource, lambda raw: belongs(raw) and stands_apart(raw, engine_labels))
    return _Stray(held, apart)


def find_budget(
    resource: str, asked: Iterable[int | None], budgets: Mapping[str, int], advertised: Mapping[str, int]
) -> int | None:
    """The operator's budget, else what nodes advertise, else the largest that a model names; None if there is none.

    A model's own budget caps that model alone: it neither makes accelerators nor takes them from its neighbours. It
    stands for the pool only where nobody can count, or where nodes appear on demand.
    """
    if resource in budgets:
        return budgets[resource]
    named = [budget for budget in asked if budget is not None]
    return advertised.get(resource) or max(named, default=None)


def _held_in_all(snapshot: Snapshot, resource: str, belongs: Callable[[Raw], bool]) -> int:
    """Accelerators held by all that has our label: also by models that were deleted, moved away or cannot be read.

    As far as it belongs: asked of each StatefulSet, and of pods that have none.
    """
    existing: dict[tuple[str, str], list[Raw]] = {}
    for pod in snapshot.pods:
        if not has_ended(pod):
            existing.setdefault((metadata_of(pod).get("namespace", ""), stateful_set_of(pod)), []).append(pod)
    total = 0
    for item in snapshot.stateful_sets:
        pods = existing.pop((metadata_of(item).get("namespace", ""), str(metadata_of(item)["name"])), [])
        if not belongs(item):
            continue
        replicas = int((item.get("spec") or {}).get("replicas") or 0)
        held = count_held(replicas, {ordinal_of(pod) for pod in pods})
        total += held * count_of_replica(item, pods, resource)
    orphans = [pod for pods in existing.values() for pod in pods if belongs(pod)]
    return total + sum(count_accelerators(pod.get("spec") or {}, resource) for pod in orphans)


def _block(raw: Raw, reason: FaultReason, message: str, now: float) -> BlockedModel:
    metadata = metadata_of(raw)
    fault = Fault(reason, message, int(metadata.get("generation") or 0), format_time(now), blocks=True)
    identity = (str(metadata["namespace"]), str(metadata["name"]), str(metadata["uid"]))
    return BlockedModel(*identity, str(metadata["resourceVersion"]), raw.get("status") or {}, fault)


def _block_in_pool(model: SeenModel, pool: Pool, now: float) -> BlockedModel:
    seen, trouble = model.observation, pool.declared.trouble if pool.declared is not None else None
    cause = f"{trouble.reason}: {trouble.message}" if trouble is not None else "it is not ready"
    message = f"replicas stay as they are, because of AcceleratorPool {pool.name}. {cause}"
    fault = Fault(FaultReason.POOL_NOT_READY, message, seen.generation, format_time(now), blocks=True)
    return BlockedModel(seen.namespace, seen.name, seen.uid, model.resource_version, model.raw_status, fault)


def _block_without_budget(model: SeenModel, advertised: Advertised, now: float) -> BlockedModel:
    seen, resource = model.observation, model.observation.spec.accelerators.resource
    reason, cause = _explain_no_budget(resource, advertised)
    message = (
        f"{cause}; or set spec.accelerators.budget of the model, or the chart's accelerators.budgets (the operator's"
        f' ADAPTIVE_ACCELERATOR_BUDGETS), e.g. {{"{resource}": 4}}'
    )
    fault = Fault(reason, message, seen.generation, format_time(now), blocks=True)
    return BlockedModel(seen.namespace, seen.name, seen.uid, model.resource_version, model.raw_status, fault)


def _explain_no_budget(resource: str, advertised: Advertised) -> tuple[FaultReason, str]:
    """Why there is no budget, up to the remedy that is special to the cause."""
    if resource in advertised.by_resource:
        return FaultReason.NO_ACCELERATORS, (
            f"no node that is Ready, schedulable and open to engine pods advertises {resource}, so nothing is started:"
            " install its device plugin, or uncordon a node"
        )
    if advertised.trouble is not None:
        return FaultReason.BUDGET_UNKNOWN, (
            f"nobody says how many {resource} there are, and the nodes could not be asked ({advertised.trouble}), so"
            " replicas stay as they are: let the operator list nodes (chart: accelerators.discover)"
        )
    return FaultReason.BUDGET_UNKNOWN, (
        f"nobody says how many {resource} there are, and the operator may not count them on the nodes: allow it"
        " (chart: accelerators.discover, with scope cluster only)"
    )


def _highest_epoch(snapshot: Snapshot, seen: Iterable[SeenModel]) -> int:
    swaps = (m.observation.swap.epoch for m in seen if m.observation.swap is not None)
    uids = {m.observation.uid for m in seen}
    written = (raw for raws in (snapshot.stateful_sets, *snapshot.children.values()) for raw in raws)
    children = (epoch_of(raw) for raw in written if owner_uid(raw) in uids)
    return max((epoch for epoch in (*swaps, *children) if epoch <= _EPOCH_TO_FOLLOW), default=0)


def block_all(models: Iterable[Raw], fault: Fault | None) -> tuple[BlockedModel, ...]:
    """Every model, set aside for one common cause; nobody when there is nothing to tell."""
    if fault is None:
        return ()
    alive = (raw for raw in models if not metadata_of(raw).get("deletionTimestamp"))
    return tuple(
        BlockedModel(
            str(metadata_of(raw)["namespace"]),
            str(metadata_of(raw)["name"]),
            str(metadata_of(raw)["uid"]),
            str(metadata_of(raw)["resourceVersion"]),
            raw.get("status") or {},
            replace(fault, generation=int(metadata_of(raw).get("generation") or 0)),
        )
        for raw in alive
    )
