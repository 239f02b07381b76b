"""The status of a model: what it says, and whether that differs in meaning from what was written last.

Everything goes through `AdaptiveModelStatus`, so a status that the API server would refuse cannot leave this module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from adaptive_operator import names
from adaptive_operator.api.status import (
    AdaptiveModelStatus,
    CorrectionStatus,
    DecisionStatus,
    MemoryStatus,
    SwapStatus,
    TierStatus,
)
from adaptive_operator.api.tiers import Tier
from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.cards import CURVE, DECLARED
from adaptive_operator.decide.damping import only_begins
from adaptive_operator.levels import Level, levels_of, top_of
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.observe.observation import ModelObservation, PodPhase, PolicyMemory, Sample, SwapRecord
from adaptive_operator.plan.clock import format_time
from adaptive_operator.plan.conditions import Facts, Truth, build_conditions, judge_metrics_available
from adaptive_operator.plan.metadata import API_VERSION
from adaptive_operator.plan.revisions import TierRevision
from adaptive_operator.plan.routing import WrittenTable
from adaptive_operator.plan.steps import Choreography, ReplicaSet
from adaptive_operator.plan.text import describe_replicas, trim

HISTORY_LENGTH = 10
_QUALITY_STEP_PERMILLE = 10
_MAX_MAP_ENTRIES = 16
_MAX_TIERS = 32
_MAX_BINDING = 8
DRY_RUN_PREFIX = "dry run: "


def build_status(facts: Facts, written: WrittenTable | None, weights: Mapping[str, float]) -> AdaptiveModelStatus:
    """The whole status, as it should read now. `weights` are those of the routing table, by tier."""
    model, decision = facts.model, facts.decision
    entry = _decision_entry(facts)
    quality = _served_quality(facts)
    budget = _budget(facts)
    held = held_accelerators(model)
    tiers = _tiers(facts.choreography, model, weights)
    return AdaptiveModelStatus(
        observed_generation=model.generation,
        conditions=build_conditions(facts),
        tiers=tiers,
        tiers_summary=trim(_tiers_summary(tiers), 512),
        accelerators_held=held,
        accelerators_budget=budget,
        accelerators_summary=f"{held}/{budget}" if budget is not None else str(held),
        served_quality_permille=quality,
        served_quality_summary=f"{quality // 10}%" if quality is not None else None,
        reason_summary=entry.reason,
        message_summary=entry.message,
        last_decision=entry,
        history=_history(model.status, entry),
        swap=_swap(decision.swap, facts.choreography, facts.epoch),
        memory=_memory(decision.memory, model),
        routing_generation=written.generation if written is not None else None,
    )


def dump_status(status: AdaptiveModelStatus) -> dict[str, Any]:
    """As it goes over the wire; unset fields are left out, so that server-side apply removes them.

    So are memory's empty maps: when the last entry of a map goes and `{}` is applied, the API server merges both into
    null, finds that invalid, and would refuse every status from then on.
    """
    document = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    for entry in (document.get("lastDecision"), *document.get("history", ())):
        if entry is not None and not entry["binding"]:
            del entry["binding"]
    if "memory" in document:
        document["memory"] = {key: value for key, value in document["memory"].items() if value != {}}
    return document


def means_the_same(status: AdaptiveModelStatus, written: AdaptiveModelStatus | None) -> bool:
    """Whether nothing would be told by writing it again."""
    return written is not None and dump_status(status) == dump_status(written)


def build_status_manifest(model: ModelObservation, status: AdaptiveModelStatus) -> dict[str, Any]:
    """For server-side apply of the status subresource.

    The uid keeps it off a model that was made anew under the same name.
    """
    metadata = {"name": model.name, "namespace": model.namespace, "uid": model.uid}
    return {"apiVersion": API_VERSION, "kind": names.KIND, "metadata": metadata, "status": dump_status(status)}


def is_new_decision(status: AdaptiveModelStatus, written: AdaptiveModelStatus | None) -> bool:
    """Whether the last decision is another one than the last that was written, not only explained anew."""
    now, before = status.last_decision, written.last_decision if written is not None else None
    if now is None or before is None:
        return now is not before
    return not _is_same_entry(before, now)


def _decision_entry(facts: Facts) -> DecisionStatus:
    """The last entry, as long as reason, from and to are the same: times and readings of a pass are no news.

    Under another budget, other shares of the pool or another demand, other constraints bind and other mixes are
    possible: the same decision is explained anew.
    """
    decision, model = facts.decision, facts.model
    prefix = DRY_RUN_PREFIX if model.spec.mode is Mode.DRY_RUN else ""
    origin = decision.swap.origin if decision.swap is not None else _asked_replicas(facts.choreography)
    entry = DecisionStatus(
        time=format_time(facts.now),
        reason=decision.reason.value,
        message=trim(f"{prefix}{decision.message}", 1024),
        from_=trim(describe_replicas(_ordered(origin, model)), 512),
        to=trim(describe_replicas(_ordered(decision.replicas, model)), 512),
        inputs=trim(decision.inputs, 1024),
        binding=tuple(trim(name, 128) for name in decision.binding[:_MAX_BINDING]),
        alternative=trim(decision.alternative, 512) or None,
        budget=decision.budget,
        shares=decision.shares or None,
        demand_milli=decision.demand_milli,
        limit=decision.limit,
        pool=trim(decision.pool, 512) or None,
    )
    entry = _with_cause(facts, entry)
    before = model.status.last_decision if model.status is not None else None
    if before is None or model.status is None:
        return entry
    if not _is_same_decision(before, entry) or model.status.observed_generation != model.generation:
        return entry
    same = _explained_under(before) == _explained_under(entry)
    return before if same else entry.model_copy(update={"time": before.time})


def _with_cause(facts: Facts, entry: DecisionStatus) -> DecisionStatus:
    """Of a swap under way, what it began for: passes after the first only know that it goes on."""
    swap, status = facts.model.swap, facts.model.status
    if swap is None or facts.decision.swap is None or facts.decision.swap.id != swap.id or status is None:
        return entry
    since = format_time(swap.started_at)
    begun = (item for item in status.history if item.time >= since and _is_same_decision(item, entry))
    first = next(begun, None)
    return entry if first is None else entry.model_copy(update={"message": first.message})


def _explained_under(entry: DecisionStatus) -> tuple[object, ...]:
    return entry.budget, entry.shares, entry.demand_milli, entry.limit


def _is_same_decision(left: DecisionStatus, right: DecisionStatus) -> bool:
    """Whether it tells the same. What was only thought of in a dry run is another one than what is done."""
    dry = [entry.message.startswith(DRY_RUN_PREFIX) for entry in (left, right)]
    return dry[0] == dry[1] and (left.reason, left.from_, left.to) == (right.reason, right.from_, right.to)


def _is_same_entry(left: DecisionStatus, right: DecisionStatus) -> bool:
    return left.time == right.time and _is_same_decision(left, right)


def _history(status: AdaptiveModelStatus | None, entry: DecisionStatus) -> tuple[DecisionStatus, ...]:
    before = status.history if status is not None else ()
    if before and _is_same_entry(before[-1], entry):
        return (*before[:-1], entry)
    return (*before, entry)[-HISTORY_LENGTH:]


def _asked_replicas(choreography: Choreography) -> dict[str, int]:
    """Replicas asked for by tier, over all revisions."""
    asked: dict[str, int] = {}
    for step in choreography.steps:
        asked[step.group.tier] = asked.get(step.group.tier, 0) + step.group.asked
    return asked


def _ordered(replicas: Mapping[str, int], model: ModelObservation) -> dict[str, int]:
    """In the spec's order, tiers that left the spec last."""
    known = [tier.name for tier in model.spec.tiers]
    return {tier: replicas[tier] for tier in (*known, *sorted(set(replicas) - set(known))) if tier in replicas}


