"""How the weights of a tier derive from the source checkpoint.

Part of the single source of the CRD (see `v1alpha1.py` for its conventions).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from adaptive_operator.api.base import CEL, Api, level_field, rule


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


# Depths that are missing are a rule's own matter.
_NO_ORDER = "!has(self.skipOrder) || !has(self.depths) || self.depths.size() == 0"


_DRAFT_LEVEL = (
    "tiers[].recipe.nested.draft.level must be a level of recipe.nested below the top one; correct it: a name is a"
    " precision of levels, then -d and a depth unless it is the first, e.g. int4 or int4-d28"
)


class Draft(Api):
    """Speculative decoding: a lower level drafts tokens, the top level verifies them all in one step.

    The answers are the top level's own.
    """

    level: str = level_field(
        "tiers[].recipe.nested.draft.level", "Level that drafts, one below the top level, e.g. int4 or int4-d28."
    )
    tokens: int | None = Field(default=None, ge=1, le=8, description="Tokens per draft. Unset: 4.")


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
            " further depth gives a level per precision, e.g. int8-d28, that skips the first layers of skipOrder."
            " Unset: all layers only.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ]
    # None and not empty: an unset field must not become part of the revisions of tiers that run.
    skip_order: (
        Annotated[
            tuple[Annotated[int, Field(ge=0, le=1023, description="A layer, counted from 0.")], ...],
            Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
        ]
        | None
    ) = Field(
        default=None,
        description="Layers that depths may leave out, the one that matters least first, as"
        " python -m inference_pods.engine.rank_layers measures it of the model. Unset: the order that was measured of"
        " exactly these weights, if the engine knows them; else it refuses depths that leave layers out.",
    )
    draft: Draft | None = Field(
        default=None,
        description="Speculative decoding of greedy requests of the top level, while the engine measures that it gains"
        " time; the header x-speculate: off exempts a request. An emulated tier does not draft. Unset: none.",
    )

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
                rule(
                    "!has(self.skipOrder) || self.skipOrder.all(a, self.skipOrder.exists_one(b, a == b))",
                    "tiers[].recipe.nested.skipOrder names a layer twice; use each at most once, e.g. [17, 14]",
                ),
                rule(
                    f"{_NO_ORDER} || self.skipOrder.all(l, l < self.depths[0])",
                    "tiers[].recipe.nested.skipOrder names a layer that the model does not have; use numbers from 0 to"
                    " depths[0] - 1",
                ),
                rule(
                    f"{_NO_ORDER} || self.depths[0] - self.depths[self.depths.size() - 1] <= self.skipOrder.size()",
                    "tiers[].recipe.nested.skipOrder has too few layers for the smallest depth; give at least depths[0]"
                    " minus the last of depths",
                ),
                rule(
                    "!has(self.skipOrder) || (has(self.depths) && self.depths.size() > 0)",
                    "tiers[].recipe.nested.skipOrder says which layers depths leave out; set depths too, e.g. [30, 28],"
                    " or leave both out",
                ),
                rule(
                    "!has(self.draft) || (self.draft.level != self.levels[0]"
                    " && self.levels.exists(p, self.draft.level.startsWith(p)) && (!self.draft.level.contains('-d')"
                    " || (has(self.depths) && self.depths.exists(d,"
                    " d == int(self.draft.level.substring(6)) && d != self.depths[0]))))",
                    _DRAFT_LEVEL,
                ),
            ]
        }
    )

    @model_validator(mode="after")
    def _check_draft(self) -> Self:
        if self.draft is not None and self.draft.level not in level_names(self)[1:]:
            raise ValueError(_DRAFT_LEVEL)
        return self


def level_names(nested: Nested) -> tuple[str, ...]:
    """`int8, int8-d28, int4, int4-d28` for the levels int8, int4 and the depths 30, 28."""
    suffixes = ("", *(f"-d{depth}" for depth in nested.depths[1:]))
    return tuple(f"{precision.value}{suffix}" for precision in nested.levels for suffix in suffixes)


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
