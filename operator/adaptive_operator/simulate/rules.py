"""The CRDs' CEL rules over several fields, for manifests that no API server has seen. Pure.

The words are the rules' own, found by their beginning; what they ask is said here a second time, in Python. Rules of
changes (`oldSelf`) say nothing of a manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Final

from adaptive_operator.api.base import CEL
from adaptive_operator.api.crd import KINDS, build_schema
from adaptive_operator.api.curve import (
    DEFAULT_CONTEXT_TOKENS,
    DEFAULT_KV_CACHE_TOKENS,
    DEFAULT_MAX_SEQUENCES,
    DEFAULT_MAX_TOKENS_PER_STEP,
)
from adaptive_operator.api.pool import AcceleratorPoolSpec, PoolDivision, Share
from adaptive_operator.api.recipe import LevelPrecision, Nested, Precision, level_names
from adaptive_operator.api.tiers import Engine, KvPrecision, Tier
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec

_FACTORS: Final = {
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGT", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGT", start=1)},
}
_LEAST_MEMORY: Final = 64 * Decimal(1024) ** 2


def broken_model_rules(spec: AdaptiveModelSpec) -> Iterator[str]:
    """Field, cause and remedy for each rule that a model breaks."""
    yield from _broken(_OF_MODEL, spec, "spec")
    for index, tier in enumerate(spec.tiers):
        yield from _broken(_OF_TIER, tier, f"spec.tiers[{index}]")
        if tier.recipe.nested is not None:
            yield from _broken(_OF_NESTED, tier.recipe.nested, f"spec.tiers[{index}].recipe.nested")


def broken_pool_rules(spec: AcceleratorPoolSpec) -> Iterator[str]:
    """The same for an AcceleratorPool."""
    yield from _broken(_OF_POOL, spec, "spec")
    for index, share in enumerate(spec.shares):
        yield from _broken(_OF_SHARE, share, f"spec.shares[{index}]")


def _broken(rules: Mapping[str, Callable[[Any], bool]], value: Any, path: str) -> Iterator[str]:
    for beginning, holds in rules.items():
        if not holds(value):
            yield f"{path}: {_words(beginning)}"


def _words(beginning: str) -> str:
    """The whole message of the only rule whose message begins so. Raises ValueError."""
    (words,) = (words for words in _all_messages() if words.startswith(beginning))
    return words


@cache
def _all_messages() -> frozenset[str]:
    return frozenset(words for kind in KINDS for words in _messages(build_schema(kind)))


def _messages(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _messages(item)
    elif isinstance(node, Mapping):
        yield from (item["message"] for item in node.get(CEL, ()))
        for key, item in node.items():
            if key != CEL:
                yield from _messages(item)


def _warm(spec: AdaptiveModelSpec) -> list[Tier]:
    return [tier for tier in spec.tiers if tier.name == spec.routing.warm_tier]


def _may_run(tier: Tier) -> bool:
    return tier.replicas is None or tier.replicas.max != 0


def _least(tier: Tier) -> int:
    """Accelerators of its fewest replicas."""
    return ((tier.replicas and tier.replicas.min) or 0) * tier.replica.accelerators


def _is_below(tier: Tier, floor: int) -> bool:
    """Does its card say that all that it serves is below the floor?"""
    if tier.card is None:
        return False
    if tier.card.quality_permille is not None:
        return tier.card.quality_permille < floor
    return bool(tier.card.levels) and all(level.quality_permille < floor for level in tier.card.levels)


def _has_one_reference(spec: AdaptiveModelSpec) -> bool:
    cards = [tier.card for tier in spec.tiers if tier.card is not None and tier.card.reference_prompt_tokens]
    return len({(card.reference_prompt_tokens, card.reference_output_tokens) for card in cards}) <= 1


def _has_price(spec: AdaptiveModelSpec) -> bool:
    shrink = spec.scaling.idle_shrink
    priced = shrink is None or shrink.price_per_accelerator_hour_milli is not None
    return priced or spec.accelerators.pool is not None


def _starts_in_time(spec: AdaptiveModelSpec) -> bool:
    deadline = spec.scaling.start_deadline_seconds
    loads = [tier.card.load_seconds for tier in spec.tiers if tier.card is not None]
    return deadline is None or all(load is None or load < deadline for load in loads)


def _within_budget(spec: AdaptiveModelSpec, accelerators: int) -> bool:
    return spec.accelerators.budget is None or accelerators <= spec.accelerators.budget


_OF_MODEL: Final[Mapping[str, Callable[[AdaptiveModelSpec], bool]]] = {
    "routing.warmTier must be": lambda spec: spec.routing.warm_tier is None or bool(_warm(spec)),
    "routing.warmTier names a tier": lambda spec: all(_may_run(tier) for tier in _warm(spec)),
    "tiers[].replica.accelerators must not": lambda spec: _within_budget(
        spec, max(tier.replica.accelerators for tier in spec.tiers)
    ),
    "at least one of tiers[].replicas.max": lambda spec: any(_may_run(tier) for tier in spec.tiers),
    "tiers[].replicas.min of all tiers": lambda spec: _within_budget(spec, sum(_least(tier) for tier in spec.tiers)),
    "quality.floorPermille is above": lambda spec: (
        not all(_is_below(tier, spec.quality.floor_permille) for tier in spec.tiers)
    ),
    "tiers[].card must describe the same": _has_one_reference,
    "scaling.idleShrink needs a price": _has_price,
    "scaling.startDeadlineSeconds must be": _starts_in_time,
    "model.source must not contain": lambda spec: ".." not in spec.model.source,
}


def _has_fast_enough_ranks(tier: Tier) -> bool:
    plain = tier.replica.kv_precision in (None, KvPrecision.FP32) or tier.curve is not None
    return plain or tier.replica.tensor_parallel in (None, 1)


def _names_levels_with_a_curve(tier: Tier) -> bool:
    if tier.curve is None or not tier.curve.levels:
        return True
    nested = tier.recipe.nested
    if nested is None:
        return False
    return all(
        level.name != nested.levels[0]
        and any(level.name.startswith(precision) for precision in nested.levels)
        and (bool(nested.depths) or "-d" not in level.name)
        for level in tier.curve.levels
    )


def _has_whole_card(tier: Tier) -> bool:
    card = tier.card
    if card is None:
        return True
    if card.quality_permille is None:
        return card.capacity_milli_requests_per_second is None
    return tier.curve is not None or card.capacity_milli_requests_per_second is not None


def _has_capacities_of_levels(tier: Tier) -> bool:
    levels = tier.card.levels if tier.card is not None and tier.curve is None else ()
    return all(level.capacity_milli_requests_per_second is not None for level in levels)


def _has_levels_only_if_nested(tier: Tier) -> bool:
    return tier.card is None or not tier.card.levels or tier.recipe.nested is not None


def _describes_its_top(tier: Tier) -> bool:
    card, nested = tier.card, tier.recipe.nested
    if card is None or nested is None or card.quality_permille is not None:
        return True
    return any(level.name == nested.levels[0] for level in card.levels)


def _says_something(tier: Tier) -> bool:
    return tier.card is None or tier.card.quality_permille is not None or tier.recipe.nested is not None


def _has_cards_of_its_levels(tier: Tier) -> bool:
    if tier.card is None or tier.recipe.nested is None:
        return True
    return {level.name for level in tier.card.levels} <= set(level_names(tier.recipe.nested))


def _has_whole_reference(tier: Tier) -> bool:
    card = tier.card
    return card is None or (card.reference_prompt_tokens is None) == (card.reference_output_tokens is None)


def _has_possible_bounds(tier: Tier) -> bool:
    bounds = tier.replicas
    return bounds is None or bounds.min is None or bounds.max is None or bounds.min <= bounds.max


def _has_possible_grid(tier: Tier) -> bool:
    size = tier.recipe.group_size
    return size in (None, 32) or (size in (64, 128) and tier.recipe.precision is Precision.INT4)


def _has_possible_steps(tier: Tier) -> bool:
    curve = tier.curve
    if curve is None:
        return True
    tokens = curve.max_tokens_per_step or DEFAULT_MAX_TOKENS_PER_STEP
    return (curve.max_sequences or DEFAULT_MAX_SEQUENCES) <= tokens


def _has_possible_context(tier: Tier) -> bool:
    curve = tier.curve
    if curve is None:
        return True
    return (curve.context_tokens or DEFAULT_CONTEXT_TOKENS) <= (curve.kv_cache_tokens or DEFAULT_KV_CACHE_TOKENS)


def _amount(text: str) -> Decimal:
    """A quantity as the schema allows it, e.g. 500m or 2Gi."""
    digits = text.rstrip("mkKMGTi")
    return Decimal(digits) * _FACTORS.get(text[len(digits) :], Decimal(1))


_OF_TIER: Final[Mapping[str, Callable[[Tier], bool]]] = {
    "tiers[].replicas.min must not": _has_possible_bounds,
    "tiers[].curve and engine": lambda tier: (tier.curve is not None) == (tier.engine is Engine.EMULATED),
    "tiers[].replica.kvPrecision": _has_fast_enough_ranks,
    "tiers[].curve.levels must name": _names_levels_with_a_curve,
    "tiers[].card.qualityPermille and": _has_whole_card,
    "tiers[].card.levels[].capacityMilli": _has_capacities_of_levels,
    "tiers[].card.levels is for": _has_levels_only_if_nested,
    "tiers[].card of a nested tier": _describes_its_top,
    "tiers[].card must give": _says_something,
    "tiers[].card.levels names a level": _has_cards_of_its_levels,
    "tiers[].card.referencePromptTokens and": _has_whole_reference,
    "tiers[].replica.tensorParallel must": lambda tier: (
        (tier.replica.tensor_parallel or 1) <= tier.replica.accelerators
    ),
    "tiers[].replica.cpu must be greater": lambda tier: _amount(tier.replica.cpu) > 0,
    "tiers[].replica.memory must be at": lambda tier: _amount(tier.replica.memory) >= _LEAST_MEMORY,
    "tiers[].recipe must have": lambda tier: (tier.recipe.precision is None) != (tier.recipe.nested is None),
    "tiers[].recipe.groupSize must": _has_possible_grid,
    "tiers[].curve.maxTokensPerStep must": _has_possible_steps,
    "tiers[].curve.kvCacheTokens must": _has_possible_context,
}


def _leaves_known_layers_out(nested: Nested) -> bool:
    return not nested.depths or all(layer < nested.depths[0] for layer in nested.skip_order or ())


def _leaves_enough_layers_out(nested: Nested) -> bool:
    if nested.skip_order is None or not nested.depths:
        return True
    return nested.depths[0] - nested.depths[-1] <= len(nested.skip_order)


def _falls(depths: tuple[int, ...]) -> bool:
    return depths == tuple(sorted(set(depths), reverse=True))


_OF_NESTED: Final[Mapping[str, Callable[[Nested], bool]]] = {
    "tiers[].recipe.nested.levels names": lambda nested: len(set(nested.levels)) == len(nested.levels),
    "tiers[].recipe.nested.levels must": lambda nested: (
        LevelPrecision.INT8 not in nested.levels or nested.levels[0] is LevelPrecision.INT8
    ),
    "tiers[].recipe.nested.depths must": lambda nested: _falls(nested.depths),
    "tiers[].recipe.nested.skipOrder names a layer twice": lambda nested: (
        len(set(nested.skip_order or ())) == len(nested.skip_order or ())
    ),
    "tiers[].recipe.nested.skipOrder names a layer that": _leaves_known_layers_out,
    "tiers[].recipe.nested.skipOrder has": _leaves_enough_layers_out,
    "tiers[].recipe.nested.skipOrder says": lambda nested: nested.skip_order is None or bool(nested.depths),
}
_OF_POOL: Final[Mapping[str, Callable[[AcceleratorPoolSpec], bool]]] = {
    "shares[].reservation of all": lambda spec: (
        spec.budget is None or sum(share.reservation or 0 for share in spec.shares) <= spec.budget
    ),
    "shares[].reservation cannot be kept": lambda spec: (
        spec.division is not PoolDivision.PLANNED or not any(share.reservation for share in spec.shares)
    ),
}
_OF_SHARE: Final[Mapping[str, Callable[[Share], bool]]] = {
    "shares[] must give": lambda share: share.reservation is not None or share.weight is not None,
}
