"""Manifests of a simulation: what the API server refuses is refused, in its words and with a remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from adaptive_operator.simulate.manifest import ManifestError, parse_model, parse_pool, read_objects, read_yaml
from tests.integration import test_crd_rules as models
from tests.integration import test_pool_rules as pools

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").rglob("*.yaml"))
PARSERS = {"AdaptiveModel": parse_model, "AcceleratorPool": parse_pool}


def document(spec: Any, name: str = "assistant", **more: Any) -> dict[str, Any]:
    return {"apiVersion": "adaptivellm.dev/v1alpha1", "metadata": {"name": name}, "spec": spec, **more}


def refusal_of(spec: Any, parse: Any = parse_model, **more: Any) -> str:
    with pytest.raises(ManifestError) as raised:
        parse(document(spec, **more))
    return str(raised.value)


@pytest.mark.parametrize("case", [*models.RULES, *models.CONSTRAINTS])
def test_what_the_api_server_refuses_of_a_model_is_refused_in_its_words(case):
    spec, words = (models.RULES | models.CONSTRAINTS)[case]
    assert re.search(words, refusal_of(spec))


@pytest.mark.parametrize("case", [*pools.RULES, *pools.CONSTRAINTS])
def test_what_the_api_server_refuses_of_a_pool_is_refused_in_its_words(case):
    spec, words = (pools.RULES | pools.CONSTRAINTS)[case]
    assert re.search(words, refusal_of(spec, parse_pool))


@pytest.mark.parametrize("spec", [pytest.param(models.MINIMAL, id="the least"), *models.ACCEPTED])
def test_what_the_api_server_accepts_is_accepted(spec):
    assert len(parse_model(document(spec)).tiers) == len(spec["tiers"])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_accepted(path):
    found = [item for item in read_yaml(path) if (item or {}).get("kind") in PARSERS]
    assert found or path.name.startswith("profile-")
    for item in found:
        PARSERS[item["kind"]](item)


@pytest.mark.parametrize("case", models.MANGLED)
def test_one_mistake_is_told_once(case):
    assert len(refusal_of(models.MANGLED[case]).splitlines()) == 1


WRONG = {
    "a field with a typing error": (
        models.changed("quality.florPermille", 960),
        'AdaptiveModel assistant: unknown field "spec.quality.florPermille"; did you mean floorPermille?',
    ),
    "a field of another object": (
        models.changed("scaling.minReplicas", 5),
        'unknown field "spec.scaling.minReplicas"; there are dwellSeconds, holdSeconds',
    ),
    "a field of a tier": (
        models.changed("tiers.1.replica.accelerator", 1),
        'unknown field "spec.tiers[1].replica.accelerator"; did you mean accelerators?',
    ),
    "a number as a text": (
        models.changed("quality.floorPermille", "960"),
        'floorPermille: Invalid value: "960": must be of type integer; give a whole number, without quotes',
    ),
    "a truth as a number": (
        models.changed("accelerators.budget", True),
        "Invalid value: true: must be of type integer",
    ),
    "a number as a text to be": (
        models.changed("tiers.0.replica.cpu", 4),
        "spec.tiers[0].replica.cpu: Invalid value: 4: must be of type string; give a text, in quotes",
    ),
    "tiers by name": (
        models.changed("tiers", {"full": {}}),
        'spec.tiers: Invalid value: {"full": {}}: must be of type',
    ),
    "a number where fields are": (
        models.changed("quality", 960),
        "spec.quality: Invalid value: 960: must be of type object; give its fields: floorPermille",
    ),
    "a spec that is a list": ([], "spec: Invalid value: []: must be of type object; give its fields: mode, model"),
    "no spec": (None, "spec: Required value; set it"),
    "a name with a line break": (models.changed("tiers.0.name", "full\n"), "tiers[].name becomes part of the names"),
    "a null tier": (models.changed("tiers.1", None) | {"tiers": [None]}, "spec.tiers[0]: Invalid value: null"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_model_is_refused_with_field_cause_and_remedy_for(case):
    spec, words = WRONG[case]
    assert words in refusal_of(spec)


OBJECTS = {
    "fields beside the spec": ({"quality": {}}, 'unknown field "quality"; there are apiVersion, kind'),
    "another version": (
        {"apiVersion": "v1"},
        "apiVersion: there is no AdaptiveModel in v1; use adaptivellm.dev/v1alpha1",
    ),
    "a name that Services cannot have": ({"name": "7b.chat"}, "metadata.name becomes the name of a Service"),
    "a name that is a number": ({"name": 7}, "metadata.name: Invalid value: 7: must be of type string; give a text"),
    "a name that is too long": ({"name": "a" * 41}, "metadata.name must have at most 40 characters"),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_an_object_is_refused_for(case):
    more, words = OBJECTS[case]
    assert words in refusal_of(models.MINIMAL, **more)


def test_fields_that_are_null_are_as_if_they_were_not_there():
    assert parse_model(document(models.changed("quality", {"floorPermille": None}))).quality.floor_permille == 0


def test_the_status_and_the_metadata_of_a_live_object_are_no_fault():
    metadata = {"name": "assistant", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z"}
    parse_model(document(models.MINIMAL, status={"anything": 1}) | {"metadata": metadata})


def test_many_faults_are_told_with_their_number():
    lines = refusal_of(models.MINIMAL | {f"field{i}": 1 for i in range(7)}).splitlines()
    assert len(lines) == 6
    assert lines[-1] == "AdaptiveModel assistant: and 2 more"


def test_a_key_that_stands_twice_is_refused_as_kubectl_does(tmp_path):
    (tmp_path / "model.yaml").write_text("spec:\n  budget: 1\n  budget: 2\n")
    with pytest.raises(ManifestError, match=r'line 3: "budget" is there twice; remove one'):
        read_yaml(tmp_path / "model.yaml")


UNREADABLE = {
    "no text": (b"\xff\xfe\x00", "not a text"),
    "an open list": (b"a: [", r"not YAML: .* in line 1, column 5: a: \["),
    "a day that there is not": (b"a: 1\nb: 2026-13-45\n", r'line 2: "2026-13-45" cannot be read: month must be in 1'),
    "thousands of digits": (b"a: " + b"9" * 5000, r'^line 1: "9{60}…" cannot be read: .* 5000 digits; correct it, or '),
    "a tag that does not fit": (b"a: !!timestamp soon", r'line 1: "soon" cannot be read; correct it'),
}


@pytest.mark.parametrize(("content", "words"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_file_that_is_no_yaml_is_refused(content, words, tmp_path):
    (tmp_path / "model.yaml").write_bytes(content)
    with pytest.raises(ManifestError, match=words):
        read_yaml(tmp_path / "model.yaml")


def test_the_objects_of_a_list_are_read_as_kubectl_get_writes_them(tmp_path):
    item = {"kind": "AdaptiveModel"}
    listed = {"apiVersion": "v1", "kind": "List", "items": [item, item], "metadata": {"resourceVersion": ""}}
    (tmp_path / "models.yaml").write_text(yaml.safe_dump_all([listed, {"kind": "ConfigMap"}, {"kind": "List"}]))
    assert read_objects(tmp_path / "models.yaml") == [item, item, {"kind": "ConfigMap"}]


def test_a_file_as_windows_writes_it_is_read(tmp_path):
    (tmp_path / "model.yaml").write_bytes(b"\xef\xbb\xbfkind: AdaptiveModel\r\n")
    assert read_yaml(tmp_path / "model.yaml") == [{"kind": "AdaptiveModel"}]


@pytest.mark.parametrize(
    "content",
    ["[" * 3000 + "]" * 3000, "[" * 150 + "]" * 150, "spec: &a {tiers: [*a]}", "? &a [*a]\n: 1\n"],
    ids=["very deep", "deep", "inside of itself", "a key inside of itself"],
)
def test_what_is_nested_without_end_is_refused(content, tmp_path):
    (tmp_path / "model.yaml").write_text(content)
    with pytest.raises(ManifestError, match=r"nested too deeply, .*; write it out|not YAML"):
        read_yaml(tmp_path / "model.yaml")


def test_an_alias_that_stands_beside_what_it_names_is_read(tmp_path):
    lines = ["a0: &a0 [1]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
    (tmp_path / "model.yaml").write_text("\n".join(lines))  # 2^59 values, if each were walked by itself
    assert read_yaml(tmp_path / "model.yaml")[0]["a1"] == [[1], [1]]
