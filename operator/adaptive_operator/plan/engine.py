"""The StatefulSet of one (tier, revision).

Values of the CR reach the engine as separate list items of `args`, from enums and validated fields: nothing is ever
put into a shell or a template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptive_operator import names
from adaptive_operator.api import curve as defaults
from adaptive_operator.api.curve import Curve, StepTime
from adaptive_operator.api.recipe import Draft, Recipe
from adaptive_operator.api.tiers import MAX_TOKENS_PER_STEP, Replica, Tier, effective_tier
from adaptive_operator.decide.revisions import inputs_of
from adaptive_operator.levels import Level, format_levels, levels_of
from adaptive_operator.observe.manifests import labels_of
from adaptive_operator.observe.observation import ModelObservation, StatefulSetObservation
from adaptive_operator.plan.draining import format_draining
from adaptive_operator.plan.metadata import build_child, model_labels
from adaptive_operator.plan.pods import common_pod_fields, container_security, http_probe, scrape_annotations
from adaptive_operator.plan.revisions import TierRevision
from adaptive_operator.plan.settings import PlanSettings

NESTED = "nested"  # the engine's word for weights that serve several levels
_PROBE_PERIOD_SECONDS = 2
_GRACE_BEYOND_DRAIN_SECONDS = 15
_OWNED_SPEC_FIELDS = ("serviceName", "podManagementPolicy", "updateStrategy", "selector", "template")


def build_stateful_set(
    model: ModelObservation,
    tier: Tier,
    revision: TierRevision,
    replicas: int,
    draining: Mapping[str, float],
    settings: PlanSettings,
) -> dict[str, Any]:
    """StatefulSet of a tier's present revision.

    Parallel and OnDelete: the operator alone decides which pod goes when.
    """
    labels = _labels(model.name, tier.name, revision.revision)
    pool = {names.LABEL_POOL: model.pool} if model.pool else {}  # not in the selector, which can never change
    spec = {
        "replicas": replicas,
        "serviceName": names.tier_service_name(model.name, tier.name),
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels | pool, "annotations": scrape_annotations(names.ENGINE_PORT)},
            "spec": _pod_spec(model, tier, revision.image, settings),
        },
    }
    annotations = _annotations(revision.inputs, draining, levels_of(tier))
    return build_child(model, "apps/v1", "StatefulSet", revision.name, labels | pool, {"spec": spec}, annotations)


def keep_stateful_set(
    model: ModelObservation,
    observed: StatefulSetObservation,
    replicas: int,
    draining: Mapping[str, float],
    levels: Sequence[Level] | None,
) -> dict[str, Any]:
    """StatefulSet of an older revision, or of one with an older engine image: its template stays as it was made.

    What it was made from is no longer in the spec, and an older engine may not know today's arguments. `levels`: what
    it serves, None where nobody knows.
    """
    old = observed.manifest["spec"]
    spec = {"replicas": replicas, **{key: old[key] for key in _OWNED_SPEC_FIELDS if key in old}}
    labels = _labels(model.name, observed.tier, observed.revision)
    present = observed.tier_inputs in {inputs_of(model, tier) for tier in model.spec.tiers}
    # Replicas of an earlier revision hold from the pool that they were made in until they are gone.
    pool = model.pool if present else labels_of(observed.manifest).get(names.LABEL_POOL)
    labels |= {names.LABEL_POOL: pool} if pool else {}
    annotations = _annotations(observed.tier_inputs, draining, levels)
    return build_child(model, "apps/v1", "StatefulSet", observed.name, labels, {"spec": spec}, annotations)


def _labels(model: str, tier: str, revision: str) -> dict[str, str]:
    return {
        **model_labels(model, names.COMPONENT_ENGINE),
        names.LABEL_TIER: tier,
        names.LABEL_REVISION: revision,
    }


def _annotations(inputs: str, draining: Mapping[str, float], levels: Sequence[Level] | None) -> dict[str, str]:
    stamps = {names.ANNOTATION_DRAINING: format_draining(draining)} if draining else {}
    served = {names.ANNOTATION_LEVELS: format_levels(levels)} if levels else {}
    return {names.ANNOTATION_TIER_INPUTS: inputs, **served, **stamps}


def _pod_spec(model: ModelObservation, tier: Tier, image: str, settings: PlanSettings) -> dict[str, Any]:
    drain_seconds = model.spec.scaling.drain_deadline_seconds
    spec: dict[str, Any] = {
        **common_pod_fields(settings),
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": drain_seconds + _GRACE_BEYOND_DRAIN_SECONDS,
        "containers": [_container(model, tier, image, settings)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    selector = {**settings.node_selector, **model.node_selector}
    if selector:
        spec["nodeSelector"] = dict(sorted(selector.items()))
    if settings.accelerator_toleration:
        spec["tolerations"] = [{"key": model.spec.accelerators.resource, "operator": "Exists", "effect": "NoSchedule"}]
    return spec


def _container(model: ModelObservation, tier: Tier, image: str, settings: PlanSettings) -> dict[str, Any]:
    shape = {
        "cpu": tier.replica.cpu,
        "memory": tier.replica.memory,
        model.spec.accelerators.resource: str(tier.replica.accelerators),
    }
    startup_failures = -(-settings.startup_seconds // _PROBE_PERIOD_SECONDS)
    return {
        "name": "engine",
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": _arguments(model, tier, settings),
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - a directory of the pod, not of this machine
        "ports": [{"name": "http", "containerPort": names.ENGINE_PORT, "protocol": "TCP"}],
        "resources": {"requests": shape, "limits": shape},
        "startupProbe": http_probe("/health", period=_PROBE_PERIOD_SECONDS, timeout=5, failures=startup_failures),
        "readinessProbe": http_probe("/health", period=_PROBE_PERIOD_SECONDS, timeout=5, failures=3),
        "livenessProbe": http_probe("/ping", period=20, timeout=10, failures=6),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - as above
    }


def _arguments(model: ModelObservation, tier: Tier, settings: PlanSettings) -> list[str]:
    tier, source = effective_tier(tier), model.spec.model
    seed, digest = source.permutation_seed, source.sha256
    return [
        "--model-source", source.source,
        *(["--model-sha256", digest] if digest else []),
        *_recipe_arguments(tier.recipe),
        *(_draft_arguments(tier.recipe.nested.draft) if tier.recipe.nested else []),
        *_replica_arguments(tier.replica),
        *(["--permutation-seed", str(seed)] if seed is not None else []),
        "--served-model-name", model.name,
        "--tier", tier.name,
        "--host", "0.0.0.0",  # noqa: S104 - a pod's only network is the cluster's
        "--port", str(names.ENGINE_PORT),
        *(_batch_arguments(tier.replica, settings) if tier.curve is None else _curve_arguments(tier.curve)),
        *_room_arguments(tier.replica),
        "--max-waiting", str(settings.max_waiting),
        "--tpot-milliseconds", str(model.spec.slo.tpot_milliseconds),
        "--drain-seconds", str(model.spec.scaling.drain_deadline_seconds),
    ]  # fmt: skip


def _recipe_arguments(recipe: Recipe) -> list[str]:
    """What the weights become: enums and integers only."""
    if recipe.nested is None:
        group = ["--group-size", str(recipe.group_size)] if recipe.group_size is not None else []
        return ["--precision", recipe.precision.value, *group] if recipe.precision is not None else []
    numbers = {"--depths": recipe.nested.depths, "--skip-order": recipe.nested.skip_order or ()}
    return [
        "--precision", NESTED,
        "--levels", ",".join(level.value for level in recipe.nested.levels),
        *(part for flag, given in numbers.items() if given for part in (flag, ",".join(map(str, given)))),
    ]  # fmt: skip


def _draft_arguments(draft: Draft | None) -> list[str]:
    """Speculative decoding; the number of tokens is the engine's own unless the user chose one."""
    if draft is None:
        return []
    tokens = ["--draft-tokens", str(draft.tokens)] if draft.tokens is not None else []
    return ["--draft-level", draft.level, *tokens]


