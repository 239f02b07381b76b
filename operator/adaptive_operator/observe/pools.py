"""From a raw snapshot to pools of models that share an accelerator resource and its budget. Pure.

A model that cannot be parsed, or whose budget nobody knows, is set aside with its fault; what it holds still counts.
Metrics are filled in later: see `readings.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec, AdaptiveModelStatus
from adaptive_operator.faults import Fault, FaultReason, format_time
from adaptive_operator.levels import parse_levels
from adaptive_operator.names import (
    ANNOTATION_DRAINING,
    ANNOTATION_LEVELS,
    ANNOTATION_TIER_INPUTS,
    COMPONENT_ENGINE,
    COMPONENT_ROUTER,
    LABEL_COMPONENT,
    LABEL_REVISION,
    LABEL_TIER,
    TABLE_KEY,
    routing_table_name,
)
from adaptive_operator.observe.cluster import Snapshot
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.observe.inventory import Advertised
from adaptive_operator.observe.manifests import (
    Raw,
    annotations_of,
    count_accelerators,
    epoch_of,
    labels_of,
    metadata_of,
    model_key,
    owner_uid,
    parse_time,
)
from adaptive_operator.observe.observation import (
    ChildObservation,
    ModelMetrics,
    ModelObservation,
    StatefulSetObservation,
    Unknown,
)
from adaptive_operator.observe.pods import has_ended, ordinal_of, parse_pod, parse_router_pod, stateful_set_of
from adaptive_operator.observe.readings import RouterPod
from adaptive_operator.observe.remembered import recall_memory, recall_swap
from adaptive_operator.plan.draining import parse_draining

_NOT_ADVERTISED = Advertised()
_NOT_READ = Unknown("all", "not read")
# No Lease changes hands that often: a higher epoch was edited by hand. Its child is left alone and the Lease is not
# raised, so that one annotation cannot exhaust the Lease's 32-bit counter for all models.
_EPOCH_TO_FOLLOW = 1_000_000_000
_NO_METRICS = ModelMetrics(_NOT_READ, _NOT_READ, _NOT_READ, _NOT_READ, _NOT_READ, _NOT_READ, _NOT_READ)


@dataclass(frozen=True, slots=True)
class SeenModel:
    """One AdaptiveModel, its children and what is needed to write its status."""

    observation: ModelObservation
    resource_version: str
    raw_status: Mapping[str, Any]
    routers: tuple[RouterPod, ...] = ()


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
    """Models that share one accelerator resource."""

    resource: str
    budget: int  # for these models: what strangers hold is taken off
    models: tuple[SeenModel, ...]  # sorted by key
    held_by_others: int = 0
    total: int = 0  # the budget before that


@dataclass(frozen=True, slots=True)
class Seen:
    """One pass' view of the cluster."""

    pools: tuple[Pool, ...]
    blocked: tuple[BlockedModel, ...]
    highest_epoch: int  # on any child or swap record


@dataclass(slots=True)
class _Index:
    """Children by model, so that 1,000 models do not mean 1,000 walks over all pods."""

    pods: dict[tuple[str, str], list[Raw]] = field(default_factory=dict)
    stateful_sets: dict[tuple[str, str], list[Raw]] = field(default_factory=dict)
    children: dict[tuple[str, str], list[Raw]] = field(default_factory=dict)


def build_pools(
    snapshot: Snapshot, budgets: Mapping[str, int], now: float, advertised: Advertised = _NOT_ADVERTISED
) -> Seen:
    """Sort the snapshot into pools. `budgets` are the operator's, by resource; `now` in seconds since the epoch.

    What nodes advertise counts for a resource for which neither the operator nor a model names a budget.
    """
    index = _build_index(snapshot)
    seen: list[SeenModel] = []
    blocked: list[BlockedModel] = []
    for raw in snapshot.models:
        if metadata_of(raw).get("deletionTimestamp"):
            continue  # its children go with it; what they still hold is counted below
        try:
            seen.append(parse_model(raw, index))
        except ValidationError as error:
            blocked.append(_block(raw, FaultReason.INVALID_SPEC, describe_validation(error), now))
    pools, without_budget = _split_pools(seen, snapshot, budgets, advertised.by_resource)
    blocked += [_block_without_budget(model, advertised, now) for model in without_budget]
    return Seen(pools, tuple(blocked), _highest_epoch(snapshot, seen))


