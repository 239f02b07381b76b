"""One model's plan: from a decision to ordered, idempotent steps.

The order is what makes a kill between any two steps harmless: the status first (a swap is on record before its first
effect), then what pods need, the StatefulSets (drain stamps count only once they are written), the routing table, the
routers, deletions, and the Events last (an Event tells what was done).
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptive_operator.api.tiers import Tier
from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.decision import Decision
from adaptive_operator.levels import levels_of
from adaptive_operator.observe.observation import ModelObservation
from adaptive_operator.plan.children import (
    apply_child,
    newer_children,
    plan_child_deletions,
    plan_foundation,
    plan_routers,
    taken_names,
)
from adaptive_operator.plan.conditions import Facts
from adaptive_operator.plan.draining import DrainRules
from adaptive_operator.plan.engine import build_stateful_set, keep_stateful_set
from adaptive_operator.plan.events import plan_events
from adaptive_operator.plan.freshness import fresh_until
from adaptive_operator.plan.lost_pods import plan_lost_pods
from adaptive_operator.plan.metadata import is_current, stamp_manifest
from adaptive_operator.plan.plan import ApplyObject, DeleteObject, Manifest, Plan, Step, WriteStatus
from adaptive_operator.plan.revisions import current_revisions
from adaptive_operator.plan.routing import (
    RoutingTable,
    WrittenTable,
    build_table_config_map,
    parse_written_table,
    plan_table,
)
from adaptive_operator.plan.settings import PlanSettings
from adaptive_operator.plan.status import build_status, build_status_manifest, means_the_same
from adaptive_operator.plan.steps import Choreography, SetStep, keep_choreography, plan_choreography


def plan_model(model: ModelObservation, decision: Decision, settings: PlanSettings, now: float, epoch: int) -> Plan:
    """Steps that lead one model towards its decision.

    `now` in Unix seconds; `epoch` is the Lease's, stamped on every child.
    """
    revisions = current_revisions(model, settings.engine_image, decision.held_back)
    taken = taken_names(model, frozenset(item.name for item in revisions.values()))
    written = parse_written_table(model.routing_table)
    newer = newer_children(model, epoch)
    until = fresh_until(model, decision, settings, now)
    acts = model.spec.mode is Mode.ACTIVE and not taken and not newer  # a stale leader starts nothing either
    if acts:
        rules = DrainRules(now, model.spec.scaling.drain_deadline_seconds, settings.drain_settle_seconds)
        uids = written.draining if written is not None else frozenset()
        holds = until is not None and until <= now
        choreography = plan_choreography(model, decision, revisions, uids, rules, epoch, holds=holds)
    else:
        choreography = keep_choreography(model, decision, revisions, epoch)
    table = plan_table(model, decision, choreography.draining, written, settings.weight_hysteresis)
    facts = Facts(model, decision, choreography, taken, newer, settings, now, epoch)
    report, events = _report(facts, written, table)
    effects = (*_effects(model, choreography, table, settings, epoch), *plan_lost_pods(model, now)) if acts else ()
    return Plan(decision.key, (*report, *effects, *events), until)


def _report(
    facts: Facts, written: WrittenTable | None, table: RoutingTable
) -> tuple[tuple[WriteStatus, ...], tuple[Step, ...]]:
    """The status step, if it has something to tell, and the Events that go with it."""
    weights = table.weights if facts.model.spec.mode is Mode.ACTIVE else (written.weights if written else {})
    status = build_status(facts, written, weights)
    before = facts.model.status
    if means_the_same(status, before):
        return (), ()
    told = WriteStatus(build_status_manifest(facts.model, status))
    return (told,), plan_events(status, before, facts.model.spec.mode)


def _effects(
    model: ModelObservation, choreography: Choreography, table: RoutingTable, settings: PlanSettings, epoch: int
) -> Iterator[Step]:
    yield from plan_foundation(model, epoch)
    for step in sorted(choreography.steps, key=_largest_start_first):
        yield from _apply_stateful_set(model, step, settings, epoch)
    yield from apply_child(model, build_table_config_map(model, table, epoch), epoch)
    yield from plan_routers(model, settings, epoch)
    for step in choreography.steps:
        yield from _delete_stateful_set(step)
    yield from plan_child_deletions(model, epoch)


def _largest_start_first(step: SetStep) -> int:
    """Pods get their nodes in the order in which they are asked for: a small one must not take a large one's place."""
    return -step.group.accelerators if step.replicas > step.group.asked else 0


def _apply_stateful_set(
    model: ModelObservation, step: SetStep, settings: PlanSettings, epoch: int
) -> Iterator[ApplyObject]:
    """One step, or none: not made before it has a replica, not written while it is as it should be or not ours."""
    observed = step.group.observed
    if step.group.fenced or step.delete or (observed is None and step.replicas == 0):
        return
    manifest = _render_stateful_set(model, step, settings)
    if manifest is None:
        return
    stamped = stamp_manifest(manifest, epoch)
    if observed is None:
        yield ApplyObject(stamped, None)
    elif not is_current(stamped, observed.manifest):
        yield ApplyObject(stamped, observed.resource_version, step.takes_away)


def _render_stateful_set(model: ModelObservation, step: SetStep, settings: PlanSettings) -> Manifest | None:
    """From the spec for a revision of today's engine image; else with the template that it was made with."""
    group, observed = step.group, step.group.observed
    current, tier = group.current, _made_from(model, step)
    if current is not None and tier is not None and (observed is None or current.image == settings.engine_image):
        return build_stateful_set(model, tier, current, step.replicas, step.draining, settings)
    if observed is None or "spec" not in observed.manifest:
        return None  # nothing to keep its template from: leave it as it is
    levels = levels_of(tier) if tier is not None else observed.levels  # a card may be edited without a new revision
    return keep_stateful_set(model, observed, step.replicas, step.draining, levels)


def _made_from(model: ModelObservation, step: SetStep) -> Tier | None:
    """The tier of the spec as it is today; None for a revision that was made from an earlier one."""
    current = step.group.current
    if current is None or not current.of_spec:
        return None
    return next(item for item in model.spec.tiers if item.name == step.group.tier)


def _delete_stateful_set(step: SetStep) -> Iterator[DeleteObject]:
    observed = step.group.observed
    if step.delete and observed is not None:
        yield DeleteObject("StatefulSet", observed.name, observed.uid, observed.resource_version)
