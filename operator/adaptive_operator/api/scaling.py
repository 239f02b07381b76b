"""How fast the replicas of an `AdaptiveModel` may change.

Part of the single source of the CRD (see `v1alpha1.py` for its conventions).
"""

from __future__ import annotations

from pydantic import Field

from adaptive_operator.api.base import Api


class IdleShrink(Api):
    """When accelerators are given back although the served quality falls: when they cost more than it is worth."""

    worth_per_quality_point_milli: int = Field(
        ge=0,
        le=1_000_000_000,
        description="What one point (10 permille) of mean quality is worth for 1,000 requests, in thousandths of the"
        " currency unit of the price. The more requests come, the more accelerators the same quality is worth.",
    )
    price_per_accelerator_hour_milli: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000_000,
        description="Price of an accelerator for an hour, in thousandths of a currency unit. Unset: the one of the"
        " AcceleratorPool; where that has none, nothing is given back at the cost of quality.",
    )


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
        default=None,
        ge=1,
        le=3600,
        description="Unset: the operator's setting (15). Models that share accelerators are planned together, at the"
        " shortest period among them; at the operator's at least while a swap is in flight. A shorter one than the"
        " operator's is kept as far as passes take at most half of the time.",
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
    idle_shrink: IdleShrink | None = Field(
        default=None,
        description="Gives accelerators back when they cost more than the quality that they add. Unset: quality first;"
        " given back is only what adds none.",
    )
