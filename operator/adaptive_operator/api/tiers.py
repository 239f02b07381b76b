"""The tiers of an `AdaptiveModel`: name, engine, replica and bounds; recipe, curve and card have modules of their own.

Part of the single source of the CRD (see `v1alpha1.py` for its conventions).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from adaptive_operator.api.base import CEL, DNS_LABEL, QUANTITY, Api, match, rule, told
from adaptive_operator.api.card import DeclaredCard
from adaptive_operator.api.curve import Curve
from adaptive_operator.api.recipe import Recipe

_KV_OF_ONE_RANK = (
    "tiers[].replica.kvPrecision: fp16 and int8 need replica.tensorParallel: 1, keys and values of several ranks"
    " are fp32; lower tensorParallel to 1, or leave kvPrecision out"
)


# What an engine takes by itself.
_CONTEXT_TOKENS = 2048
_KV_CACHE_TOKENS = 4096
MAX_TOKENS_PER_STEP = 64
_KV_CACHE_ROOM = (
    "tiers[].replica.kvCacheTokens must not be less than contextTokens, or the longest request would never fit; raise"
    f" it or lower contextTokens (unset: {_KV_CACHE_TOKENS} and {_CONTEXT_TOKENS})"
)


class KvPrecision(StrEnum):
    """Numeric form of the keys and values of running requests."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Engine(StrEnum):
    """The server that runs in a tier's pods."""

    NATIVE = "native"
    EMULATED = "emulated"


class Replica(Api):
    """The resources of one replica (its shape). Requests equal limits."""

    accelerators: int = Field(ge=1, le=64, description="Accelerators that one replica holds.")
    cpu: str = Field(
        max_length=16,
        pattern=QUANTITY,
        description="CPU of one replica, e.g. 500m or 4.",
        json_schema_extra=told(
            "pattern",
            match(
                QUANTITY,
                "tiers[].replica.cpu must be a quantity; use a number of cores or thousandths of one, e.g. 4 or 500m",
            ),
        ),
    )
    memory: str = Field(
        max_length=16,
        pattern=QUANTITY,
        description="Memory of one replica, e.g. 1Gi.",
        json_schema_extra=told(
            "pattern",
            match(
                QUANTITY,
                "tiers[].replica.memory must be a quantity; use a number and a unit without a space, e.g. 512Mi or 1Gi",
            ),
        ),
    )
    tensor_parallel: int | None = Field(
        default=None,
        ge=1,
        le=8,
        description="Ranks that split the weights of one replica among its accelerators. Unset: one rank per GPU,"
        " 1 on a CPU.",
    )
    kv_precision: KvPrecision | None = Field(
        default=None,
        description="Numeric form of the keys and values of running requests: fp16 takes half of the memory of fp32,"
        " int8 about a quarter; both on a CPU with one rank only. Unset: fp16 there, but fp32 for fp32 weights.",
    )
    context_tokens: int | None = Field(
        default=None,
        ge=128,
        le=131_072,
        description="Longest prompt plus output of one request of a native engine, at most what the model was trained"
        f" for. Unset: {_CONTEXT_TOKENS}.",
    )
    kv_cache_tokens: int | None = Field(
        default=None,
        ge=128,
        le=100_000_000,
        description="Tokens that the KV cache of a native engine holds, all requests together; replica.memory has to"
        f" have room for it. Unset: {_KV_CACHE_TOKENS}.",
    )
    max_tokens_per_step: int | None = Field(
        default=None,
        ge=8,
        le=16_384,
        description="Tokens that a native engine computes per step, of all requests together: a longer prompt is cut"
        " into chunks. More reads prompts faster, where replica.memory has room for it and slo.tpotMilliseconds leaves"
        " time; fewer keeps streams steadier. Never fewer than the requests that an engine decodes at once. Unset:"
        f" {MAX_TOKENS_PER_STEP}.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    "!has(self.tensorParallel) || self.tensorParallel <= self.accelerators",
                    "tiers[].replica.tensorParallel must not be greater than replica.accelerators, one for each rank;"
                    " lower it or raise accelerators",
                ),
                rule(
                    f"(has(self.contextTokens) ? self.contextTokens : {_CONTEXT_TOKENS})"
                    f" <= (has(self.kvCacheTokens) ? self.kvCacheTokens : {_KV_CACHE_TOKENS})",
                    _KV_CACHE_ROOM,
                ),
                rule(
                    "!isQuantity(self.cpu) || quantity(self.cpu).isGreaterThan(quantity('0'))",
                    "tiers[].replica.cpu must be greater than 0, e.g. 500m or 4",
                ),
                rule(
                    "!isQuantity(self.memory) || !quantity(self.memory).isLessThan(quantity('64Mi'))",
                    "tiers[].replica.memory must be at least 64Mi; use a unit such as Gi (m is a thousandth of a byte)",
                ),
            ]
        }
    )

    @model_validator(mode="after")
    def _check_kv_cache(self) -> Self:
        if (self.context_tokens or _CONTEXT_TOKENS) > (self.kv_cache_tokens or _KV_CACHE_TOKENS):
            raise ValueError(_KV_CACHE_ROOM)
        return self


class ReplicaBounds(Api):
    """Bounds on the replicas of a tier."""

    min: int | None = Field(
        default=None, ge=0, le=256, description="Fewest replicas. Unset: 1 for the warm tier, else 0."
    )
    max: int | None = Field(
        default=None, ge=0, le=256, description="Most replicas. Unset: as many as the budget carries."
    )


