"""Decided and explained, but not done: a dry run on a real API server, what kubectl tells of it, and its replay."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from adaptive_operator.decision_log import DecisionLog
from tests.integration.operator_fixtures import Operator, Stage, build_stage

START = {"full": 1, "int4": 1}
SWAPPED = {"int4": 1, "int8": 3}
LOW_LOAD, HIGH_LOAD = 0.1, 2.0  # requests/s: full 1 · int4 1 carry 1.3, int8 3 · int4 1 carry 2.3
BOUND = "the budget of 4 accelerators"


@pytest.fixture
def stage(context: str, api: client.ApiClient, crd: dict[str, Any], namespace: str) -> Iterator[Stage]:
    with build_stage(context, api, namespace) as built:
        yield built


def is_settled(stage: Stage, replicas: dict[str, int]) -> bool:
    status = stage.cluster.model().get("status") or {}
    summary = all(f"{tier} {count}/{count}" in (status.get("tiersSummary") or "") for tier, count in replicas.items())
    return stage.cluster.replicas() == replicas and "swap" not in status and summary


def events(stage: Stage) -> dict[str, str]:
    """The newest message by reason."""
    found = stage.cluster.core.list_namespaced_event(
        stage.cluster.namespace, field_selector="involvedObject.kind=AdaptiveModel"
    )
    return {event.reason: event.message for event in found.items}


def children(stage: Stage) -> dict[str, str]:
    """resourceVersion of everything that the operator may write, the model's own status apart."""
    return {name: version for name, version in stage.cluster.versions().items() if "AdaptiveModel" not in name}


def counted(operator: Operator, stage: Stage, reason: str) -> float:
    labels = {"namespace": stage.cluster.namespace, "model": "assistant", "reason": reason}
    return operator.reconciler.metrics.registry.get_sample_value("adaptive_operator_decision_total", labels) or 0.0


