"""One AdaptiveModel as read, with its children, parsed into an observation. Pure.

Metrics are filled in later: see `readings.py`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from adaptive_operator.api.accelerators import Accelerators
from adaptive_operator.api.status import AdaptiveModelStatus
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.faults import FaultReason
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
from adaptive_operator.observe.curve_cards import complete_cards
from adaptive_operator.observe.declared import DeclaredPool, HomelessError, join_pool
from adaptive_operator.observe.manifests import (
    UNREADABLE,
    Raw,
    annotations_of,
    count_accelerators,
    count_of_replica,
    epoch_of,
    find_extended,
    labels_of,
    metadata_of,
    model_key,
    owner_uid,
    parse_time,
    template_of,
)
from adaptive_operator.observe.observation import (
    ChildObservation,
    ModelMetrics,
    ModelObservation,
    StatefulSetObservation,
    Unknown,
)
from adaptive_operator.observe.pods import has_ended, parse_pod, parse_router_pod, stateful_set_of
from adaptive_operator.observe.readings import RouterPod
from adaptive_operator.observe.remembered import recall_memory, recall_swap
from adaptive_operator.plan.draining import parse_draining

_LOG = logging.getLogger(__name__)
_NOT_READ = Unknown("all", "not read")
_NO_METRICS = ModelMetrics(_NOT_READ, _NOT_READ, _NOT_READ, _NOT_READ, _NOT_READ, _NOT_READ, _NOT_READ)


@dataclass(frozen=True, slots=True)
class SeenModel:
    """One AdaptiveModel, its children and what is needed to write its status."""

    observation: ModelObservation
    resource_version: str
    raw_status: Mapping[str, Any]
    routers: tuple[RouterPod, ...] = ()


@dataclass(slots=True)
class ModelIndex:
    """Children by model, so that 1,000 models do not mean 1,000 walks over all pods."""

    pods: dict[tuple[str, str], list[Raw]] = field(default_factory=dict)
    stateful_sets: dict[tuple[str, str], list[Raw]] = field(default_factory=dict)
    children: dict[tuple[str, str], list[Raw]] = field(default_factory=dict)


def parse_model(
    raw: Raw, index: ModelIndex, declared: Mapping[str, DeclaredPool], pools_trouble: str | None = None
) -> SeenModel:
    """One model with its children.

    Raises pydantic's ValidationError when the spec does not parse, and HomelessError when its pool is none for it.
    """
    metadata = metadata_of(raw)
    spec = AdaptiveModelSpec.model_validate(raw.get("spec") or {})
    accelerators, pool = join_pool(spec.accelerators, declared, pools_trouble)
    completed = complete_cards(spec.model_copy(update={"accelerators": accelerators}))
    spec = completed.spec
    status = _parse_status(raw.get("status"))
    key = (str(metadata["namespace"]), str(metadata["name"]))
    uid = str(metadata["uid"])
    sets, foreign_sets = _split_by_owner(index.stateful_sets.get(key, ()), uid)
    _check_holdings(sets, accelerators)
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
        stateful_sets=tuple(_parse_stateful_set(item, resource, engines) for item in sets),
        pods=tuple(sorted((parse_pod(pod, resource) for pod in engines), key=lambda pod: pod.name)),
        children=children,
        routers_ready=len(routers),
        routers_ready_since=min((router.ready_since for router in routers), default=None),
        routing_generation=_table_generation(table),
        status=status,
        routing_table=table,
        pool=pool.name if pool is not None else "",
        node_selector=pool.spec.node_selector if pool is not None else {},
        pool_price_milli=pool.spec.price_per_accelerator_hour_milli if pool is not None else None,
        rates_from_curves=completed.from_curves,
    )
    return SeenModel(observation, str(metadata["resourceVersion"]), raw.get("status") or {}, tuple(routers))


def describe_validation(error: ValidationError) -> str:
    """Field and cause of the first few errors, as the user wrote the fields."""
    parts = [f"spec.{'.'.join(str(step) for step in item['loc'])}: {item['msg']}" for item in error.errors()[:3]]
    return f"this operator cannot read the model ({'; '.join(parts)}); correct the fields, or update CRD and operator"


def build_index(snapshot: Snapshot) -> ModelIndex:
    index = ModelIndex()
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


def _check_holdings(sets: Iterable[Raw], accelerators: Accelerators) -> None:
    """Replicas that hold another resource cannot be counted or exchanged within this budget. Raises HomelessError."""
    for raw in sets:
        held = find_extended(template_of(raw))
        if held and accelerators.resource not in held:
            raise HomelessError(
                FaultReason.POOL_MISMATCH,
                f"StatefulSet {metadata_of(raw)['name']} holds {', '.join(sorted(held))}, and the model is to use"
                f" {accelerators.resource}: replicas stay as they are; name a pool of the resource that they hold, or"
                " delete the model and create it anew",
            )


def _parse_stateful_set(raw: Raw, resource: str, pods: Iterable[Raw]) -> StatefulSetObservation:
    metadata, labels, annotations = metadata_of(raw), labels_of(raw), annotations_of(raw)
    spec = raw.get("spec") or {}
    containers = template_of(raw).get("containers") or [{}]
    own = [pod for pod in pods if stateful_set_of(pod) == metadata["name"]]
    _tell_if_bare(raw, resource)
    return StatefulSetObservation(
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        resource_version=str(metadata["resourceVersion"]),
        tier=labels.get(LABEL_TIER, ""),
        revision=labels.get(LABEL_REVISION, ""),
        tier_inputs=annotations.get(ANNOTATION_TIER_INPUTS, ""),
        image=str(containers[0].get("image", "")),
        replicas=int(spec.get("replicas") or 0),
        accelerators=count_of_replica(raw, own, resource),
        epoch=epoch_of(raw),
        draining=parse_draining(annotations.get(ANNOTATION_DRAINING)),
        manifest=raw,
        levels=parse_levels(annotations.get(ANNOTATION_LEVELS)),
    )


def _tell_if_bare(raw: Raw, resource: str) -> None:
    """Nobody makes a tier without accelerators: somebody edited the limit away."""
    if count_accelerators(template_of(raw), resource) == 0:
        told = "its replicas count what they were made with; if it is the present revision it is written anew"
        name = f"{metadata_of(raw).get('namespace')}/{metadata_of(raw)['name']}"
        _LOG.warning("StatefulSet %s asks for no %s, somebody edited that: %s", name, resource, told)


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
    except (*UNREADABLE, TypeError, AttributeError):
        return 0


def with_metrics(model: SeenModel, metrics: ModelMetrics) -> ModelObservation:
    """The observation, complete."""
    return replace(model.observation, metrics=metrics)
