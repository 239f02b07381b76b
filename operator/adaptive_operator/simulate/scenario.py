"""What is simulated: the models of a manifest, with a step curve for each of their tiers.

The curves come from a profile file, or are guessed from the cards (`guess.py`). Knows no time and no policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

from adaptive_operator.api.tiers import Tier
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec, Mode
from adaptive_operator.levels import levels_of
from adaptive_operator.names import KIND
from adaptive_operator.observe.curve_cards import complete_cards, reference_request
from adaptive_operator.simulate.curve import Lengths, StepCurve
from adaptive_operator.simulate.guess import Guess, Reference, describe_guesses, guess_curve
from adaptive_operator.simulate.manifest import ManifestError, name_of, parse_model, read_objects
from adaptive_operator.simulate.pool_model import Member, PoolModel, PoolModelError, find_pool
from adaptive_operator.simulate.profile import ProfileError, check_names, read_profile

_DEFAULT_LOAD_SECONDS: Final = 60.0
SCHEDULING_SECONDS: Final = 5.0  # from creating a pod until its image and its accelerators are there


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
    written_mode: Mode = Mode.ACTIVE  # what the manifest says; `spec` says what is simulated

    @property
    def reference(self) -> Reference:
        """The request that the cards' rates are of."""
        return _reference_of(self.spec)

    @property
    def guesses(self) -> tuple[str, ...]:
        """What was guessed, a line each; empty where a profile says it."""
        if not self.guessed:
            return ()
        of_tiers = [[Guess(tier.name, tier.rate, tier.curve)] for tier in self.tiers]
        for found, tier in zip(of_tiers, self.tiers, strict=True):
            found += [Guess(f"{tier.name}/{level.name}", level.rate, level.curve) for level in tier.levels[1:]]
        return describe_guesses(self.name, list(chain.from_iterable(of_tiers)), self.reference)

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


def _reference_of(spec: AdaptiveModelSpec) -> Reference:
    cards = [tier.card for tier in spec.tiers]
    request = reference_request(cards)
    declared = any(c and c.reference_prompt_tokens and c.reference_output_tokens for c in cards)
    return Reference(Lengths(request.prompt_tokens, request.output_tokens), declared)


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
    try:
        documents = read_objects(model)
        raws = _find_models(documents)
        parsed = [_parse_spec(raw) for raw in raws]
        pool = find_pool(documents, [_member(raw, *one) for raw, one in zip(raws, parsed, strict=True)], budget)
    except (ManifestError, PoolModelError) as error:
        raise ScenarioError(_in_file(model, str(error))) from None
    curves = None if profile is None else _read_curves(profile, [spec for _, spec in parsed])
    budgets = [pool.spec.budget] if pool is not None else [spec.accelerators.budget for _, spec in parsed]
    accelerators = budget or max((named for named in budgets if named is not None), default=None)
    if accelerators is None:
        raise ScenarioError(_in_file(model, _describe_lacking_budget([spec for _, spec in parsed])))
    try:
        scenarios = tuple(build_scenario(name, spec, accelerators, curves, str(model), pool) for name, spec in parsed)
    except ProfileError as error:
        raise ScenarioError(f"{profile}: {error}") from None
    if profile is not None:
        _check_room(profile, scenarios)
    names = [scenario.name for scenario in scenarios]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ScenarioError(f"{model}: two models are called {twice}; give each a name of its own")
    if len({scenario.spec.accelerators.resource for scenario in scenarios}) > 1:
        raise ScenarioError(f"{model}: the models name different accelerators.resource, so they share nothing")
    return scenarios


def _describe_lacking_budget(specs: Sequence[AdaptiveModelSpec]) -> str:
    pool = next((spec.accelerators.pool for spec in specs if spec.accelerators.pool is not None), None)
    if pool is None:
        return "spec.accelerators.budget is not set; set it, or give --budget"
    return f"accelerators.pool is {pool}, and no AcceleratorPool is in the manifest; add it, or give --budget"


def _member(raw: Mapping[str, Any], name: str, spec: AdaptiveModelSpec) -> Member:
    metadata = raw.get("metadata")
    namespace = (metadata.get("namespace") if isinstance(metadata, dict) else None) or "default"
    return Member(name, str(namespace), spec.accelerators.pool)