def _tiers(choreography: Choreography, model: ModelObservation, weights: Mapping[str, float]) -> tuple[TierStatus, ...]:
    """Tiers of the spec in its order, then those that left it and still have pods."""
    left = sorted({pod.tier for pod in model.pods} - {tier.name for tier in model.spec.tiers})
    tiers = [tier.name for tier in model.spec.tiers] + left
    return tuple(_tier(name, choreography, model, weights) for name in tiers[:_MAX_TIERS])


def _tier(name: str, choreography: Choreography, model: ModelObservation, weights: Mapping[str, float]) -> TierStatus:
    tier = next((item for item in model.spec.tiers if item.name == name), None)
    group = next((step.group for step in choreography.steps if step.group.tier == name and step.group.current), None)
    current = group.current if group is not None else None
    top = _top_in_force(tier, group)
    known = top is not None and top.is_known
    pods = [pod for pod in model.pods if pod.tier == name]
    return TierStatus(
        name=name,
        desired=group.wanted if group is not None else 0,
        replicas=len(pods),
        ready=sum(1 for pod in pods if pod.phase is PodPhase.READY),
        weight_percent=min(max(round(100 * weights.get(name, 0.0)), 0), 100),
        quality_permille=top.quality_permille if top is not None and known else None,
        card_source=_card_source(name, model, current) if known else None,
        revision=current.revision if current is not None else None,
        engine_image=trim(current.image, 512) if current is not None else None,
    )


def _card_source(name: str, model: ModelObservation, current: TierRevision | None) -> str:
    """Of an earlier revision nobody tells any more where its rate was from."""
    is_curve = name in model.rates_from_curves and (current is None or current.of_spec)
    return CURVE if is_curve else DECLARED


def _top_in_force(tier: Tier | None, group: ReplicaSet | None) -> Level | None:
    """Of a tier that goes on with an earlier revision: what that one serves."""
    if tier is None:
        return None
    if group is not None and group.current is not None and not group.current.of_spec and group.observed is not None:
        return (group.observed.levels or levels_of(tier))[0]
    return top_of(tier)


def _tiers_summary(tiers: tuple[TierStatus, ...]) -> str:
    """`full 1/1 · int4 1/1`: ready of wanted; tiers with neither are left out."""
    shown = [f"{tier.name} {tier.ready}/{tier.desired}" for tier in tiers if tier.desired or tier.replicas]
    return " · ".join(shown) or "none"


