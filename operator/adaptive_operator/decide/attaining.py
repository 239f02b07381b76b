"""The rate at which one replica keeps its latency objective, where prompts are read in chunks beside what decodes.

An engine plans its steps to keep the time per token, so it is the first token that comes late: it waits for a place in
the batch (M/M/c, Sakasegawa's approximation), then for the prompts before its own (M/D/1), then for its own. Nothing
here is fitted. Against the simulated engine it is within 15 % of what is kept for most tiers (docs/planner.md); where
the objective leaves a step little time for prompts it says too much.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from adaptive_operator.decide.curve import (
    LEAST_PROMPT_TOKENS,
    TPOT_MARGIN,
    Curve,
    Objective,
    Request,
    full_batch,
    largest,
    predicted_tpot_milliseconds,
    saturation_rate,
)

MOST_PART: Final = 0.95  # of saturation: a backlog that random arrivals left has to shrink again
_LEAST_MISSED: Final = 0.001  # 100 % is kept by no rate; it is taken as 99.9 %


def attaining_rate(curve: Curve, request: Request, objective: Objective) -> float:
    """Requests/s at which the wanted share of requests keeps both objectives (μ); 0 where it does at no rate."""
    # The step that reads a prompt writes a token: nothing else bounds the rate where reading costs no time.
    request = replace(request, output_tokens=max(2.0, request.output_tokens))
    planned = Objective(planned_milliseconds(curve, objective))
    batch = full_batch(curve, request, planned)
    if batch < 1:
        return 0.0
    most = MOST_PART * saturation_rate(curve, request, planned)
    rate = largest(most, lambda rate: _is_kept(curve, request, objective, batch, rate))
    return rate if rate > most * 1e-6 else 0.0  # an objective that an idle replica misses


def planned_milliseconds(curve: Curve, objective: Objective) -> float:
    """What the decoding sequences of a step may take, beside the fewest tokens of a prompt."""
    beside = LEAST_PROMPT_TOKENS * curve.prefill_milliseconds_per_token
    return TPOT_MARGIN * objective.tpot_milliseconds - beside


def _is_kept(curve: Curve, request: Request, objective: Objective, batch: float, rate: float) -> bool:
    tpot = predicted_tpot_milliseconds(curve, request, rate)
    decoding = rate / 1000.0 * (request.output_tokens - 1) * tpot
    if tpot > objective.tpot_milliseconds or decoding > batch:
        return False
    chunk = _chunk_tokens(curve, objective, decoding)
    own, each = (_reading_milliseconds(curve, request, decoding, n) for n in (min(chunk, request.prompt_tokens), chunk))
    busy = rate / 1000.0 * each
    used = (decoding + rate / 1000.0 * own) / batch
    if busy >= 1 or used >= 1:
        return False
    missed = max(1.0 - objective.attainment_percent / 100.0, _LEAST_MISSED)
    place = (own + (request.output_tokens - 1) * tpot) / batch
    waits = used ** (math.sqrt(2 * (batch + 1)) - 1)
    for_place = _exceeded(waits, place / (1 - used), missed)
    for_others = _exceeded(busy, each / 2 / (1 - busy), missed)
    return for_place + for_others + own + tpot / 2 <= objective.ttft_milliseconds


def _reading_milliseconds(curve: Curve, request: Request, decoding: float, chunk: float) -> float:
    """Engine time of one prompt, in steps that read `chunk` tokens beside so many sequences that decode; a chunk longer
    than the prompt has others in it."""
    step = curve.step_milliseconds(decoding) + curve.prefill_milliseconds_per_token * chunk
    return curve.prefill_milliseconds + step * request.prompt_tokens / chunk


def _chunk_tokens(curve: Curve, objective: Objective, decoding: float) -> float:
    """Prompt tokens that fit beside so many sequences that decode: by the tokens of a step, and by its time."""
    room = max(1.0, curve.step_tokens - decoding)
    if curve.prefill_milliseconds_per_token == 0:
        return room
    spare = TPOT_MARGIN * objective.tpot_milliseconds - curve.step_milliseconds(decoding)
    return min(room, max(spare / curve.prefill_milliseconds_per_token, float(LEAST_PROMPT_TOKENS)))


def _exceeded(waits: float, mean: float, share: float) -> float:
    """The wait that a share of requests passes, where a part `waits` of them waits, exponentially, `mean` long."""
    return mean * max(0.0, math.log(waits / share)) if waits > 0 else 0.0
