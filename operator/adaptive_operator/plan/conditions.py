"""The conditions of a model, each a small pure check over the same facts.

Messages name what is wrong and the remedy, and hold no number that moves while nothing changes: a status is written on
a change of meaning only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from adaptive_operator.api.status import AdaptiveModelStatus, Condition
from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.standing import LIMITS
from adaptive_operator.levels import top_of
from adaptive_operator.names import ANNOTATION_EPOCH, endpoint_service_name
from adaptive_operator.observe.observation import ModelObservation, PodObservation, PodPhase, Sample, Unknown
from adaptive_operator.plan.children import are_leftovers
from adaptive_operator.plan.clock import format_time
from adaptive_operator.plan.settings import PlanSettings
from adaptive_operator.plan.steps import Choreography
from adaptive_operator.plan.text import trim
from adaptive_operator.reasons import ConditionReason, ConditionType, Reason

_MESSAGE_LENGTH = 2048
_LEAST_STALE_SECONDS = 10.0  # with scrapes of 2 s, a late one would make the condition flap
_LEAST_SCRAPED_SECONDS = 30.0  # Prometheus finds a new pod, and scrapes it at least twice
_LIMITS = (Reason.BUDGET_EXCEEDED, *LIMITS)
_UNKNOWN_DEMAND = {
    Reason.HELD_FOR_MISSING_METRICS: ConditionReason.SAMPLES_UNKNOWN,
    Reason.HELD_FOR_STALE_METRICS: ConditionReason.SAMPLES_STALE,
}
_LOAD_FAILURES = {
    reason.value: reason
    for reason in (
        ConditionReason.MODEL_NOT_FOUND,
        ConditionReason.MODEL_CORRUPT,
        ConditionReason.MODEL_UNSUPPORTED,
        ConditionReason.OUT_OF_MEMORY,
    )
}


class Truth(StrEnum):
    """`status` of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check found."""

    truth: Truth
    reason: Reason | ConditionReason
    message: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All that conditions are judged by."""

    model: ModelObservation
    decision: Decision
    choreography: Choreography
    taken_names: tuple[str, ...]  # "Service assistant": exist and belong to somebody else
    newer_children: tuple[str, ...]  # written under a higher epoch
    settings: PlanSettings
    now: float
    epoch: int

    @property
    def first_sight(self) -> bool:
        """Whether this model has no conditions yet."""
        return self.model.status is None or not self.model.status.conditions

    @property
    def quarantined(self) -> tuple[str, ...]:
        """Tiers that failed to start and are left out for now."""
        until = self.decision.memory.quarantined_until
        return tuple(sorted(tier for tier, end in until.items() if end > self.now))


def judge_ready(facts: Facts) -> Verdict:
    """True when a request through the endpoint can be answered: a ready router and a ready replica, good enough."""
    model = facts.model
    if facts.taken_names:
        return Verdict(Truth.FALSE, ConditionReason.NAME_TAKEN, _describe_taken(facts))
    if facts.first_sight:
        return Verdict(
            Truth.UNKNOWN, ConditionReason.FIRST_SEEN, "the operator has seen this model; its first replicas follow"
        )
    if not any(pod.phase is PodPhase.READY for pod in model.pods):
        if model.spec.mode is not Mode.ACTIVE and not model.pods:
            reason = Reason.PAUSED if model.spec.mode is Mode.PAUSED else Reason.DRY_RUN
            return Verdict(
                Truth.FALSE, reason, f"nothing runs and mode is {model.spec.mode}; set spec.mode to Active to start it"
            )
        return Verdict(
            Truth.FALSE, ConditionReason.NO_READY_REPLICA, _with_trouble("no engine replica is ready", model.pods)
        )
    told = _found(facts).get(Reason.QUALITY_FLOOR_INFEASIBLE)
    if told is not None and not _reaches_floor(facts, {pod.tier for pod in model.pods if pod.phase is PodPhase.READY}):
        return Verdict(Truth.FALSE, Reason.QUALITY_FLOOR_INFEASIBLE, f"requests are refused: {told}")
    if model.routers_ready < 1:
        return Verdict(
            Truth.FALSE,
            ConditionReason.ROUTER_NOT_READY,
            f"no router is ready; look at the pods of Deployment {model.name}-router",
        )
    if model.spec.mode is not Mode.ACTIVE and not _has_endpoint(model):
        return Verdict(
            Truth.FALSE,
            ConditionReason.ENDPOINT_MISSING,
            f"Service {model.name} is gone and mode is {model.spec.mode}; set spec.mode to Active to make it again",
        )
    return Verdict(
        Truth.TRUE, ConditionReason.SERVING, "the endpoint answers: a router and an engine replica are ready"
    )


