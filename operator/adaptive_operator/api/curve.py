"""The curve of an emulated tier, as pydantic models: how fast its pods act as if they computed.

Part of the single source of the CRD (see `v1alpha1.py` for its conventions).
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from adaptive_operator.api.base import CEL, Api, level_field, rule

DEFAULT_MAX_SEQUENCES: Final = 64
DEFAULT_MAX_TOKENS_PER_STEP: Final = 2048
DEFAULT_KV_CACHE_TOKENS: Final = 65_536
DEFAULT_CONTEXT_TOKENS: Final = 8192
_MOST_MICROSECONDS: Final = 60_000_000
_MOST_TOKENS: Final = 100_000_000


class StepTime(Api):
    """How long a step takes: a part of its own, more for each decoding sequence, more for each prompt token."""

    step_microseconds: int = Field(
        ge=1, le=_MOST_MICROSECONDS, description="Time of a step, however few sequences are in it."
    )
    decode_microseconds_per_sequence: int = Field(
        ge=0, le=_MOST_MICROSECONDS, description="Time that each decoding sequence adds to a step."
    )
    prefill_microseconds_per_token: int = Field(
        ge=0, le=_MOST_MICROSECONDS, description="Time that each prompt token adds to a step."
    )


class LevelCurve(StepTime):
    """How long the steps of one level of a nested tier take."""

    name: str = level_field("tiers[].curve.levels[].name", "Name of the level, e.g. int4 or int4-d28.")


class Curve(StepTime):
    """What an emulated replica can do. Its replica.tensorParallel and kvPrecision change nothing: the curve says."""

    levels: Annotated[
        tuple[LevelCurve, ...],
        Field(
            default=(),
            max_length=16,
            description="Levels of a nested tier with times of their own. Unset: each is as fast as the tier.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    max_sequences: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description=f"Sequences that decode together. Unset: {DEFAULT_MAX_SEQUENCES}.",
    )
    max_tokens_per_step: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_TOKENS,
        description="Tokens computed per step: a longer prompt is cut into chunks."
        f" Unset: {DEFAULT_MAX_TOKENS_PER_STEP}.",
    )
    kv_cache_tokens: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_TOKENS,
        description=f"Tokens that the KV cache of a replica holds. Unset: {DEFAULT_KV_CACHE_TOKENS}.",
    )
    context_tokens: int | None = Field(
        default=None,
        ge=2,
        le=_MOST_TOKENS,
        description=f"Longest prompt plus output of one request. Unset: {DEFAULT_CONTEXT_TOKENS}.",
    )
    load_seconds: int | None = Field(
        default=None,
        ge=0,
        le=1200,
        description="Seconds for which a new replica acts as if it loaded weights. Unset: 0.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    f"(has(self.maxSequences) ? self.maxSequences : {DEFAULT_MAX_SEQUENCES})"
                    f" <= (has(self.maxTokensPerStep) ? self.maxTokensPerStep : {DEFAULT_MAX_TOKENS_PER_STEP})",
                    "tiers[].curve.maxTokensPerStep must not be less than maxSequences, each of which takes a token;"
                    " raise it or lower maxSequences",
                ),
                rule(
                    f"(has(self.contextTokens) ? self.contextTokens : {DEFAULT_CONTEXT_TOKENS})"
                    f" <= (has(self.kvCacheTokens) ? self.kvCacheTokens : {DEFAULT_KV_CACHE_TOKENS})",
                    "tiers[].curve.kvCacheTokens must not be less than contextTokens, the longest request; raise it or"
                    " lower contextTokens",
                ),
            ]
        }
    )
