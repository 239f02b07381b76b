"""What `kubectl adaptive simulate` tells of what it is given, before and after it runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from adaptive_operator.cli.__main__ import main

EXAMPLES = Path(__file__).parents[3] / "examples"
SMALL = str(EXAMPLES / "smollm2.yaml")
TRACE = "steady:rate=1,seconds=200"
REFERENCE = f"{TRACE},prompt=16,output=24"


def simulate(*arguments: str) -> int:
    return main(["simulate", "--policy", "full", *arguments])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["-f", "nope.yaml"],
            "error: -f nope.yaml: there is no such file; give the path of a manifest with an AdaptiveModel\n",
        ),
        (["-f", str(EXAMPLES)], f"error: -f {EXAMPLES}: a folder; give the path of a manifest"),
        (
            ["-f", SMALL, "--profile", "nope.yaml"],
            "error: --profile nope.yaml: there is no such file; give the path of a file of step times\n",
        ),
    ],
)
def test_a_file_that_is_not_there_is_told_with_its_option_and_a_remedy(arguments, words, capsys):
    assert simulate(*arguments, "--trace", TRACE) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", ["smollm2", "nested", "pool"])
def test_an_example_keeps_its_objective_on_requests_of_its_cards_without_a_profile(name, capsys):
    trace = "steady:rate=1,seconds=600" if name == "pool" else "steady:rate=0.6,seconds=600,prompt=16,output=24"
    assert simulate("-f", str(EXAMPLES / f"{name}.yaml"), "--trace", trace) == 0
    row = re.search(r"^full +([\d.]+) % +([\d.]+) %", capsys.readouterr().out, re.MULTILINE)
    violations, unserved = map(float, row.groups())
    assert violations < 5
    assert unserved == 0


@pytest.mark.slow
def test_what_was_guessed_is_told_in_the_terminal_and_in_both_reports(tmp_path, capsys):
    assert simulate("-f", SMALL, "--trace", REFERENCE, "-o", str(tmp_path)) == 0
    [guessed] = json.loads((tmp_path / "result.json").read_text())["guesses"]
    assert guessed.startswith("assistant: step times were guessed from the cards")
    assert f"{guessed}\n" in capsys.readouterr().err
    assert "<strong>assistant: step times were guessed from the cards" in (tmp_path / "report.html").read_text()


def test_requests_of_another_size_than_the_cards_are_told_once_and_not_when_cards_are_measured(capsys):
    assert simulate("-f", SMALL, "--trace", TRACE) == 0
    assert capsys.readouterr().err.count("times the work of the 16 + 24 that the cards' rates are of") == 1
    assert simulate("-f", SMALL, "--trace", REFERENCE) == 0
    assert "times the work" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_floor_that_no_tier_may_reach_is_told_in_the_terminal_and_in_both_reports(tmp_path, capsys):
    documents = list(yaml.safe_load_all(Path(SMALL).read_text()))
    spec = next(document for document in documents if document["kind"] == "AdaptiveModel")["spec"]
    spec["quality"]["floorPermille"] = 999
    spec["tiers"][0]["replicas"] = {"max": 0}
    (tmp_path / "floor.yaml").write_text(yaml.safe_dump_all(documents))
    arguments = ["-f", str(tmp_path / "floor.yaml"), "--trace", REFERENCE, "-o", str(tmp_path)]
    assert simulate(*arguments, "--policy", "ours") == 0
    words = "assistant: quality.floorPermille 999 is out of reach: replicas.max of full is 0; the nearest that can be"
    assert capsys.readouterr().err.count(words) == 1
    assert words in json.loads((tmp_path / "result.json").read_text())["notes"][0]
    assert words in (tmp_path / "report.html").read_text()


def test_what_is_told_of_a_model_is_in_the_terminal_and_in_both_reports(tmp_path, capsys):
    documents = list(yaml.safe_load_all(Path(SMALL).read_text()))
    spec = next(document for document in documents if document["kind"] == "AdaptiveModel")["spec"]
    spec["mode"] = "Paused"
    spec["tiers"][0]["replicas"] = {"min": 8}
    spec["accelerators"]["budget"] = 30
    (tmp_path / "paused.yaml").write_text(yaml.safe_dump_all(documents))
    arguments = ["-f", str(tmp_path / "paused.yaml"), "--trace", REFERENCE, "-o", str(tmp_path), "--budget", "4"]
    assert simulate(*arguments) == 0
    told = capsys.readouterr().err
    notes = json.loads((tmp_path / "result.json").read_text())["notes"]
    html = (tmp_path / "report.html").read_text()
    assert [note.partition(" ")[2][:20] for note in notes] == ["mode Paused is simul", "replicas.min takes 1"]
    assert all(told.count(f"{note}\n") == 1 and f"<li>{note}</li>" in html for note in notes)


LOSSES = {
    "one of more than there are": (["100:99"], "--lose 100:99: 99 accelerators would be away from 100 s on"),
    "two that lie over each other": (["100:3:60", "120:2"], "--lose 120:2: 5 accelerators would be away from 120 s on"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_more_cannot_be_lost_than_there_is(name, capsys):
    losses, words = LOSSES[name]
    arguments = [f"--lose={loss}" for loss in losses]
    assert simulate("-f", SMALL, "--trace", REFERENCE, "--budget", "4", *arguments) == 1
    assert f"error: {words}, and there are 4; lose fewer, or at different times\n" in capsys.readouterr().err


def test_all_that_there_is_can_be_lost_one_after_the_other(capsys):
    arguments = ["--lose", "100:4:20", "--lose", "120:4:20"]
    assert simulate("-f", SMALL, "--trace", REFERENCE, "--budget", "4", *arguments) == 0
    assert "error" not in capsys.readouterr().err


def test_each_fault_of_a_manifest_is_an_error_of_its_own(tmp_path, capsys):
    model = tmp_path / "model.yaml"
    spec = {"quality": {"florPermille": 960}, "mode": "Activ", "tiers": []}
    model.write_text(yaml.safe_dump({"kind": "AdaptiveModel", "metadata": {"name": "chat"}, "spec": spec}))
    assert simulate("-f", str(model), "--trace", TRACE) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) > 2
    assert all(line.startswith(f"error: {model}: AdaptiveModel chat: ") for line in told)
