"""All children of a model but its StatefulSets: which there should be, which are written, which go.

A child is written when it is absent, differs from what it should be, or carries an older epoch. One that belongs to
somebody else, or was written under a higher epoch, is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adaptive_operator import names
from adaptive_operator.observe.observation import ChildObservation, ModelObservation
from adaptive_operator.plan.metadata import is_current, stamp_manifest
from adaptive_operator.plan.plan import ApplyObject, DeleteObject
from adaptive_operator.plan.router import (
    build_deployment,
    build_disruption_budget,
    build_role,
    build_role_binding,
    build_service_account,
)
from adaptive_operator.plan.services import build_endpoint_service, build_tier_service
from adaptive_operator.plan.settings import PlanSettings

CHILD_KINDS = (
    "ConfigMap",
    "Deployment",
    "PodDisruptionBudget",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceAccount",
    "StatefulSet",
)
"""Kinds that `ModelObservation.children` has to cover (StatefulSets there: only those that are not ours)."""


def expected_names(model: ModelObservation) -> tuple[tuple[str, str], ...]:
    """(kind, name) of every child whose name somebody else could have taken; the observation has to look for each."""
    router = names.router_name(model.name)
    tier_services = (names.tier_service_name(model.name, tier.name) for tier in model.spec.tiers)
    return (
        ("Service", names.endpoint_service_name(model.name)),
        ("ConfigMap", names.routing_table_name(model.name)),
        *((kind, router) for kind in ("Deployment", "ServiceAccount", "Role", "RoleBinding", "PodDisruptionBudget")),
        *(("Service", name) for name in tier_services),
    )


def taken_names(model: ModelObservation, stateful_set_names: frozenset[str]) -> tuple[str, ...]:
    """Children's names that belong to somebody else: `Service assistant`."""
    expected = {*expected_names(model), *(("StatefulSet", name) for name in stateful_set_names)}
    foreign = {(child.kind, child.name) for child in model.children if child.owner_uid != model.uid}
    return tuple(f"{kind} {name}" for kind, name in sorted(expected & foreign))


def are_leftovers(model: ModelObservation, taken: tuple[str, ...]) -> bool:
    """Whether all these names belong to a deleted AdaptiveModel of the same name, so that they free themselves."""
    owners = {
        f"{child.kind} {child.name}": child.owner_uid is not None and child.labels.get(names.LABEL_MODEL) == model.name
        for child in model.children
    }
    return all(owners[name] for name in taken)


def newer_children(model: ModelObservation, epoch: int) -> tuple[str, ...]:
    """Children that were written under a higher epoch than ours."""
    sets = (("StatefulSet", item.name) for item in model.stateful_sets if item.epoch > epoch)
    others = (
        (child.kind, child.name) for child in model.children if child.epoch > epoch and child.owner_uid == model.uid
    )
    return tuple(f"{kind} {name}" for kind, name in sorted([*sets, *others]))


def plan_foundation(model: ModelObservation, epoch: int) -> Iterator[ApplyObject]:
    """What pods need before they start: identity, rights and Services."""
    yield from apply_child(model, build_service_account(model), epoch)
    yield from apply_child(model, build_role(model), epoch)
    yield from apply_child(model, build_role_binding(model), epoch)
    yield from apply_child(model, build_endpoint_service(model), epoch)
    for tier in _served_tiers(model):
        yield from apply_child(model, build_tier_service(model, tier), epoch)


def plan_routers(model: ModelObservation, settings: PlanSettings, epoch: int) -> Iterator[ApplyObject]:
    """The routers, after their table exists."""
    yield from apply_child(model, build_deployment(model, settings), epoch)
    if model.spec.routing.router_replicas > 1:
        yield from apply_child(model, build_disruption_budget(model), epoch)


def plan_child_deletions(model: ModelObservation, epoch: int) -> Iterator[DeleteObject]:
    """Services of tiers that left the spec and have no pods any more; a disruption budget when one router is left."""
    kept = {names.tier_service_name(model.name, tier) for tier in _served_tiers(model)}
    for child in model.children:
        if child.owner_uid != model.uid or child.epoch > epoch:
            continue
        old_service = child.kind == "Service" and names.LABEL_TIER in child.labels and child.name not in kept
        old_budget = child.kind == "PodDisruptionBudget" and model.spec.routing.router_replicas <= 1
        if old_service or old_budget:
            yield DeleteObject(child.kind, child.name, child.uid, child.resource_version)


def apply_child(model: ModelObservation, manifest: Mapping[str, Any], epoch: int) -> Iterator[ApplyObject]:
    """One step, or none when the child is as it should be or not ours to change."""
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    observed = next((child for child in model.children if (child.kind, child.name) == (kind, name)), None)
    stamped = stamp_manifest(manifest, epoch)
    if observed is None:
        yield ApplyObject(stamped, None)
    elif _is_ours(observed, model, epoch) and not is_current(stamped, observed.manifest):
        yield ApplyObject(stamped, observed.resource_version)


def _is_ours(child: ChildObservation, model: ModelObservation, epoch: int) -> bool:
    return child.owner_uid == model.uid and child.epoch <= epoch


def _served_tiers(model: ModelObservation) -> tuple[str, ...]:
    """Tiers of the spec, then those that left it and still have something to serve or to end."""
    known = [tier.name for tier in model.spec.tiers]
    left = {item.tier for item in model.stateful_sets} | {pod.tier for pod in model.pods}
    return (*known, *sorted(left - set(known)))
