"""What an `AdaptiveModel` promises: latency objective and quality floor.

Part of the single source of the CRD (see `v1alpha1.py` for its conventions).
"""

from __future__ import annotations

from pydantic import Field

from adaptive_operator.api.base import Api


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
            "Share of requests that have to meet both. A capacity that a card declares has to hold at this share; one"
            " that follows from a tier's curve does. Corrections of cards by what was measured look at the 95th"
            " percentile, whatever is said here."
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
