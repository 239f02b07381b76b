"""Which revision of a tier is the present one, and which engine image it keeps.

A revision is a hash of what the user wrote about the tier and of the engine image that was current when it was made;
never of the rendered template. So an upgrade of the operator restarts no pod, and going back to an earlier edit finds
its pods again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adaptive_operator import names
from adaptive_operator.api.tiers import Tier
from adaptive_operator.decide.revisions import inputs_of, ready_pods, sets_of
from adaptive_operator.observe.observation import ModelObservation, PodPhase, StatefulSetObservation


@dataclass(frozen=True, slots=True)
class TierRevision:
    """What new replicas of a tier are made from."""

    tier: str
    revision: str
    inputs: str
    image: str
    name: str  # of the StatefulSet
    accelerators: int  # per replica
    of_spec: bool = True  # False: an earlier one that goes on because the spec's did not start


def current_revisions(
    model: ModelObservation, engine_image: str, held_back: Mapping[str, str] | None = None
) -> dict[str, TierRevision]:
    """The present revision of each tier of the spec, in the spec's order.

    `held_back`: tiers that go on with an earlier revision, by the inputs of that one.
    """
    earlier = held_back or {}
    return {
        tier.name: _earlier_revision(model, tier, earlier.get(tier.name)) or current_revision(model, tier, engine_image)
        for tier in model.spec.tiers
    }


def current_revision(model: ModelObservation, tier: Tier, engine_image: str) -> TierRevision:
    """The existing StatefulSet with equal inputs, else a new revision with the engine image of today.

    An image that no replica could start from is not kept once there is another: a mistyped tag would stay for ever.
    """
    inputs = inputs_of(model, tier)
    existing = [
        item
        for item in model.stateful_sets
        if item.tier == tier.name and item.tier_inputs == inputs
        if item.image == engine_image or not _is_stillborn(model, item)
    ]
    if existing:
        chosen = max(existing, key=lambda item: (ready_pods(model, item), item.replicas, item.name))
        return TierRevision(tier.name, chosen.revision, inputs, chosen.image, chosen.name, tier.replica.accelerators)
    revision = names.tier_revision(model.name, tier.name, inputs, engine_image)
    name = names.stateful_set_name(model.name, tier.name, revision)
    return TierRevision(tier.name, revision, inputs, engine_image, name, tier.replica.accelerators)


def _earlier_revision(model: ModelObservation, tier: Tier, inputs: str | None) -> TierRevision | None:
    """The StatefulSet that was made from these inputs; None when there is none."""
    made = [item for item in sets_of(model, tier.name) if item.tier_inputs == inputs]
    if not made:
        return None
    item = max(made, key=lambda item: (ready_pods(model, item), item.replicas, item.name))
    return TierRevision(
        tier.name, item.revision, item.tier_inputs, item.image, item.name, item.accelerators, of_spec=False
    )


def _is_stillborn(model: ModelObservation, stateful_set: StatefulSetObservation) -> bool:
    """Whether its replicas failed (or did, before a rollback took them away) and none may be on the way to serving."""
    pods = [pod for pod in model.pods if pod.stateful_set == stateful_set.name]
    if any(pod.has_served for pod in pods):
        return False
    phases = {pod.phase for pod in pods}
    if not phases and stateful_set.replicas == 0:
        return stateful_set.tier in model.memory.quarantined_until
    return PodPhase.FAILED in phases and not phases & {PodPhase.READY, PodPhase.STARTING}
