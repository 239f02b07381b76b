"""`kubectl adaptive simulate` from arguments to files, without a cluster."""

from __future__ import annotations

import argparse
import errno
import hashlib
import io
import json
import os
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from adaptive_operator.cli import simulate as cli_simulate
from adaptive_operator.cli import simulated_loads
from adaptive_operator.cli.__main__ import main
from adaptive_operator.cli.option_values import failing_loads, format_failing_loads, format_node_loss, node_loss
from adaptive_operator.cli.simulate import add_command
from adaptive_operator.cli.simulated_inputs import describe_inputs
from adaptive_operator.simulate.curve import Lengths, saturation
from adaptive_operator.simulate.policies.registry import GRIDS
from adaptive_operator.simulate.report.table import COLUMNS, REPEATED_COLUMNS
from adaptive_operator.simulate.report.words import MEANINGS
from adaptive_operator.simulate.scenario import load_scenario

EXAMPLES = Path(__file__).parents[3] / "examples" / "simulate"
MODEL = str(EXAMPLES / "uniform.yaml")
PROFILE = str(EXAMPLES / "profile-uniform.yaml")
TRACE = "steady:rate=4,seconds=120"


def simulate(*arguments: str) -> int:
    return main(["simulate", *arguments])


def table_of(out: str) -> list[str]:
    """The lines below what was simulated."""
    return out.split("\n\n", 1)[1].splitlines()


@pytest.mark.slow
def test_a_comparison_is_printed_as_a_table_and_written_as_json_svg_png_and_html(tmp_path, capsys):
    policies = "ours,hpa:0.7,static:full=2+int4=1"
    code = simulate("-f", MODEL, "--profile", PROFILE, "--trace", TRACE, "--policy", policies, "-o", str(tmp_path))
    assert code == 0
    lines = table_of(capsys.readouterr().out)
    assert [line.split()[0] for line in lines] == ["policy", "ours", "hpa:0.7", "static:full=2+int4=1"]
    document = json.loads((tmp_path / "result.json").read_text())
    assert [p["policy"] for p in document["policies"]] == policies.split(",")
    assert all(p["most_held"] <= document["budget"] == 8 for p in document["policies"])
    html = (tmp_path / "report.html").read_text()
    assert html.count("<svg") == 2 + 3
    assert not re.search(r"<script|src=|<link|@import", html)  # nothing is fetched
    plots = ["load-and-quality", "quality-against-violations"]
    plots += ["replicas-hpa-0-7", "replicas-ours", "replicas-static-full-2-int4-1"]
    assert sorted(path.stem for path in tmp_path.glob("*.svg")) == plots
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == plots
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))


def test_a_report_says_what_was_simulated(tmp_path, capsys):
    trace = tmp_path / "two.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,10,10\n9,10,10\n90,10,10\n")
    arguments = ["-f", MODEL, "--profile", PROFILE, "--trace", str(trace), "--policy", "full", "--scale", "2"]
    arguments += ["--lose", "60:1:30", "--fail-loads", "int8:hangs", "--longest-gap", "700", "--scrape", "5"]
    assert simulate(*arguments, "-o", str(tmp_path / "out")) == 0
    document = json.loads((tmp_path / "out" / "result.json").read_text())
    simulated, digest = document["simulated"], hashlib.sha256(trace.read_bytes()).hexdigest()
    assert simulated["version"] == version("adaptive-llm")
    assert simulated["trace"] == {"file": "two.csv", "sha256": digest}
    assert simulated["model"] == {
        "file": "uniform.yaml",
        "sha256": hashlib.sha256(Path(MODEL).read_bytes()).hexdigest(),
    }
    assert simulated["profile"]["file"] == "profile-uniform.yaml"
    given = {"scale": 2.0, "lose": ["60:1:30"], "fail-loads": ["int8:hangs:1:0"], "longest-gap": 700.0, "scrape": 5.0}
    assert simulated["options"] | given == simulated["options"]
    assert simulated["options"]["seed"] == simulated["options"]["seeds"] == 1
    head = capsys.readouterr().out.split("\n\n")[0]
    html = (tmp_path / "out" / "report.html").read_text()
    for text in (f"two.csv (sha256 {digest[:12]})", "lose 60:1:30", "longest-gap 700", "scale 2", "uniform.yaml"):
        assert text in head
        assert text in html
    assert "minutes" not in head  # as it is by itself
    assert str(tmp_path) not in head + html + json.dumps(document)


