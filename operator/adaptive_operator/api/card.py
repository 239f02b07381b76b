"""The declared card of a tier: what is known of it before it is measured.

Part of the single source of the CRD (see `v1alpha1.py` for its conventions).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from adaptive_operator.api.base import CEL, Api, level_field, rule

_MOST_MILLI_REQUESTS = 1_000_000_000


class DeclaredLevelCard(Api):
    """What is known of one level of a nested tier before it is measured."""

    name: str = level_field("tiers[].card.levels[].name", "Name of the level, e.g. int4 or int4-d28.")
    quality_permille: int = Field(ge=0, le=1000, description="Quality relative to the source model, as of a tier.")
    capacity_milli_requests_per_second: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_MILLI_REQUESTS,
        description="Reference requests per 1000 s that one replica answers if all are served at this level. Unset, for"
        " an emulated tier only: as its curve says.",
    )


class DeclaredCard(Api):
    """A tier card written by hand: what is known of the tier before it is measured."""

    quality_permille: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Quality relative to the source model: 1000·exp(−KL divergence to the full tier). Of a nested"
        " tier: that of its top level. Unset: as its entry in levels says.",
    )
    capacity_milli_requests_per_second: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_MILLI_REQUESTS,
        description="Reference requests per 1000 s that one replica answers within the objective. Of a nested tier: at"
        " its top level. Unset: as its entry in levels says, or, for an emulated tier, its curve: what keeps slo with"
        " the reference request.",
    )
    levels: Annotated[
        tuple[DeclaredLevelCard, ...],
        Field(
            default=(),
            max_length=16,
            description="What is known of the levels of a nested tier. A level without an entry serves only requests"
            " that ask for it.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    reference_prompt_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Prompt length of the reference request. Unset, a curve is asked for 1155 tokens in and 211 out.",
    )
    reference_output_tokens: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Output length of the reference request."
    )
    load_seconds: int | None = Field(
        default=None, ge=0, le=86_400, description="Seconds from creating a replica until it is ready. Unset: 60."
    )

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    "has(self.referencePromptTokens) == has(self.referenceOutputTokens)",
                    "tiers[].card.referencePromptTokens and referenceOutputTokens describe one request;"
                    " set both or neither",
                ),
            ]
        }
    )