def _reaches_floor(facts: Facts, tiers: Collection[str]) -> bool:
    """Would routers answer from one of these tiers? A quality that is not known is no reason to refuse."""
    spec = facts.model.spec
    known = {tier.name: top_of(tier).quality_permille for tier in spec.tiers if tier.name in tiers}
    floor = spec.quality.floor_permille
    return any((quality := known.get(tier)) is None or quality >= floor for tier in tiers)


def _has_endpoint(model: ModelObservation) -> bool:
    name = endpoint_service_name(model.name)
    return any((child.kind, child.name, child.owner_uid) == ("Service", name, model.uid) for child in model.children)


def judge_tiers_ready(facts: Facts) -> Verdict:
    """True when every wanted replica of every tier is ready, in its present revision, and nothing else runs.

    In a dry run what is wanted may stay away for ever: then it is the mode that is the reason, and it is named.
    """
    verdict = _compare_replicas(facts)
    said = _found(facts).get(Reason.DRY_RUN)
    if said is None:
        return verdict
    reason = verdict.reason if verdict.truth is Truth.TRUE else Reason.DRY_RUN
    return Verdict(verdict.truth, reason, f"{verdict.message}; {said}")


def _compare_replicas(facts: Facts) -> Verdict:
    steps = facts.choreography.steps
    waiting = [step.group for step in steps if _ready_wanted(facts, step.group.name) < step.group.wanted]
    if waiting:
        text = ", ".join(f"{group.tier} {_ready_wanted(facts, group.name)}/{group.wanted}" for group in waiting)
        late = [pod for group in waiting for pod in group.pods.values()]
        return Verdict(Truth.FALSE, ConditionReason.REPLICAS_NOT_READY, _with_trouble(f"ready of wanted: {text}", late))
    leaving = sorted({step.group.tier for step in steps if step.group.surplus or step.group.leaving_accelerators})
    if leaving:
        what = "are more than is wanted" if Reason.DRY_RUN in _found(facts) else "finish their requests and go"
        return Verdict(Truth.FALSE, ConditionReason.SWAPPING, f"replicas of {', '.join(leaving)} {what}")
    return Verdict(Truth.TRUE, ConditionReason.REPLICAS_READY, "every wanted replica is ready")


def judge_metrics_available(facts: Facts) -> Verdict:
    """False names the query, and what the operator does without it."""
    metrics = facts.model.metrics
    readings = (metrics.arrivals, metrics.recent_arrivals, metrics.queue, metrics.peak_arrivals)
    for reading in readings:
        if isinstance(reading, Unknown):
            message = f"{reading.query}: {reading.cause}; replicas are kept as they are until it can be read again"
            truth = Truth.FALSE if _should_have_been_scraped(facts) else Truth.UNKNOWN
            return Verdict(truth, ConditionReason.SAMPLES_UNKNOWN, message)
    limit = max(facts.settings.stale_after_seconds, _LEAST_STALE_SECONDS)
    names = ("arrivals", "recent arrivals", "queue", "peak arrivals")
    for name, reading in zip(names, readings, strict=True):
        if isinstance(reading, Sample) and reading.age_seconds > limit:
            message = (
                f"{name}: the last sample is older than {limit:g} s; check that Prometheus scrapes the model's routers"
            )
            return Verdict(Truth.FALSE, ConditionReason.SAMPLES_STALE, message)
    return Verdict(Truth.TRUE, ConditionReason.SAMPLES_FRESH, "all readings that decisions need are fresh")