def test_every_column_of_the_report_is_explained_in_it(tmp_path, capsys):
    arguments = ["--budget", "1", "--trace", "steady:rate=1,seconds=60", "--policy", "full"]
    assert simulate("-f", MODEL, *arguments, "-o", str(tmp_path)) == 0
    capsys.readouterr()
    html = (tmp_path / "report.html").read_text()
    assert [column for column in COLUMNS if html.count(f"<li><b>{column}</b>: ") != 1] == []
    assert set(REPEATED_COLUMNS) <= set(COLUMNS) == set(MEANINGS)


def test_a_report_names_the_generator_and_that_there_is_no_profile(tmp_path, capsys):
    assert simulate("-f", MODEL, "--trace", TRACE, "--policy", "full", "-o", str(tmp_path)) == 0
    simulated = json.loads((tmp_path / "result.json").read_text())["simulated"]
    assert (simulated["trace"], simulated["profile"]) == ({"generator": TRACE}, None)
    assert f"trace    generator {TRACE}" in capsys.readouterr().out


def test_every_option_is_told_but_where_the_files_are():
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    options = parser.parse_args(["simulate", "-f", MODEL, "--trace", TRACE])
    told = describe_inputs(options, generated=True).options
    dests = {dest.replace("_", "-") for dest in vars(options)}
    assert dests - set(told) == {"filename", "profile", "trace", "output", "run", "default-of"}


@pytest.mark.parametrize("text", ["600:2:300", "0.5:1"])
def test_a_loss_is_told_as_it_is_typed(text):
    assert format_node_loss(node_loss(text)) == text


@pytest.mark.parametrize("text", ["int8:crashes:0.5:600:60", "full:hangs:1:0"])
def test_failing_loads_are_told_as_they_are_typed(text):
    assert format_failing_loads(failing_loads(text)) == text


