"""What is simulated: the models of a manifest, with a step curve for each of their tiers.

The curves come from a profile file, or are guessed from the cards: then they have the shape of an 8B model on one
accelerator, scaled so that the tier's saturation fits its declared capacity. Knows no time and no policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from adaptive_operator.api.tiers import Tier
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec, Mode
from adaptive_operator.levels import levels_of
from adaptive_operator.names import KIND
from adaptive_operator.observe.curve_cards import USUAL_REQUEST, complete_cards
from adaptive_operator.observe.models import describe_validation
from adaptive_operator.simulate.curve import Lengths, StepCurve, linear_points, saturation
from adaptive_operator.simulate.pool_model import Member, PoolModel, PoolModelError, find_pool

# Attainment within an objective of 1 s and 35 ms at this part of saturation (several replicas, 95-99 %).
_ATTAINED_PART: Final = 0.85
USUAL_LENGTHS: Final = Lengths(USUAL_REQUEST.prompt_tokens, USUAL_REQUEST.output_tokens)
_DEFAULT_LOAD_SECONDS: Final = 60.0
SCHEDULING_SECONDS: Final = 5.0  # from creating a pod until its image and its accelerators are there
_SHAPE_8B: Final = StepCurve(0.010, 0.00005, linear_points(0.006973, 0.000027, 64), 400_000, 64)


class ScenarioError(ValueError):
    """Model or profile cannot be simulated; the text names file, field and remedy."""


@dataclass(frozen=True, slots=True)
class LevelModel:
    """One level of a nested tier. `rate`: reference requests/s of a replica that serves nothing else, by the card."""

    name: str
    quality_permille: int
    rate: float
    curve: StepCurve


@dataclass(frozen=True, slots=True)
class TierModel:
    """One tier as it is simulated. `rate`: reference requests/s of one replica by its card.

    Of a nested tier, quality, rate and curve are those of its top level; `levels` has all that have a card, with the
    top. Policies that know no levels serve the top.
    """

    name: str
    accelerators: int
    quality_permille: int
    rate: float
    load_seconds: float
    curve: StepCurve
    levels: tuple[LevelModel, ...] = ()

    @property
    def top_level(self) -> str:
        """Name of the best level; empty for a plain tier."""
        return self.levels[0].name if self.levels else ""

    @property
    def quality(self) -> float:
        """0..1."""
        return self.quality_permille / 1000


@dataclass(frozen=True, slots=True)
class Scenario:
    """One model, its tiers best quality first, and the accelerators that it may hold. Times in seconds."""

    name: str
    spec: AdaptiveModelSpec
    budget: int
    tiers: tuple[TierModel, ...]
    guessed: bool = False  # the curves were not given
    scheduling_seconds: float = SCHEDULING_SECONDS
    pool: PoolModel | None = None  # the AcceleratorPool that it shares with the others of the run

    @property
    def surge(self) -> int:
        """Accelerators beyond the budget, for old and new replicas side by side."""
        return 0 if self.pool is None else self.pool.spec.surge_accelerators

    def at_once(self) -> Scenario:
        """The same, where replicas take no time to start: what planning alone could reach."""
        tiers = tuple(replace(tier, load_seconds=0.0) for tier in self.tiers)
        cards = [None if t.card is None else t.card.model_copy(update={"load_seconds": 0}) for t in self.spec.tiers]
        declared = tuple(t.model_copy(update={"card": c}) for t, c in zip(self.spec.tiers, cards, strict=True))
        spec = self.spec.model_copy(update={"tiers": declared})
        return replace(self, spec=spec, tiers=tiers, scheduling_seconds=0.0)

    @property
    def ttft_seconds(self) -> float:
        """The objective for the time to first token."""
        return self.spec.slo.ttft_milliseconds / 1000

    @property
    def tpot_seconds(self) -> float:
        """The objective for the mean time per output token."""
        return self.spec.slo.tpot_milliseconds / 1000

    @property
    def floor(self) -> float:
        """The quality floor, 0..1."""
        return self.spec.quality.floor_permille / 1000

    @property
    def best_affordable(self) -> TierModel:
        """The best tier of which one replica fits into the budget."""
        return next(tier for tier in self.tiers if tier.accelerators <= self.budget)

    def tier(self, name: str) -> TierModel:
        """A tier by name. Raises KeyError."""
        found = next((tier for tier in self.tiers if tier.name == name), None)
        if found is None:
            raise KeyError(name)
        return found


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

    @model_validator(mode="after")
    def _check_one_form(self) -> _Curve:
        line = self.step_milliseconds is not None and self.step_milliseconds_per_sequence is not None
        if line == (self.step_points is not None):
            raise ValueError("give stepMilliseconds with stepMillisecondsPerSequence, or stepPoints, not both")
        if line and not self.step_milliseconds:
            raise ValueError("stepMilliseconds has to be greater than 0: a step takes time")
        times = [time for _, time in sorted(self.step_points or ())]
        if times != sorted(times):
            raise ValueError("stepPoints fall: a step of more sequences takes no less time; correct the points")
        if self.max_tokens_per_step is not None and self.max_tokens_per_step < self.max_sequences:
            raise ValueError("maxTokensPerStep is below maxSequences, each of which takes a token; raise it")
        return self

    def build(self) -> StepCurve:
        points = tuple((size, ms / 1000) for size, ms in self.step_points or ())
        if not points:
            base, each = self.step_milliseconds or 0.0, self.step_milliseconds_per_sequence or 0.0
            points = linear_points(base / 1000, each / 1000, self.max_sequences)
        gamma, delta = self.prefill_milliseconds / 1000, self.prefill_milliseconds_per_token / 1000
        return StepCurve(gamma, delta, points, self.kv_tokens, self.max_sequences, self.max_tokens_per_step)


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


def load_scenario(model: Path, profile: Path | None = None, budget: int | None = None) -> Scenario:
    """The only AdaptiveModel of a manifest file. `budget` replaces the one of the manifest.

    Raises ScenarioError; OSError when a file cannot be read.
    """
    found = load_scenarios(model, profile, budget)
    if len(found) > 1:
        raise ScenarioError(f"{model}: there are {len(found)} models in it, not one")
    return found[0]


def load_scenarios(model: Path, profile: Path | None = None, budget: int | None = None) -> tuple[Scenario, ...]:
    """All AdaptiveModels of a manifest file, in its order: they share accelerators.

    `budget` replaces what the manifest says; without it the largest budget of a model counts, as in the operator. The
    profile is for tiers of all models, by their names. Raises ScenarioError; OSError when a file cannot be read.
    """
    curves = None if profile is None else read_profile(profile)
    documents = _read_yaml(model)
    raws = _find_models(model, documents)
    parsed = [_parse_spec(model, raw) for raw in raws]
    pool = _find_pool(model, documents, [_member(raw, *one) for raw, one in zip(raws, parsed, strict=True)], budget)
    budgets = [pool.spec.budget] if pool is not None else [spec.accelerators.budget for _, spec in parsed]
    accelerators = budget or max((named for named in budgets if named is not None), default=None)
    if accelerators is None:
        raise ScenarioError(f"{model}: spec.accelerators.budget is not set; set it, or give --budget")
    scenarios = tuple(build_scenario(name, spec, accelerators, curves, str(model), pool) for name, spec in parsed)
    names = [scenario.name for scenario in scenarios]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ScenarioError(f"{model}: two models are called {twice}; give each a name of its own")
    if len({scenario.spec.accelerators.resource for scenario in scenarios}) > 1:
        raise ScenarioError(f"{model}: the models name different accelerators.resource, so they share nothing")
    return scenarios


def _member(raw: Mapping[str, Any], name: str, spec: AdaptiveModelSpec) -> Member:
    metadata = raw.get("metadata")
    namespace = (metadata.get("namespace") if isinstance(metadata, dict) else None) or "default"
    return Member(name, str(namespace), spec.accelerators.pool)


def _find_pool(
    model: Path, documents: Sequence[Any], members: Sequence[Member], budget: int | None
) -> PoolModel | None:
    try:
        return find_pool(documents, members, budget)
    except PoolModelError as error:
        raise ScenarioError(f"{model}: {error}") from None


def _parse_spec(model: Path, raw: Mapping[str, Any]) -> tuple[str, AdaptiveModelSpec]:
    try:
        spec = AdaptiveModelSpec.model_validate(raw.get("spec") or {})
    except ValidationError as error:
        raise ScenarioError(f"{model}: {describe_validation(error)}") from None
    metadata = raw.get("metadata")
    return str((metadata.get("name") if isinstance(metadata, dict) else None) or "model"), complete_cards(spec).spec


def build_scenario(
    name: str,
    spec: AdaptiveModelSpec,
    budget: int,
    curves: Mapping[str, StepCurve] | None = None,
    source: str = "",
    pool: PoolModel | None = None,
) -> Scenario:
    """A scenario from a parsed spec; `curves` by tier, or None to guess them. Raises ScenarioError.

    `pool`: whose `budget` it is; without it the model is alone with that, also where it names a pool.
    """
    where = f"{source}: " if source else ""
    of_pool = {"budget": budget, "pool": None} if pool is None else {"resource": pool.spec.resource, "pool": pool.name}
    accelerators = spec.accelerators.model_copy(update=of_pool)
    # A simulation acts, also for a model that only thinks (DryRun) or rests (Paused) in its cluster.
    spec = spec.model_copy(update={"accelerators": accelerators, "mode": Mode.ACTIVE})
    tiers = [_tier_model(tier, spec, curves, where) for tier in spec.tiers]
    if min(tier.accelerators for tier in tiers) > budget:
        raise ScenarioError(f"{where}no tier fits into {budget} accelerators; raise the budget")
    tiers.sort(key=lambda tier: -tier.quality_permille)
    return Scenario(name, spec, budget, tuple(tiers), guessed=curves is None, pool=pool)


def read_profile(path: Path) -> dict[str, StepCurve]:
    """Curves by tier from a YAML file: `base` and, per tier, speeds relative to it or a curve of its own.

    A nested tier's levels are there as `tier/level`. Raises ScenarioError.
    """
    try:
        document = _Profile.model_validate(_read_yaml(path)[0] or {})
        curves: dict[str, StepCurve] = {}
        for name, tier in document.tiers.items():
            curves[name] = top = _build_curve(path, name, tier, document.base)
            for level, speeds in tier.levels.items():
                curves[f"{name}/{level}"] = top.scaled(speeds.prefill_speed, speeds.decode_speed)
        return curves
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "profile"
        raise ScenarioError(f"{path}: {field}: {problem['msg']}") from None


def _build_curve(path: Path, name: str, tier: _TierProfile, base: _Curve | None) -> StepCurve:
    source = tier.curve or base
    if source is None:
        raise ScenarioError(f"{path}: tiers.{name} has no curve and there is no base; give one of them")
    if tier.kv_tokens is not None:
        source = source.model_copy(update={"kv_tokens": tier.kv_tokens})
    try:
        return source.build().scaled(tier.prefill_speed, tier.decode_speed)
    except ValueError as error:
        raise ScenarioError(f"{path}: tiers.{name}: {error}") from None


def _tier_model(tier: Tier, spec: AdaptiveModelSpec, curves: Mapping[str, StepCurve] | None, where: str) -> TierModel:
    top, *lower = levels_of(tier)
    card = tier.card
    if card is None or top.quality_permille is None or top.requests_per_second is None:
        raise ScenarioError(
            f"{where}tier {tier.name} has no card; declare qualityPermille and capacityMilliRequestsPerSecond"
        )
    lengths = USUAL_LENGTHS
    if card.reference_prompt_tokens is not None and card.reference_output_tokens is not None:
        lengths = Lengths(card.reference_prompt_tokens, card.reference_output_tokens)
    objective = spec.slo.tpot_milliseconds / 1000

    def curve_of(name: str, rate: float) -> StepCurve:
        if curves is not None and name not in curves:
            raise ScenarioError(f"{where}the profile has no {_describe_name(name)}")
        return (curves[name] if curves is not None else guess_curve(rate, lengths)).with_objective(objective)

    curve = curve_of(tier.name, top.requests_per_second)
    levels = [
        LevelModel(level.name, level.quality_permille, rate, curve_of(f"{tier.name}/{level.name}", rate))
        for level in lower
        if level.quality_permille is not None and (rate := level.requests_per_second) is not None
    ]
    if tier.recipe.nested is not None:
        levels.insert(0, LevelModel(top.name, top.quality_permille, top.requests_per_second, curve))
    load = _DEFAULT_LOAD_SECONDS if card.load_seconds is None else float(card.load_seconds)
    accelerators, rate = tier.replica.accelerators, top.requests_per_second
    return TierModel(tier.name, accelerators, top.quality_permille, rate, load, curve, tuple(levels))


def _describe_name(name: str) -> str:
    tier, _, level = name.partition("/")
    return (
        f"level {level} of tier {tier}; add it under tiers.{tier}.levels"
        if level
        else f"tier {tier}; add it under tiers"
    )


def guess_curve(rate: float, lengths: Lengths) -> StepCurve:
    """A curve of the 8B shape whose saturation is the card's capacity / 0.85 (what is attained of a saturation)."""
    factor = rate / _ATTAINED_PART / saturation(_SHAPE_8B, lengths)
    return _SHAPE_8B.scaled(factor, factor)


def _find_models(path: Path, documents: Sequence[Any]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]]
    found = [doc for doc in documents if isinstance(doc, dict) and doc.get("kind") == KIND]
    if not found:
        raise ScenarioError(f"{path}: there is no {KIND} in it")
    return found


def _read_yaml(path: Path) -> list[Any]:
    try:
        return list(yaml.safe_load_all(path.read_text(encoding="utf-8"))) or [None]
    except yaml.YAMLError as error:
        raise ScenarioError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