def _should_have_been_scraped(facts: Facts) -> bool:
    """Is a router ready for so long that there are rates to read? Before, that there are none is no fault."""
    since = facts.model.routers_ready_since
    if not facts.model.routers_ready:
        return False
    return since is None or facts.now - since > max(2 * facts.settings.stale_after_seconds, _LEAST_SCRAPED_SECONDS)


def judge_model_loaded(facts: Facts) -> Verdict:
    """False while a replica cannot load the model, with the cause in the engine's or the kubelet's own words."""
    failed = sorted((pod for pod in facts.model.pods if pod.phase is PodPhase.FAILED), key=lambda pod: pod.name)
    if failed:
        return _describe_failed(failed)
    before = _previous(facts.model.status, ConditionType.MODEL_LOADED)
    if before is not None and before.status == Truth.FALSE and facts.quarantined:
        return Verdict(Truth.FALSE, _known_reason(before.reason), before.message)
    if any(pod.phase is PodPhase.READY for pod in facts.model.pods):
        return Verdict(Truth.TRUE, ConditionReason.LOADED, "the model is loaded in every replica that started")
    return Verdict(Truth.UNKNOWN, ConditionReason.LOADING, "no replica has loaded the model yet")


def judge_capacity_limited(facts: Facts) -> Verdict:
    """True when the budget or the floor keeps the model from what its load needs; the message says who got what.

    Unknown where nothing can be said of the load or of what replicas carry. Tiers without a card are named always.
    """
    verdict = _compare_load(facts)
    without_cards = _found(facts).get(Reason.NO_TIER_CARD)
    if without_cards is None or verdict.reason is Reason.NO_TIER_CARD:
        return verdict
    return Verdict(verdict.truth, verdict.reason, f"{verdict.message}; {without_cards}")


def _compare_load(facts: Facts) -> Verdict:
    found = {facts.decision.reason: facts.decision.message} | _found(facts)
    for reason in _LIMITS:
        if reason in found:
            return Verdict(Truth.TRUE, reason, found[reason])
    if Reason.NO_TIER_CARD in found and not any(top_of(tier).is_known for tier in facts.model.spec.tiers):
        return Verdict(Truth.UNKNOWN, Reason.NO_TIER_CARD, found[Reason.NO_TIER_CARD])
    for reason, told in _UNKNOWN_DEMAND.items():
        if reason in found:
            return Verdict(Truth.UNKNOWN, told, f"demand is unknown: {found[reason]}")
    return Verdict(Truth.FALSE, ConditionReason.WITHIN_BUDGET, "the budget carries the load")


def judge_degraded(facts: Facts) -> Verdict:
    """True when something needs a person's eye, though the model may serve."""
    if facts.newer_children:
        what = ", ".join(facts.newer_children)
        message = (
            f"{what}: written under a newer epoch, so another operator acts on this model and this one changes nothing."
            f" If there is no other operator, remove the annotation {ANNOTATION_EPOCH} from it"
        )
        return Verdict(Truth.TRUE, ConditionReason.NEWER_EPOCH, message)
    rolled_back = _describe_rollback(facts)
    if rolled_back is not None:
        return Verdict(Truth.TRUE, Reason.SWAP_ROLLED_BACK, rolled_back)
    failed = sorted((pod for pod in facts.model.pods if pod.phase is PodPhase.FAILED), key=lambda pod: pod.name)
    if failed:
        return Verdict(Truth.TRUE, ConditionReason.ENGINE_FAILED, _with_trouble(f"tier {failed[0].tier} fails", failed))
    told = _found(facts).get(Reason.QUALITY_FLOOR_INFEASIBLE)
    wanted = {tier for tier, replicas in facts.decision.replicas.items() if replicas}
    if told is not None and not _reaches_floor(facts, wanted):
        return Verdict(Truth.TRUE, Reason.QUALITY_FLOOR_INFEASIBLE, told)
    for reason in (Reason.POOL_NOT_SOLVED, Reason.CARD_STALE):
        if reason in _found(facts):
            return Verdict(Truth.TRUE, reason, _found(facts)[reason])
    return Verdict(Truth.FALSE, ConditionReason.AS_WANTED, "nothing is wrong")