class ClosedPipe(io.StringIO):
    """As stdout is when `head` has read enough."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize(("more", "file"), [([], "report.html"), (["--capacity"], "capacity.json")])
def test_what_stdout_does_not_take_is_written_all_the_same(more, file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    arguments = ["--budget", "1", "--trace", "steady:rate=4,seconds=60", "--policy", "full", *more]
    assert simulate("-f", MODEL, *arguments, "-o", str(tmp_path)) == 1
    assert "Broken pipe" in capsys.readouterr().err
    assert (tmp_path / file).stat().st_size > 0


def test_a_folder_that_cannot_be_made_is_refused_before_the_first_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cli_simulate, "_report_comparison", lambda *_: pytest.fail("ran"))
    out = tmp_path / "file" / "out"
    assert simulate("-f", MODEL, "--trace", TRACE, "-o", str(out)) == 1
    assert f"error: -o {out}: Not a directory; give a folder that can be written" in capsys.readouterr().err


def test_an_empty_folder_name_is_refused_with_the_usage(capsys):
    with pytest.raises(SystemExit):
        simulate("-f", MODEL, "--trace", TRACE, "-o", "")
    assert "no folder is named; e.g. out" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_arguments_write_the_same_json(tmp_path, capsys):
    def figures(name):
        simulate("-f", MODEL, "--trace", TRACE, "--policy", "ours,kpa", "-o", str(tmp_path / name))
        document = json.loads((tmp_path / name / "result.json").read_text())
        for policy in document["policies"]:
            del policy["plan_p50"], policy["plan_p95"]
        return document

    assert figures("one") == figures("other")
    capsys.readouterr()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hpa", "proteus"])
def test_parameters_that_were_not_given_are_tuned_and_the_grid_is_told(kind, tmp_path, capsys):
    assert simulate("-f", MODEL, "--trace", TRACE, "--policy", kind, "-o", str(tmp_path)) == 0
    (policy,) = json.loads((tmp_path / "result.json").read_text())["policies"]
    assert set(policy["grid"]) == {f"{value:g}" for value in GRIDS[kind]}
    best = max(policy["grid"].values())
    assert policy["grid"][policy["policy"].removeprefix(f"{kind}:")] == best
    assert "guessed from the cards" in capsys.readouterr().err


@pytest.mark.slow
def test_what_could_not_be_tuned_is_told_in_the_terminal_and_in_both_reports(tmp_path, capsys):
    trace = tmp_path / "one.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,10,10\n")
    assert simulate("-f", MODEL, "--trace", str(trace), "--policy", "hpa,kpa,full", "-o", str(tmp_path)) == 0
    *_, judged_on, short, hpa_told, kpa_told = told = capsys.readouterr().err.splitlines()
    assert "what is held out is what is judged on" in judged_on
    assert "less than 3 starts of a replica" in short
    assert hpa_told.startswith(f"hpa: not tuned: all {len(GRIDS['hpa'])} values gave .")
    assert sum("held out" in line or "held-out part has" in line for line in told) == 2  # once for all policies
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["notes"] == [judged_on, short]
    assert [policy["notes"] for policy in document["policies"]] == [[hpa_told], [kpa_told], []]
    told = [judged_on, short, hpa_told, kpa_told]
    assert all(f"<li>{note}</li>" in (tmp_path / "report.html").read_text() for note in told)


@pytest.mark.slow
def test_several_seeds_give_means_with_intervals_and_paired_differences(tmp_path, capsys):
    arguments = ["--policy", "full,cheapest", "--seeds", "3", "-o", str(tmp_path)]
    assert simulate("-f", MODEL, "--profile", PROFILE, "--trace", TRACE, *arguments) == 0
    assert "Δ system accuracy to full" in capsys.readouterr().out
    repeated = json.loads((tmp_path / "result.json").read_text())["repeated"]
    assert (repeated["seeds"], repeated["reference"]) == ([1, 2, 3], "full")
    full, cheapest = repeated["policies"]
    assert full["differences"]["system_accuracy"] == {"mean": 0.0, "half95": 0.0}
    assert cheapest["means"]["effective_accuracy"]["mean"] == pytest.approx(0.965)
    assert cheapest["means"]["system_accuracy"]["half95"] > 0
    assert "Means over 3 seeds" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_the_models_of_a_manifest_share_the_pool_and_each_has_its_figures(tmp_path, capsys):
    one = yaml.safe_load(Path(MODEL).read_text())
    other = {**one, "metadata": {"name": "second"}}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump_all([one, {"kind": "ConfigMap"}, other]))
    trace = "sinusoid:low=1,high=8,period=300,seconds=300"
    arguments = ["--trace", trace, "--budget", "4", "--policy", "ours,full,proteus:1.05", "-o", str(tmp_path / "out")]
    assert simulate("-f", str(tmp_path / "two.yaml"), "--profile", PROFILE, *arguments) == 0
    rows = [line.split()[0] for line in table_of(capsys.readouterr().out)]
    assert rows == ["policy", *(name for p in ("ours", "full", "proteus:1.05") for name in (p, "uniform", "second"))]
    document = json.loads((tmp_path / "out" / "result.json").read_text())
    assert document["model"] == "uniform, second"
    for policy in document["policies"]:
        assert set(policy["models"]) == {"uniform", "second"}
        assert policy["most_held"] <= 4
        assert policy["requests"] == sum(own["requests"] for own in policy["models"].values())


def test_a_node_can_be_lost(tmp_path, capsys):
    arguments = ["--budget", "2", "--policy", "full", "--lose", "60:1:30", "-o", str(tmp_path)]
    assert simulate("-f", MODEL, "--profile", PROFILE, "--trace", TRACE, *arguments) == 0
    (policy,) = json.loads((tmp_path / "result.json").read_text())["policies"]
    assert policy["starts_per_hour"] == pytest.approx(3 * 3600 / 120, rel=0.05)  # two, and the one lost again
    capsys.readouterr()


def test_loads_can_fail(tmp_path, capsys):
    arguments = ["--budget", "2", "--policy", "static:full=1+int4=1", "-o", str(tmp_path)]
    arguments += ["--fail-loads", "full:hangs", "--fail-loads", "int4:crashes:0.5:500:60"]
    assert simulate("-f", MODEL, "--profile", PROFILE, "--trace", TRACE, *arguments) == 0
    (policy,) = json.loads((tmp_path / "result.json").read_text())["policies"]
    assert policy["effective_accuracy"] == pytest.approx(0.965)  # of int4: nothing was served by full
    capsys.readouterr()


def test_a_trace_from_a_pipe_is_read_once_for_all_models_and_told_as_a_pipe(tmp_path, capsys):
    one = yaml.safe_load(Path(MODEL).read_text())
    (tmp_path / "two.yaml").write_text(yaml.safe_dump_all([one, {**one, "metadata": {"name": "second"}}]))
    reading, writing = os.pipe()
    os.write(writing, b"TIMESTAMP,ContextTokens,GeneratedTokens\n0,10,10\n9,10,10\n90,10,10\n")
    os.close(writing)
    code = simulate("-f", str(tmp_path / "two.yaml"), "--trace", f"/dev/fd/{reading}", "--policy", "full")
    os.close(reading)
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "trace    a pipe\n" in told.out


def test_a_policy_that_is_named_twice_runs_once(capsys):
    assert simulate("-f", MODEL, "--trace", TRACE, "--policy", "full,cheapest, full") == 0
    assert [line.split()[0] for line in table_of(capsys.readouterr().out)] == ["policy", "full", "cheapest"]


def test_failing_loads_of_an_unknown_tier_are_told_before_cards_are_measured(monkeypatch, capsys):
    monkeypatch.setattr(simulated_loads, "measure_cards", lambda *_: pytest.fail("measured"))
    assert simulate("-f", MODEL, "--trace", TRACE, "--measure-cards", "--fail-loads", "int3:hangs") == 1
    assert "no model has a tier int3" in capsys.readouterr().err


def test_a_share_of_nobody_in_the_manifest_is_told(tmp_path, capsys):
    documents = list(yaml.safe_load_all((EXAMPLES.parent / "pool.yaml").read_text()))
    documents[0]["spec"]["shares"][0]["model"] = "chatt"
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump_all(documents))
    arguments = ["--trace", "steady:rate=1,seconds=60", "--policy", "full"]
    assert simulate("-f", str(tmp_path / "pool.yaml"), *arguments) == 0
    assert capsys.readouterr().err.count("chatt is left out: no model is of it here; did you mean") == 1


WRONG = {
    "failing loads of an unknown tier": (
        ["--fail-loads", "int3:hangs"],
        "--fail-loads: no model has a tier int3; there are full",
    ),
    "an unknown policy": (["--policy", "ours,magic"], "no policy 'magic'; there are ours, hpa"),
    "a scale without a request": (
        ["--scale", "1e-9"],
        "--scale 1e-09: no request is left at this scale; take a larger",
    ),
    "no policy": (["--policy", ","], "--policy names no policy"),
    "a part left out twice": (
        ["--policy", "ours:without-damping+without-damping"],
        "without-damping is there twice; name each part once",
    ),
    "an unknown tier": (["--policy", "static:big=2"], "'big=2' is not TIER=REPLICAS"),
    "a mix beyond the budget": (["--policy", "static:full=9"], "needs 9 accelerators, the budget is 8"),
    "a parameter too many": (["--policy", "full:2"], "full has no parameter"),
    "a target that is none": (["--policy", "hpa:2"], "e.g. hpa:0.7"),
    "an unknown generator": (["--trace", "wave:rate=1"], "no generator 'wave'; there are steady, square"),
    "a generator without its rate": (["--trace", "steady:seconds=60"], "steady: rate not given; e.g. steady:rate=2"),
    "a rate that stands twice": (["--trace", "steady:rate=1,rate=2"], "steady: rate is there twice; remove one"),
    "a rate of zero": (["--trace", "steady:rate=0"], "'rate=0' is not PARAMETER=POSITIVE NUMBER"),
    "a generator's parameter that there is not": (
        ["--trace", "steady:rat=1"],
        "steady: no parameter 'rat'; it takes rate, seconds, variation, prompt, output",
    ),
    "a trace that is not there": (
        ["--trace", "nowhere.csv"],
        "--trace nowhere.csv: there is no such file, and no generator 'nowhere.csv'; there are steady, square",
    ),
    "a file with a colon that is not there": (
        ["--trace", "/nosuch:x.csv"],
        "--trace /nosuch:x.csv: there is no such file, and no generator '/nosuch'; there are steady, square",
    ),
    "a generator without parameters": (["--trace", "steady"], "steady: rate not given; e.g. steady:rate=2"),
    "a mix of nothing": (["--policy", "static:full=0"], "static: full=0 has no replica"),
    "a tier named twice": (["--policy", "static:full=1+full=2"], "names full twice"),
    "a setting out of range": (
        ["--policy", "ours:growth_headroom=-3"],
        "growth_headroom=-3 is out of range; it has to be from 1 to 10",
    ),
    "a profile without a tier": (
        ["--profile", "PROFILE"],
        "profile.yaml: the profile has no tier int8; add it under tiers",
    ),
    "a capacity from one moment": (["--trace", "ONE", "--capacity", "--policy", "full"], "come at once"),
    "a floor that no tier reaches": (["-f", "FLOOR"], "quality.floorPermille is above tiers[].card.qualityP"),
    "a manifest without a model": (["-f", "EMPTY"], "there is no AdaptiveModel in it; give a manifest with"),
    "two models of one name": (["-f", "TWINS"], "two models are called uniform"),
    "two tiers of one name": (
        ["-f", "TIERS"],
        'AdaptiveModel uniform: spec.tiers[1]: Duplicate value: {"name":"full"}',
    ),
    "a typing error in the floor": (["-f", "FLOR"], 'unknown field "spec.quality.florPermille"; did you mean floorP'),
    "a warm tier that is none": (
        ["-f", "WARM"],
        "spec: routing.warmTier must be the name of one of spec.tiers; correct",
    ),
    "a manifest that is no text": (["-f", "BINARY"], "binary: not a text; give a YAML file in UTF-8"),
    "a part of ours that is none": (["--policy", "ours:without-luck"], "'without-luck' is no part of ours"),
    "an oracle that is none": (["--policy", "oracle:5"], "there are oracle and oracle:0"),
    "a budget too small for equal parts": (["-f", "PAIR", "--budget", "1", "--policy", "full"], "equal part"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_user_is_told_what_to_correct_in(name, tmp_path, capsys):
    arguments, words = WRONG[name]
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump({"base": BASE, "tiers": {"full": {}}}))
    (tmp_path / "empty.yaml").write_text("kind: ConfigMap\n")
    one = tmp_path / "one.csv"
    one.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,10,10\n")
    high = yaml.safe_load(Path(MODEL).read_text())
    high["spec"]["quality"] = {"floorPermille": 1000}
    high["spec"]["tiers"] = [tier for tier in high["spec"]["tiers"] if tier["card"]["qualityPermille"] < 1000]
    (tmp_path / "floor.yaml").write_text(yaml.safe_dump(high))
    model = yaml.safe_load(Path(MODEL).read_text())
    (tmp_path / "twins.yaml").write_text(yaml.safe_dump_all([model, model]))
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump_all([model, {**model, "metadata": {"name": "other"}}]))
    (tmp_path / "binary").write_bytes(b"\x89PNG\xff")
    tiers, flor, warm = (yaml.safe_load(Path(MODEL).read_text()) for _ in range(3))
    tiers["spec"]["tiers"][1]["name"] = "full"
    flor["spec"]["quality"] = {"florPermille": 960}
    warm["spec"]["routing"] = {"warmTier": "nosuch"}
    wrong = {"TIERS": tiers, "FLOR": flor, "WARM": warm}
    for name_of_file, document in wrong.items():
        (tmp_path / name_of_file).write_text(yaml.safe_dump(document))
    files = {name_of_file: str(tmp_path / name_of_file) for name_of_file in wrong}
    files |= {
        "BINARY": str(tmp_path / "binary"),
        "TWINS": str(tmp_path / "twins.yaml"),
        "PAIR": str(tmp_path / "pair.yaml"),
    }
    files |= {"ONE": str(one), "FLOOR": str(tmp_path / "floor.yaml")}
    files |= {"PROFILE": str(tmp_path / "profile.yaml"), "EMPTY": str(tmp_path / "empty.yaml")}
    given = [files.get(argument, argument) for argument in arguments]
    assert simulate("-f", MODEL, "--trace", TRACE, *given) == 1
    assert words in capsys.readouterr().err


BASE = {
    "prefillMilliseconds": 10,
    "prefillMillisecondsPerToken": 0.05,
    "stepMilliseconds": 7,
    "stepMillisecondsPerSequence": 0.03,
    "kvTokens": 1000,
}
NO_STEP = {key: value for key, value in BASE.items() if "step" not in key}
PROFILES = {
    "both forms of a step": ({"base": {**BASE, "stepPoints": [[1, 7]]}}, "not both"),
    "no form of a step": ({"base": NO_STEP}, "give stepMilliseconds"),
    "a typing error": ({"base": BASE, "tier": {}}, 'unknown field "tier"; did you mean tiers?'),
    "no curve": ({"tiers": {"full": {}}}, "tiers.full has no curve and there is no base"),
    "points out of order": (
        {"tiers": {"full": {"curve": {**NO_STEP, "stepPoints": [[8, 7], [1, 7]]}}}},
        "tiers.full.curve: stepPoints have to name numbers of sequences from 1 on, each once, in rising order; correct",
    ),
    "points that fall": (
        {"base": {**NO_STEP, "stepPoints": [[1, 9], [8, 7]]}, "tiers": {"full": {}}},
        "stepPoints fall",
    ),
    "a step too small for its sequences": (
        {"base": {**BASE, "maxTokensPerStep": 8, "maxSequences": 16}, "tiers": {"full": {}}},
        "maxTokensPerStep is below maxSequences",
    ),
    "a time beside prompts that no step reads": (
        {"base": {**BASE, "besidePromptMillisecondsPerSequence": 1.5}, "tiers": {"full": {}}},
        "give maxTokensPerStep too, or leave it out",
    ),
    "a tier of no model": (
        {"base": BASE, "tiers": {"full": {}, "ful": {}}},
        "profile.yaml: tiers.ful: no model has such a tier; did you mean full?",
    ),
    "a level of a plain tier": (
        {"base": BASE, "tiers": {"full": {"levels": {"int4": {}}}}},
        "tiers.full.levels.int4: no level below the top of the tier; leave levels out",
    ),
    "memory that holds no request": (
        {"base": {**BASE, "kvTokens": 10}, "tiers": {name: {} for name in ("full", "int8", "int4", "distilled")}},
        "profile.yaml: tiers.full: kvTokens is 10, less than the 1366 tokens of a reference request; raise it",
    ),
    "a truth as a number": (
        {"base": {**BASE, "kvTokens": True}},
        "base.kvTokens: Invalid value: true: must be of type integer; give a whole number",
    ),
    "a truth among points": (
        {"base": {**NO_STEP, "stepPoints": [[1, True]]}},
        "base.stepPoints[0][1]: Invalid value: true",
    ),
    "a list": ([1], "the document: Invalid value: [1]: must be of type object; give its fields: base, tiers"),
    "a tier without anything": (
        {"base": BASE, "tiers": {"full": None}},
        "tiers.full: Invalid value: null: must be of type object; give its fields: prefillSpeed",
    ),
    "an endless time": ({"base": {**BASE, "prefillMilliseconds": float("inf")}}, "it should be a finite number"),
    "a step without time": ({"base": {**BASE, "stepMilliseconds": 0}}, "has to be greater than 0"),
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_refused_with(name, tmp_path, capsys):
    document, words = PROFILES[name]
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(document))
    assert simulate("-f", MODEL, "--trace", TRACE, "--profile", str(path)) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("table", ["uniform", "decode-only"])
def test_the_examples_can_be_simulated_and_declare_no_more_than_their_curves_carry(table):
    scenario = load_scenario(EXAMPLES / f"{table}.yaml", EXAMPLES / f"profile-{table}.yaml")
    for tier in scenario.tiers:
        assert 0.5 < tier.rate / saturation(tier.curve, Lengths(1155, 211)) < 1.0


@pytest.mark.slow
def test_measured_cards_are_told(capsys):
    assert simulate("-f", MODEL, "--profile", PROFILE, "--trace", TRACE, "--policy", "full", "--measure-cards") == 0
    told = re.findall(r"card of (\w+): capacityMilliRequestsPerSecond: (\d+)", capsys.readouterr().err)
    assert [tier for tier, _ in told] == ["full", "int8", "int4", "distilled"]
    assert [int(rate) for _, rate in told] == sorted(int(rate) for _, rate in told)


@pytest.mark.slow
def test_cards_measured_on_what_is_judged_are_told(tmp_path, capsys):
    (tmp_path / "one.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,10,10\n")
    arguments = ["--trace", str(tmp_path / "one.csv"), "--policy", "full", "--measure-cards"]
    assert simulate("-f", MODEL, "--profile", PROFILE, *arguments) == 0
    assert "--measure-cards: the trace is too short to be cut" in capsys.readouterr().err


def test_minutes_cut_the_trace(tmp_path, capsys):
    arguments = ["-f", MODEL, "--trace", "steady:rate=5,seconds=600", "--minutes", "1", "--policy", "full"]
    assert simulate(*arguments, "-o", str(tmp_path)) == 0
    capsys.readouterr()
    assert json.loads((tmp_path / "result.json").read_text())["load"]["seconds"] < 60


@pytest.mark.parametrize(
    "arguments",
    [["--budget", "0"], ["--budget", "x"], ["--scale", "-1"], ["--scale", "nan"], ["--scale", "x"], ["--seeds", "0"]],
)
def test_numbers_that_make_no_sense_are_refused_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        simulate("-f", MODEL, "--trace", TRACE, *arguments)
    assert raised.value.code == 2
    assert f"{arguments[1]} is not a positive" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "most"), [(["--budget", "100001"], 100_000), (["--seeds", "1000000000"], 1000)])
def test_numbers_that_no_machine_gets_through_are_refused_with_the_most(arguments, most, capsys):
    with pytest.raises(SystemExit):
        simulate("-f", MODEL, "--trace", TRACE, *arguments)
    assert f"{arguments[1]} is more than {most}, which is the most; take fewer" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["1000", "0", "0.01", "x", "nan"])
def test_a_scrape_interval_that_the_operator_would_refuse_is_refused(seconds, capsys):
    with pytest.raises(SystemExit):
        simulate("-f", MODEL, "--trace", TRACE, "--scrape", seconds)
    assert f"{seconds} is not a number of seconds from 1 to 300" in capsys.readouterr().err


def test_a_seed_that_is_no_number_is_told_in_own_words(capsys):
    with pytest.raises(SystemExit):
        simulate("-f", MODEL, "--trace", TRACE, "--seed", "x")
    assert "x is not a whole number" in capsys.readouterr().err


@pytest.mark.slow
def test_capacities_are_printed_with_their_ratios_and_written_with_every_scale_tried(tmp_path, capsys):
    arguments = ["--budget", "1", "--trace", "steady:rate=4,seconds=480", "--policy", "full", "--capacity"]
    assert simulate("-f", MODEL, "--profile", PROFILE, *arguments, "-o", str(tmp_path)) == 0
    header, row = table_of(capsys.readouterr().out)
    assert header.split() == ["policy", "scale", "requests/s", "to", "full"]
    assert (row.split()[0], row.split()[-1]) == ("full", "1.00")
    (policy,) = json.loads((tmp_path / "capacity.json").read_text())["policies"]
    assert len(policy["tried"]) >= 3


@pytest.mark.slow
def test_capacities_of_several_seeds_have_intervals_and_say_that_curves_were_guessed(tmp_path, capsys):
    arguments = ["--budget", "1", "--trace", "steady:rate=4,seconds=480", "--policy", "full", "--capacity"]
    assert simulate("-f", MODEL, *arguments, "--seeds", "2", "-o", str(tmp_path)) == 0
    told = capsys.readouterr()
    header, full, *_ = table_of(told.out)
    assert header.split() == ["policy", "scale", "requests/s", "to", "full"]
    assert re.fullmatch(r"full +[\d.]+ ± [\d.]+ +[\d.]+ ± [\d.]+ +1.00 ± 0.00", full)
    assert "The first seed:" in told.out
    assert "guessed from the cards" in told.err
    document = json.loads((tmp_path / "capacity.json").read_text())
    assert document["repeated"]["seeds"] == [1, 2]
    (policy,) = document["repeated"]["policies"]
    assert len(policy["scales"]) == 2
    assert min(policy["scales"]) > 0
    assert policy["scale"]["mean"] == pytest.approx(sum(policy["scales"]) / 2)
    assert policy["ratios"]["full"] == {"mean": 1.0, "half95": 0.0}
    assert document["simulated"]["options"]["seeds"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["capacity.json"]


@pytest.mark.slow
def test_a_model_that_only_thinks_in_its_cluster_acts_in_a_simulation(tmp_path, capsys):
    dry = yaml.safe_load(Path(MODEL).read_text())
    dry["spec"]["mode"] = "DryRun"
    (tmp_path / "dry.yaml").write_text(yaml.safe_dump(dry))
    out = []
    for model in (MODEL, str(tmp_path / "dry.yaml")):
        simulate("-f", model, "--trace", TRACE, "--policy", "ours", "-o", str(tmp_path))
        [policy] = json.loads((tmp_path / "result.json").read_text())["policies"]
        out.append((policy["violations"], policy["most_held"]))
    assert out[0] == out[1]
    assert out[0][1] > 0
    capsys.readouterr()


def test_a_trace_of_one_request_can_be_reported(tmp_path, capsys):
    (tmp_path / "one.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,10,10\n")
    code = simulate("-f", MODEL, "--trace", str(tmp_path / "one.csv"), "--policy", "hpa,full", "-o", str(tmp_path))
    told = capsys.readouterr().err
    assert code == 0, told
    assert json.loads((tmp_path / "result.json").read_text())["policies"]
    assert "uniform: no replica is ready before 65 s, and the requests that are judged all come within 0 s" in told


@pytest.mark.parametrize("seeds", ["1", "2"])
def test_starts_of_a_run_of_seconds_are_not_told_by_the_hour(seeds, tmp_path, capsys):
    (tmp_path / "one.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,10,10\n2,10,10\n3,10,10\n")
    arguments = ["--trace", str(tmp_path / "one.csv"), "--policy", "full", "--seeds", seeds, "-o", str(tmp_path)]
    assert simulate("-f", MODEL, *arguments) == 0
    told = [re.split(r" {2,}", line) for line in table_of(capsys.readouterr().out)]
    rows = [dict(zip(told[0], row, strict=True)) for row in told[1:2]]
    assert [row["starts/h"] for row in rows] == ["–"]
    assert [row["flaps"] for row in rows] != ["–"]
    [policy] = json.loads((tmp_path / "result.json").read_text())["policies"]
    assert policy["starts_per_hour"] > 1000


@pytest.mark.parametrize("loss", ["600", "600:0", "-1:2", "600:1.5", "600:1:0", "a:b", "600:inf", "nan:1", "600:1:nan"])
def test_a_loss_that_makes_no_sense_is_refused_with_the_usage(loss, capsys):
    with pytest.raises(SystemExit):
        simulate("-f", MODEL, "--trace", TRACE, f"--lose={loss}")
    assert "AT:ACCELERATORS[:SECONDS]" in capsys.readouterr().err


@pytest.mark.parametrize("failing", ["int8", "int8:burns", "int8:hangs:0", "int8:hangs:1:-1", "int8:hangs:1:0:9:9"])
def test_failing_loads_that_make_no_sense_are_refused_with_the_usage(failing, capsys):
    with pytest.raises(SystemExit):
        simulate("-f", MODEL, "--trace", TRACE, f"--fail-loads={failing}")
    assert "TIER:HOW[:PART[:AT[:SECONDS]]]" in capsys.readouterr().err