def parse_model(raw: Raw, index: _Index) -> SeenModel:
    """One model with its children. Raises pydantic's ValidationError when the spec does not parse."""
    metadata = metadata_of(raw)
    spec = AdaptiveModelSpec.model_validate(raw.get("spec") or {})
    status = _parse_status(raw.get("status"))
    key = (str(metadata["namespace"]), str(metadata["name"]))
    uid = str(metadata["uid"])
    sets, foreign_sets = _split_by_owner(index.stateful_sets.get(key, ()), uid)
    children = tuple(_parse_child(child) for child in (*index.children.get(key, ()), *foreign_sets))
    table = _routing_table(index.children.get(key, ()), key[1], uid)
    pods = index.pods.get(key, ())
    engines = [pod for pod in pods if labels_of(pod).get(LABEL_COMPONENT) == COMPONENT_ENGINE and not has_ended(pod)]
    routers = [
        r for pod in pods if labels_of(pod).get(LABEL_COMPONENT) == COMPONENT_ROUTER if (r := parse_router_pod(pod))
    ]
    resource = spec.accelerators.resource
    observation = ModelObservation(
        namespace=key[0],
        name=key[1],
        uid=uid,
        generation=int(metadata.get("generation") or 0),
        created_at=parse_time(metadata.get("creationTimestamp")) or 0.0,
        spec=spec,
        memory=recall_memory(status),
        swap=recall_swap(status),
        metrics=_NO_METRICS,
        stateful_sets=tuple(_parse_stateful_set(item, resource) for item in sets),
        pods=tuple(sorted((parse_pod(pod, resource) for pod in engines), key=lambda pod: pod.name)),
        children=children,
        routers_ready=len(routers),
        routers_ready_since=min((router.ready_since for router in routers), default=None),
        routing_generation=_table_generation(table),
        status=status,
        routing_table=table,
    )
    return SeenModel(observation, str(metadata["resourceVersion"]), raw.get("status") or {}, tuple(routers))


def describe_validation(error: ValidationError) -> str:
    """Field and cause of the first few errors, as the user wrote the fields."""
    parts = [f"spec.{'.'.join(str(step) for step in item['loc'])}: {item['msg']}" for item in error.errors()[:3]]
    return f"this operator cannot read the model ({'; '.join(parts)}); correct the fields, or update CRD and operator"


def _build_index(snapshot: Snapshot) -> _Index:
    index = _Index()
    for pod in snapshot.pods:
        index.pods.setdefault(model_key(pod), []).append(pod)
    for item in snapshot.stateful_sets:
        index.stateful_sets.setdefault(model_key(item), []).append(item)
    owners = {
        str(metadata_of(m).get("uid")): (metadata_of(m)["namespace"], metadata_of(m)["name"]) for m in snapshot.models
    }
    for raws in snapshot.children.values():
        for raw in raws:
            # A child whose label was edited away, or that never was ours, is found by its owner or by its name.
            keys = {model_key(raw), owners.get(owner_uid(raw) or "", ("", ""))} | set(_name_keys(raw, owners.values()))
            for key in keys - {("", "")}:
                index.children.setdefault(key, []).append(raw)
    return index


