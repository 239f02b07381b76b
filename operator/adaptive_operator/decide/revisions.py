"""Which revision of a tier its replicas should be: the one that the spec asks for, or the one that last worked.

A revision is told by its inputs: a hash of all that the user wrote about the tier and that changes a pod. An edit whose
replicas do not start is held back: the tier goes on with the revision that last worked, until its quarantine ends or
the spec is edited again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from adaptive_operator.api.tiers import Engine, Tier, effective_tier
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.observe.observation import ModelObservation, PodPhase, StatefulSetObservation


def inputs_of(model: ModelObservation, tier: Tier) -> str:
    """Inputs of a tier as the model's spec and its pool have it now."""
    return tier_inputs(model.spec, tier, model.node_selector)


def tier_inputs(spec: AdaptiveModelSpec, tier: Tier, node_selector: Mapping[str, str] = MappingProxyType({})) -> str:
    """Sixteen hex digits over all that the user can write and that changes a pod of the tier.

    `node_selector` is the one of the model's AcceleratorPool.

    The drain deadline is left out on purpose: it changes how a pod ends, and is not worth restarting one. Fields that
    are not set are left out too, so that a field which a later version adds restarts nothing either; and those that an
    emulated engine does not heed.
    """
    model = spec.model
    return _digest(
        (model.source, model.permutation_seed, model.sha256),
        spec.accelerators.resource,
        tier,
        tuple(sorted(node_selector.items())),
    )


@lru_cache(maxsize=8192)  # a pass asks about twenty times for each tier, which seldom changes
def _digest(
    model: tuple[str, int | None, str | None], resource: str, tier: Tier, node_selector: tuple[tuple[str, str], ...]
) -> str:
    source, seed, sha256 = model
    tier = effective_tier(tier)
    inputs = {
        "source": source,
        "permutationSeed": seed,
        "recipe": tier.recipe.model_dump(mode="json", by_alias=True, exclude_none=True),
        "engine": (tier.engine or Engine.NATIVE).value,
        "resource": resource,
        "replica": tier.replica.model_dump(mode="json", by_alias=True, exclude_none=True),
        **({"sha256": sha256} if sha256 else {}),
        **({"nodeSelector": dict(node_selector)} if node_selector else {}),
    }
    if tier.curve is not None:
        inputs["curve"] = tier.curve.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def proven_revisions(model: ModelObservation) -> dict[str, str]:
    """Inputs of the revision that last worked, by tier of the spec; tiers of which none is known are left out.

    The spec's revision counts as proven once a replica of it is ready and none of another is left: before that, an
    exchange may still fail and lead back.
    """
    found = ((tier.name, _proven_revision(model, tier)) for tier in model.spec.tiers)
    return {name: inputs for name, inputs in found if inputs is not None}


def held_back_revisions(model: ModelObservation) -> dict[str, str]:
    """Tiers whose edit failed to start, with the inputs of the earlier revision that goes on in its place.

    Only where that revision's StatefulSet still exists: what it was made from is no longer in the spec.
    """
    if not model.memory.quarantined_until:  # as almost always
        return {}
    proven, held_back = proven_revisions(model), {}
    for tier in model.spec.tiers:
        earlier = proven.get(tier.name)
        if tier.name not in model.memory.quarantined_until or earlier in (None, inputs_of(model, tier)):
            continue
        if any(item.tier_inputs == earlier for item in sets_of(model, tier.name)):
            held_back[tier.name] = str(earlier)
    return held_back


def sets_in_force(
    model: ModelObservation, held_back: Mapping[str, str]
) -> dict[str, tuple[StatefulSetObservation, ...]]:
    """The StatefulSets of each tier's revision in force, by tier of the spec. Empty before the first one is made."""
    in_force = {tier.name: held_back.get(tier.name) or inputs_of(model, tier) for tier in model.spec.tiers}
    return {
        name: tuple(item for item in sets_of(model, name) if item.tier_inputs == inputs)
        for name, inputs in in_force.items()
    }


def sets_of(model: ModelObservation, tier: str) -> tuple[StatefulSetObservation, ...]:
    """All StatefulSets of a tier, whatever their revision."""
    return tuple(item for item in model.stateful_sets if item.tier == tier)


def ready_pods(model: ModelObservation, stateful_set: StatefulSetObservation) -> int:
    """Pods of a StatefulSet that serve."""
    return sum(1 for pod in model.pods if pod.stateful_set == stateful_set.name and pod.phase is PodPhase.READY)


def _proven_revision(model: ModelObservation, tier: Tier) -> str | None:
    wanted = inputs_of(model, tier)
    sets = sets_of(model, tier.name)
    serving = {item.tier_inputs: ready_pods(model, item) for item in sets if ready_pods(model, item)}
    others = any(item.tier_inputs != wanted and item.replicas > 0 for item in sets)
    if wanted in serving and not others:
        return wanted
    if tier.name in model.memory.proven:
        return model.memory.proven[tier.name]
    return max(serving, key=lambda inputs: (inputs != wanted, serving[inputs], inputs), default=None)
