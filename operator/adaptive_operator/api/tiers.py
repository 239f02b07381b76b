"""The tiers of an `AdaptiveModel`, as pydantic models: recipe, replica, bounds and declared card.

Part of the single source of the CRD (see `v1alpha1.py` for its conventions).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from adaptive_operator.api.base import CEL, DNS_LABEL, LEVEL_NAME, QUANTITY, Api, match, rule, told
from adaptive_operator.api.curve import Curve

_MOST_MILLI_REQUESTS = 1_000_000_000


class Precision(StrEnum):
    """Numeric form of a tier's weights."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


class LevelPrecision(StrEnum):
    """Numeric form that a level of nested weights is read in."""

    INT8 = "int8"
    INT4 = "int4"


class KvPrecision(StrEnum):
    """Numeric form of the keys and values of running requests."""

    FP32 = "fp32"
    INT8 = "int8"


class Engine(StrEnum):
    """The server that runs in a tier's pods."""

    NATIVE = "native"
    EMULATED = "emulated"


class Nested(Api):
    """One resident copy of the weights that serves several levels, chosen per request.

    A level is called like its precision; levels of every depth but the first add it: int4, int4-d28.
    """

    levels: Annotated[
        tuple[LevelPrecision, ...],
        Field(
            min_length=1,
            max_length=4,
            description="Precisions that the weights are read in, best first: int8 reads both planes, int4 the high"
            " one alone. The first is the top level, which is served unless load or a request asks for less.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ]
    depths: Annotated[
        tuple[Annotated[int, Field(ge=1, le=1024, description="Layers that run.")], ...],
        Field(
            default=(),
            max_length=4,
            description="Layers that a level runs, most first; the first has to be all the layers of the model. Each"
            " further depth gives a level per precision, e.g. int8-d28, that skips the layers that matter least."
            " Unset: all layers only.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ]

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    "self.levels.all(a, self.levels.exists_one(b, a == b))",
                    "tiers[].recipe.nested.levels names a level twice; use each at most once, e.g. [int8, int4]",
                ),
                rule(
                    "!self.levels.exists(a, a == 'int8') || self.levels[0] == 'int8'",
                    "tiers[].recipe.nested.levels must be in order, the best first; use [int8, int4]",
                ),
                rule(
                    "!has(self.depths) || (self.depths.map(d, -d).isSorted()"
                    " && self.depths.all(a, self.depths.exists_one(b, a == b)))",
                    "tiers[].recipe.nested.depths must fall from each to the next; use e.g. [30, 28]",
                ),
            ]
        }
    )


class Recipe(Api):
    """How a tier's weights derive from the source checkpoint: exactly one of `precision` and `nested`."""

    precision: Precision | None = Field(
        default=None,
        description="Numeric form of the weights: fp32, bf16 or fp16 (stored in 16 bits, computed in fp32), int8"
        " (groups of 32) or int4 (groups of 32).",
    )
    group_size: int | None = Field(
        default=None,
        ge=32,
        le=128,
        description="Weights that share an int4 grid: 32, 64 or 128; unset: 32. A coarser grid reproduces a model that"
        " was calibrated on it. The native engine keeps scales per 32 weights anyway: it saves no memory and no time.",
    )
    nested: Nested | None = Field(
        default=None,
        description="One copy of the weights that serves several precisions and depths, without a reload.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    "has(self.precision) != has(self.nested)",
                    "tiers[].recipe must have exactly one of precision and nested;"
                    " use precision for one form of the weights, nested for several levels of one copy",
                ),
                rule(
                    "!has(self.groupSize) || self.groupSize == 32"
                    " || (self.groupSize in [64, 128] && has(self.precision) && self.precision == 'int4')",
                    "tiers[].recipe.groupSize must be 32, or 64 or 128 with precision int4; use one of them",
                ),
            ]
        }
    )


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
        description="Ranks that split the weights of one replica among its accelerators. Unset: 1.",
    )
    kv_precision: KvPrecision | None = Field(
        default=None,
        description="Numeric form of the keys and values of running requests: int8 takes about a quarter of the"
        " memory of fp32. Unset: fp32.",
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


class ReplicaBounds(Api):
    """Bounds on the replicas of a tier."""

    min: int | None = Field(
        default=None, ge=0, le=256, description="Fewest replicas. Unset: 1 for the warm tier, else 0."
    )
    max: int | None = Field(
        default=None, ge=0, le=256, description="Most replicas. Unset: as many as the budget carries."
    )


class DeclaredLevelCard(Api):
    """What is known of one level of a nested tier before it is measured."""

    name: str = Field(
        min_length=1,
        max_length=16,
        pattern=LEVEL_NAME,
        description="Name of the level, e.g. int4 or int4-d28.",
        json_schema_extra=told(
            "pattern",
            match(
                LEVEL_NAME,
                "tiers[].card.levels[].name must be the name of a level; use a precision, then -d and a depth unless it"
                " is the first, e.g. int4 or int4-d28",
            ),
        ),
    )
    quality_permille: int = Field(ge=0, le=1000, description="Quality relative to the source model, as of a tier.")
    capacity_milli_requests_per_second: int = Field(
        ge=1,
        le=_MOST_MILLI_REQUESTS,
        description="Reference requests per 1000 s that one replica answers if all are served at this level.",
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
        " its top level. Unset: as its entry in levels says.",
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
        default=None, ge=1, le=1_000_000, description="Prompt length of the reference request."
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
                    "has(self.qualityPermille) == has(self.capacityMilliRequestsPerSecond)",
                    "tiers[].card.qualityPermille and capacityMilliRequestsPerSecond belong together; set both, or"
                    " neither and the levels of a nested tier",
                ),
                rule(
                    "has(self.referencePromptTokens) == has(self.referenceOutputTokens)",
                    "tiers[].card.referencePromptTokens and referenceOutputTokens describe one request;"
                    " set both or neither",
                ),
            ]
        }
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
                rule(
                    "!has(self.curve) || !has(self.curve.levels) || (has(self.recipe.nested) &&"
                    " self.curve.levels.all(c, c.name != self.recipe.nested.levels[0]"
                    " && self.recipe.nested.levels.exists(p, c.name.startsWith(p))"
                    " && (has(self.recipe.nested.depths) || !c.name.contains('-d'))))",
                    "tiers[].curve.levels must name levels that recipe.nested has below the top; correct it: the curve"
                    " itself is the top level's",
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