class Tier(Api):
    """One servable form of the model."""

    name: str = Field(
        min_length=1,
        max_length=32,
        pattern=DNS_LABEL,
        description="Name of the tier, unique in the model.",
        json_schema_extra=told(
            "pattern",
            match(
                DNS_LABEL,
                "tiers[].name becomes part of the names of objects; use lower-case letters, digits and '-', beginning"
                " with a letter, e.g. int8",
            ),
        ),
    )
    recipe: Recipe
    engine: Engine | None = Field(
        default=None,
        description="The server of this tier: native computes the model, emulated answers with filler at the pace of"
        " curve and needs no weights, to try a policy. Unset: native.",
    )
    curve: Curve | None = Field(default=None, description="How fast an emulated tier is.")
    replica: Replica
    replicas: ReplicaBounds | None = None
    card: DeclaredCard | None = Field(
        default=None,
        description="Declared tier card. A tier without a card keeps its minimum and takes no part in decisions.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    "!has(self.replicas) || !has(self.replicas.min) || !has(self.replicas.max)"
                    " || self.replicas.min <= self.replicas.max",
                    "tiers[].replicas.min must not be greater than replicas.max; lower min or raise max",
                ),
                rule(
                    "has(self.curve) == (has(self.engine) && self.engine == 'emulated')",
                    "tiers[].curve and engine: emulated belong together; set both, or neither: what is known of a"
                    " native tier goes into card",
                ),
                # No check of the operator's own: what is stored already is read, and the engine says why it refuses.
                rule(
                    "!has(self.replica.kvPrecision) || self.replica.kvPrecision == 'fp32'"
                    " || !has(self.replica.tensorParallel) || self.replica.tensorParallel == 1 || has(self.curve)",
                    _KV_OF_ONE_RANK,
                ),
                rule(
                    "!has(self.curve) || !has(self.curve.levels) || (has(self.recipe.nested) &&"
                    " self.curve.levels.all(c, c.name != self.recipe.nested.levels[0]"
                    " && self.recipe.nested.levels.exists(p, c.name.startsWith(p))"
                    " && (has(self.recipe.nested.depths) || !c.name.contains('-d'))))",
                    "tiers[].curve.levels must name levels that recipe.nested has below the top; correct it: the curve"
                    " itself is the top level's",
                ),
                rule(
                    "!has(self.card) || (has(self.card.qualityPermille) ? has(self.curve)"
                    " || has(self.card.capacityMilliRequestsPerSecond)"
                    " : !has(self.card.capacityMilliRequestsPerSecond))",
                    "tiers[].card.qualityPermille and capacityMilliRequestsPerSecond belong together; set both, or"
                    " neither and the levels of a nested tier; only a tier with a curve may leave the capacity to it",
                ),
                rule(
                    "!has(self.card) || !has(self.card.levels) || has(self.curve)"
                    " || self.card.levels.all(c, has(c.capacityMilliRequestsPerSecond))",
                    "tiers[].card.levels[].capacityMilliRequestsPerSecond is missing, and without a curve nothing else"
                    " says how fast the level is; set it, or leave the level out of the card",
                ),
                rule(
                    "!has(self.card) || !has(self.card.levels) || has(self.recipe.nested)",
                    "tiers[].card.levels is for nested tiers only; use recipe.nested, or give qualityPermille and"
                    " capacityMilliRequestsPerSecond of the tier itself",
                ),
                rule(
                    "!has(self.card) || has(self.card.qualityPermille) || !has(self.recipe.nested)"
                    " || (has(self.card.levels) && self.card.levels.exists(c, c.name == self.recipe.nested.levels[0]))",
                    "tiers[].card of a nested tier must describe its top level, the first of recipe.nested.levels;"
                    " give its entry in levels, or qualityPermille and capacityMilliRequestsPerSecond",
                ),
                rule(
                    "!has(self.card) || has(self.card.qualityPermille) || has(self.recipe.nested)",
                    "tiers[].card must give qualityPermille and capacityMilliRequestsPerSecond; set both, or leave the"
                    " card out",
                ),
                rule(  # depths are compared as numbers: as text they cost more than the API server allows
                    "!has(self.card) || !has(self.card.levels) || !has(self.recipe.nested) || self.card.levels.all(c,"
                    " self.recipe.nested.levels.exists(p, c.name.startsWith(p)) && (!c.name.contains('-d')"
                    " || (has(self.recipe.nested.depths) && self.recipe.nested.depths.exists(d,"
                    " d == int(c.name.substring(6)) && d != self.recipe.nested.depths[0]))))",
                    "tiers[].card.levels names a level that recipe.nested does not have; correct it: a name is a"
                    " precision of levels, then -d and a depth unless it is the first, e.g. int4 or int4-d28",
                ),
            ]
        }
    )


_ONLY_NATIVE = ("tensor_parallel", "kv_precision", "context_tokens", "kv_cache_tokens", "max_tokens_per_step")


def effective_tier(tier: Tier) -> Tier:
    """The tier without what its engine does not heed: an emulated one has its curve instead, and does not draft.

    Pods are told this and no more, so that an edit of the rest exchanges none of them.
    """
    if tier.curve is None:
        return tier
    nested = tier.recipe.nested and tier.recipe.nested.model_copy(update={"draft": None})
    recipe = tier.recipe.model_copy(update={"nested": nested, "group_size": None})
    replica = tier.replica.model_copy(update=dict.fromkeys(_ONLY_NATIVE))
    return tier.model_copy(update={"recipe": recipe, "replica": replica})
