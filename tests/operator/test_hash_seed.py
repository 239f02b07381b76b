"""What is decided is the same in each process: a replay and a restarted operator see no other order of anything."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.observe.observation import PoolObservation
from adaptive_operator.record import build_record, encode_record
from stand_ins.plant import DEMO_SETTINGS, demo_spec, metrics, observe_one
from tests.operator.decide.test_by_plan import BUSY, CALM, pool

pytestmark = pytest.mark.slow

RECORDS = Path(__file__).parent / "records"
# Decides each record of a file again, and prints all of it, orders included. A dry run writes its status only, so it
# can be planned from a record, which has no manifests.
AGAIN: Final = """
import sys
from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.plan import PlanSettings, plan_model
from adaptive_operator.record import decode_record
from adaptive_operator.replay import Replayed, replay_lines

lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
for item in replay_lines(lines):
    if not isinstance(item, Replayed):
        print(type(item).__name__)
        continue
    print(item.again)
    seen = decode_record(lines[item.line - 1]).observation
    model = next(model for model in seen.models if model.key == item.again.key)
    if model.spec.mode is Mode.DRY_RUN:
        print(plan_model(model, item.again, PlanSettings("engine:1", "router:1"), seen.now, 1))
"""


def left_behind() -> PoolObservation:
    """A dry run whose spec has lost four tiers that still hold replicas: nothing but their StatefulSets tells them."""
    model = observe_one(demo_spec(mode=Mode.DRY_RUN.value), {"full": 1}, metrics(0.2))
    [known] = model.stateful_sets
    names = ("alpha", "beta", "gamma", "delta")
    others = tuple(replace(known, name=name, uid=name, tier=name) for name in names)
    return PoolObservation(10_000.0, "nvidia.com/gpu", 12, 1, 0.0, (replace(model, stateful_sets=(known, *others)),))


def record_of(seen: PoolObservation) -> str:
    decided = decide_pool(seen, DEMO_SETTINGS)
    return encode_record(build_record(seen, DEMO_SETTINGS, decided.decisions, decided.plan))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Old records, a pool with a plan, and a model with left-over tiers."""
    lines = [line for path in sorted(RECORDS.iterdir()) for line in path.read_text().splitlines()]
    lines += [record_of(pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35))), record_of(left_behind())]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "log.jsonl"


def test_what_is_decided_and_told_does_not_depend_on_the_process(log: Path) -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", AGAIN, str(log)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    assert [run.stderr for run in runs] == ["", ""]
    assert "alpha was removed" in runs[0].stdout
    assert runs[0].stdout.splitlines() == runs[1].stdout.splitlines()
