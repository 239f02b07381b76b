"""Time and gap of the planner: `python -m benchmarks.bench_planner [--seeds 20] [--parts solver] [--oracle 60]`.

Part `solver`: everything between a program and a plan that may be adopted is timed: configurations, prices, the binary
program, keeping what runs, routing. One warm process, wall time; where a time is a goal, the median of three plans of
the same pool, so that a neighbour's burst is not taken for a slow pool. Part `decisions`: the whole decision of a
model, and of 1,000 (`planner_decisions.py`); part `budget`: whether simulated pools keep theirs (`planner_budget.py`),
with --trace also under the load of a trace. Gaps are shares of the weighted demand: within what was listed, and with
--oracle against the plain integer program on one pool, which takes its time.
With --simulate it runs bench_policies instead, which takes the other options.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import scipy

from adaptive_operator.decide.optimize.milp import route, solve_exact
from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import PoolPlan, solve
from adaptive_operator.simulate.traces import read_trace
from benchmarks import bench_policies, planner_budget, planner_decisions
from benchmarks.planner_budget import Kept
from benchmarks.planner_decisions import Decided
from benchmarks.planner_pools import build_pool, changed_keys, move_on

OUTPUT = Path("out/bench/planner.json")
STRESSES = (1.6, 3.0)
LARGE_SEEDS = 3
REPEATS = 3  # of each pool whose time is a goal
PARTS = ("solver", "decisions", "budget")
LEFT_OUT = """\
Left out: the rows of the simulated policies (capacity, violations, proteus, flaps, sweep, metrics), which take hours:
make bench-policies, or make bench-planner BENCH_ARGS=--simulate; what was run is kept, so it may be stopped."""
WITHOUT_TRACE = "Left out of the budget: a model with a trace's load: BENCH_ARGS='--trace FILE'."
WITHOUT_ORACLE = "Left out: the plain integer program on one pool of 100 models: BENCH_ARGS='--oracle 90'."


@dataclass(frozen=True, slots=True)
class Sample:
    """One plan."""

    case: str
    stress: float
    seed: int
    seconds: float
    gap: float
    unserved: float  # share of the demand
    quality: float  # mean of what is served
    started: float  # share of the accelerators that run afterwards
    method: str


@dataclass(frozen=True, slots=True)
class Case:
    """What is planned, and the p95 that it must stay below (seconds); None: only reported."""

    name: str
    must_seconds: float | None


ONE_COLD, ONE_AGAIN = Case("1 model, cold", 0.020), Case("1 model, re-plan", 0.020)
TWENTY = Case("20 models, cold", None)
COLD, AGAIN = Case("100 models, cold", 1.5), Case("100 models, re-plan", 1.5)
ALL = Case("1,000 models, all", None)
SOME = Case("1,000 models, 10 % changed", 5.0)
CASES = (ONE_COLD, ONE_AGAIN, TWENTY, COLD, AGAIN, ALL, SOME)


def measure(seeds: int, large_seeds: int) -> Iterator[Sample]:
    solve(build_pool(0, 25, 1.6))  # the first call loads the solver
    for stress in STRESSES:
        for seed in range(seeds):
            yield from _again(1, stress, seed, ONE_COLD, ONE_AGAIN)
            yield _timed(TWENTY, stress, seed, build_pool(seed, 20, stress))[0]
            yield from _again(100, stress, seed, COLD, AGAIN)
        for seed in range(large_seeds):
            yield from _again(1000, stress, seed, ALL, SOME, share=0.1)


def _again(models: int, stress: float, seed: int, first: Case, second: Case, share: float = 1.0) -> Iterator[Sample]:
    """A cold plan, then one of the pool a period later."""
    pool = build_pool(seed, models, stress)
    sample, plan = _timed(first, stress, seed, pool)
    yield sample
    later = move_on(pool, plan.counts, plan.prices, seed + 1000, share)
    changed = None if share == 1.0 else changed_keys(pool, later)
    yield _timed(second, stress, seed, later, lambda problem: solve(problem, changed))[0]


def _timed(
    case: Case, stress: float, seed: int, problem: Problem, planner: Callable[[Problem], PoolPlan] = solve
) -> tuple[Sample, PoolPlan]:
    taken = []
    for _ in range(1 if case.must_seconds is None else REPEATS):
        started = time.perf_counter()
        plan = planner(problem)
        taken.append(time.perf_counter() - started)
    return describe(case, stress, seed, statistics.median(taken), problem, plan), plan


def describe(case: Case, stress: float, seed: int, seconds: float, problem: Problem, plan: PoolPlan) -> Sample:
    demand = sum(model.demand for model in problem.models)
    unserved = sum(sum(rates) for rates in plan.routing.unserved.values())
    points = sum(
        q * x
        for model in problem.models
        for item, served in zip(model.classes, plan.routing.served[model.key], strict=True)
        for q, x in zip(item.qualities, served, strict=True)
    )
    pairs = [
        (column, n) for model in problem.models for column, n in zip(model.columns, plan.counts[model.key], strict=True)
    ]
    held = sum(column.accelerators * n for column, n in pairs)
    started = sum(column.accelerators * max(0, n - column.present) for column, n in pairs)
    return Sample(
        case=case.name,
        stress=stress,
        seed=seed,
        seconds=seconds,
        gap=plan.gap,
        unserved=unserved / demand,
        quality=points / max(demand - unserved, 1e-9),
        started=started / max(held, 1),
        method=plan.method.value,
    )


def percentile(values: list[float], share: float) -> float:
    """Nearest rank: of 20 values the 95th percentile is the 19th."""
    ranked = sorted(values)
    return ranked[max(0, -(-round(share * 1000) * len(ranked) // 1000) - 1)]


def render(samples: list[Sample]) -> str:
    header = "| plan | stress | method | pools | median s | p95 s | max s | must | | gap, median / max"
    lines = [f"{header} | unserved | quality | started |", "|---" * 13 + "|"]
    for case in CASES:
        for stress in STRESSES:
            of_case = [s for s in samples if (s.case, s.stress) == (case.name, stress)]
            if of_case:
                lines.append(_line(case, stress, of_case))
    return "\n".join(lines)


def _line(case: Case, stress: float, samples: list[Sample]) -> str:
    seconds, gaps = [s.seconds for s in samples], [s.gap for s in samples]
    p95 = percentile(seconds, 0.95)
    must = "" if case.must_seconds is None else f"< {case.must_seconds:g}"
    verdict = "" if case.must_seconds is None else "met" if p95 < case.must_seconds else "**missed**"
    mean = [f"{statistics.fmean(getattr(s, name) for s in samples):.1%}" for name in ("unserved", "quality", "started")]
    methods = ", ".join(sorted({s.method for s in samples}))
    return (
        f"| {case.name} | {stress} | {methods} | {len(samples)} | {statistics.median(seconds):.3f} | {p95:.3f} "
        f"| {max(seconds):.3f} | {must} | {verdict} | {statistics.median(gaps):.2%} / {max(gaps):.2%} "
        f"| {' | '.join(mean)} |"
    )


def render_decisions(found: Sequence[Decided]) -> str:
    """Wall time of whole decisions; `program`: of how many the pool's program was part."""
    lines = ["| whole decision | decisions | program | median s | p95 s | max s | must | |", "|---" * 8 + "|"]
    for case, must in planner_decisions.MUST.items():
        seconds = [item.seconds for item in found if item.case == case]
        asked = sum(item.asked for item in found if item.case == case)
        p95 = percentile(seconds, 0.95)
        lines.append(
            f"| {case} | {len(seconds)} | {asked} | {statistics.median(seconds):.3f} | {p95:.3f} | {max(seconds):.3f} "
            f"| < {must:g} | {'met' if p95 < must else '**missed**'} |"
        )
    return "\n".join(lines)