CHECKS: tuple[tuple[ConditionType, Callable[[Facts], Verdict]], ...] = (
    (ConditionType.READY, judge_ready),
    (ConditionType.TIERS_READY, judge_tiers_ready),
    (ConditionType.METRICS_AVAILABLE, judge_metrics_available),
    (ConditionType.MODEL_LOADED, judge_model_loaded),
    (ConditionType.CAPACITY_LIMITED, judge_capacity_limited),
    (ConditionType.DEGRADED, judge_degraded),
)


def build_conditions(facts: Facts) -> tuple[Condition, ...]:
    """All conditions. `lastTransitionTime` moves only with the status."""
    return tuple(_build_condition(facts, kind, judge(facts)) for kind, judge in CHECKS)


def _build_condition(facts: Facts, kind: ConditionType, verdict: Verdict) -> Condition:
    before = _previous(facts.model.status, kind)
    unchanged = before is not None and before.status == verdict.truth
    return Condition(
        type=kind.value,
        status=verdict.truth.value,
        reason=verdict.reason.value,
        message=trim(verdict.message, _MESSAGE_LENGTH),
        last_transition_time=before.last_transition_time
        if before is not None and unchanged
        else format_time(facts.now),
        observed_generation=facts.model.generation,
    )


def _previous(status: AdaptiveModelStatus | None, kind: ConditionType) -> Condition | None:
    conditions = status.conditions if status is not None else ()
    return next((item for item in conditions if item.type == kind), None)


def _found(facts: Facts) -> dict[Reason, str]:
    return {item.reason: item.message for item in facts.decision.findings}


def _describe_taken(facts: Facts) -> str:
    what = ", ".join(facts.taken_names)
    if are_leftovers(facts.model, facts.taken_names):
        return (
            f"{what} in namespace {facts.model.namespace} belonged to a deleted AdaptiveModel of the same name; this"
            " one starts when Kubernetes' garbage collector has removed them, usually within a minute"
        )
    return (
        f"{what} in namespace {facts.model.namespace} exists and does not belong to this AdaptiveModel; it is left"
        " alone and nothing is changed. Delete or rename it, or give the AdaptiveModel another name"
    )


def _ready_wanted(facts: Facts, name: str) -> int:
    """Ready pods among the wanted ordinals of one StatefulSet."""
    group = next(step.group for step in facts.choreography.steps if step.group.name == name)
    counted = min(group.asked, group.wanted)
    return sum(1 for ordinal, pod in group.pods.items() if ordinal < counted and pod.phase is PodPhase.READY)


def _with_trouble(text: str, pods: list[PodObservation] | tuple[PodObservation, ...]) -> str:
    troubled = [
        pod for pod in sorted(pods, key=lambda pod: pod.name) if pod.trouble and pod.phase is not PodPhase.READY
    ]
    return f"{text}; {troubled[0].name}: {troubled[0].trouble}" if troubled else text


def _describe_failed(failed: list[PodObservation]) -> Verdict:
    first = next((pod for pod in failed if pod.load_failure_reason), failed[0])
    tiers = ", ".join(sorted({pod.tier for pod in failed}))
    message = (
        f"tier {tiers} cannot load: {first.trouble or 'the engine ends without a message'}; other tiers are not touched"
    )
    return Verdict(Truth.FALSE, _known_reason(first.load_failure_reason), message)


def _known_reason(text: str | None) -> ConditionReason:
    """A container's own words never become a reason: only those of the contract do."""
    return _LOAD_FAILURES.get(text or "", ConditionReason.ENGINE_FAILED)


def _describe_rollback(facts: Facts) -> str | None:
    found = _found(facts)
    if facts.decision.reason is Reason.SWAP_ROLLED_BACK:
        return facts.decision.message
    if Reason.SWAP_ROLLED_BACK in found:
        return found[Reason.SWAP_ROLLED_BACK]
    causes = facts.decision.memory.quarantine_causes
    words = [
        f"tier {tier} failed to start and is left out for now: {causes.get(tier, 'see its Events')}"
        for tier in facts.quarantined
    ]
    return "; ".join(words) or None
