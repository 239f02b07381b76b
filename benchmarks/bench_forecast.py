"""Where a forecast could pay: ours and others on loads that rise slowly, with replicas that load for minutes.

`python -m benchmarks.bench_forecast --loads ramp900,sine3600 --policies ours,oracle --seeds 4`: the oracle is ours with
a perfect forecast. Accelerators are free, and replicas are slower than the examples', as those of large models are.
Every run is written down as soon as it is there, and not run again: stop it, and go on later.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from adaptive_operator.simulate.generators import Rate, day_and_night, flash_crowd, generate, sinusoid, square_wave
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.policies.registry import Setting, make_policy
from adaptive_operator.simulate.repeated import estimate
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.run import Part, RunSettings, run_pool
from adaptive_operator.simulate.scaling import scale_trace
from adaptive_operator.simulate.scenario import Scenario, load_scenario
from adaptive_operator.simulate.scores import as_record, score
from adaptive_operator.simulate.traces import read_trace
from benchmarks.policy_scenes import EXAMPLES

OUTPUT: Final = Path("out/bench/forecast.jsonl")
LOW, HIGH = 2.0, 10.0  # requests/s
SLOWER: Final = 3  # than the examples' replicas
SINGLE: Final = "single"  # the best tier of the decode-only table, alone: no quality to shed
_CALM_SECONDS, _AFTER_SECONDS = 900.0, 1800.0  # before and after a ramp
_TWO_HOURS: Final = 7200.0
# What is told of a run: scale and digits.
_TOLD: Final[Mapping[str, tuple[float, int]]] = {
    "violations": (100, 2),
    "system_accuracy": (1, 4),
    "accelerator_hours": (1, 2),
    "starts_per_hour": (1, 1),
    "flaps": (1, 1),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A load on replicas of a tier table that load for so many seconds."""

    table: str
    load: str
    seconds: float
    budget: int

    @property
    def name(self) -> str:
        """As it is told and kept."""
        return f"{self.table} {self.load} {self.seconds:g} s, {self.budget} accelerators"


def _ramp(rise: float) -> tuple[Rate, float]:
    """Up once, from a calm quarter of an hour to half an hour of the most."""
    rate: Rate = lambda t: LOW + (HIGH - LOW) * min(1.0, max(0.0, (t - _CALM_SECONDS) / rise))  # noqa: E731
    return rate, _CALM_SECONDS + rise + _AFTER_SECONDS


# Name -> (rate, seconds of the run) from the number behind it.
_LOADS: Final[Mapping[str, Callable[[float], tuple[Rate, float]]]] = {
    "ramp": _ramp,
    "sine": lambda period: (sinusoid(LOW, HIGH, period), _TWO_HOURS),
    "day": lambda period: (day_and_night(LOW, HIGH, period), 4 * period),  # the season is known from the third on
    "flash": lambda at: (flash_crowd(3 * LOW, HIGH, at), at + _AFTER_SECONDS),
    "square": lambda half: (square_wave(LOW, 3 * LOW, half), _TWO_HOURS),
}