def render_budget(runs: Sequence[Kept]) -> str:
    """One row: accelerators beyond the budget, at any event of any run."""
    most = max(run.beyond for run in runs)
    what = f"budget: {len(runs)} runs, {sum(r.decisions for r in runs)} decisions, {sum(r.starts for r in runs)} starts"
    verdict = "met" if most == 0 else "**missed**"
    return f"| what | must | accelerators beyond it | |\n|---|---|---|---|\n| {what} | 0 | {most} | {verdict} |"


def compare_with_oracle(seconds: float) -> str:
    """One pool of 100 models by the plain integer program: what configurations miss, per weighted demand."""
    lines = []
    for stress in STRESSES:
        pool = build_pool(1, 100, stress)
        started = time.perf_counter()
        exact = solve_exact(pool, gap=1e-3, nodes=10_000_000, seconds=seconds)
        took = time.perf_counter() - started
        plan = solve(pool)
        scale = pool.weighted_demand
        found = "nothing" if exact.counts is None else f"{route(pool, exact.counts).objective / scale:.4f}"
        lines.append(
            f"stress {stress}: plain program {found} in {took:.0f} s, its bound {exact.bound / scale:.4f}; "
            f"configurations {plan.objective / scale:.4f}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--simulate" in given:
        return bench_policies.main([argument for argument in given if argument != "--simulate"])
    parser = argparse.ArgumentParser(description="Time and gap of the planner on random pools, 6 tiers x 4 shapes.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--large-seeds", type=int, default=LARGE_SEEDS, help="pools of 1,000 models")
    parser.add_argument("--oracle", type=float, default=0.0, help="seconds for the plain program; 0: not run")
    parser.add_argument("--trace", type=Path, help="for part budget: a model more, with Azure's conversation trace")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--simulate", action="store_true", help="the acceptance table of simulated policies instead")
    options = parser.parse_args(given)
    samples = list(measure(options.seeds, options.large_seeds)) if "solver" in options.parts else []
    decided = list(_decisions(options.seeds)) if "decisions" in options.parts else []
    trace = read_trace(options.trace) if options.trace is not None else ()
    runs = list(planner_budget.keep_budget(options.seeds, trace)) if "budget" in options.parts else []
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}, scipy {scipy.__version__} (HiGHS), floors 0.9, Π 10\n")
    tables = [render(samples)] if samples else []
    tables += [render_decisions(decided)] if decided else []
    tables += [render_budget(runs)] if runs else []
    tables += [WITHOUT_TRACE] if runs and not trace else []
    tables.append(compare_with_oracle(options.oracle) if options.oracle else WITHOUT_ORACLE)
    print("\n\n".join([*tables, LEFT_OUT]))
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    found = {"samples": samples, "decided": decided, "budget": runs}
    OUTPUT.write_text(
        json.dumps({"load": load} | {name: [asdict(one) for one in rows] for name, rows in found.items()})
    )
    return 0


def _decisions(seeds: int) -> Iterator[Decided]:
    yield from planner_decisions.decide_one_model(10 * seeds)
    yield from planner_decisions.decide_many(min(seeds, 10))


if __name__ == "__main__":
    sys.exit(main())
