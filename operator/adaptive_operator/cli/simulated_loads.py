"""The loads that are simulated: each model of the manifest with what arrives for it, from the options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from adaptive_operator.cli.load_limits import check_generator, check_size
from adaptive_operator.cli.option_values import format_node_loss
from adaptive_operator.cli.without_effect import describe_idle_options
from adaptive_operator.simulate.cards import measure_cards
from adaptive_operator.simulate.comparison import Comparison, ModelLoad, hold_out
from adaptive_operator.simulate.failing_loads import FailingLoads
from adaptive_operator.simulate.generators import GENERATORS, parse_generator
from adaptive_operator.simulate.hints import describe_lengths, describe_scenarios, describe_short, describe_start
from adaptive_operator.simulate.policies.registry import PolicyError, Setting, make_policy
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.run import NodeLoss, Part, RunSettings
from adaptive_operator.simulate.scaling import cut_trace, rotate_trace
from adaptive_operator.simulate.scenario import Scenario, ScenarioError, load_scenarios
from adaptive_operator.simulate.traces import TraceError, TraceRules, read_trace

_HELD_OUT_SEED: Final = 500_009  # added to the seed of a generator, for what is tuned and measured
_MODEL_SEED: Final = 7919  # added for each further model
_NOT_CUT: Final = (
    "--measure-cards: the trace is too short to be cut, so cards are measured on what is judged; give a longer trace\n"
)


def prepare(options: argparse.Namespace) -> tuple[Comparison, list[str]]:
    """Everything read and checked before the first run: a typing error must not cost minutes.

    The comparison of the first seed, and the policies' names. Raises ScenarioError, TraceError, PolicyError,
    GeneratorError and OSError.
    """
    _check_file("-f", options.filename, "a manifest with an AdaptiveModel")
    if options.profile is not None:
        _check_file("--profile", options.profile, "a file of step times")
    scenarios = load_scenarios(options.filename, options.profile, options.budget)
    _check_tiers(options.fail_loads, scenarios)
    _check_losses(options.lose, scenarios[0].budget + scenarios[0].surge)
    if not is_generator(options.trace):
        _check_file("--trace", Path(options.trace), "a trace (CSV or JSON lines), or a generator (e.g. steady:rate=2)")
    for note in () if scenarios[0].pool is None else scenarios[0].pool.left_out:
        _tell(note)
    if is_generator(options.trace):
        check_generator(options, len(scenarios))
    rows = None if is_generator(options.trace) else _read_rows(options)
    models = tuple(_load_of(options, scenario, i, len(scenarios), rows) for i, scenario in enumerate(scenarios))
    check_size(options, [model.trace for model in models])
    _tell_of_times(options, models)
    names = list(dict.fromkeys(name.strip() for name in options.policy.split(",") if name.strip()))
    if not names:
        raise PolicyError("--policy names no policy; e.g. --policy ours,hpa")
    for name in names:
        make_policy(name, Setting(tuple(Part(model.scenario, model.trace) for model in models), options.scrape))
    if options.measure_cards:
        if any(model.held_out == model.trace for model in models):
            sys.stderr.write(_NOT_CUT)
        models = tuple(_with_measured_cards(model, options.seed) for model in models)
    for note in describe_scenarios([model.scenario for model in models]):
        _tell(note)
    for model in models:
        _tell("" if options.measure_cards else describe_lengths(model.scenario, model.trace))
    settings = _run_settings(options, options.seed)
    comparison = Comparison(models, options.scale, options.seed, settings, resample=options.seeds > 1)
    _check_scale(options, comparison)
    return comparison, names


def _tell_of_times(options: argparse.Namespace, models: Sequence[ModelLoad]) -> None:
    for model in models:
        _tell(describe_short(model.scenario, model.trace))
        _tell(describe_start(model.scenario, model.trace))
    seconds = max(model.trace[-1].arrival for model in models)
    for note in describe_idle_options(options, is_generator(options.trace), len(models), seconds):
        _tell(note)


def _check_file(option: str, path: Path, what: str) -> None:
    if not path.exists() or path.is_dir():
        cause = "a folder" if path.exists() else "there is no such file"
        raise ScenarioError(f"{option} {path}: {cause}; give the path of {what}")


def _run_settings(options: argparse.Namespace, seed: int) -> RunSettings:
    failing = tuple(replace(item, seed=seed) for item in options.fail_loads)
    return RunSettings(scrape_seconds=options.scrape, losses=tuple(options.lose), failing_loads=failing)


def _check_scale(options: argparse.Namespace, comparison: Comparison) -> None:
    """Each seed draws its own part of a trace; from scale 1 on nothing is left out."""
    if options.scale >= 1:
        return
    if not all(part.trace for own in by_seed(options, comparison) for part in own.parts()):
        raise TraceError(f"--scale {options.scale:g}: no request is left at this scale; take a larger one")


def _check_tiers(failing: Sequence[FailingLoads], scenarios: Sequence[Scenario]) -> None:
    known = list(dict.fromkeys(tier.name for scenario in scenarios for tier in scenario.tiers))
    unknown = next((item.tier for item in failing if item.tier not in known), None)
    if unknown is not None:
        raise ScenarioError(f"--fail-loads: no model has a tier {unknown}; there are {', '.join(known)}")


def _check_losses(losses: Sequence[NodeLoss], accelerators: int) -> None:
    """No more can be away at once than there are, a pool's surge counted."""
    for loss in losses:
        away = sum(other.accelerators for other in losses if other.at <= loss.at < other.at + other.seconds)
        if away > accelerators:
            told = f"--lose {format_node_loss(loss)}: {away} accelerators would be away from {loss.at:g} s on"
            raise ScenarioError(f"{told}, and there are {accelerators}; lose fewer, or at different times")


