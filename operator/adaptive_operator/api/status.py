"""The status of an `AdaptiveModel`: what runs, what was decided and why, and the policy's memory.

Part of the single source of the CRD (see `v1alpha1.py` for its conventions).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from adaptive_operator.api.base import Api


class TierStatus(Api):
    """What runs of one tier."""

    name: str = Field(max_length=32)
    desired: int = Field(ge=0, description="Replicas that are wanted now.")
    replicas: int = Field(ge=0, description="Replicas that exist, Pending and Terminating included.")
    ready: int = Field(ge=0, description="Replicas that serve.")
    weight_percent: int = Field(ge=0, le=100, description="The planner's baseline share of the traffic.")
    quality_permille: int | None = Field(default=None, description="From the tier card.")
    card_source: str | None = Field(
        default=None,
        max_length=32,
        description="Declared, or Curve where the rate is that of the tier's curve; empty without a card.",
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
    budget: int | None = Field(
        default=None,
        ge=0,
        description="Accelerators that the model might hold by its own budget and its pool's: what binding and"
        " alternative are told of.",
    )
    shares: str | None = Field(
        default=None,
        max_length=16,
        description="Hash of the shares of its AcceleratorPool that it was explained under; empty without any.",
    )
    demand_milli: int | None = Field(
        default=None,
        ge=0,
        description="Requests per 1000 s, with headroom, that binding and alternative are told for. They are told anew"
        " when the demand is a fifth away from it.",
    )
    limit: int | None = Field(
        default=None,
        ge=0,
        description="Accelerators of the budget that other models left to it when binding and alternative were told.",
    )
    pool: str | None = Field(
        default=None,
        max_length=512,
        description="What the pool gives it and why: its part of an AcceleratorPool, or what the pool's plan weighed.",
    )


class GainOf(StrEnum):
    """What a predicted gain counts, in permille."""

    REQUESTS = "Requests"  # of the requests: that many more are served
    QUALITY = "Quality"  # of full quality: what is served is that much better


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
    predicted_gain_permille: int | None = Field(
        default=None, description="What it brings; below 0 a loss. Absent where demand or tier cards were not known."
    )
    predicted_gain_of: str | None = Field(
        default=None,
        max_length=16,
        description="What predictedGainPermille counts: Requests that are served more, or Quality of what is served.",
    )
    predicted_dip_permille: int | None = Field(
        default=None, description="Of the requests: they wait or are refused at the worst moment of the swap."
    )


class CorrectionStatus(Api):
    """How far what was measured of a tier is from its card."""

    card_milli: int = Field(
        ge=1, description="The card's requests per 1000 s that it is measured by; another card has no correction."
    )
    factor_permille: int = Field(ge=1, description="What is planned with, in thousandths of the card; moves in steps.")
    moved_at: str = Field(max_length=32, description="When factorPermille last moved.")
    inputs: str | None = Field(
        default=None,
        max_length=16,
        description="Hash of the tier's inputs and of slo.tpotMilliseconds that it is measured with; others have no"
        " correction.",
    )
    probes: int = Field(
        default=0,
        ge=0,
        description="Moves of factorPermille in a row, to the last, that were made to see whether replicas carry more.",
    )
    failed_probes: int = Field(
        default=0, ge=0, description="How often they did not: each time doubles the wait before the next such move."
    )


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
    hold_seconds: int | None = Field(
        default=None, ge=1, description="The hold window while it is longer than scaling.holdSeconds."
    )
    hold_changed_at: str | None = Field(default=None, max_length=32, description="When holdSeconds last changed.")
    corrections: dict[str, CorrectionStatus] = Field(
        default_factory=dict,
        max_length=16,
        description="Tiers whose replicas carry more or less than their card says.",
    )


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
    reason_summary: str | None = Field(
        default=None,
        max_length=64,
        description="For the printer column: why nothing can be decided or carried out, else lastDecision.reason.",
    )
    message_summary: str | None = Field(
        default=None, max_length=2048, description="For the printer column: what reasonSummary means, and the remedy."
    )
    last_decision: DecisionStatus | None = None
    history: Annotated[
        tuple[DecisionStatus, ...], Field(default=(), max_length=10, description="The last ten decisions, newest last.")
    ]
    swap: SwapStatus | None = None
    memory: MemoryStatus | None = None
    routing_generation: int | None = Field(default=None, ge=0)
