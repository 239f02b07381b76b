"""Several policies on the same arrivals: tuned where they have a parameter, run one after the other, and scored.

What is tuned, and what cards are measured on, is held out: another part of the trace, or another seed of a generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from adaptive_operator.simulate.policies.registry import GRIDS, Setting, is_tunable, make_policy, played_in
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.run import Part, Progress, RunResult, RunSettings, run_pool
from adaptive_operator.simulate.scaling import cut_trace, scale_trace
from adaptive_operator.simulate.scenario import Scenario
from adaptive_operator.simulate.scores import Scores, combine, score
from adaptive_operator.simulate.tuning_notes import HeldOut, note_held_out, note_tuning

HELD_OUT_PART: Final = 1 / 3  # of a trace from a file: its first third tunes, the rest judges
_HELD_OUT_SEED_OFFSET: Final = 1_000_003
_MODEL_SEED_OFFSET: Final = 7919


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """One model and what arrives for it at scale 1: the trace to be judged on, and the one to tune and measure on."""

    scenario: Scenario
    trace: tuple[TraceRow, ...]
    held_out: tuple[TraceRow, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared: `factor` copies of the models' traces, arrivals of `seed`."""

    models: tuple[ModelLoad, ...]
    factor: float
    seed: int
    settings: RunSettings
    resample: bool = False  # no copy of a trace stays as it is: for comparisons over several seeds

    @property
    def seconds(self) -> float:
        """Of the longest trace."""
        return max(model.trace[-1].arrival for model in self.models)

    @property
    def budget(self) -> int:
        """Accelerators that all models share."""
        return self.models[0].scenario.budget

    def parts(self) -> tuple[Part, ...]:
        """The arrivals that policies are judged on."""
        return self._scaled([model.trace for model in self.models], self.seed)

    def tuning_parts(self) -> tuple[Part, ...]:
        """The arrivals that parameters are tuned on: held out, of another seed, and at the same mean rate.

        A part of a trace that is quieter than the rest would tune for another load.
        """
        traces = [model.held_out for model in self.models]
        factors = [self.factor * mean_rate(m.trace) / mean_rate(m.held_out) for m in self.models]
        return self._scaled(traces, self.seed + _HELD_OUT_SEED_OFFSET, factors)

    def _scaled(
        self, traces: Sequence[tuple[TraceRow, ...]], seed: int, factors: Sequence[float] | None = None
    ) -> tuple[Part, ...]:
        by_model = zip(self.models, traces, factors or [self.factor] * len(traces), strict=True)
        return tuple(
            Part(model.scenario, scale_trace(trace, factor, seed + _MODEL_SEED_OFFSET * i, self.resample))
            for i, (model, trace, factor) in enumerate(by_model)
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """One policy's run: a result and figures per model, the figures of all together, and the grid that its parameter
    was chosen from (value -> system accuracy on the held-out load)."""

    name: str
    results: tuple[RunResult, ...]
    by_model: tuple[Scores, ...]
    scores: Scores
    grid: Mapping[float, float]
    notes: tuple[str, ...] = ()  # what a reader has to know of how it was tuned

    @property
    def result(self) -> RunResult:
        """Of the first model."""
        return self.results[0]

    def of_model(self, index: int) -> Judged:
        """The same policy, seen from one of its models."""
        own = self.by_model[index]
        return replace(self, results=(self.results[index],), by_model=(own,), scores=own)


def mean_rate(trace: Sequence[TraceRow]) -> float:
    """Requests/s from the first to the last one; 1 when all come at once."""
    seconds = trace[-1].arrival - trace[0].arrival
    return (len(trace) - 1) / seconds if seconds > 0 else 1.0


Tell = Callable[[str], Progress]  # a label -> where its progress goes


def hold_out(trace: tuple[TraceRow, ...]) -> tuple[tuple[TraceRow, ...], tuple[TraceRow, ...]]:
    """(judged, held out) of a trace from a file; one that is too short to be cut is both."""
    end = trace[-1].arrival * HELD_OUT_PART if trace else 0.0
    held_out, judged = cut_trace(trace, 0.0, end), cut_trace(trace, end, trace[-1].arrival + 1.0) if trace else ()
    return (judged, held_out) if held_out and judged else (trace, trace)


def compare(comparison: Comparison, names: Sequence[str], tell: Tell = lambda label: lambda part: None) -> list[Judged]:
    """Run the policies in order. Raises PolicyError and BudgetError."""
    parts = comparison.parts()
    return [judge(comparison, name, parts, tell) for name in names]


def count_runs(names: Sequence[str], seeds: int) -> int:
    """How many runs a comparison takes: parameters are tuned once, and each policy is judged on every seed."""
    return sum(len(GRIDS[name]) for name in names if is_tunable(name)) + len(names) * seeds


def judge(comparison: Comparison, name: str, parts: tuple[Part, ...], tell: Tell) -> Judged:
    """Tune the policy if it has a parameter that was not given, then run it."""
    if not is_tunable(name):
        return judge_tuned(comparison, name, parts, tell)
    grid = tune(comparison, name, tell)
    notes = note_tuning(name, grid, _best_of(grid))
    return replace(judge_tuned(comparison, chosen_from(name, grid), parts, tell, grid), notes=notes)


def judge_tuned(
    comparison: Comparison, name: str, parts: tuple[Part, ...], tell: Tell, grid: Mapping[float, float] | None = None
) -> Judged:
    """Run the policy as it is."""
    results = _play(comparison, name, parts, tell(name))
    by_model = tuple(score(result) for result in results)
    return Judged(name, results, by_model, combine(by_model, results), grid or {})


def chosen_from(name: str, grid: Mapping[float, float]) -> str:
    """The name with the parameter of the highest system accuracy, of equals the smallest; as it is without a grid."""
    if not grid:
        return name
    return f"{name}:{_best_of(grid):g}"


def _best_of(grid: Mapping[float, float]) -> float:
    """A value without a score (of no request) is never better."""

    def worth(value: float) -> tuple[float, float]:
        return (-math.inf if math.isnan(grid[value]) else grid[value], -value)

    return max(grid, key=worth)


def describe_held_out(comparison: Comparison) -> HeldOut:
    """The load that parameters are tuned on: of the model with the shortest, and the longest start of them all."""
    return HeldOut(
        seconds=min(model.held_out[-1].arrival for model in comparison.models),
        start_seconds=max(
            tier.load_seconds + model.scenario.scheduling_seconds
            for model in comparison.models
            for tier in model.scenario.tiers
        ),
        is_judged=any(model.held_out == model.trace for model in comparison.models),
    )


def note_comparison(comparison: Comparison, tuned: bool) -> list[str]:
    """What a reader has to know of the load that is tuned on; nothing if no policy was tuned."""
    return note_held_out(describe_held_out(comparison)) if tuned else []


def tune(comparison: Comparison, name: str, tell: Tell) -> dict[float, float]:
    """System accuracy on the held-out load, by parameter."""
    parts = comparison.tuning_parts()
    grid: dict[float, float] = {}
    for value in GRIDS[name]:
        label = f"{name}:{value:g}"
        results = _play(comparison, label, parts, tell(f"tune {label}"))
        grid[value] = combine(tuple(score(result) for result in results), results).system_accuracy
    return grid


def _play(comparison: Comparison, name: str, parts: tuple[Part, ...], progress: Progress) -> tuple[RunResult, ...]:
    played = tuple(Part(played_in(name, part.scenario), part.trace) for part in parts)
    policy = make_policy(name, Setting(played, comparison.settings.scrape_seconds))
    return run_pool(played, policy, comparison.settings, progress)