def _batch_arguments(replica: Replica, settings: PlanSettings) -> list[str]:
    """How many sequences a native engine decodes together, and how many tokens its steps have where that is not its own
    choice."""
    batch, chosen = settings.max_batch_size, replica.max_tokens_per_step
    tokens = max(batch, chosen or MAX_TOKENS_PER_STEP)  # an engine refuses steps smaller than its batch
    steps = ["--max-step-tokens", str(tokens)] if chosen or tokens > MAX_TOKENS_PER_STEP else []
    return ["--max-batch-size", str(batch), *steps]


def _curve_arguments(curve: Curve) -> list[str]:
    """All that hardware would decide of an emulated engine."""
    levels = [part for level in curve.levels for part in ("--emulate", f"{level.name}={_step_time(level)}")]
    return [
        "--max-batch-size", str(curve.max_sequences or defaults.DEFAULT_MAX_SEQUENCES),
        "--max-step-tokens", str(curve.max_tokens_per_step or defaults.DEFAULT_MAX_TOKENS_PER_STEP),
        "--kv-cache-tokens", str(curve.kv_cache_tokens or defaults.DEFAULT_KV_CACHE_TOKENS),
        "--max-total-tokens", str(curve.context_tokens or defaults.DEFAULT_CONTEXT_TOKENS),
        "--emulate", _step_time(curve), *levels,
        "--emulate-load-seconds", str(curve.load_seconds or 0),
    ]  # fmt: skip


def _step_time(time: StepTime) -> str:
    """Microseconds as the engine's --emulate takes them."""
    parts = (time.step_microseconds, time.decode_microseconds_per_sequence, time.prefill_microseconds_per_token)
    return ",".join(map(str, parts))


def _replica_arguments(replica: Replica) -> list[str]:
    """How a replica uses its shape, where the user chose it: else the engine's own defaults hold."""
    chosen = {
        "--kv-precision": replica.kv_precision,
        "--tensor-parallel": replica.tensor_parallel,
    }
    return _flags(chosen)


def _room_arguments(replica: Replica) -> list[str]:
    """Lengths that a native engine keeps memory for, where the user chose them."""
    return _flags({"--max-total-tokens": replica.context_tokens, "--kv-cache-tokens": replica.kv_cache_tokens})


def _flags(chosen: Mapping[str, str | int | None]) -> list[str]:
    return [part for flag, value in chosen.items() if value is not None for part in (flag, str(value))]
