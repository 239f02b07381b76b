"""Policies by the names that people type: `ours,hpa,kpa:0.6,cost-first,full,cheapest,static:full=6+int4=2`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from adaptive_operator.simulate.policies.base import Policy
from adaptive_operator.simulate.policies.cost_first import CostFirstPolicy
from adaptive_operator.simulate.policies.hpa import HpaPolicy
from adaptive_operator.simulate.policies.kpa import KpaPolicy
from adaptive_operator.simulate.policies.oracle import make_oracle
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.policies.proteus import ProteusPolicy
from adaptive_operator.simulate.policies.static import StaticPolicy, best_mix, best_tier_mix, cheapest_tier_mix
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.scenario import Scenario

TARGETS: Final = (0.5, 0.6, 0.7, 0.8, 0.9)  # grid that targets of replica-only policies are tuned over


class PolicyError(ValueError):
    """No policy has this name, or its parameters make no sense; the text names the remedy."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a policy may be made from: the model, and (for an oracle only) the load to come."""

    scenario: Scenario
    trace: tuple[TraceRow, ...]


Build = Callable[[Setting, str], Policy]


def make_policy(name: str, setting: Setting) -> Policy:
    """A fresh policy by its name, with its parameter after a colon. Raises PolicyError."""
    kind, _, parameter = name.partition(":")
    build = _BUILDERS.get(kind)
    if build is None:
        raise PolicyError(f"no policy {name!r}; there are {', '.join(_BUILDERS)}")
    return build(setting, parameter)


def is_tunable(name: str) -> bool:
    """Has it a target that was not given?"""
    return name in _TUNABLE


def parse_mix(text: str, scenario: Scenario) -> dict[str, int]:
    """`full=6+int4=2` as replicas by tier. Raises PolicyError."""
    mix: dict[str, int] = {}
    for part in text.split("+"):
        tier, separator, count = part.strip().partition("=")
        if not separator or not count.isdecimal() or tier not in {t.name for t in scenario.tiers}:
            known = ", ".join(t.name for t in scenario.tiers)
            raise PolicyError(f"static: {part!r} is not TIER=REPLICAS; e.g. static:full=2+int4=1, tiers: {known}")
        mix[tier] = int(count)
    cost = sum(scenario.tier(tier).accelerators * count for tier, count in mix.items())
    if cost > scenario.budget:
        raise PolicyError(f"static: {text} needs {cost} accelerators, the budget is {scenario.budget}; take fewer")
    return mix


def _ours(_setting: Setting, parameter: str) -> Policy:
    _reject_parameter("ours", parameter)
    return AdaptivePolicy()


def _oracle(setting: Setting, parameter: str) -> Policy:
    _reject_parameter("oracle", parameter)
    return make_oracle(setting.scenario, setting.trace)


def _proteus(_setting: Setting, parameter: str) -> Policy:
    _reject_parameter("proteus", parameter)
    return ProteusPolicy()


def _full(setting: Setting, parameter: str) -> Policy:
    _reject_parameter("full", parameter)
    return StaticPolicy("full", best_tier_mix(setting.scenario))


def _cheapest(setting: Setting, parameter: str) -> Policy:
    _reject_parameter("cheapest", parameter)
    return StaticPolicy("cheapest", cheapest_tier_mix(setting.scenario))


def _best_static(setting: Setting, parameter: str) -> Policy:
    _reject_parameter("best-static", parameter)
    return StaticPolicy("best-static", best_mix(setting.scenario))


def _cost_first(_setting: Setting, parameter: str) -> Policy:
    _reject_parameter("cost-first", parameter)
    return CostFirstPolicy()


def _static(setting: Setting, parameter: str) -> Policy:
    return StaticPolicy(f"static:{parameter}", parse_mix(parameter, setting.scenario))


def _hpa(_setting: Setting, parameter: str) -> Policy:
    return HpaPolicy(_target("hpa", parameter))


def _kpa(_setting: Setting, parameter: str) -> Policy:
    return KpaPolicy(_target("kpa", parameter))


def _target(kind: str, parameter: str) -> float:
    try:
        target = float(parameter or "0.7")
    except ValueError:
        target = 0.0
    if not 0 < target <= 1:
        raise PolicyError(f"{kind}:{parameter} is no part of a replica's slots; e.g. {kind}:0.7")
    return target


def _reject_parameter(kind: str, parameter: str) -> None:
    if parameter:
        raise PolicyError(f"{kind} has no parameter; leave out {':' + parameter!r}")


_BUILDERS: Final[Mapping[str, Build]] = {
    "ours": _ours,
    "hpa": _hpa,
    "kpa": _kpa,
    "cost-first": _cost_first,
    "proteus": _proteus,
    "oracle": _oracle,
    "full": _full,
    "cheapest": _cheapest,
    "best-static": _best_static,
    "static": _static,
}
_TUNABLE: Final = frozenset({"hpa", "kpa"})
