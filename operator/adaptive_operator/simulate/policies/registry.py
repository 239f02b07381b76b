"""Policies by the names that people type: `ours,hpa,kpa:0.6,cost-first,full,cheapest,static:full=6+int4=2`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from adaptive_operator.simulate.policies.ablations import AblationError, make_variant
from adaptive_operator.simulate.policies.base import Policy, PoolPolicy, Separate
from adaptive_operator.simulate.policies.cost_first import CostFirstPolicy
from adaptive_operator.simulate.policies.hpa import HpaPolicy
from adaptive_operator.simulate.policies.infaas import InfaasPolicy
from adaptive_operator.simulate.policies.kpa import KpaPolicy
from adaptive_operator.simulate.policies.oracle import make_pool_oracle
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.policies.proteus import ProteusPolicy
from adaptive_operator.simulate.policies.static import StaticPolicy, best_mix, best_tier_mix, cheapest_tier_mix
from adaptive_operator.simulate.run import Part
from adaptive_operator.simulate.scenario import Scenario

# What is tuned, and over what. As parts of a replica's slots the grid has to reach far down: the objective may break
# long before the slots are used up.
GRIDS: Final[Mapping[str, tuple[float, ...]]] = {
    "hpa": (0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9),  # target, part of the slots
    "kpa": (0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9),
    "cost-first": (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.4, 0.8),  # limit of the KV memory
    "proteus": (0.95, 1.0, 1.05, 1.2, 1.35, 1.5, 1.75, 2.0),  # the first beta
    "infaas": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),  # limit of the utilisation
}


class PolicyError(ValueError):
    """No policy has this name, or its parameters make no sense; the text names the remedy."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a policy may be made from: the models, and (for an oracle only) the load to come."""

    parts: tuple[Part, ...]
    scrape_seconds: float = 15.0

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """Of the models."""
        return tuple(part.scenario for part in self.parts)


Build = Callable[[Setting, str], PoolPolicy]


def make_policy(name: str, setting: Setting) -> PoolPolicy:
    """A fresh policy by its name, with its parameter after a colon. Raises PolicyError."""
    kind, _, parameter = name.partition(":")
    build = _BUILDERS.get(kind)
    if build is None:
        raise PolicyError(f"no policy {name!r}; there are {', '.join(_BUILDERS)}")
    return build(setting, parameter)


def played_in(name: str, scenario: Scenario) -> Scenario:
    """The scenario that a policy is run in: the same for all, but for the oracle whose replicas start at once."""
    return scenario.at_once() if name == _ORACLE_AT_ONCE else scenario


def is_tunable(name: str) -> bool:
    """Has it a parameter that was not given?"""
    return name in GRIDS


def parse_mix(text: str, scenario: Scenario) -> dict[str, int]:
    """`full=6+int4=2` as replicas by tier. Raises PolicyError."""
    mix: dict[str, int] = {}
    for part in text.split("+"):
        tier, separator, count = part.strip().partition("=")
        if not separator or not count.isdecimal() or tier not in {t.name for t in scenario.tiers}:
            known = ", ".join(t.name for t in scenario.tiers)
            raise PolicyError(f"static: {part!r} is not TIER=REPLICAS; e.g. static:full=2+int4=1, tiers: {known}")
        if tier in mix:
            raise PolicyError(f"static: {text} names {tier} twice; name each tier once")
        mix[tier] = int(count)
    if not any(mix.values()):
        raise PolicyError(f"static: {text} has no replica, so it serves nothing; give at least one")
    cost = sum(scenario.tier(tier).accelerators * count for tier, count in mix.items())
    if cost > scenario.budget:
        raise PolicyError(f"static: {text} needs {cost} accelerators, the budget is {scenario.budget}; take fewer")
    return mix


def _ours(setting: Setting, parameter: str) -> PoolPolicy:
    return _variant(parameter, setting, None)


def _oracle(setting: Setting, parameter: str) -> PoolPolicy:
    if parameter not in ("", "0"):
        raise PolicyError(f"oracle:{parameter} is unknown; there are oracle and {_ORACLE_AT_ONCE} (loads take no time)")
    oracle = make_pool_oracle([(part.scenario, part.trace) for part in setting.parts])
    return _variant("", setting, oracle)


def _variant(text: str, setting: Setting, base: AdaptivePolicy | None) -> PoolPolicy:
    try:
        return make_variant(text, setting.scrape_seconds, base)
    except AblationError as error:
        raise PolicyError(str(error)) from None


def _each_on_its_part(build: Callable[[Scenario], Policy]) -> Callable[[Setting], PoolPolicy]:
    """One policy per model, each on an equal part of the accelerators: those that always take all there are."""

    def build_all(setting: Setting) -> PoolPolicy:
        return Separate([build(_part_of(scenario, len(setting.parts))) for scenario in setting.scenarios])

    return build_all


def _part_of(scenario: Scenario, models: int) -> Scenario:
    budget = scenario.budget // models
    if min(tier.accelerators for tier in scenario.tiers) > budget:
        raise PolicyError(f"{scenario.name}: an equal part of the pool is {budget} accelerators, too few for a replica")
    return replace(scenario, budget=budget)


def _plain(kind: str, build: Callable[[Setting], PoolPolicy]) -> Build:
    def checked(setting: Setting, parameter: str) -> PoolPolicy:
        if parameter:
            raise PolicyError(f"{kind} has no parameter; leave out {':' + parameter!r}")
        return build(setting)

    return checked


def _static(setting: Setting, parameter: str) -> PoolPolicy:
    return Separate(
        [StaticPolicy(f"static:{parameter}", parse_mix(parameter, scenario)) for scenario in setting.scenarios]
    )


def _numbered(kind: str, usual: float, most: float, meaning: str, build: Callable[[float, int], Policy]) -> Build:
    """A policy with a number as its parameter, in (0, most]; it is also told how many models share the pool."""

    def parsed(setting: Setting, parameter: str) -> PoolPolicy:
        try:
            number = float(parameter or usual)
        except ValueError:
            number = 0.0
        if not 0 < number <= most:
            raise PolicyError(f"{kind}:{parameter} is no {meaning}; e.g. {kind}:{usual:g}")
        return Separate([build(number, len(setting.parts)) for _ in setting.parts])

    return parsed


_ORACLE_AT_ONCE: Final = "oracle:0"
_BUILDERS: Final[Mapping[str, Build]] = {
    "ours": _ours,
    "hpa": _numbered("hpa", 0.7, 1.0, "part of a replica's slots", lambda number, _: HpaPolicy(number)),
    "kpa": _numbered("kpa", 0.7, 1.0, "part of a replica's slots", lambda number, _: KpaPolicy(number)),
    "cost-first": _numbered("cost-first", 0.8, 1.0, "part of the KV memory", lambda number, _: CostFirstPolicy(number)),
    "proteus": _numbered("proteus", 1.05, 10.0, "factor of the demand", ProteusPolicy),
    "infaas": _numbered("infaas", 0.9, 1.0, "utilisation", lambda number, _: InfaasPolicy(number)),
    "oracle": _oracle,
    "full": _plain("full", _each_on_its_part(lambda s: StaticPolicy("full", best_tier_mix(s)))),
    "cheapest": _plain("cheapest", _each_on_its_part(lambda s: StaticPolicy("cheapest", cheapest_tier_mix(s)))),
    "best-static": _plain("best-static", _each_on_its_part(lambda s: StaticPolicy("best-static", best_mix(s)))),
    "static": _static,
}
POLICIES: Final = tuple(_BUILDERS)