def adaptive(stage: Stage, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`kubectl adaptive …` in the namespace of the stage, as a user would call it."""
    found = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment}
    command = ["kubectl", "adaptive", *arguments]
    return subprocess.run(command, env=found, capture_output=True, text=True, check=False, timeout=60)


def explain(stage: Stage, model: str = "am/assistant", **environment: str) -> subprocess.CompletedProcess[str]:
    return adaptive(stage, "explain", model, "-n", stage.cluster.namespace, "--context", stage.context, **environment)


async def start(stage: Stage, operator: Operator) -> None:
    """full 1 · int4 1 runs at a load that it carries."""
    stage.prometheus.arrivals = LOW_LOAD
    stage.cluster.create_model()
    await stage.play(operator, lambda: is_settled(stage, START))


async def dry_run_under_load(stage: Stage, operator: Operator) -> None:
    """Its owner sets DryRun, and the load rises beyond what runs carries."""
    stage.cluster.patch_model({"spec": {"mode": "DryRun"}})
    stage.prometheus.arrivals = HIGH_LOAD
    for _ in range(6):
        await operator.run()
        stage.elapsed += 5.0


async def test_a_dry_run_under_load_decides_and_explains_changes_nothing_and_is_carried_out_when_active(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="adaptive_operator.reconcile")
    async with stage.operator() as operator:
        await start(stage, operator)
        before, pods = children(stage), {pod.metadata.uid for pod in stage.cluster.pods()}
        operator.writes.clear()
        await dry_run_under_load(stage, operator)
        assert children(stage) == before
        assert {pod.metadata.uid for pod in stage.cluster.pods()} == pods
        assert {write.split()[0] for write in operator.writes} <= {"status", "Event"}
        status = stage.cluster.model()["status"]
        last = status["lastDecision"]
        assert (last["reason"], last["from"], last["to"]) == (
            "SwappedToCheaperTier",
            "full 1 · int4 1",
            "int8 3 · int4 1",
        )
        assert last["message"].startswith("dry run: ")
        seen = r"demand 2\.00/s \(age \d+ s\), peak 2\.00/s \(age \d+ s\), queue 0 \(age \d+ s\), capacity "
        assert re.search(seen, last["inputs"])
        assert BOUND in last["binding"]
        assert re.match(r"int8 \d .*permille.*accelerators", last["alternative"])
        assert "swap" not in status
        assert events(stage)["SwappedToCheaperTier"].startswith("dry run: full 1 · int4 1 → int8 3 · int4 1: ")
        assert counted(operator, stage, "SwappedToCheaperTier") >= 1.0
        (line,) = (r.getMessage() for r in caplog.records if "reason=SwappedToCheaperTier" in r.getMessage())
        assert json.dumps(last["alternative"], ensure_ascii=False) in line
        assert json.dumps(last["binding"], ensure_ascii=False) in line
        stage.cluster.patch_model({"spec": {"mode": "Active"}})
        await stage.play(operator, lambda: is_settled(stage, SWAPPED))


async def test_a_model_that_begins_as_a_dry_run_gets_nothing_and_starts_when_active(stage: Stage) -> None:
    stage.prometheus.arrivals = None
    stage.cluster.create_model(mode="DryRun")
    async with stage.operator() as operator:
        await operator.run(3)
        last = stage.cluster.model()["status"]["lastDecision"]
        assert (last["reason"], last["to"]) == ("StartingUp", "full 1 · int4 1")
        assert events(stage).keys() == {"StartingUp"}
        assert children(stage) == {}
        assert set(operator.writes) == {"status", "Event StartingUp"}
        stage.cluster.patch_model({"spec": {"mode": "Active"}})
        await stage.play(operator, lambda: is_settled(stage, START))


async def test_explain_shows_the_last_decisions_with_their_reasons_and_inputs(stage: Stage, kubectl: str) -> None:
    async with stage.operator() as operator:
        await start(stage, operator)
        await dry_run_under_load(stage, operator)
    told = explain(stage)
    assert (told.returncode, told.stderr) == (0, "")
    last = stage.cluster.model()["status"]["lastDecision"]
    assert told.stdout.startswith(f"{stage.cluster.namespace}/assistant, mode DryRun\n")
    assert f"SwappedToCheaperTier since {last['time']}" in told.stdout
    for row, text in (("to", last["to"]), ("because", last["message"]), ("seen", last["inputs"])):
        assert f"  {row:<12}{text}\n" in told.stdout
    assert f"  instead     {last['alternative']}\n" in told.stdout
    assert BOUND in told.stdout
    before = told.stdout.partition("\nbefore\n")[2]
    assert "StartingUp: none → full 1 · int4 1; " in before


def test_a_model_that_is_missing_is_an_error_that_names_it(stage: Stage, kubectl: str) -> None:
    told = explain(stage, "am/nobody")
    assert (told.returncode, told.stdout) == (1, "")
    assert re.fullmatch(r'error: .*NotFound.*"nobody" not found\n', told.stderr)


def other_kubeconfig(stage: Stage, folder: Path, user: dict[str, str], cluster: dict[str, str]) -> str:
    """The context under test, changed; KUBECONFIG for it."""
    command = [
        "kubectl",
        "config",
        "view",
        "--raw",
        "--flatten",
        "--minify",
        "-o",
        "json",
        f"--context={stage.context}",
    ]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    found["users"][0]["user"] |= user
    found["clusters"][0]["cluster"] |= cluster
    path = folder / "kubeconfig"
    path.write_text(json.dumps(found))
    return str(path)


@pytest.mark.parametrize(
    ("user", "cluster", "told"),
    [
        ({"as": "somebody-without-rights"}, {}, r'error: .*Forbidden.*"somebody-without-rights" cannot get .*\n'),
        ({}, {"server": "https://127.0.0.1:1"}, r"error: .*127\.0\.0\.1:1.*refused.*\n"),
    ],
    ids=["who may not read it", "no server"],
)
def test_what_kept_explain_from_reading_is_one_clear_line(
    user: dict[str, str], cluster: dict[str, str], told: str, stage: Stage, kubectl: str, tmp_path: Path
) -> None:
    stage.cluster.create_model()
    answer = explain(stage, KUBECONFIG=other_kubeconfig(stage, tmp_path, user, cluster))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert re.fullmatch(told, answer.stderr)


async def test_the_log_of_a_dry_run_and_the_swap_after_it_is_replayed_to_the_same_decisions(
    stage: Stage, kubectl: str, tmp_path: Path
) -> None:
    path = tmp_path / "decisions.jsonl"
    async with stage.operator() as operator:
        operator.reconciler.decision_log = DecisionLog(path, 1 << 20)
        await start(stage, operator)
        await dry_run_under_load(stage, operator)
        stage.cluster.patch_model({"spec": {"mode": "Active"}})
        await stage.play(operator, lambda: is_settled(stage, SWAPPED))
        operator.reconciler.decision_log.close()
    lines = len(path.read_text().splitlines())
    told = adaptive(stage, "replay", str(path))
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.endswith(f"{lines} decisions, 0 come out differently\n")
    for entry in stage.cluster.model()["status"]["history"]:
        message = entry["message"].removeprefix("dry run: ")
        assert f"{stage.cluster.namespace}/assistant {entry['reason']}: {message}" in told.stdout