def _with_measured_cards(model: ModelLoad, seed: int) -> ModelLoad:
    measured = measure_cards(model.scenario, model.held_out, seed + 1)
    for name in measured.left_out:
        sys.stderr.write(f"{name} is left out: it misses the objective even when it has next to no load\n")
    for tier in measured.scenario.tiers:
        sys.stderr.write(f"card of {tier.name}: capacityMilliRequestsPerSecond: {round(1000 * tier.rate)}\n")
    return replace(model, scenario=measured.scenario)


def _of_seed(options: argparse.Namespace, comparison: Comparison, seed: int) -> tuple[ModelLoad, ...]:
    """The same models with the load of another seed: a trace from a file is the same, and scaled by the seed."""
    if not is_generator(options.trace):
        return comparison.models
    count = len(comparison.models)
    traces = [_generated(options, seed, i, count) for i in range(count)]
    return tuple(replace(model, trace=trace) for model, trace in zip(comparison.models, traces, strict=True))


def _read_rows(options: argparse.Namespace) -> tuple[TraceRow, ...]:
    """Once for all models: what comes from a pipe is there only once."""
    rules = TraceRules(options.longest_gap, options.allow_equal_times)
    return _cut(options, read_trace(Path(options.trace), rules, _tell))


def _load_of(
    options: argparse.Namespace, scenario: Scenario, index: int, models: int, rows: tuple[TraceRow, ...] | None
) -> ModelLoad:
    """A model with its load, from the rows of a file if there are; the models of a pool do not peak together."""
    if rows is None:
        seeds = (options.seed, options.seed + _HELD_OUT_SEED)
        trace, held_out = (_generated(options, seed, index, models) for seed in seeds)
    else:
        trace, held_out = (rotate_trace(part, index / models) for part in hold_out(rows))
    if not trace or not held_out:
        raise TraceError(f"{options.trace}: no request is left; take more minutes or a higher rate")
    return ModelLoad(scenario, trace, held_out)


def _tell(note: str) -> None:
    sys.stderr.write(f"{note}\n" if note else "")


def _generated(options: argparse.Namespace, seed: int, index: int, models: int) -> tuple[TraceRow, ...]:
    return _cut(options, parse_generator(options.trace, seed + index * _MODEL_SEED, index / models))


def is_generator(trace: str) -> bool:
    """A file has precedence. Raises TraceError for what is neither."""
    if Path(trace).exists():
        return False
    name = trace.partition(":")[0]
    if name in GENERATORS:
        return True
    known = ", ".join(GENERATORS)
    raise TraceError(f"--trace {trace}: there is no such file, and no generator {name!r}; there are {known}")


def _cut(options: argparse.Namespace, trace: tuple[TraceRow, ...]) -> tuple[TraceRow, ...]:
    return trace if options.minutes is None else cut_trace(trace, 0.0, 60 * options.minutes)


def by_seed(options: argparse.Namespace, comparison: Comparison) -> Iterator[Comparison]:
    """The comparison itself, then the same on each further seed."""
    yield comparison
    for seed in seeds_of(options)[1:]:
        models = _of_seed(options, comparison, seed)
        yield replace(comparison, seed=seed, models=models, settings=_run_settings(options, seed))


def seeds_of(options: argparse.Namespace) -> list[int]:
    """From --seed on."""
    return [options.seed + i for i in range(options.seeds)]