def _name_keys(raw: Raw, models: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """Models whose children's names this object could carry, when it has no label of ours."""
    if labels_of(raw):
        key = model_key(raw)
        if key[1]:
            return ()
    namespace, name = metadata_of(raw).get("namespace"), str(metadata_of(raw).get("name"))
    return [key for key in models if key[0] == namespace and name.startswith(key[1][:24])]


def _split_by_owner(stateful_sets: Sequence[Raw], uid: str) -> tuple[list[Raw], list[Raw]]:
    """Ours, and those of a namesake that was deleted (or of a stranger)."""
    ours = [item for item in stateful_sets if owner_uid(item) == uid]
    return ours, [item for item in stateful_sets if owner_uid(item) != uid]


def _parse_stateful_set(raw: Raw, resource: str) -> StatefulSetObservation:
    metadata, labels, annotations = metadata_of(raw), labels_of(raw), annotations_of(raw)
    spec = raw.get("spec") or {}
    pod_spec = ((spec.get("template") or {}).get("spec")) or {}
    containers = pod_spec.get("containers") or [{}]
    return StatefulSetObservation(
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        resource_version=str(metadata["resourceVersion"]),
        tier=labels.get(LABEL_TIER, ""),
        revision=labels.get(LABEL_REVISION, ""),
        tier_inputs=annotations.get(ANNOTATION_TIER_INPUTS, ""),
        image=str(containers[0].get("image", "")),
        replicas=int(spec.get("replicas") or 0),
        accelerators=count_accelerators(pod_spec, resource),
        epoch=epoch_of(raw),
        draining=parse_draining(annotations.get(ANNOTATION_DRAINING)),
        manifest=raw,
        levels=parse_levels(annotations.get(ANNOTATION_LEVELS)),
    )


def _parse_child(raw: Raw) -> ChildObservation:
    metadata = metadata_of(raw)
    return ChildObservation(
        kind=str(raw["kind"]),
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        resource_version=str(metadata["resourceVersion"]),
        epoch=epoch_of(raw),
        owner_uid=owner_uid(raw),
        labels=labels_of(raw),
        manifest=raw,
    )


def _parse_status(raw: Any) -> AdaptiveModelStatus | None:
    try:
        return AdaptiveModelStatus.model_validate(raw) if raw else None
    except ValidationError:
        return None  # written by another version: replaced as a whole


def _routing_table(children: Sequence[Raw], model: str, uid: str) -> str | None:
    name = routing_table_name(model)
    for raw in children:
        if raw["kind"] == "ConfigMap" and metadata_of(raw)["name"] == name and owner_uid(raw) == uid:
            return (raw.get("data") or {}).get(TABLE_KEY)
    return None


def _table_generation(table: str | None) -> int:
    try:
        return int(json.loads(table or "{}").get("generation", 0))
    except (ValueError, TypeError, AttributeError):
        return 0


def _split_pools(
    seen: Iterable[SeenModel], snapshot: Snapshot, budgets: Mapping[str, int], advertised: Mapping[str, int]
) -> tuple[tuple[Pool, ...], list[SeenModel]]:
    by_resource: dict[str, list[SeenModel]] = {}
    for model in seen:
        by_resource.setdefault(model.observation.spec.accelerators.resource, []).append(model)
    pools: list[Pool] = []
    without_budget: list[SeenModel] = []
    for resource, models in sorted(by_resource.items()):
        asked = [m.observation.spec.accelerators.budget for m in models]
        budget = find_budget(resource, asked, budgets, advertised)
        if budget is None:
            without_budget += models
            continue
        models.sort(key=lambda m: m.observation.key)
        others = _held_in_all(snapshot, resource) - sum(held_accelerators(m.observation) for m in models)
        pools.append(Pool(resource, max(0, budget - others), tuple(models), others, budget))
    return tuple(pools), without_budget


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


def _held_in_all(snapshot: Snapshot, resource: str) -> int:
    """Accelerators held by all that has our label: also by models that were deleted, moved away or cannot be read."""
    existing: dict[tuple[str, str], list[Raw]] = {}
    for pod in snapshot.pods:
        if not has_ended(pod):
            existing.setdefault((metadata_of(pod).get("namespace", ""), stateful_set_of(pod)), []).append(pod)
    total = 0
    for item in snapshot.stateful_sets:
        pods = existing.pop((metadata_of(item).get("namespace", ""), str(metadata_of(item)["name"])), [])
        template = (((item.get("spec") or {}).get("template") or {}).get("spec")) or {}
        ordinals = {ordinal_of(pod) for pod in pods}
        wanted = range(int((item.get("spec") or {}).get("replicas") or 0))
        total += len(ordinals | set(wanted)) * count_accelerators(template, resource)
    return total + sum(
        count_accelerators(pod.get("spec") or {}, resource) for pods in existing.values() for pod in pods
    )


def _block(raw: Raw, reason: FaultReason, message: str, now: float) -> BlockedModel:
    metadata = metadata_of(raw)
    fault = Fault(reason, message, int(metadata.get("generation") or 0), format_time(now), blocks=True)
    identity = (str(metadata["namespace"]), str(metadata["name"]), str(metadata["uid"]))
    return BlockedModel(*identity, str(metadata["resourceVersion"]), raw.get("status") or {}, fault)


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


def with_metrics(model: SeenModel, metrics: ModelMetrics) -> ModelObservation:
    """The observation, complete."""
    return replace(model.observation, metrics=metrics)


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
