"""Cards of tiers with a curve: a rate that the card leaves out follows from the curve, the objective and the request.

A declared rate always stands: its user measured it. Filled in where the spec is read, so that decisions, routers,
status and the decision log all see the same card. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from adaptive_operator.api import curve as declared
from adaptive_operator.api.card import DeclaredCard
from adaptive_operator.api.objectives import Slo
from adaptive_operator.api.tiers import Tier
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.attaining import attaining_rate
from adaptive_operator.decide.curve import Curve, Objective, Request
from adaptive_operator.levels import top_of

USUAL_REQUEST: Final = Request(1155.0, 211.0)  # the mean of Azure's conversation trace
_FIELD: Final = "capacity_milli_requests_per_second"


@dataclass(frozen=True, slots=True)
class CompletedSpec:
    """A spec whose cards have all rates that can be told, and the tiers whose own rate is their curve's."""

    spec: AdaptiveModelSpec
    from_curves: tuple[str, ...] = ()


def complete_cards(spec: AdaptiveModelSpec) -> CompletedSpec:
    """Rates of the cards that leave them to a curve; none where the curve keeps the objective at no rate."""
    if all(tier.curve is None for tier in spec.tiers):
        return CompletedSpec(spec)
    request = reference_request(tier.card for tier in spec.tiers)
    tiers = tuple(_complete(tier, request, spec.slo) for tier in spec.tiers)
    completed = tuple(
        after.name for before, after in zip(spec.tiers, tiers, strict=True) if top_of(before) != top_of(after)
    )
    return CompletedSpec(spec.model_copy(update={"tiers": tiers}), completed)


def reference_request(cards: Iterable[DeclaredCard | None]) -> Request:
    """The request that the capacities of all cards are measured in; the usual one where no card describes it."""
    for card in cards:
        if card is not None and card.reference_prompt_tokens is not None and card.reference_output_tokens is not None:
            return Request(float(card.reference_prompt_tokens), float(card.reference_output_tokens))
    return USUAL_REQUEST


def curve_of(curve: declared.Curve, times: declared.StepTime) -> Curve:
    """What the policy knows of a declared curve, at the step times of one of its levels.

    A prompt is read in steps that are made anyway, so reading has no part of its own.
    """
    sequences = curve.max_sequences or declared.DEFAULT_MAX_SEQUENCES
    step, each = times.step_microseconds / 1000, times.decode_microseconds_per_sequence / 1000
    return Curve(
        prefill_milliseconds=0.0,
        prefill_milliseconds_per_token=times.prefill_microseconds_per_token / 1000,
        decode=((0.0, step), (float(sequences), step + each * sequences)),
        kv_tokens=float(curve.kv_cache_tokens or declared.DEFAULT_KV_CACHE_TOKENS),
        max_sequences=sequences,
        step_tokens=float(curve.max_tokens_per_step or declared.DEFAULT_MAX_TOKENS_PER_STEP),
    )


def _complete(tier: Tier, request: Request, slo: Slo) -> Tier:
    if tier.curve is None or tier.card is None:
        return tier
    curve, card = tier.curve, tier.card
    objective = Objective(float(slo.tpot_milliseconds), float(slo.ttft_milliseconds), float(slo.attainment_percent))
    times: dict[str, declared.StepTime] = {level.name: level for level in curve.levels}
    levels = tuple(
        level
        if level.capacity_milli_requests_per_second is not None
        else level.model_copy(
            update={_FIELD: _milli_rate(curve_of(curve, times.get(level.name, curve)), request, objective)}
        )
        for level in card.levels
    )
    update: dict[str, object] = {"levels": levels}
    if card.quality_permille is not None and card.capacity_milli_requests_per_second is None:
        update[_FIELD] = _milli_rate(curve_of(curve, curve), request, objective)
    return tier.model_copy(update={"card": card.model_copy(update=update)})


@lru_cache(maxsize=4096)  # asked for in every pass, of every model
def _milli_rate(curve: Curve, request: Request, objective: Objective) -> int | None:
    return int(1000 * attaining_rate(curve, request, objective)) or None