def _parse_spec(raw: Mapping[str, Any]) -> tuple[str, AdaptiveModelSpec]:
    return name_of(raw) or "model", complete_cards(parse_model(raw)).spec


def _read_curves(profile: Path, specs: Sequence[AdaptiveModelSpec]) -> dict[str, StepCurve]:
    try:
        curves = read_profile(profile)
        check_names(profile, curves, [tier for spec in specs for tier in spec.tiers])
    except ProfileError as error:
        raise ScenarioError(str(error)) from None
    return curves


def _check_room(profile: Path, scenarios: Sequence[Scenario]) -> None:
    """Raises ScenarioError for a tier whose KV memory does not hold a single reference request."""
    for scenario in scenarios:
        lengths = scenario.reference.lengths
        tokens = int(lengths.prompt + lengths.output)
        small = next((tier for tier in scenario.tiers if tier.curve.kv_tokens < tokens), None)
        if small is not None:
            raise ScenarioError(
                f"{profile}: tiers.{small.name}: kvTokens is {small.curve.kv_tokens}, less than the {tokens} tokens of"
                " a reference request; raise it"
            )


def _in_file(path: Path, lines: str) -> str:
    return "\n".join(f"{path}: {line}" for line in lines.splitlines())


def build_scenario(
    name: str,
    spec: AdaptiveModelSpec,
    budget: int,
    curves: Mapping[str, StepCurve] | None = None,
    source: str = "",
    pool: PoolModel | None = None,
) -> Scenario:
    """A scenario from a parsed spec; `curves` by tier, or None to guess them.

    Raises ScenarioError, and ProfileError where `curves` lacks one.

    `pool`: whose `budget` it is; without it the model is alone with that, also where it names a pool.
    """
    where = f"{source}: " if source else ""
    of_pool = {"budget": budget, "pool": None} if pool is None else {"resource": pool.spec.resource, "pool": pool.name}
    accelerators = spec.accelerators.model_copy(update=of_pool)
    # A simulation acts, also for a model that only thinks (DryRun) or rests (Paused) in its cluster.
    written_mode = spec.mode
    spec = spec.model_copy(update={"accelerators": accelerators, "mode": Mode.ACTIVE})
    tiers = [_tier_model(tier, spec, curves, where) for tier in spec.tiers]
    if min(tier.accelerators for tier in tiers) > budget:
        raise ScenarioError(f"{where}no tier fits into {budget} accelerators; raise the budget")
    tiers.sort(key=lambda tier: -tier.quality_permille)
    return Scenario(name, spec, budget, tuple(tiers), guessed=curves is None, pool=pool, written_mode=written_mode)


def _tier_model(tier: Tier, spec: AdaptiveModelSpec, curves: Mapping[str, StepCurve] | None, where: str) -> TierModel:
    top, *lower = levels_of(tier)
    card = tier.card
    if card is None or top.quality_permille is None or top.requests_per_second is None:
        raise ScenarioError(
            f"{where}tier {tier.name} has no card; declare qualityPermille and capacityMilliRequestsPerSecond"
        )
    reference = _reference_of(spec)
    objective = spec.slo.tpot_milliseconds / 1000

    def curve_of(name: str, rate: float) -> StepCurve:
        if curves is not None and name not in curves:
            raise ProfileError(f"the profile has no {_describe_name(name)}")
        return (curves[name] if curves is not None else guess_curve(rate, reference, spec.slo)).with_objective(
            objective
        )

    curve = curve_of(tier.name, top.requests_per_second)
    levels = [
        LevelModel(level.name, level.quality_permille, rate, curve_of(f"{tier.name}/{level.name}", rate))
        for level in lower
        if level.quality_permille is not None and (rate := level.requests_per_second) is not None
    ]
    levels = [replace(level, curve=level.curve.with_places(curve.max_sequences)) for level in levels]
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


def _find_models(documents: Sequence[Any]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]]
    found = [doc for doc in documents if isinstance(doc, dict) and doc.get("kind") == KIND]
    if not found:
        raise ManifestError(f"there is no {KIND} in it; give a manifest with kind: {KIND}")
    return found
