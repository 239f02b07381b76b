"""What a user should know of a simulation that can be run, but would say little. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.floor import floor_out_of_reach
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.decide.situation import build_situation
from adaptive_operator.observe.observation import ModelMetrics, ModelObservation, PolicyMemory, Unknown
from adaptive_operator.simulate.curve import Lengths, saturation
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.scenario import Scenario
from adaptive_operator.simulate.scores import WARM_UP_PART, WARM_UP_SECONDS, warm_up_seconds

_OTHER_WORK: Final = 1.5  # times the reference request's, or as many times less


def describe_scenarios(scenarios: Sequence[Scenario]) -> list[str]:
    """What is to be known of the models themselves, whatever arrives for them: the reports have it, too."""
    of_models = (describe_mode, describe_objective, describe_floor, describe_warm_tier)
    of_each = [describe(item) for item in scenarios for describe in of_models]
    return [line for line in (*of_each, describe_minimums(scenarios)) if line]


def describe_short(scenario: Scenario, trace: Sequence[TraceRow]) -> str:
    """That the trace is over before any replica can serve; empty for one that is long enough."""
    ready, seconds = _earliest_ready(scenario), trace[-1].arrival
    if seconds >= ready:
        return ""
    return (
        f"{scenario.name}: no replica is ready before {ready:.0f} s, and the requests that are judged all come within"
        f" {seconds:.0f} s: any policy but oracle:0 fails them; take a longer trace or more --minutes"
    )


def describe_start(scenario: Scenario, trace: Sequence[TraceRow]) -> str:
    """That judging begins before any replica can serve, so that the start counts; empty where it is left out, and where
    no replica is ready at all."""
    ready, seconds = _earliest_ready(scenario), trace[-1].arrival
    judged_from = warm_up_seconds(seconds)
    if seconds < ready or judged_from >= ready:
        return ""
    told = (
        f"{scenario.name}: requests are judged from {judged_from:.0f} s on, and no replica is ready before"
        f" {ready:.0f} s: what comes between waits for it, with any policy but oracle:0, and may count as a violation"
    )
    if ready > WARM_UP_SECONDS:
        return told
    return f"{told}; a judged load of at least {math.ceil(ready / WARM_UP_PART)} s leaves it out"


def describe_lengths(scenario: Scenario, trace: Sequence[TraceRow]) -> str:
    """That requests are of another size than those that the cards' rates are of; empty if they are not, or if no card
    says its size and step times were given."""
    if not scenario.reference.declared and not scenario.guessed:
        return ""
    curve, known = scenario.best_affordable.curve, scenario.reference.lengths
    mean = Lengths.of([(row.prompt_tokens, row.output_tokens) for row in trace])
    work = saturation(curve, known) / saturation(curve, mean)
    if 1 / _OTHER_WORK < work < _OTHER_WORK:
        return ""
    size, reference = (f"{lengths.prompt:.0f} + {lengths.output:.0f}" for lengths in (mean, known))
    return (
        f"{scenario.name}: a request has {size} tokens on average, {work:.2g} times the work of the {reference} that"
        f" the cards' rates are of; declare cards of such requests, take what the step times say with --measure-cards,"
        f" or generate requests of {reference} (e.g. steady:rate=2,prompt={known.prompt:.0f},output={known.output:.0f})"
    )


def describe_mode(scenario: Scenario) -> str:
    """That the manifest says a mode in which the operator would change nothing; empty for one that acts."""
    mode = scenario.written_mode
    if mode is Mode.ACTIVE:
        return ""
    return (
        f"{scenario.name}: mode {mode} is simulated as {Mode.ACTIVE}; in a cluster the operator changes no replicas of"
        f" it before mode is {Mode.ACTIVE}"
    )


def describe_minimums(scenarios: Sequence[Scenario]) -> str:
    """That the models' replicas.min pass the accelerators that they share; empty where they do not."""
    budget = scenarios[0].budget
    asked = {item.name: _least_accelerators(item) for item in scenarios}
    if sum(asked.values()) <= budget:
        return ""
    names = ", ".join(name for name, accelerators in asked.items() if accelerators)
    return (
        f"{names}: replicas.min takes {sum(asked.values())} accelerators, and the budget is {budget}: minimums are kept"
        " as far as they fit; raise the budget, or lower replicas.min"
    )


def _least_accelerators(scenario: Scenario) -> int:
    bounded = [(tier.replicas.min or 0, tier.replica) for tier in scenario.spec.tiers if tier.replicas is not None]
    return sum(least * replica.accelerators for least, replica in bounded)


def describe_floor(scenario: Scenario) -> str:
    """That no replica can reach the quality floor, as the operator tells it; empty where one can."""
    nothing = Unknown("", "nothing runs yet")
    model = ModelObservation(
        namespace="",
        name=scenario.name,
        uid="",
        generation=1,
        created_at=0.0,
        spec=scenario.spec,
        memory=PolicyMemory(),
        swap=None,
        metrics=ModelMetrics(nothing, nothing, nothing, nothing, nothing, nothing, nothing),
    )
    found = floor_out_of_reach(build_situation(model, 0.0, 0.0, scenario.budget, DecideSettings()))
    return f"{scenario.name}: {found[0].message}" if found else ""


def describe_warm_tier(scenario: Scenario) -> str:
    """That the named warm tier is below the floor: it takes accelerators and can serve next to nothing."""
    spec = scenario.spec
    below = [
        tier
        for tier in spec.tiers
        if tier.name == spec.routing.warm_tier
        and tier.card is not None
        and tier.card.quality_permille is not None
        and tier.card.quality_permille < spec.quality.floor_permille
    ]
    if not below:
        return ""
    return (
        f"{scenario.name}: routing.warmTier {below[0].name} is below quality.floorPermille"
        f" {spec.quality.floor_permille}: it takes accelerators and can serve next to nothing, and what stays during an"
        f" exchange may be too little for one; name a tier that reaches the floor, or leave warmTier out"
    )


def describe_objective(scenario: Scenario) -> str:
    """That no request can be within the objective, however little load there is; empty where a tier that fits can."""
    prompt = scenario.reference.lengths.prompt
    fitting = [tier for tier in scenario.tiers if tier.accelerators <= scenario.budget]
    times = [(tier.curve.step(1), tier.curve.prefill(round(prompt)), tier.name) for tier in fitting]
    if any(step <= scenario.tpot_seconds and first <= scenario.ttft_seconds for step, first, _ in times):
        return ""
    step, first, name = min(times)
    slo = scenario.spec.slo
    return (
        f"{scenario.name}: alone in a replica of {name} a request takes {1000 * step:.3g} ms per token, where"
        f" slo.tpotMilliseconds is {slo.tpot_milliseconds}, and {1000 * first:.3g} ms for a prompt of {prompt:.0f}"
        f" tokens, where slo.ttftMilliseconds is {slo.ttft_milliseconds}: none is within slo, with any"
        " policy; raise what is passed, or correct the step times"
    )


def _earliest_ready(scenario: Scenario) -> float:
    """Seconds from the start until the first replica of what fits may serve."""
    fitting = [tier.load_seconds for tier in scenario.tiers if tier.accelerators <= scenario.budget]
    return min(fitting) + scenario.scheduling_seconds
