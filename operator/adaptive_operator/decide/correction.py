"""How far a tier's card may be trusted: what its replicas were seen to answer against what the card says, in bounds.

Replicas that were busy all the while carry no more than they answered; those that kept the objective carry no less.
Unbounded factors oscillate on ramps, and replicas that are still cold look slow and over-scale: both are left out. The
factor moves in steps, the slower the smaller the gap, so that it can be kept in the status without writing each pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from adaptive_operator.api.tiers import Tier
from adaptive_operator.decide.cards import TierCard
from adaptive_operator.decide.revisions import inputs_of
from adaptive_operator.decide.settings import CorrectionSettings, DecideSettings
from adaptive_operator.names import short_hash
from adaptive_operator.observe.observation import Correction, ModelObservation, PodPhase, TierReadings

_WHOLE = 1000  # permille


class Pace(Enum):
    """How a tier got along while it was measured."""

    UNKNOWN = 0
    BUSY = 1  # all the while something waited in its engines, or tokens came later than the objective allows
    MISSED = 2  # not that, but more than 5 % of its requests missed the objective
    KEPT = 3  # 95 % of its requests within both objectives: as it should be, which says nothing
    COMFORTABLE = 4  # the same within a part of them: there is room for more


@dataclass(frozen=True, slots=True)
class TierSample:
    """What was seen of a tier's warm replicas: requests, reference requests/s of each replica, and how well it went."""

    requests: float
    rate: float
    pace: Pace


@dataclass(frozen=True, slots=True)
class Basis:
    """What a factor on a tier's card is measured by: the card as it is declared, and a hash of the rest."""

    card: TierCard
    inputs: str


def basis_of(model: ModelObservation, tier: Tier, card: TierCard, earlier: str | None) -> Basis:
    """The basis of a tier whose replicas have the inputs of the spec, or `earlier` ones: the edit is held back.

    The objective belongs to it, because it tells whether replicas are late.
    """
    return Basis(card, short_hash(earlier or inputs_of(model, tier), str(model.spec.slo.tpot_milliseconds)))


def correct_cards(
    model: ModelObservation, bases: Mapping[str, Basis], now: float, settings: DecideSettings, is_trusted: bool
) -> dict[str, Correction]:
    """The corrections after this pass, by tier. One whose card or replicas were edited has none any more.

    Not `is_trusted`: readings are stale or missing, and everything stays as it is.
    """
    corrections = {}
    for tier, basis in bases.items():
        before = correction_of(basis, model.memory.corrections.get(tier), settings.correction)
        sample = sample_tier(model, tier, basis.card, now, settings.correction) if is_trusted else None
        after = correct(before, card_milli(basis.card), sample, now, settings)
        if after is not None:
            corrections[tier] = after if after is before else replace(after, inputs=basis.inputs)
    return corrections


def correct(
    before: Correction | None,
    card: int,
    sample: TierSample | None,
    now: float,
    settings: DecideSettings,
) -> Correction | None:
    """The correction after a measurement; `before` where it says nothing or moves nothing. None: the card as it is.

    `card`: its requests per 1000 s. Example: replicas that are busy at 0.75 of their card pull the factor from 1 to
    0.85 at once, to 0.80 two and a half minutes later, to 0.75 five minutes after that.
    """
    limits = settings.correction
    if sample is None or sample.requests < limits.least_requests:
        return before
    start = before or Correction(card, _WHOLE, now - limits.memory_seconds)
    factor, elapsed = start.factor_permille, max(0.0, now - start.moved_at)
    target = _target(factor, card, sample, limits)
    probing = target < factor + limits.step_permille and _may_probe(start, card, sample, elapsed, settings)
    if probing:
        target = min(_WHOLE, factor + limits.step_permille)
    target = min(limits.most_permille, max(limits.least_permille, round(target)))
    part = min(1.0, elapsed / limits.memory_seconds)
    steps = min(limits.most_steps, int(abs(target - factor) * part / limits.step_permille))
    if steps == 0:
        return before
    moved = limits.step_permille * (steps if target > factor else -steps)
    failed = start.failed_probes + (start.probes > 0 and sample.pace is Pace.BUSY)
    failed = min(failed, limits.most_doublings)
    probes = start.probes + 1 if probing else 0
    return Correction(card, factor + moved, float(int(now)), probes=probes, failed_probes=failed)


def _target(factor: int, card: int, sample: TierSample, settings: CorrectionSettings) -> float:
    """Where a measurement pulls the factor (permille); the factor itself where it says nothing."""
    seen = _seen(card, sample)
    chance = seen / math.sqrt(sample.requests)  # one standard deviation of counting, in favour of what is believed
    if sample.pace is Pace.BUSY:
        return min(factor, seen + chance)
    if sample.pace is Pace.MISSED:
        return max(min(factor, _WHOLE), factor - settings.step_permille)
    return max(factor, seen - chance) if sample.pace is Pace.COMFORTABLE else factor


