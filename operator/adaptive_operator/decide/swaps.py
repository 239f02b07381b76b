"""The swap record: when one begins, by when it has to be done, and which tiers failed in it.

Knows replicas and pods, not demand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from adaptive_operator.decide.demand import Trust
from adaptive_operator.decide.proposal import Prediction
from adaptive_operator.decide.situation import Situation, TierState
from adaptive_operator.decide.wording import fingerprint
from adaptive_operator.names import short_hash
from adaptive_operator.observe.observation import PodObservation, PodPhase, SwapRecord
from adaptive_operator.reasons import Reason

STEP_STARTING = "Starting"
# Swaps to a better or smaller mix: they give capacity up, and more load undoes them.
DOWNWARD: Final = frozenset({Reason.RESTORED_TIER, Reason.REMOVED_REPLICA, Reason.GAVE_TO_OTHERS})
_WORDS_AT_MOST = 300


def start_deadline_seconds(situation: Situation, tier: TierState) -> float:
    """How long a replica of this tier may take to become ready."""
    own = situation.model.spec.scaling.start_deadline_seconds
    if own is not None:
        return float(own)
    settings = situation.settings
    return max(
        settings.least_start_deadline_seconds, settings.start_deadline_load_factor * load_seconds(situation, tier)
    )


def load_seconds(situation: Situation, tier: TierState) -> float:
    """Load time by the card, or the default."""
    return tier.card.load_seconds if tier.card else situation.settings.default_load_seconds


def start_failures(situation: Situation) -> dict[str, str]:
    """Tiers whose replicas did not start, with the pod's own words.

    At once when the engine says that it cannot load; else when the start deadline has passed.
    """
    failed: dict[str, str] = {}
    for tier in situation.tiers:
        if tier.current_ready >= tier.wanted or _is_waited_for(situation, tier):
            continue
        words = _failure_of(situation, tier)
        if words is not None:
            failed[tier.name] = words[:_WORDS_AT_MOST]
    return failed


def _is_waited_for(situation: Situation, tier: TierState) -> bool:
    """Is it known already that the tier does not start? What it went back to has to start as well, though."""
    if tier.name not in situation.memory.quarantined_until:
        return False
    return tier.name not in situation.held_back or tier.current_ready > 0


def _failure_of(situation: Situation, tier: TierState) -> str | None:
    pods = [pod for pod in tier.current_pods if pod.phase is not PodPhase.TERMINATING]
    for pod in sorted(pods, key=lambda p: p.name):
        words = _pod_failure(situation, tier, pod)
        if words is not None:
            return words
    if situation.swap is not None and situation.now > situation.swap.deadline and len(pods) < tier.current:
        return "its pods were not created before the deadline"
    return None


def _pod_failure(situation: Situation, tier: TierState, pod: PodObservation) -> str | None:
    """Why this pod counts as failed, or None.

    A pod that has served before is not judged by the start deadline; one of an edit that is not proven yet is.
    """
    if pod.phase is PodPhase.READY:
        return None
    if pod.phase is PodPhase.FAILED and pod.load_failure_reason is not None:
        return _load_failure_text(pod.load_failure_reason, pod.trouble)
    if situation.swap is None and pod.phase is PodPhase.STARTING:
        return None
    since = max(pod.created_at, situation.swap.started_at if situation.swap else 0.0)
    deadline = start_deadline_seconds(situation, tier)
    served = pod.has_served and _may_be_proven(situation, tier, pod)
    if pod.started or served or situation.now - since <= deadline:
        return None
    return f"not ready within {deadline:.0f} s: {pod.trouble or pod.phase.value}"


def _load_failure_text(reason: str, trouble: str | None) -> str:
    """`ModelNotFound: no file x`; the engine's own words begin with the reason already."""
    if trouble is None:
        return reason
    return trouble if trouble == reason or trouble.startswith(f"{reason}: ") else f"{reason}: {trouble}"


def _may_be_proven(situation: Situation, tier: TierState, pod: PodObservation) -> bool:
    """Whether the pod is not known to be of another revision than the one that the tier last worked with."""
    made = {item.name: item.tier_inputs for item in situation.model.stateful_sets}
    return situation.memory.proven.get(tier.name) in (None, made.get(pod.stateful_set))


def new_swap(
    situation: Situation, reason: Reason, target: Mapping[str, int], prediction: Prediction | None
) -> SwapRecord:
    """The record of a swap that begins now.

    A swap that replaces another one towards more keeps its origin and start, so that a rollback leads to what last
    served and a failing tier is not given more time. What replaces one of `DOWNWARD` begins with what still exists: the
    accelerators that the old origin holds more may be another model's by now.
    """
    model, running = situation.model, situation.swap
    extends = running is not None and reason is not Reason.SWAP_ROLLED_BACK and running.reason not in DOWNWARD
    now = float(int(situation.now))
    return SwapRecord(
        id=short_hash(model.uid, str(model.generation), str(int(now)), fingerprint(target)),
        reason=reason.value,
        origin=running.origin if running and extends else situation.existing,
        target=dict(target),
        step=STEP_STARTING,
        started_at=running.started_at if running and extends else now,
        deadline=now + swap_seconds(situation, target),
        epoch=0,
        predicted_gain_permille=round(prediction.gain_permille) if prediction is not None else None,
        predicted_gain_of=prediction.gain_of.value if prediction is not None else None,
        predicted_dip_permille=round(prediction.dip_permille) if prediction is not None else None,
    )


def with_time(situation: Situation, swap: SwapRecord) -> SwapRecord:
    """The swap in flight with its time anew after an edit of the spec, and while readings hold it up.

    A shrink takes nothing away on stale readings: how long they are stale is not its failure. Only when half of its
    time is over, so that the status is not written in every pass.
    """
    seconds = swap_seconds(situation, swap.target)
    holds = swap.reason in DOWNWARD and situation.demand.trust is not Trust.FULL
    if situation.spec_changed or (holds and swap.deadline - situation.now < seconds / 2):
        return replace(swap, deadline=float(int(situation.now)) + seconds)
    return swap


def swap_seconds(situation: Situation, target: Mapping[str, int]) -> float:
    """Time that a swap may take: one start where the budget has room, else start, drain and start again."""
    started = [tier for tier in situation.tiers if target.get(tier.name, 0) > tier.current]
    start = max((start_deadline_seconds(situation, tier) for tier in started), default=0.0)
    drain = float(situation.model.spec.scaling.drain_deadline_seconds)
    surge = surge_accelerators(situation, target)
    if surge <= situation.budget + situation.surge and started:
        return start + (drain if surge > situation.cost(target) else 0.0)
    return 2 * start + drain


def surge_accelerators(situation: Situation, target: Mapping[str, int]) -> int:
    """Accelerators that all replicas hold side by side: those that exist, and those that the target has to start."""
    return sum(
        tier.accelerators * (tier.existing + max(0, target.get(tier.name, 0) - tier.current))
        for tier in situation.tiers
    )