def arrivals(load: str, seed: int, trace: Path | None) -> tuple[TraceRow, ...]:
    """`ramp900`, `sine3600`, `day3600`, `flash1800`, `square120` (seconds), `steady6` (requests/s, ± 5 %), or `conv4`:
    so many copies of a trace, over `SLOWER`. Raises ValueError."""
    name = load.rstrip("0123456789.")
    number = float(load.removeprefix(name) or "nan")
    if name == "conv" and trace is not None:
        return scale_trace(read_trace(trace), number / SLOWER, seed, resample=True)
    if name == "steady":
        rng = random.Random(seed)
        moves = [1 + rng.uniform(-0.05, 0.05) for _ in range(math.ceil(_TWO_HOURS / 15) + 1)]
        return generate(lambda t: number * moves[int(t // 15)], _TWO_HOURS, seed)
    if name not in _LOADS or not number > 0:
        raise ValueError(
            f"no load {load!r}; there are {', '.join(_LOADS)}, steady with a number, and conv with --trace"
        )
    rate, seconds = _LOADS[name](number)
    return generate(rate, seconds, seed)


def slow_scenario(case: Case) -> Scenario:
    """The table's tiers, slower in everything, with the objective to match and another load time."""
    table = "decode-only" if case.table == SINGLE else case.table
    made = load_scenario(EXAMPLES / f"{table}.yaml", EXAMPLES / f"profile-{table}.yaml", case.budget)
    kept = 1 if case.table == SINGLE else len(made.tiers)
    tiers = tuple(
        replace(t, load_seconds=case.seconds, rate=t.rate / SLOWER, curve=t.curve.scaled(1 / SLOWER, 1 / SLOWER))
        for t in made.tiers[:kept]
    )
    cards = [t.card for t in made.spec.tiers[:kept] if t.card is not None]
    changed = [
        {"load_seconds": int(case.seconds), "capacity_milli_requests_per_second": round(1000 * tier.rate)}
        for tier in tiers
    ]
    declared = tuple(
        tier.model_copy(update={"card": card.model_copy(update=update)})
        for tier, card, update in zip(made.spec.tiers, cards, changed, strict=False)
    )
    slo = {name: SLOWER * getattr(made.spec.slo, name) for name in ("ttft_milliseconds", "tpot_milliseconds")}
    spec = made.spec.model_copy(update={"tiers": declared, "slo": made.spec.slo.model_copy(update=slo)})
    if kept == 1:
        routing = spec.routing.model_copy(update={"warm_tier": None})
        spec = spec.model_copy(update={"routing": routing})
    return replace(made, spec=spec, tiers=tiers)


def play(case: Case, name: str, seed: int, trace: Path | None) -> dict[str, Any]:
    """One run's figures, and when which mix was wanted and why."""
    parts = (Part(slow_scenario(case), arrivals(case.load, seed, trace)),)
    policy = make_policy(name, Setting(parts))
    if isinstance(policy, AdaptivePolicy) and case.load.startswith("day"):
        policy.season_seconds = float(case.load.removeprefix("day"))
    result = run_pool(parts, policy, RunSettings())[0]
    changes = [(round(c.at), dict(c.replicas), c.reason) for c in result.changes]
    return {**as_record(score(result)), "log": changes}


def render(known: Mapping[str, Mapping[str, Any]], cases: Sequence[Case], names: Sequence[str]) -> str:
    """A Markdown table: means over seeds, and differences to the first policy with their 95 % confidence."""
    lines = ["| load | policy | seeds | " + " | ".join(_TOLD) + " |", "|---" * (3 + len(_TOLD)) + "|"]
    for case in cases:
        runs = {name: _by_seed(known, case, name) for name in names}
        lines += [_line(case, name, own, runs[names[0]]) for name, own in runs.items() if own]
    return "\n".join(lines)


def _by_seed(known: Mapping[str, Mapping[str, Any]], case: Case, name: str) -> dict[str, Mapping[str, Any]]:
    start = f"{case.name}|{name}|"
    return {key.removeprefix(start): record for key, record in known.items() if key.startswith(start)}


def _line(case: Case, name: str, own: Mapping[str, Mapping[str, Any]], first: Mapping[str, Mapping[str, Any]]) -> str:
    both = sorted(own.keys() & first.keys())
    cells = []
    for measure, (scale, digits) in _TOLD.items():
        cell = f"{scale * estimate([record[measure] for record in own.values()]).mean:.{digits}f}"
        if own is not first and both:
            less = estimate([own[seed][measure] - first[seed][measure] for seed in both])
            half = "" if math.isnan(less.half) else f" ± {scale * less.half:.{digits}f}"
            cell += f" ({scale * less.mean:+.{digits}f}{half})"
        cells.append(cell)
    return f"| {case.name} | {name} | {len(own)} | {' | '.join(cells)} |"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with names as lists."""
    names: Callable[[str], list[str]] = lambda text: text.split(",")  # noqa: E731
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--tables", type=names, default=[SINGLE, "decode-only"], help="single, decode-only, uniform")
    parser.add_argument(
        "--loads",
        type=names,
        default=["ramp900", "sine3600"],
        help="ramp900, sine3600, day3600, flash1800, square120 (seconds), steady6 (requests/s), or conv4: so many"
        " copies of --trace",
    )
    parser.add_argument("--seconds", type=names, default=["300"], help="load times of a replica (default: 300)")
    parser.add_argument("--policies", type=names, default=["ours", "oracle"], help="as of kubectl-adaptive simulate")
    parser.add_argument("--budget", type=int, default=12, help="accelerators (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=4, help="how many (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--trace", type=Path, help="for conv: Azure's conversation trace")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop before a run that begins later")
    parser.add_argument("--results", type=Path, default=OUTPUT, help="where runs are kept (default: %(default)s)")
    return parser.parse_args(arguments)


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """What is there, by key."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {entry["key"]: entry["record"] for entry in map(json.loads, lines)}


def run_missing(options: argparse.Namespace, cases: Sequence[Case], known: dict[str, dict[str, Any]]) -> None:
    """Run what is not known yet, seed by seed, and write each down at once."""
    begun = time.monotonic()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for seed, case, name in itertools.product(seeds, cases, options.policies):
        key = f"{case.name}|{name}|{seed}"
        if key in known or time.monotonic() - begun > 60 * options.minutes:
            continue
        known[key] = play(case, name, seed, options.trace)
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "record": known[key]}) + "\n")
        print(f"{key}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    named = itertools.product(options.tables, options.loads, map(float, options.seconds))
    cases = [Case(table, load, seconds, options.budget) for table, load, seconds in named]
    known = read_results(options.results)
    run_missing(options, cases, known)
    print(render(known, cases, options.policies))
    return 0


if __name__ == "__main__":
    sys.exit(main())
