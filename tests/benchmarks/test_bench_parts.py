"""What the benchmark of plans of a part notes, and tells."""

from __future__ import annotations

from functools import partial

import pytest

from adaptive_operator.decide import by_plan
from adaptive_operator.decide.optimize.solve import SolveSettings
from benchmarks.bench_parts import Solved, describe, measure


def test_programs_of_a_part_are_noted_beside_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_plan, "SolveSettings", partial(SolveSettings, incremental_models=3))
    found = measure(models=8, passes=14, swing=0.1)
    assert found[0].changed is None
    parts = [item for item in found if item.changed is not None]
    assert parts
    assert all(item.changed is not None and item.changed <= item.models / 2 for item in parts)
    assert all(item.seconds > 0 and item.whole_seconds > 0 for item in found)


def test_a_line_has_the_medians_of_the_programs_of_a_part() -> None:
    whole = Solved(400, None, 9.0, 9.0, 0.0, 9.0)
    parts = [Solved(400, 100, 0.2, 0.5, 0.001, 2.0), Solved(400, 140, 0.4, 0.7, 0.003, 3.0)]
    assert describe(0.5, [whole, *parts]) == "| 50% | 3 | 2 | 30% | 0.30 | 0.60 | 2.50 | 0.20% / 0.30% |"
    assert describe(0.5, [whole]) == "| 50% | 1 | 0 | - | - | - | - | - |"