def _budget(facts: Facts) -> int | None:
    accelerators = facts.model.spec.accelerators
    limits = (accelerators.budget, facts.settings.accelerator_budgets.get(accelerators.resource))
    return min((limit for limit in limits if limit is not None), default=None)


def _served_quality(facts: Facts) -> int | None:
    """Rounded down to 10 permille; the written value stays until the reading leaves its neighbourhood.

    Example: 990 written: readings of 981 to 1004 keep it, 979 makes it 970. Unknown keeps it for a while, until
    it is certain that it tells of nothing any more.
    """
    model = facts.model
    before = model.status.served_quality_permille if model.status is not None else None
    reading = model.metrics.served_quality_permille
    if not isinstance(reading, Sample):
        return None if _is_quality_outdated(facts) else before
    value = min(max(reading.value, 0.0), 1000.0)
    half = _QUALITY_STEP_PERMILLE / 2
    if before is not None and before < 1000 and abs(value - (before + half)) < 3 * half:
        return before
    if before == 1000 and value > 1000 - _QUALITY_STEP_PERMILLE:
        return before
    return min(math.floor((value + 0.5) / _QUALITY_STEP_PERMILLE) * _QUALITY_STEP_PERMILLE, 1000)


def _is_quality_outdated(facts: Facts) -> bool:
    """Without a reading: can load not be seen at all, or was there none in the whole hold window?

    A late scrape or a short pause of the load is neither, so that the value does not come and go.
    """
    peak = facts.model.metrics.peak_arrivals
    idle = isinstance(peak, Sample) and peak.value == 0
    return idle or judge_metrics_available(facts).truth is not Truth.TRUE


def _swap(swap: SwapRecord | None, choreography: Choreography, epoch: int) -> SwapStatus | None:
    """A new record gets the epoch of the operator that writes it first."""
    if swap is None:
        return None
    return SwapStatus(
        id=trim(swap.id, 64),
        reason=trim(swap.reason, 64),
        from_=_counts(swap.origin),
        to=_counts(swap.target),
        step=choreography.step.value,
        started_at=format_time(swap.started_at),
        deadline=format_time(swap.deadline),
        epoch=swap.epoch or epoch,
        predicted_gain_permille=swap.predicted_gain_permille,
        predicted_gain_of=swap.predicted_gain_of,
        predicted_dip_permille=swap.predicted_dip_permille,
    )


def _counts(replicas: Mapping[str, int]) -> dict[str, int]:
    """Tiers with replicas first, so that those are never cut off."""
    entries = sorted(replicas.items(), key=lambda item: (item[1] == 0, item[0]))
    return dict(sorted(entries[:_MAX_MAP_ENTRIES]))


def _memory(memory: PolicyMemory, model: ModelObservation) -> MemoryStatus:
    latest = sorted(memory.quarantined_until.items(), key=lambda item: (-item[1], item[0]))[:_MAX_MAP_ENTRIES]
    causes = {tier: memory.quarantine_causes[tier] for tier, _ in latest if tier in memory.quarantine_causes}
    return MemoryStatus(
        last_change_at=_optional_time(memory.last_change_at),
        last_add_at=_optional_time(memory.last_add_at),
        last_restore_at=_optional_time(memory.last_restore_at),
        **_agreement(memory, model),
        quarantined_until={tier: format_time(until) for tier, until in sorted(latest)},
        quarantine_causes=dict(sorted(causes.items())),
        wanted=_counts(memory.wanted),
        proven=dict(sorted(memory.proven.items())[:_MAX_MAP_ENTRIES]),
        failed_starts=_counts(memory.failed_starts),
        planned_demand_milli=memory.planned_demand_milli,
        generation=memory.generation,
        hold_seconds=memory.hold_seconds,
        hold_changed_at=_optional_time(memory.hold_changed_at),
        corrections={
            tier: CorrectionStatus(
                card_milli=item.card_milli,
                factor_permille=item.factor_permille,
                moved_at=format_time(item.moved_at),
                inputs=item.inputs,
                probes=item.probes,
                failed_probes=item.failed_probes,
            )
            for tier, item in sorted(memory.corrections.items())[:_MAX_MAP_ENTRIES]
        },
    )


def _agreement(memory: PolicyMemory, model: ModelObservation) -> dict[str, Any]:
    """The agreeing plan; its count and time stop where they have their effect: else every pass would write a status.

    Nothing while plans only begin to agree: the operator's process remembers that.
    """
    enough = model.spec.scaling.plans_in_agreement
    if only_begins(memory, enough):
        return {}
    plan = trim(memory.agreed_plan, 512) if memory.agreed_plan is not None else None
    agreed_at = _optional_time(memory.agreed_at)
    before = model.status.memory if model.status is not None else None
    if before is not None and before.agreed_plan == plan and min(memory.agreed_count, before.agreed_count) >= enough:
        agreed_at = before.agreed_at
    return {"agreed_plan": plan, "agreed_count": min(memory.agreed_count, enough), "agreed_at": agreed_at}


def _optional_time(seconds: float | None) -> str | None:
    return format_time(seconds) if seconds is not None else None
