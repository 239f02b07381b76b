"""`explain` says what stands in the status, in the order in which a user asks; errors name the cause."""

from __future__ import annotations

import argparse
import json
import stat
from pathlib import Path

import pytest

from adaptive_operator.api.status import AdaptiveModelStatus, SwapStatus
from adaptive_operator.api.v1alpha1 import AdaptiveModel
from adaptive_operator.cli.explain import add_command, explain_lines, parse_model
from adaptive_operator.faults import Fault, FaultReason, overlay_fault
from stand_ins.plant import demo_spec, tier
from tests.operator.decide.world import World, surge


def model_at(seconds: float) -> AdaptiveModel:
    """The demo's model as an API server would give it after so many seconds."""
    world = World(surge)
    world.run(seconds)
    return as_read(world)


def as_read(world: World) -> AdaptiveModel:
    """The model as kubectl gets it."""
    assert world.cluster.status is not None
    return parse_model(
        json.dumps(
            {
                "metadata": {"name": "assistant", "namespace": "demo", "generation": world.generation},
                "spec": world.cluster.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
                "status": world.cluster.status.model_dump(mode="json", by_alias=True, exclude_none=True),
            }
        )
    )


def test_a_swap_is_explained_with_what_binds_and_what_would_have_been_instead():
    text = "\n".join(explain_lines(model_at(115)))
    assert text.startswith("demo/assistant, mode Active\n")
    assert "SwappedToCheaperTier since " in text
    assert "from        full 1 · int4 1" in text
    assert "to          int8 3 · int4 1" in text
    assert "binding     the budget of 4 accelerators" in text
    assert "instead     int8 2 · int4 2: " in text
    assert "under way   " in text


def predicted(swap: SwapStatus | None) -> str:
    """What is said of a swap before it ends."""
    model = model_at(115)
    status = model.status.model_copy(update={"swap": swap})
    lines = explain_lines(model.model_copy(update={"status": status}))
    return next(line.removeprefix("  predicted   ") for line in lines if line.startswith("  predicted "))


PREDICTIONS = {
    (275, "Requests", 350): "275 permille more of the requests served",
    (-184, "Requests", 184): "184 permille fewer of the requests served",
    (61, "Quality", 0): "quality 61 permille higher",
    (-40, "Quality", 0): "quality 40 permille lower",
    (0, "Quality", 130): "quality 0 permille higher",
}


@pytest.mark.parametrize("numbers", PREDICTIONS, ids=str)
def test_what_a_swap_brings_is_told_with_its_unit_and_what_it_costs(numbers):
    gain, of, dip = numbers
    told = {"predicted_gain_permille": gain, "predicted_gain_of": of, "predicted_dip_permille": dip}
    swap = model_at(115).status.swap.model_copy(update=told)
    meanwhile = f"{dip} permille of the requests wait or are refused meanwhile"
    assert predicted(swap) == f"{PREDICTIONS[numbers]}, {meanwhile}"


@pytest.mark.parametrize("gain", [None, 0], ids=["no number", "a number without its unit, by an older operator"])
def test_a_swap_of_which_nothing_was_predicted_is_not_said_to_cost_nothing(gain):
    told = {"predicted_gain_permille": gain, "predicted_gain_of": None, "predicted_dip_permille": gain}
    assert predicted(model_at(115).status.swap.model_copy(update=told)) == "not predicted"


def test_an_edit_in_a_full_budget_is_explained_with_the_requests_that_wait_meanwhile():
    """full 1 · int4 2 hold all four; at 1.5/s one replica less refuses .195/s."""
    world = World(lambda at: 1.5)
    world.cluster.spec = demo_spec(tiers=[tier(0), tier(2, replicas={"min": 2})])
    world.run(200)
    replica = {"accelerators": 1, "cpu": "250m", "memory": "3Gi"}
    world.edit(demo_spec(tiers=[tier(0), tier(2, replicas={"min": 2}, replica=replica)]))
    world.step()
    lines = "\n".join(explain_lines(as_read(world)))
    assert "predicted   quality 0 permille higher, 130 permille of the requests wait or are refused meanwhile" in lines


