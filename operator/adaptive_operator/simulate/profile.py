"""Profiles: step curves by tier from a YAML file, checked against the names that the models of a manifest have.

Knows neither cards nor policies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from adaptive_operator.api.crd import structural
from adaptive_operator.api.recipe import level_names
from adaptive_operator.api.tiers import Tier
from adaptive_operator.simulate.curve import StepCurve, linear_points
from adaptive_operator.simulate.manifest import ManifestError, describe_errors, read_yaml, refuse
from adaptive_operator.simulate.structure import find_faults, suggest


class ProfileError(ValueError):
    """The profile cannot be used; each line names file, field, cause and remedy."""


class _Document(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Curve(_Document):
    """Step times in milliseconds: decode as a line or as measured points [sequences, ms]."""

    prefill_milliseconds: _NotNegative
    prefill_milliseconds_per_token: _NotNegative
    step_milliseconds: _NotNegative | None = None
    step_milliseconds_per_sequence: _NotNegative | None = None
    step_points: Annotated[list[tuple[int, _Positive]], Field(min_length=1)] | None = None
    kv_tokens: Annotated[int, Field(ge=1)]
    max_sequences: Annotated[int, Field(ge=1, le=4096)] = 64
    max_tokens_per_step: Annotated[int, Field(ge=1)] | None = None
    beside_prompt_milliseconds_per_sequence: _NotNegative | None = None

    @model_validator(mode="after")
    def _check_one_form(self) -> _Curve:
        line = self.step_milliseconds is not None and self.step_milliseconds_per_sequence is not None
        if line == (self.step_points is not None):
            raise ValueError("give stepMilliseconds with stepMillisecondsPerSequence, or stepPoints, not both")
        if line and not self.step_milliseconds:
            raise ValueError("stepMilliseconds has to be greater than 0: a step takes time")
        sizes = [size for size, _ in self.step_points or ()]
        if sizes and (sizes[0] < 1 or sizes != sorted(set(sizes))):
            raise ValueError(
                "stepPoints have to name numbers of sequences from 1 on, each once, in rising order; correct the points"
            )
        times = [time for _, time in self.step_points or ()]
        if times != sorted(times):
            raise ValueError("stepPoints fall: a step of more sequences takes no less time; correct the points")
        return self

    @model_validator(mode="after")
    def _check_chunks(self) -> _Curve:
        if self.max_tokens_per_step is not None and self.max_tokens_per_step < self.max_sequences:
            raise ValueError("maxTokensPerStep is below maxSequences, each of which takes a token; raise it")
        if self.beside_prompt_milliseconds_per_sequence is not None and self.max_tokens_per_step is None:
            raise ValueError(
                "besidePromptMillisecondsPerSequence is of steps that read a prompt beside sequences that decode; "
                "give maxTokensPerStep too, or leave it out"
            )
        return self

    def build(self) -> StepCurve:
        points = tuple((size, ms / 1000) for size, ms in self.step_points or ())
        if not points:
            base, each = self.step_milliseconds or 0.0, self.step_milliseconds_per_sequence or 0.0
            points = linear_points(base / 1000, each / 1000, self.max_sequences)
        gamma, delta = self.prefill_milliseconds / 1000, self.prefill_milliseconds_per_token / 1000
        beside = (self.beside_prompt_milliseconds_per_sequence or 0.0) / 1000
        tokens = self.max_tokens_per_step
        return StepCurve(gamma, delta, points, self.kv_tokens, self.max_sequences, tokens, beside_seconds=beside)


class _Speeds(_Document):
    """How many times faster than another curve."""

    prefill_speed: _Positive = 1.0
    decode_speed: _Positive = 1.0


class _TierProfile(_Speeds):
    """A tier's own curve, or how many times faster than the base one it is; of a level: than its tier's top level."""

    levels: dict[str, _Speeds] = {}
    kv_tokens: Annotated[int, Field(ge=1)] | None = None
    curve: _Curve | None = None


class _Profile(_Document):
    base: _Curve | None = None
    tiers: dict[str, _TierProfile] = {}


_SCHEMA: Final = structural(_Profile.model_json_schema(by_alias=True))


def read_profile(path: Path) -> dict[str, StepCurve]:
    """Curves by tier from a YAML file: `base` and, per tier, speeds relative to it or a curve of its own.

    A nested tier's levels are there as `tier/level`. Raises ProfileError; OSError when it cannot be read.
    """
    try:
        return dict(_curves(_parse(read_yaml(path)[0] or {})))
    except ManifestError as error:
        raise ProfileError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def check_names(path: Path, curves: Collection[str], tiers: Sequence[Tier]) -> None:
    """Raises ProfileError for a curve that is of none of the tiers and levels: a typing error would change nothing."""
    known = {tier.name: _lower_levels(tier) for tier in tiers}
    for name in curves:
        tier, _, level = name.partition("/")
        if tier not in known:
            raise ProfileError(f"{path}: tiers.{tier}: no model has such a tier; {suggest(tier, known)}")
        if level and level not in known[tier]:
            hint = suggest(level, known[tier]) if known[tier] else "leave levels out"
            raise ProfileError(f"{path}: tiers.{tier}.levels.{level}: no level below the top of the tier; {hint}")


def _lower_levels(tier: Tier) -> tuple[str, ...]:
    return () if tier.recipe.nested is None else level_names(tier.recipe.nested)[1:]


def _parse(document: Any) -> _Profile:
    refuse(find_faults(document, _SCHEMA))
    try:
        return _Profile.model_validate(document)
    except ValidationError as error:
        refuse(describe_errors(error))
        raise


def _curves(profile: _Profile) -> Iterator[tuple[str, StepCurve]]:
    for name, tier in profile.tiers.items():
        top = _build_curve(name, tier, profile.base)
        yield name, top
        for level, speeds in tier.levels.items():
            yield f"{name}/{level}", top.scaled(speeds.prefill_speed, speeds.decode_speed)


def _build_curve(name: str, tier: _TierProfile, base: _Curve | None) -> StepCurve:
    source = tier.curve or base
    if source is None:
        raise ManifestError(f"tiers.{name} has no curve and there is no base; give one of them")
    if tier.kv_tokens is not None:
        source = source.model_copy(update={"kv_tokens": tier.kv_tokens})
    try:
        return source.build().scaled(tier.prefill_speed, tier.decode_speed)
    except ValueError as error:
        raise ManifestError(f"tiers.{name}: {error}") from None
