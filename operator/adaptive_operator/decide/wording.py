"""Sentences for people: short, with rounded numbers, the same for the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from adaptive_operator.decide.cards import CURVE, TierCard
from adaptive_operator.decide.situation import Situation
from adaptive_operator.observe.observation import Reading, Sample

PASSES: Final = "demand passes capacity"  # how it is told that requests are refused, and not only served worse


def mix_text(mix: Mapping[str, int]) -> str:
    """`full 1 · int4 1`; tiers without replicas are left out."""
    return " · ".join(f"{tier} {n}" for tier, n in mix.items() if n > 0) or "nothing"


def rate_text(requests_per_second: float) -> str:
    """Two decimals below 100/s, none above."""
    return f"{requests_per_second:.2f}/s" if requests_per_second < 100 else f"{requests_per_second:.0f}/s"


def card_text(tier: str, card: TierCard) -> str:
    """`full card 4.00/s, measured 0.70 of it`, `full card 4.00/s from its curve`."""
    origin = " from its curve" if card.source == CURVE else ""
    measured = f", measured {card.factor:.2f} of it" if card.factor != 1 else ""
    return f"{tier} card {rate_text(card.requests_per_second / card.factor)}{origin}{measured}"


def accelerators_text(count: int) -> str:
    """`1 accelerator`, `4 accelerators`."""
    return f"{count} accelerator" if count == 1 else f"{count} accelerators"


def budget_field(situation: Situation) -> str:
    """Which budget limits a model, as its user knows it: `accelerators.budget`, or that of its pool or resource."""
    own, model = situation.model.spec.accelerators.budget, situation.model
    if own is not None and own <= situation.pool_budget:
        return "accelerators.budget"
    return f"the budget of pool {model.pool}" if model.pool else f"the budget of {model.spec.accelerators.resource}"


def no_budget_text(situation: Situation) -> str:
    """Of a budget of 0, where to tell what fits in it would only puzzle."""
    return f"{budget_field(situation)} is 0, so nothing can run; raise it"


def clock_text(seconds: float) -> str:
    """`12:05:10 UTC` of Unix seconds."""
    return f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S} UTC"


def fingerprint(mix: Mapping[str, int]) -> str:
    """A plan as one string: equal plans have equal strings, whatever the order of the tiers."""
    return ",".join(f"{tier}={n}" for tier, n in sorted(mix.items()) if n > 0)


def read_fingerprint(text: str) -> dict[str, int] | None:
    """The plan that a string of `fingerprint` is of; None for another string."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name and count.isascii() and count.isdigit() for name, _, count in pairs):
        return None
    return {name: int(count) for name, _, count in pairs}


def passes_text(situation: Situation, demand: float, rate: float, mix: Mapping[str, int]) -> str:
    """`demand 1.80/s passes 1.31/s (0.9 x capacity of full 1 · int4 1)`."""
    derated = f"{situation.settings.utilisation:g} x capacity of {mix_text(mix)}"
    return f"demand {rate_text(demand)} passes {rate_text(rate)} ({derated})"


def inputs_text(situation: Situation, capacity: float) -> str:
    """What was seen, compact. Written to status only together with a new decision."""
    seen, metrics = situation.demand, situation.model.metrics
    parts = ["demand unknown"] if seen.rate is None else [f"demand {rate_text(seen.rate)}{_age_text(metrics.arrivals)}"]
    if seen.rate is not None:
        peak = "unknown" if seen.peak is None else rate_text(seen.peak)
        parts += [
            f"peak {peak}{_age_text(metrics.peak_arrivals)}",
            *_recent_text(situation),
            _queue_text(metrics.queue),
        ]
    parts += _measured_text(situation)
    parts.append(f"capacity {rate_text(capacity)}")
    cards = [(tier.name, tier.card) for tier in situation.tiers if tier.card]
    parts += [card_text(name, card) for name, card in cards if card.factor != 1 or card.source == CURVE]
    parts.append(f"ready {mix_text({tier.name: tier.ready for tier in situation.tiers})}")
    parts.append(f"held {situation.held} of {situation.budget}")
    return ", ".join(parts)


def _recent_text(situation: Situation) -> list[str]:
    """The panic window, where it decides: a burst that has just come, or one that is over."""
    seen, recent = situation.demand, situation.model.metrics.recent_arrivals
    if not isinstance(recent, Sample) or not (seen.is_burst or seen.lasting != seen.arrivals):
        return []
    return [f"just now {rate_text(recent.value)}{_age_text(recent)}"]


def _queue_text(queue: Reading) -> str:
    return f"queue {queue.value:.0f}{_age_text(queue)}" if isinstance(queue, Sample) else "queue unknown"


def _measured_text(situation: Situation) -> list[str]:
    """`tiers measured (age 47 s)`: the oldest scrape behind what cards are corrected by, where it is no fresh one.

    Routers tell what each tier answered and how fast, engines what waits.
    """
    model = situation.model
    engines = (model.metrics.pod_work.get(pod.name) for pod in model.pods if pod.tier in model.metrics.tiers)
    ages = [found.age_seconds for found in (model.metrics.arrivals, *engines) if isinstance(found, Sample)]
    oldest = max(ages, default=0.0)
    if not model.metrics.tiers or oldest <= situation.settings.scrape_interval_seconds:
        return []
    return [f"tiers measured (age {oldest:.0f} s)"]


def _age_text(reading: Reading) -> str:
    """` (age 2 s)`: of the scrape behind it."""
    return f" (age {reading.age_seconds:.0f} s)" if isinstance(reading, Sample) else ""