def _may_probe(state: Correction, card: int, sample: TierSample, elapsed: float, settings: DecideSettings) -> bool:
    """May more be tried than was seen? Of a tier below its card that is used as planned, and has room.

    `elapsed`: seconds since the last move. A try that left replicas busy makes the wait longer; one that did not is
    followed by the next as soon as the first was.
    """
    limits, factor = settings.correction, state.factor_permille
    if sample.pace is not Pace.COMFORTABLE or factor >= _WHOLE:
        return False
    # A tier that hardly works is always fast.
    is_used = _seen(card, sample) >= limits.used * settings.utilisation * factor
    doublings = 0 if state.probes else min(state.failed_probes, limits.most_doublings)
    return is_used and elapsed >= limits.memory_seconds * 2**doublings


def _seen(card: int, sample: TierSample) -> float:
    """What a replica answered, in permille of the card."""
    return 1000.0 * _WHOLE * sample.rate / card


def sample_tier(
    model: ModelObservation, tier: str, card: TierCard, now: float, settings: CorrectionSettings
) -> TierSample | None:
    """What was measured of a tier; None where it cannot be told, or while its replicas are cold or change."""
    readings = model.metrics.tiers.get(tier)
    # While an edit of its levels is held back, what is read is of the levels that the edit asks for.
    known = {level.name for level in card.levels}
    if readings is None or not known <= readings.answers.keys():
        return None
    # What answers of a level without a card take of a replica is not known.
    if any(rate > 0 for name, rate in readings.answers.items() if name not in known):
        return None
    replicas = _steady_replicas(model, tier, now - max(settings.warm_seconds, readings.window_seconds))
    if not replicas:
        return None
    answered = sum(readings.answers.values())
    top = card.requests_per_second
    # A request at a faster level takes less of a replica.
    work = sum(readings.answers[level.name] * top / level.rate for level in card.levels)
    pace = Pace.BUSY if _is_busy(model, readings, replicas) else _pace(model, readings, settings)
    return TierSample(answered * readings.window_seconds, work / replicas, pace)


def _is_busy(model: ModelObservation, readings: TierReadings, replicas: int) -> bool:
    """Was there at no time of the window less than a request in each queue, or a tier that kept the time per token?"""
    tpot, waiting = readings.least_tpot_seconds, readings.least_waiting
    late = tpot is not None and tpot > model.spec.slo.tpot_milliseconds / 1000
    return late or (waiting is not None and waiting >= replicas)


def _pace(model: ModelObservation, readings: TierReadings, settings: CorrectionSettings) -> Pace:
    """How its requests got along, by the 95th percentile of both times against the objective."""
    slo, ttft, tpot = model.spec.slo, readings.ttft_p95_seconds, readings.tpot_p95_seconds
    if ttft is None or tpot is None:
        return Pace.UNKNOWN
    part = 1000 * max(ttft / slo.ttft_milliseconds, tpot / slo.tpot_milliseconds)
    if part > 1:
        return Pace.MISSED
    return Pace.COMFORTABLE if part <= settings.comfortable else Pace.KEPT


def _steady_replicas(model: ModelObservation, tier: str, since: float) -> int:
    """Replicas of a tier that all were ready since then; 0 where some were not, or came or went."""
    memory, pods = model.memory, [pod for pod in model.pods if pod.tier == tier]
    if model.swap is not None or memory.generation not in (None, model.generation):
        return 0
    if memory.last_change_at is not None and memory.last_change_at > since:
        return 0
    ready = [pod for pod in pods if pod.phase is PodPhase.READY]
    steady = [pod for pod in ready if pod.ready_since is not None and pod.ready_since <= since]
    return len(steady) if len(steady) == len(pods) else 0


def card_milli(card: TierCard) -> int:
    """A card's rate at its best level, in requests per 1000 s."""
    return max(round(1000 * card.requests_per_second), 1)


def correction_of(basis: Basis, written: Correction | None, settings: CorrectionSettings) -> Correction | None:
    """What is written of a tier, if it is of the card and replicas that the tier has, and within the bounds of today.

    What an older operator wrote does not say which replicas it is of, and is believed until its next step.
    """
    if written is None or written.card_milli != card_milli(basis.card) or written.inputs not in (None, basis.inputs):
        return None
    return written if settings.least_permille <= written.factor_permille <= settings.most_permille else None


def is_stale(correction: Correction, now: float, settings: CorrectionSettings) -> bool:
    """Has the factor stood at its lower bound for so long that the tier has to be measured again?

    At the upper bound it has not: replicas that share bursts with other tiers carry more than one alone, which is how
    cards are measured.
    """
    return correction.factor_permille <= settings.least_permille < _WHOLE and (
        now - correction.moved_at >= settings.stale_after_seconds
    )


def corrected(card: TierCard, correction: Correction | None) -> TierCard:
    """The card with the rates that are planned with."""
    if correction is None or correction.factor_permille == _WHOLE:
        return card
    factor = correction.factor_permille / _WHOLE
    levels = tuple(replace(level, rate=level.rate * factor) for level in card.levels)
    return replace(card, requests_per_second=card.requests_per_second * factor, factor=factor, levels=levels)
