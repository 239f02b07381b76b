"""Ours with a part switched off, or with other settings: `without-damping+growth_headroom=1`.

Only what the policy has a switch for can be off: the fast loop, the damping, the forecast's panic window, the swap
cost. Knows no world.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.simulate.policies.ours import AdaptivePolicy

_PREFIX: Final = "without-"
# What is accepted of a setting; of the others everything that is not negative. A period near zero would never end.
_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "utilisation": (0.01, 1.0),
    "growth_headroom": (1.0, 10.0),
    "shrink_headroom": (1.0, 10.0),
    "exchange_headroom": (1.0, 10.0),
    "stale_after_scrapes": (1.0, 100.0),
    "scrape_interval_seconds": (1.0, 300.0),
    "planner_period_seconds": (1.0, 3600.0),
    "backlog_seconds": (1.0, math.inf),
    "panic_ratio": (1.0, math.inf),
    "weight_step": (0.0, 1.0),
    "weight_restore_step": (0.0, 1.0),
    "open_weight": (0.0, 1.0),
}
_HOLD_SCRAPES: Final = 3  # the shortest hold window that still has a sample in it


class AblationError(ValueError):
    """There is no such switch, or no such value of a setting; the text names those that there are."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What differs from ours."""

    settings: DecideSettings
    fast_loop: bool = True
    damped: bool = True
    swap_cost: bool = True


def parse_variant(text: str, scrape_seconds: float) -> Variant:
    """From `without-PART` and `SETTING=NUMBER`, joined with +; empty: ours as it is. Raises AblationError."""
    variant = Variant(DecideSettings(scrape_interval_seconds=scrape_seconds))
    words = [word for word in text.split("+") if word]
    keys = [word.partition("=")[0] for word in words]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise AblationError(f"{twice} is there twice; name each part once")
    for word in words:
        part = word.removeprefix(_PREFIX)
        if word.startswith(_PREFIX) and part in SWITCHES:
            variant = SWITCHES[part](variant)
        else:
            variant = replace(variant, settings=_with_number(variant.settings, word))
    return variant


def make_variant(text: str, scrape_seconds: float, base: AdaptivePolicy | None = None) -> AdaptivePolicy:
    """The policy (`base`, else ours) with these parts off. Raises AblationError."""
    variant, policy = parse_variant(text, scrape_seconds), base or AdaptivePolicy()
    policy.settings, policy.fast_loop, policy.swap_cost = variant.settings, variant.fast_loop, variant.swap_cost
    if not variant.damped:
        policy.edit_spec = lambda spec: undamped(spec, scrape_seconds)
    if text:
        policy.name = f"{policy.name}:{text}"
    return policy


def undamped(spec: AdaptiveModelSpec, scrape_seconds: float) -> AdaptiveModelSpec:
    """Every plan may follow the one before at once, on what was seen last."""
    hold = math.ceil(_HOLD_SCRAPES * scrape_seconds)
    update = {"dwell_seconds": 1, "hold_seconds": hold, "plans_in_agreement": 1}
    return spec.model_copy(update={"scaling": spec.scaling.model_copy(update=update)})


def _without_forecast(variant: Variant) -> Variant:
    return replace(variant, settings=replace(variant.settings, panic_ratio=math.inf))


def _without_damping(variant: Variant) -> Variant:
    settings = replace(variant.settings, shrink_headroom=1.0, growth_headroom=1.0, significance=0.0)
    return replace(variant, settings=settings, damped=False)


def _without_fast_loop(variant: Variant) -> Variant:
    return replace(variant, fast_loop=False)


def _without_swap_cost(variant: Variant) -> Variant:
    return replace(variant, swap_cost=False)


SWITCHES: Final[Mapping[str, Callable[[Variant], Variant]]] = {
    "forecast": _without_forecast,
    "damping": _without_damping,
    "fast-loop": _without_fast_loop,
    "swap-cost": _without_swap_cost,
}


def _with_number(settings: DecideSettings, word: str) -> DecideSettings:
    key, _, text = word.partition("=")
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    known = {name: value for name, value in values.items() if isinstance(value, int | float)}
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if key not in known or not math.isfinite(number):
        switches = ", ".join(f"{_PREFIX}{part}" for part in SWITCHES)
        raise AblationError(
            f"{word!r} is no part of ours; there are {switches}, or SETTING=NUMBER of {', '.join(known)}"
        )
    _check_range(key, number)
    changed: Any = round(number) if isinstance(known[key], int) else number
    return replace(settings, **{key: changed})


def _check_range(key: str, number: float) -> None:
    least, most = _RANGES.get(key, (0.0, math.inf))
    if not least <= number <= most:
        allowed = f"from {least:g} to {most:g}" if most < math.inf else f"at least {least:g}"
        raise AblationError(f"ours: {key}={number:g} is out of range; it has to be {allowed}")