def test_what_was_decided_before_comes_newest_first():
    lines = list(explain_lines(model_at(600)))
    before = [line.split()[1].rstrip(":") for line in lines[lines.index("before") + 1 :]]
    assert before.index("RestoredTier") < before.index("SwappedToCheaperTier") < before.index("StartingUp")


def test_conditions_that_are_as_they_should_be_are_not_shown():
    text = "\n".join(explain_lines(model_at(600)))
    assert "Ready=" not in text
    assert "Degraded=" not in text


def test_conditions_that_are_not_known_say_what_is_missing():
    model = model_at(600)
    [limited] = [item for item in model.status.conditions if item.type == "CapacityLimited"]
    told = "spec.tiers full without a card: declare tiers[].card to let the load decide"
    unknown = limited.model_copy(update={"status": "Unknown", "reason": "NoTierCard", "message": told})
    others = [item for item in model.status.conditions if item is not limited]
    status = model.status.model_copy(update={"conditions": (*others, unknown)})
    lines = list(explain_lines(model.model_copy(update={"status": status})))
    assert f"CapacityLimited=Unknown (NoTierCard): {told}" in lines


def test_a_model_without_a_status_asks_for_the_operator():
    model = model_at(0 + 5).model_copy(update={"status": None})
    assert "does the operator run" in list(explain_lines(model))[1]


UNKNOWN_POOL = Fault(FaultReason.UNKNOWN_POOL, "names AcceleratorPool nope: create it", 1, "2026-01-01T00:00:00Z", True)


def with_fault(model: AdaptiveModel) -> AdaptiveModel:
    """The model as it is read while its pool is not there."""
    status = model.status.model_dump(mode="json", by_alias=True, exclude_none=True) if model.status else {}
    told = AdaptiveModelStatus.model_validate(overlay_fault(status, UNKNOWN_POOL))
    return model.model_copy(update={"status": told})


def test_a_model_that_nothing_can_be_decided_for_is_explained_by_what_keeps_it_from_that():
    lines = list(explain_lines(with_fault(model_at(5).model_copy(update={"status": None}))))
    assert lines[1] == "nothing was decided yet"
    assert "Ready=False (UnknownPool): names AcceleratorPool nope: create it" in lines
    assert "Degraded=True (UnknownPool): names AcceleratorPool nope: create it" in lines
    assert not any("does the operator run" in line for line in lines)


def test_what_keeps_the_operator_from_deciding_is_told_beside_the_last_decision():
    lines = list(explain_lines(with_fault(model_at(600))))
    assert "Degraded=True (UnknownPool): names AcceleratorPool nope: create it" in lines
    assert "before" in lines


