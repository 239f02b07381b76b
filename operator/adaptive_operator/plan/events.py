"""Events on the model: one per change of meaning, with the same Reason as in status, metric and log."""

from __future__ import annotations

from collections.abc import Iterator

from adaptive_operator.api.status import AdaptiveModelStatus, Condition, DecisionStatus
from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.plan.conditions import Truth
from adaptive_operator.plan.plan import EmitEvent
from adaptive_operator.plan.status import DRY_RUN_PREFIX, is_new_decision
from adaptive_operator.reasons import ConditionReason, ConditionType, Reason

_QUIET = frozenset(
    {
        Reason.STEADY,
        Reason.HELD_BY_DWELL,
        Reason.HELD_BY_HOLD_WINDOW,
        Reason.HELD_FOR_AGREEMENT,
        Reason.HELD_AFTER_RESTART,
        Reason.HELD_WHILE_SWAPPING,
        Reason.HELD_BY_SURVIVOR_CHECK,
    }
)  # seen in status; as events they would bury the others
_WARNINGS = frozenset(
    {
        Reason.HELD_FOR_MISSING_METRICS,
        Reason.HELD_FOR_STALE_METRICS,
        Reason.CAPACITY_LIMITED,
        Reason.BUDGET_SHARED,
        Reason.BUDGET_EXCEEDED,
        Reason.QUALITY_FLOOR_INFEASIBLE,
        Reason.NO_TIER_CARD,
        Reason.SWAP_ROLLED_BACK,
    }
)
_BAD = {
    ConditionType.READY: Truth.FALSE,
    ConditionType.METRICS_AVAILABLE: Truth.FALSE,
    ConditionType.MODEL_LOADED: Truth.FALSE,
    ConditionType.CAPACITY_LIMITED: Truth.TRUE,
    ConditionType.DEGRADED: Truth.TRUE,
}  # TiersReady is missing on purpose: it is False during every swap


def plan_events(status: AdaptiveModelStatus, written: AdaptiveModelStatus | None, mode: Mode) -> tuple[EmitEvent, ...]:
    """Events for what the new status says and the written one does not, each reason once.

    In a dry run only of what was decided: the conditions are those of replicas that nobody may start.
    """
    events = _decision_events(status, written)
    if mode is not Mode.DRY_RUN:
        events += _condition_events(status, written)
    return tuple({event.reason: event for event in reversed(events)}.values())[::-1]


def _decision_events(status: AdaptiveModelStatus, written: AdaptiveModelStatus | None) -> list[EmitEvent]:
    entry = status.last_decision
    if entry is None or not is_new_decision(status, written) or entry.reason in _QUIET:
        return []
    prefix = DRY_RUN_PREFIX if entry.message.startswith(DRY_RUN_PREFIX) else ""
    change = f"{entry.from_} → {entry.to}: " if entry.from_ != entry.to else ""
    nothing_to_read = entry.reason == Reason.HELD_FOR_MISSING_METRICS and _is_metrics_unknown(status)
    warning = entry.reason in _WARNINGS and not nothing_to_read
    message = f"{prefix}{change}{entry.message.removeprefix(prefix)}"
    return [EmitEvent(Reason(entry.reason), message, warning, tuple(_details(entry)))]


def _details(entry: DecisionStatus) -> Iterator[str]:
    """The rest of the explanation, in the words of `kubectl adaptive explain`; an Event has room for 1,024 bytes."""
    yield f"seen: {entry.inputs}"
    if entry.binding:
        yield f"binding: {'; '.join(entry.binding)}"
    if entry.alternative:
        yield f"instead: {entry.alternative}"
    if entry.pool:
        yield f"pool: {entry.pool}"


def _condition_events(status: AdaptiveModelStatus, written: AdaptiveModelStatus | None) -> list[EmitEvent]:
    before = {item.type: item for item in written.conditions} if written is not None else {}
    news = [item for item in status.conditions if _is_news(item, before.get(item.type))]
    return [_condition_event(item, before.get(item.type), _is_metrics_unknown(written)) for item in news]


def _is_news(condition: Condition, before: Condition | None) -> bool:
    """A condition turned bad or its badness got another reason, or the model became ready."""
    bad = _BAD.get(ConditionType(condition.type))
    changed = before is None or (before.status, before.reason) != (condition.status, condition.reason)
    became_ready = condition.type == ConditionType.READY and condition.status == Truth.TRUE
    return changed and (condition.status == bad or became_ready)


def _condition_event(condition: Condition, before: Condition | None, unread: bool) -> EmitEvent:
    bad = condition.status == _BAD.get(ConditionType(condition.type))
    return EmitEvent(_reason(condition.reason), condition.message, bad and not _is_start(condition, before, unread))


def _is_start(condition: Condition, before: Condition | None, unread: bool) -> bool:
    """Replicas and routers are only starting: that is how every model begins, before its metrics were ever read."""
    was_ready = before is not None and before.status == Truth.TRUE
    first = condition.reason == ConditionReason.ROUTER_NOT_READY and unread
    return not was_ready and (first or condition.reason == ConditionReason.NO_READY_REPLICA)


def _is_metrics_unknown(status: AdaptiveModelStatus | None) -> bool:
    """Was there nothing to read yet?"""
    conditions = status.conditions if status is not None else ()
    return not any(c.type == ConditionType.METRICS_AVAILABLE and c.status != Truth.UNKNOWN for c in conditions)


def _reason(text: str) -> Reason | ConditionReason:
    return Reason(text) if text in set(Reason) else ConditionReason(text)
