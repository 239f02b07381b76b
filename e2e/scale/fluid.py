"""What an emulated model does with its load, as a fluid: rates and means instead of requests. Pure.

The best tiers are filled first; what none can carry waits, and beyond the longest wait is refused, as routers do. Knows
no pods, no clock and no Prometheus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference_pods.engine.emulated.curve import Curve

_DEFAULT_SEQUENCES = 64
_DEFAULT_PROMPT_TOKENS, _DEFAULT_OUTPUT_TOKENS = 128, 64


@dataclass(frozen=True, slots=True)
class FluidTier:
    """One emulated tier and its reference request."""

    name: str
    quality: float  # 0..1
    curve: Curve
    sequences: int
    prompt_tokens: int = _DEFAULT_PROMPT_TOKENS
    output_tokens: int = _DEFAULT_OUTPUT_TOKENS
    level: str = ""  # that a nested tier serves: the top one

    @property
    def requests_per_second(self) -> float:
        """Of a saturated replica, by the linear batch model."""
        curve = self.curve
        per_token = curve.step_microseconds / self.sequences + curve.decode_microseconds_per_sequence
        prompt = curve.prefill_microseconds_per_token * self.prompt_tokens
        return 1e6 / (prompt + max(1, self.output_tokens - 1) * per_token)

    def seconds_per_token(self, utilisation: float) -> float:
        """Mean time between two output tokens of a replica at this share of its saturated rate (0..1)."""
        return self.curve.step_seconds(max(1, round(utilisation * self.sequences)), 0)

    @property
    def prefill_seconds(self) -> float:
        return self.curve.step_seconds(0, self.prompt_tokens)


@dataclass(frozen=True, slots=True)
class Flow:
    """What a tier did in an interval: requests, mean times (seconds), and requests in a replica at its end."""

    served: float = 0.0
    ttft_seconds: float = 0.0
    tpot_seconds: float = 0.0
    running: float = 0.0


@dataclass(slots=True)
class FluidModel:
    """Tiers, best first, and the requests that wait (in number)."""

    tiers: Sequence[FluidTier]
    longest_wait_seconds: float
    waiting: float = 0.0
    refused: float = 0.0  # in the last interval

    def advance(self, seconds: float, arrived: float, replicas: Mapping[str, int]) -> dict[str, Flow]:
        """The flow of each tier with ready replicas (their number by tier), in an interval of `arrived` requests."""
        ready = [tier for tier in self.tiers if replicas.get(tier.name, 0) > 0]
        carried = {tier.name: tier.requests_per_second * replicas[tier.name] * seconds for tier in ready}
        rate = sum(carried.values()) / seconds
        left = self.waiting + arrived
        waited = self.waiting / rate if rate else 0.0
        flows: dict[str, Flow] = {}
        for tier in ready:
            served = min(left, carried[tier.name])
            left -= served
            flows[tier.name] = _flow(tier, served, served / carried[tier.name], waited)
        self.waiting = min(left, self.longest_wait_seconds * rate)
        self.refused = left - self.waiting
        return flows


def _flow(tier: FluidTier, served: float, utilisation: float, waited: float) -> Flow:
    per_token = tier.seconds_per_token(utilisation)
    in_replica = tier.prefill_seconds + (tier.output_tokens - 1) * per_token
    running = min(float(tier.sequences), utilisation * tier.requests_per_second * in_replica)  # Little's law
    return Flow(served, waited + tier.prefill_seconds, per_token, running)


def read_tiers(spec: Mapping[str, Any]) -> tuple[FluidTier, ...]:
    """The emulated tiers of a spec that have a card with a quality, best first."""
    found = [
        _read_tier(tier)
        for tier in spec["tiers"]
        if tier.get("engine") == "emulated" and "qualityPermille" in tier.get("card", {})
    ]
    return tuple(sorted(found, key=lambda tier: -tier.quality))


def _read_tier(tier: Mapping[str, Any]) -> FluidTier:
    given, card = tier["curve"], tier["card"]
    return FluidTier(
        tier["name"],
        card["qualityPermille"] / 1000,
        Curve(given["stepMicroseconds"], given["decodeMicrosecondsPerSequence"], given["prefillMicrosecondsPerToken"]),
        given.get("maxSequences", _DEFAULT_SEQUENCES),
        card.get("referencePromptTokens", _DEFAULT_PROMPT_TOKENS),
        card.get("referenceOutputTokens", _DEFAULT_OUTPUT_TOKENS),
        tier["recipe"].get("nested", {}).get("levels", [""])[0],
    )
