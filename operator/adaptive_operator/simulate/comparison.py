"""Several policies on the same arrivals: tuned where they have a target, run one after the other, and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from adaptive_operator.simulate.policies.registry import TARGETS, Setting, is_tunable, make_policy
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.run import Progress, RunResult, RunSettings, run
from adaptive_operator.simulate.scaling import cut_trace, scale_trace
from adaptive_operator.simulate.scenario import Scenario
from adaptive_operator.simulate.scores import Scores, score

TUNING_PART: Final = 1 / 3  # of the trace; policies are judged on all of it, so tuning favours the baselines
_TUNING_SEED_OFFSET: Final = 1_000_003


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared: `trace` at scale 1, `factor` copies of it, arrivals of `seed`."""

    scenario: Scenario
    trace: tuple[TraceRow, ...]
    factor: float
    seed: int
    settings: RunSettings

    def load(self) -> tuple[TraceRow, ...]:
        """The arrivals that policies are judged on."""
        return scale_trace(self.trace, self.factor, self.seed)

    def tuning_load(self) -> tuple[TraceRow, ...]:
        """The arrivals that targets are tuned on: the first third, of another seed."""
        end = self.trace[-1].arrival * TUNING_PART
        return scale_trace(cut_trace(self.trace, 0.0, end), self.factor, self.seed + _TUNING_SEED_OFFSET)


@dataclass(frozen=True, slots=True)
class Judged:
    """One policy's run, its figures, and the grid that its target was chosen from (target -> violations)."""

    name: str
    result: RunResult
    scores: Scores
    grid: Mapping[float, float]


Tell = Callable[[str], Progress]  # a label -> where its progress goes


def compare(comparison: Comparison, names: Sequence[str], tell: Tell = lambda label: lambda part: None) -> list[Judged]:
    """Run the policies in order. Raises PolicyError and BudgetError."""
    load = comparison.load()
    return [judge(comparison, name, load, tell) for name in names]


def judge(comparison: Comparison, name: str, load: tuple[TraceRow, ...], tell: Tell) -> Judged:
    """Tune the policy if it has a target that was not given, then run it."""
    grid: dict[float, float] = {}
    chosen = name
    if is_tunable(name):
        grid = tune(comparison, name, tell)
        chosen = f"{name}:{min(grid, key=lambda target: (grid[target], -target))}"
    policy = make_policy(chosen, Setting(comparison.scenario, load))
    result = run(comparison.scenario, load, policy, comparison.settings, tell(chosen))
    return Judged(chosen, result, score(result), grid)


def tune(comparison: Comparison, name: str, tell: Tell) -> dict[float, float]:
    """Violations on the tuning load, by target."""
    load = comparison.tuning_load()
    grid: dict[float, float] = {}
    for target in TARGETS:
        label = f"{name}:{target}"
        policy = make_policy(label, Setting(comparison.scenario, load))
        grid[target] = score(
            run(comparison.scenario, load, policy, comparison.settings, tell(f"tune {label}"))
        ).violations
    return grid
