"""The acceptance rows of the simulated policies: which cells each has, how one is run, and what all cells say together.

A cell is one run or search that stands for itself: it is kept on disk, so that a row can be run in pieces.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptive_operator.simulate.capacity import effective_capacity
from adaptive_operator.simulate.comparison import Tell, compare
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.repeated import Estimate, estimate
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.run import RunResult, RunSettings, run
from adaptive_operator.simulate.scenario import Scenario
from adaptive_operator.simulate.scores import as_record, score
from adaptive_operator.simulate.scrapes import Fault
from benchmarks.policy_scenes import (
    FAULT_SECONDS,
    HALF_PERIODS,
    HOLD_SECONDS,
    STEADY_PARTS,
    TABLES,
    Setup,
    comparison,
    fault_at,
    fault_cases,
    fault_load,
    scenario,
    square_load,
    steady_load,
)

Record = Mapping[str, Any]  # what a cell found, as JSON
_CAPACITY_STARTS = {"ours": 1.6, "hpa": 0.8, "full": 0.8, "best-static": 1.6}  # times the scale of the other rows
_COMPARED = ("ours", "proteus", "oracle", "oracle:0")
_LOAD_PART = 1.5  # of what full carries, where policies are compared: the budget is too small for it
_FULL_RATE = 3.8 / 4  # copies of the conversation trace that full carries per accelerator (docs/simulator.md)
_TOLERANCE = 1e-9
_CAPACITY_MUST, _STATIC_MUST = 2.7, 0.9
_FEWER_MUST = 10
_SWEEP_FLAPS = 2


@dataclass(frozen=True, slots=True)
class Cell:
    """`case` names it within its row: a table, a load, or a fault."""

    row: str
    case: str
    seed: int

    @property
    def key(self) -> str:
        """Unique among all cells."""
        return f"{self.row}/{self.case}/{self.seed}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the table. `met` None: told, but nothing is asked for."""

    what: str
    must: str
    found: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the acceptance table."""

    name: str
    cases: Callable[[Sequence[str]], Iterator[str]]  # from the tables that were chosen
    run: Callable[[Cell, Setup, Tell], Record]
    judge: Callable[[str, Sequence[Record]], list[Verdict]]  # of one case (or table), all seeds


def compared_scale(setup: Setup) -> float:
    """Copies of the trace where policies are compared."""
    return _LOAD_PART * _FULL_RATE * setup.budget


def _tables(tables: Sequence[str]) -> Iterator[str]:
    yield from tables


def _run_capacity(cell: Cell, setup: Setup, tell: Tell) -> Record:
    found = {}
    for name, part in _CAPACITY_STARTS.items():
        scaled = comparison(cell.case, setup, part * _FULL_RATE * setup.budget, cell.seed)
        found[name] = effective_capacity(scaled, name, tell).scale
    return {"scales": found}


def _judge_capacity(table: str, records: Sequence[Record]) -> list[Verdict]:
    of_hpa = [_ratio(r["scales"]["ours"], r["scales"]["hpa"]) for r in records]
    ratios, median = estimate(of_hpa), statistics.median(of_hpa)
    parts = estimate([_ratio(r["scales"]["ours"], r["scales"]["best-static"]) for r in records])
    static = estimate([_ratio(r["scales"]["best-static"], r["scales"]["hpa"]) for r in records])
    what = f"capacity within the floor, {table}"
    asked = table == TABLES[0]
    met = min(ratios.mean, median) >= _CAPACITY_MUST if asked else None
    found = f"{_text(ratios, 2)}, median {median:.2f}, of {len(records)} seeds"
    return [
        Verdict(f"{what}: ours / hpa", f">= {_CAPACITY_MUST}" if asked else "–", found, met),
        Verdict(f"{what}: ours / best static mix", f">= {_STATIC_MUST}", _text(parts, 2), parts.mean >= _STATIC_MUST),
        Verdict(f"{what}: best static mix / hpa", "–", _text(static, 2), None),
    ]


def _run_compared(names: Sequence[str]) -> Callable[[Cell, Setup, Tell], Record]:
    def run_cell(cell: Cell, setup: Setup, tell: Tell) -> Record:
        judged = compare(comparison(cell.case, setup, compared_scale(setup), cell.seed), names, tell)
        figures = zip(names, judged, strict=True)
        return {name: {**as_record(item.scores), "chosen": item.name} for name, item in figures}

    return run_cell


def _judge_violations(table: str, records: Sequence[Record]) -> list[Verdict]:
    less = _difference(records, "ours", "hpa", "violations")
    ours, hpa = (estimate([_number(r[name]["violations"]) for r in records]) for name in ("ours", "hpa"))
    times = _ratio(hpa.mean, ours.mean)
    served = _difference(records, "ours", "hpa", "system_accuracy")
    hours = _difference(records, "ours", "hpa", "accelerator_hours")
    what = f"at equal accelerators, {table}: "
    # With tiers that only decode faster, no mix carries this load: nobody can have ten times fewer.
    asked = table == TABLES[0]
    enough = hpa.mean > 0 and hpa.mean >= _FEWER_MUST * ours.mean
    return [
        Verdict(f"{what}violations, ours - hpa", "< 0", _text(less, 2, 100, " points"), _sure(less, less.high < 0)),
        Verdict(
            f"{what}violations, hpa / ours",
            f">= {_FEWER_MUST}x" if asked else "–",
            "none of ours" if ours.mean == 0 else f"{times:.1f}x",
            enough if asked else None,
        ),
        Verdict(f"{what}system accuracy, ours - hpa", "> 0", _text(served, 4), _sure(served, served.low > 0)),
        Verdict(f"{what}accelerator-hours, ours - hpa", "–", _text(hours, 2), None),
    ]


def _sure(found: Estimate, met: bool) -> bool | None:
    """What an interval says; one seed has none, and says nothing for sure."""
    return None if math.isnan(found.half) else met


def _not_less(found: Estimate) -> bool | None:
    return _sure(found, found.high >= -_TOLERANCE)


def _judge_proteus(table: str, records: Sequence[Record]) -> list[Verdict]:
    served = _difference(records, "ours", "proteus", "system_accuracy")
    less = _difference(records, "ours", "proteus", "violations")
    starts = estimate([_ratio(r["ours"]["starts_per_hour"], r["proteus"]["starts_per_hour"]) for r in records])
    better = _difference(records, "oracle", "ours", "system_accuracy")
    at_once = _difference(records, "oracle:0", "ours", "system_accuracy")
    what = f"ours and proteus, {table}: "
    return [
        Verdict(f"{what}system accuracy, difference", ">= 0", _text(served, 4), served.mean >= -_TOLERANCE),
        Verdict(f"{what}violations, difference", "<= 0", _text(less, 2, 100, " points"), less.mean <= _TOLERANCE),
        Verdict(f"{what}starts, ratio", "<= 0.5", _text(starts, 2), starts.mean <= 0.5),
        # An oracle that does worse is only wrong where chance cannot explain it.
        Verdict(f"oracle - ours, {table}: system accuracy", ">= 0", _text(better, 4), _not_less(better)),
        Verdict(f"oracle, loads at once - ours, {table}", ">= 0", _text(at_once, 4), _not_less(at_once)),
    ]


def _flap_cases(_tables: Sequence[str]) -> Iterator[str]:
    yield "square 120"
    yield from (f"steady {part:g}" for part in STEADY_PARTS)


def _sweep_cases(_tables: Sequence[str]) -> Iterator[str]:
    yield from (f"square {half:g}" for half in HALF_PERIODS)


def _run_flaps(cell: Cell, setup: Setup, tell: Tell) -> Record:
    kind, _, number = cell.case.partition(" ")
    load = square_load if kind == "square" else steady_load
    result = _run_ours(scenario(TABLES[0], setup), load(setup, float(number), cell.seed), RunSettings(), cell, tell)
    found = score(result)
    return {
        "flaps": found.flaps,
        "flaps_in_15_minutes": found.flaps_in_15_minutes,
        "changes": found.changes,
        "violations": _finite(found.violations),
    }


def _judge_flaps(most: int, hours: str) -> Callable[[str, Sequence[Record]], list[Verdict]]:
    def judge(case: str, records: Sequence[Record]) -> list[Verdict]:
        worst = max(record["flaps"] for record in records)
        changes = estimate([float(record["changes"]) for record in records])
        violations = estimate([_number(record["violations"]) for record in records])
        found = f"at most {worst} (changes {_text(changes, 1)}, violations {_text(violations, 2, 100, ' %')})"
        name = (
            f"square x3, half-period {case.split()[1]} s"
            if case.startswith("square")
            else f"{case} of what full carries, ± 5 %"
        )
        return [Verdict(f"flaps, {name}, {hours}", f"<= {most}" if most else "0", found, worst <= most)]

    return judge


def _fault_case_names(_tables: Sequence[str]) -> Iterator[str]:
    yield from (f"{fault.value} {direction} {start:.0f}" for fault, direction, start in fault_cases())


def _run_metrics(cell: Cell, setup: Setup, tell: Tell) -> Record:
    word, direction, at = cell.case.split()
    fault, start = Fault(word), float(at)
    tiers = scenario(TABLES[0], setup)
    load = fault_load(setup, direction, start, cell.seed)
    result = _run_ours(tiers, load, RunSettings(fault_at=fault_at(fault, start)), cell, tell)
    # Samples that are only old count for a while, and may then only ask for more.
    blind_from = start + HOLD_SECONDS if fault is Fault.STALE else start
    carried = [(change.at, carries(tiers, change.replicas)) for change in result.changes]
    return {
        "blind_changes": sum(blind_from <= change.at < start + FAULT_SECONDS for change in result.changes),
        "early_shrinks": sum(
            start <= at < blind_from and after < before - _TOLERANCE
            for (_, before), (at, after) in itertools.pairwise(carried)
        ),
        "changes_after": sum(change.at >= start + FAULT_SECONDS for change in result.changes),
    }


def carries(tiers: Scenario, mix: Mapping[str, int]) -> float:
    """Requests/s of a mix by the cards."""
    return math.fsum(tiers.tier(tier).rate * count for tier, count in mix.items())


def _judge_metrics(kind: str, records: Sequence[Record]) -> list[Verdict]:
    blind = sum(record["blind_changes"] for record in records)
    shrinks = sum(record["early_shrinks"] for record in records)
    after = sum(record["changes_after"] > 0 for record in records)
    runs = f"in {len(records)} runs ({after} changed something afterwards)"
    verdicts = [Verdict(f"metrics {kind}: changes of replicas", "0", f"{blind} {runs}", blind == 0)]
    if kind == Fault.STALE:
        verdicts.append(Verdict("metrics stale, first 120 s: shrinks", "0", f"{shrinks} {runs}", shrinks == 0))
    return verdicts


def _run_ours(tiers: Scenario, load: tuple[TraceRow, ...], settings: RunSettings, cell: Cell, tell: Tell) -> RunResult:
    return run(tiers, load, AdaptivePolicy(), settings, tell(cell.key))


def _difference(records: Sequence[Record], one: str, other: str, measure: str) -> Estimate:
    return estimate([_number(r[one][measure]) - _number(r[other][measure]) for r in records])


def _ratio(value: float | None, to: float | None) -> float:
    """NaN when it cannot be told: left out of the mean."""
    return _number(value) / to if to else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(value: Estimate, digits: int, scale: float = 1.0, unit: str = "") -> str:
    if math.isnan(value.mean):
        return "not known"
    half = "" if math.isnan(value.half) else f" ± {scale * value.half:.{digits}f}"
    return f"{scale * value.mean:.{digits}f}{half}{unit}"


ROWS = {
    row.name: row
    for row in (
        Row("capacity", _tables, _run_capacity, _judge_capacity),
        Row("violations", _tables, _run_compared(("ours", "hpa")), _judge_violations),
        Row("proteus", _tables, _run_compared(_COMPARED), _judge_proteus),
        Row("flaps", _flap_cases, _run_flaps, _judge_flaps(0, "2 h")),
        Row("sweep", _sweep_cases, _run_flaps, _judge_flaps(_SWEEP_FLAPS, "2 h or 3 waves")),
        Row("metrics", _fault_case_names, _run_metrics, _judge_metrics),
    )
}


def group_of(cell: Cell) -> str:
    """What is judged together: all seeds of a case, of a fault all its starts."""
    return cell.case.split()[0] if cell.row == "metrics" else cell.case