def run(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command with this script as kubectl."""
    kubectl = folder / "kubectl"
    kubectl.write_text(f"#!/bin/sh\n{script}\n")
    kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    options = parser.parse_args(["explain", *arguments])
    return int(options.run(options))


def test_kubectl_is_asked_for_the_one_model_whatever_its_name(tmp_path: Path, monkeypatch, capsys):
    script = f'echo "$@" > {tmp_path}/asked; echo "not found" >&2; exit 1'
    assert run(tmp_path, script, monkeypatch, "am/--all", "-n", "demo", "--context", "here") == 1
    asked = (tmp_path / "asked").read_text().strip()
    assert asked == "get adaptivemodels.adaptivellm.dev -o json --namespace=demo --context=here -- --all"
    assert capsys.readouterr().err == "error: not found\n"


def test_of_what_kubectl_says_the_cause_is_told_and_its_log_lines_are_not(tmp_path: Path, monkeypatch, capsys):
    log = 'E1128 09:00:00.000000   77 memcache.go:265] "Unhandled Error" err="dial tcp: connection refused"'
    script = f"echo '{log}' >&2; echo '{log}' >&2; echo 'error: the connection was refused' >&2; exit 1"
    assert run(tmp_path, script, monkeypatch, "assistant") == 1
    assert capsys.readouterr().err == "error: the connection was refused\n"


BAD = {
    "only log lines": ("echo 'E1128 09:00:00.000000   77 a.go:1] timeout' >&2; exit 1", "a.go:1] timeout"),
    "no JSON": ("echo hello", "kubectl did not answer with JSON"),
    "nothing": ("echo null", "error: kubectl answered with null, which is no object\n"),
    "a list": ("echo '[1,' && echo '2]'", "error: kubectl answered with [1, 2], which is no object\n"),
    "a long list": (f"echo '[{'1, ' * 500}2]'", "1, 1,…, which is no object\n"),
    "brackets without end": ("head -c 100000 /dev/zero | tr '\\0' '['", "kubectl did not answer with JSON"),
    "no spec": ("""echo '{"metadata":{"name":"a"}}'""", "spec: Field required; this is kubectl-adaptive "),
    "another mode": (
        """echo '{"metadata":{"name":"a"},"spec":{"mode":"Later","model":{"source":"file:///m"},"tiers":[]}}'""",
        "spec.mode: Input should be 'Active', 'DryRun' or 'Paused'; this is kubectl-adaptive ",
    ),
    "no words": ("exit 3", "exit status 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_answer_that_makes_no_sense_is_named(name, tmp_path: Path, monkeypatch, capsys):
    script, words = BAD[name]
    assert run(tmp_path, script, monkeypatch, "assistant") == 1
    assert words in capsys.readouterr().err


def test_without_kubectl_it_says_so(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    options = parser.parse_args(["explain", "assistant"])
    assert options.run(options) == 1
    assert "kubectl is not on the PATH" in capsys.readouterr().err


def test_what_is_not_known_is_not_called_unconstrained():
    model = model_at(5)
    assert model.status is not None
    assert model.status.last_decision is not None
    bare = model.status.last_decision.model_copy(update={"binding": (), "alternative": None})
    status = model.status.model_copy(update={"last_decision": bare})
    text = "\n".join(explain_lines(model.model_copy(update={"status": status})))
    assert "binding     not known" in text


def test_words_of_a_pod_cannot_steer_the_terminal():
    model = model_at(5)
    assert model.status is not None
    assert model.status.last_decision is not None
    evil = model.status.last_decision.model_copy(update={"message": "a\x1b[2Jb\nc"})
    status = model.status.model_copy(update={"last_decision": evil})
    lines = list(explain_lines(model.model_copy(update={"status": status})))
    assert "  because     a [2Jb c" in lines


@pytest.mark.parametrize("given", ["pod/x", "am/", "adaptivemodel.apps/x", "am/x/y"])
def test_only_models_can_be_explained(given, tmp_path: Path, monkeypatch, capsys):
    assert run(tmp_path, "exit 0", monkeypatch, given) == 1
    assert "give am/NAME" in capsys.readouterr().err


def test_a_model_without_a_name_is_told_as_such(tmp_path: Path, monkeypatch, capsys):
    assert run(tmp_path, "exit 0", monkeypatch, "") == 1
    assert "no model is named: give am/NAME, or only NAME" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["am", "AdaptiveModel", "adaptivemodels", "adaptivemodel.adaptivellm.dev"])
def test_a_model_is_found_by_every_name_that_kubectl_takes_and_prints(kind, tmp_path: Path, monkeypatch):
    script = f'echo "$@" > {tmp_path}/asked; exit 1'
    assert run(tmp_path, script, monkeypatch, f"{kind}/assistant") == 1
    assert (tmp_path / "asked").read_text().strip().endswith(" -- assistant")


def test_what_the_pool_gives_and_why_is_shown_where_there_is_a_pool():
    model = model_at(115)
    assert not any(line.startswith("  pool") for line in explain_lines(model))
    told = model.status.last_decision.model_copy(update={"pool": "2 accelerators (weight 1): wants more"})
    shared = model.model_copy(update={"status": model.status.model_copy(update={"last_decision": told})})
    assert "  pool        2 accelerators (weight 1): wants more" in list(explain_lines(shared))
