"""Which revision of a tier is the present one, and which engine image it keeps.

A revision is a hash of what the user wrote about the tier and of the engine image that was current when it was made;
never of the rendered template. So an upgrade of the operator restarts no pod, and going back to an earlier edit finds
its pods again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from adaptive_operator import names
from adaptive_operator.api.tiers import Engine, Tier
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
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


def tier_inputs(spec: AdaptiveModelSpec, tier: Tier) -> str:
    """Sixteen hex digits over all that the user can write and that changes a pod of the tier.

    The drain deadline is left out on purpose: it changes how a pod ends, and is not worth restarting one. Fields that
    are not set are left out too, so that a field which a later version adds restarts nothing either.
    """
    inputs = {
        "source": spec.model.source,
        "permutationSeed": spec.model.permutation_seed,
        "recipe": tier.recipe.model_dump(mode="json", by_alias=True, exclude_none=True),
        "engine": (tier.engine or Engine.NATIVE).value,
        "resource": spec.accelerators.resource,
        "replica": tier.replica.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def current_revisions(model: ModelObservation, engine_image: str) -> dict[str, TierRevision]:
    """The present revision of each tier of the spec, in the spec's order."""
    return {tier.name: current_revision(model, tier, engine_image) for tier in model.spec.tiers}


def current_revision(model: ModelObservation, tier: Tier, engine_image: str) -> TierRevision:
    """The existing StatefulSet with equal inputs, else a new revision with the engine image of today.

    An image that no replica could start from is not kept once there is another: a mistyped tag would stay for ever.
    """
    inputs = tier_inputs(model.spec, tier)
    existing = [
        item
        for item in model.stateful_sets
        if item.tier == tier.name and item.tier_inputs == inputs
        if item.image == engine_image or not _is_stillborn(model, item)
    ]
    if existing:
        chosen = max(existing, key=lambda item: (_ready_pods(model, item), item.replicas, item.name))
        return TierRevision(tier.name, chosen.revision, inputs, chosen.image, chosen.name, tier.replica.accelerators)
    revision = names.tier_revision(model.name, tier.name, inputs, engine_image)
    name = names.stateful_set_name(model.name, tier.name, revision)
    return TierRevision(tier.name, revision, inputs, engine_image, name, tier.replica.accelerators)


def _is_stillborn(model: ModelObservation, stateful_set: StatefulSetObservation) -> bool:
    """Whether its replicas failed (or did, before a rollback took them away) and none may be on the way to serving."""
    phases = {pod.phase for pod in model.pods if pod.stateful_set == stateful_set.name}
    if not phases and stateful_set.replicas == 0:
        return stateful_set.tier in model.memory.quarantined_until
    return PodPhase.FAILED in phases and not phases & {PodPhase.READY, PodPhase.STARTING}


def _ready_pods(model: ModelObservation, stateful_set: StatefulSetObservation) -> int:
    return sum(1 for pod in model.pods if pod.stateful_set == stateful_set.name and pod.phase is PodPhase.READY)
