"""Manifests: golden files, Pod Security, and what counts as a difference from what exists."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.alias_generators import to_camel

from adaptive_operator import names
from adaptive_operator.api.tiers import Replica
from adaptive_operator.decide.revisions import inputs_of, tier_inputs
from adaptive_operator.observe.observation import PodPhase, PolicyMemory
from adaptive_operator.plan import PlanSettings, plan_model
from adaptive_operator.plan.engine import build_stateful_set, keep_stateful_set
from adaptive_operator.plan.metadata import is_current, stamp_manifest
from adaptive_operator.plan.plan import ApplyObject
from adaptive_operator.plan.revisions import current_revision
from tests.operator.plan.situations import (
    FAILED,
    NOW,
    PENDING,
    READY,
    SETTINGS,
    STARTING,
    demo_tiers,
    make_decision,
    make_model,
    make_spec,
    with_set,
)

CURVE = {"stepMicroseconds": 7000, "decodeMicrosecondsPerSequence": 30, "prefillMicrosecondsPerToken": 50}
GOLDEN = Path(__file__).parent / "golden"


def golden_manifests() -> dict[str, Any]:
    """All objects of a new model with two routers, by kind and name."""
    model = make_model(make_spec(demo_tiers()[::2], routing={"routerReplicas": 2}))
    decision = make_decision({"full": 1, "int4": 1}, {"full": 0.7, "int4": 0.3})
    steps = plan_model(model, decision, SETTINGS, NOW, epoch=5).steps
    manifests = [step.manifest for step in steps if isinstance(step, ApplyObject)]
    return {f"{item['kind'].lower()}-{item['metadata']['name']}": item for item in manifests}


def stateful_set(settings: PlanSettings = SETTINGS, **spec: Any) -> Any:
    steps = plan_model(make_model(make_spec(**spec)), make_decision({"full": 1}), settings, NOW, 1).steps
    return next(
        step.manifest for step in steps if isinstance(step, ApplyObject) and step.manifest["kind"] == "StatefulSet"
    )


def pod_specs() -> list[Any]:
    return [
        item["spec"]["template"]["spec"] for item in golden_manifests().values() if "template" in item.get("spec", {})
    ]


def test_the_golden_files_are_the_objects_of_a_model_and_no_others() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(golden_manifests())


@pytest.mark.parametrize("name", sorted(golden_manifests()))
def test_a_manifest_is_as_in_its_golden_file(name: str) -> None:
    assert json.loads(json.dumps(golden_manifests()[name])) == yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())


@pytest.mark.parametrize("index", [0, 1, 2])
def test_pods_pass_pod_security_restricted_on_a_read_only_root(index: int) -> None:
    pod = pod_specs()[index]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {key for volume in pod["volumes"] for key in volume} <= {"name", "emptyDir", "configMap"}
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_a_replica_that_loads_for_long_is_not_killed_for_it() -> None:
    container = stateful_set()["spec"]["template"]["spec"]["containers"][0]
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 1200
    assert container["livenessProbe"]["httpGet"]["path"] == "/ping"


def test_a_pod_gets_longer_to_end_than_its_engine_to_drain() -> None:
    pod = stateful_set(scaling={"drainDeadlineSeconds": 40})["spec"]["template"]["spec"]
    arguments = pod["containers"][0]["args"]
    assert pod["terminationGracePeriodSeconds"] > int(arguments[arguments.index("--drain-seconds") + 1]) == 40


def test_keys_and_values_in_int8_reach_the_engine() -> None:
    tier = demo_tiers()[0]
    tier["replica"]["kvPrecision"] = "int8"
    args = stateful_set(tiers=[tier])["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[args.index("--kv-precision") + 1] == "int8"


def test_no_seed_gives_no_argument() -> None:
    container = stateful_set(model={"source": "file:///models/a.gguf"})["spec"]["template"]["spec"]["containers"][0]
    assert "--permutation-seed" not in container["args"]


def test_the_administrators_choices_reach_the_pods() -> None:
    chosen = replace(
        SETTINGS,
        node_selector={"gpu": "a100"},
        priority_class="high",
        image_pull_secrets=("pull",),
        accelerator_toleration=False,
    )
    pod = stateful_set(chosen)["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"gpu": "a100"}
    assert pod["priorityClassName"] == "high"
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert "tolerations" not in pod


# Of the tiers full, int8 and int4 of make_spec(), as the first released operator made them.
PINNED = ["c93561440b9aa459", "3d82112247b3b2e5", "477171a8e5db7fb7"]
PINNED_NESTED = "6e56390ad9741da4"
PINNED_EMULATED = "fc7ea98d5decdf38"


def make_nested(**recipe: Any) -> dict[str, Any]:
    return {**demo_tiers()[0], "recipe": {"nested": {"levels": ["int8", "int4"], **recipe}}}


def test_another_digest_makes_a_new_revision_of_every_tier() -> None:
    source = make_spec().model.model_dump(by_alias=True, exclude_none=True)
    specs = [make_spec(model=source | {"sha256": digit * 64}) for digit in "ab"]
    inputs = [tier_inputs(spec, tier) for spec in (make_spec(), *specs) for tier in spec.tiers]
    assert len(set(inputs)) == 9


def test_another_skip_order_makes_a_new_revision() -> None:
    orders = [{}, {"skipOrder": [17, 14]}, {"skipOrder": [14, 17]}]
    specs = [make_spec([make_nested(depths=[30, 28], **order)]) for order in orders]
    assert len({tier_inputs(spec, spec.tiers[0]) for spec in specs}) == 3


def test_another_draft_makes_a_new_revision() -> None:
    drafts: list[dict[str, Any]] = [{}, {"draft": {"level": "int4"}}, {"draft": {"level": "int4", "tokens": 2}}]
    specs = [make_spec([make_nested(**draft)]) for draft in drafts]
    assert len({tier_inputs(spec, spec.tiers[0]) for spec in specs}) == 3


@pytest.mark.parametrize(
    ("draft", "told"),
    [
        pytest.param({"level": "int4"}, ["--draft-level", "int4"], id="the number is the engine's own"),
        pytest.param(
            {"level": "int4", "tokens": 2}, ["--draft-level", "int4", "--draft-tokens", "2"], id="a number is chosen"
        ),
    ],
)
def test_a_native_engine_is_told_what_drafts_and_an_emulated_one_is_not(draft: dict[str, Any], told: list[str]) -> None:
    native = make_nested(draft=draft)
    for tier, expected in ((native, told), ({**native, "engine": "emulated", "curve": CURVE}, [])):
        args = stateful_set(tiers=[tier])["spec"]["template"]["spec"]["containers"][0]["args"]
        at = args.index("--draft-level") if expected else 0
        assert args[at : at + len(expected)] == expected
        assert sum(part.startswith("--draft") for part in args) == len(expected) // 2


def test_the_revisions_of_tiers_that_exist_are_never_renamed_by_an_upgrade() -> None:
    """A hash over fields that the user did not set would restart every pod when a version adds a field."""
    spec = make_spec()
    assert [tier_inputs(spec, tier) for tier in spec.tiers] == PINNED
    nested = make_spec([make_nested(depths=[30, 28])])
    assert tier_inputs(nested, nested.tiers[0]) == PINNED_NESTED
    emulated = make_spec([{**demo_tiers()[0], **EMULATED}])
    assert tier_inputs(emulated, emulated.tiers[0]) == PINNED_EMULATED


EMULATED = {"engine": "emulated", "curve": CURVE}
NESTED = {"nested": {"levels": ["int8", "int4"]}}
DRAFT = {"nested": {**NESTED["nested"], "draft": {"level": "int4"}}}
# What is edited, how, and whether a native engine and an emulated one get another pod for it.
EDITS: list[tuple[str, Any, bool, bool]] = [
    ("precision", lambda tier: tier["recipe"].update(precision="int8"), True, True),
    ("memory", lambda tier: tier["replica"].update(memory="2Gi"), True, True),
    ("cpu", lambda tier: tier["replica"].update(cpu="4"), True, True),
    ("accelerators", lambda tier: tier["replica"].update(accelerators=3), True, True),
    ("tensor-parallel", lambda tier: tier["replica"].update(tensorParallel=2), True, False),
    ("kv-precision", lambda tier: tier["replica"].update(kvPrecision="int8"), True, False),
    ("context", lambda tier: tier["replica"].update(contextTokens=1024), True, False),
    ("kv-cache", lambda tier: tier["replica"].update(kvCacheTokens=8192), True, False),
    ("step", lambda tier: tier["replica"].update(maxTokensPerStep=512), True, False),
    ("group size", lambda tier: tier["recipe"].update(groupSize=32), True, False),
    ("nested", lambda tier: tier.update(recipe=NESTED), True, True),
    ("bounds", lambda tier: tier.update(replicas={"min": 1, "max": 2}), False, False),
    ("card", lambda tier: tier["card"].update(qualityPermille=990), False, False),
    ("nothing", lambda tier: None, False, False),
]


def test_the_edits_that_are_tried_are_all_that_a_replica_has() -> None:
    tier = demo_tiers()[0]
    for _, edit, _, _ in EDITS:
        edit(tier)
    assert set(tier["replica"]) == {to_camel(name) for name in Replica.model_fields}


def pod_and_inputs(tier: dict[str, Any]) -> tuple[Any, str]:
    """The pod that a tier gets but for its revision's label, and the inputs that tell the revision."""
    template = stateful_set(tiers=[tier])["spec"]["template"]
    del template["metadata"]["labels"][names.LABEL_REVISION]
    spec = make_spec([tier])
    return template, tier_inputs(spec, spec.tiers[0])


@pytest.mark.parametrize("emulated", [False, True], ids=["native", "emulated"])
@pytest.mark.parametrize(
    ("edit", "native_changes", "emulated_changes"),
    [pytest.param(edit, native, emulated, id=name) for name, edit, native, emulated in EDITS],
)
def test_exactly_what_changes_a_pod_makes_a_new_revision(
    edit: Any, native_changes: bool, emulated_changes: bool, emulated: bool
) -> None:
    before: dict[str, Any] = {**demo_tiers()[0], **(EMULATED if emulated else {})}
    after = copy.deepcopy(before)
    edit(after)
    (old_pod, old_inputs), (new_pod, new_inputs) = pod_and_inputs(before), pod_and_inputs(after)
    assert [old_pod != new_pod, old_inputs != new_inputs] == [emulated_changes if emulated else native_changes] * 2


@pytest.mark.parametrize("emulated", [False, True], ids=["native", "emulated"])
def test_a_draft_makes_a_new_revision_where_the_engine_drafts(emulated: bool) -> None:
    plain: dict[str, Any] = {**demo_tiers()[0], "recipe": NESTED, **(EMULATED if emulated else {})}
    (old_pod, old_inputs), (new_pod, new_inputs) = pod_and_inputs(plain), pod_and_inputs({**plain, "recipe": DRAFT})
    assert [old_pod != new_pod, old_inputs != new_inputs] == [not emulated] * 2


@pytest.mark.parametrize(
    ("edit", "changes"), [({"engine": "native"}, False), (EMULATED, True)], ids=["the default by name", "emulated"]
)
def test_another_engine_makes_a_new_revision(edit: dict[str, Any], changes: bool) -> None:
    (old_pod, old_inputs), (new_pod, new_inputs) = (pod_and_inputs(demo_tiers()[0] | more) for more in ({}, edit))
    assert [old_pod != new_pod, old_inputs != new_inputs] == [changes] * 2


def test_a_pools_node_selector_is_part_of_the_revision_and_its_name_is_not() -> None:
    plain, spec = make_model(), make_spec()
    same = make_model(pool="gpu")
    there = make_model(pool="gpu", node_selector={"gpu": "a100"})
    inputs = [inputs_of(model, spec.tiers[0]) for model in (plain, same, there)]
    assert inputs[0] == inputs[1] == PINNED[0]
    assert inputs[2] != PINNED[0]


def test_engine_pods_ask_for_the_pools_nodes_and_say_which_pool_they_hold_from() -> None:
    model = make_model(pool="gpu", node_selector={"gpu": "a100"})
    settings = replace(SETTINGS, node_selector={"gpu": "any", "zone": "x"})
    revision = current_revision(model, model.spec.tiers[0], SETTINGS.engine_image)
    item = build_stateful_set(model, model.spec.tiers[0], revision, 1, {}, settings)
    template = item["spec"]["template"]
    assert template["spec"]["nodeSelector"] == {"gpu": "a100", "zone": "x"}
    for labels in (item["metadata"]["labels"], template["metadata"]["labels"]):
        assert labels["adaptivellm.dev/pool"] == "gpu"
    assert "adaptivellm.dev/pool" not in item["spec"]["selector"]["matchLabels"], "a selector can never change"


@pytest.mark.parametrize(
    ("revision", "pool"),
    [(None, "new"), ("oldold00", "old")],
    ids=["the present revision counts in the new pool", "an earlier one where it was made"],
)
def test_a_kept_template_counts_in_the_pool_that_its_pods_are_in(revision: str | None, pool: str) -> None:
    model = with_set(make_model(pool="new"), "full", [READY], revision=revision)
    observed = model.stateful_sets[0]
    labels = {"metadata": {"labels": {"adaptivellm.dev/pool": "old"}}}
    observed = replace(observed, manifest={**observed.manifest, **labels})
    assert keep_stateful_set(model, observed, 1, {}, ())["metadata"]["labels"]["adaptivellm.dev/pool"] == pool


@pytest.mark.parametrize("field", ["stepMicroseconds", "maxSequences", "loadSeconds"])
def test_another_curve_makes_a_new_revision_and_the_same_one_none(field: str) -> None:
    def inputs(curve: dict[str, int]) -> str:
        spec = make_spec([{**demo_tiers()[0], "engine": "emulated", "curve": curve}])
        return tier_inputs(spec, spec.tiers[0])

    assert inputs(CURVE) == inputs(dict(CURVE))
    assert inputs(CURVE) != inputs(CURVE | {field: 9})


def emulated_engine(curve: dict[str, Any]) -> Any:
    """Pod template of a tier with this curve."""
    tier = {**demo_tiers()[0], "engine": "emulated", "curve": curve}
    return stateful_set(tiers=[tier])["spec"]["template"]


def test_a_curve_reaches_the_engine_as_list_items_with_every_default_filled_in() -> None:
    arguments = emulated_engine(CURVE)["spec"]["containers"][0]["args"]
    for flag, value in {
        "--emulate": "7000,30,50",
        "--max-batch-size": "64",
        "--max-step-tokens": "2048",
        "--kv-cache-tokens": "65536",
        "--max-total-tokens": "8192",
        "--emulate-load-seconds": "0",
    }.items():
        assert arguments.count(flag) == 1
        assert arguments[arguments.index(flag) + 1] == value


def test_what_the_curve_says_of_the_engine_reaches_it() -> None:
    chosen = {"maxSequences": 3, "maxTokensPerStep": 4, "kvCacheTokens": 6, "contextTokens": 5, "loadSeconds": 2}
    arguments = emulated_engine(CURVE | chosen)["spec"]["containers"][0]["args"]
    flags = ["--max-batch-size", "--max-step-tokens", "--kv-cache-tokens", "--max-total-tokens"]
    values = [arguments[arguments.index(flag) + 1] for flag in [*flags, "--emulate-load-seconds"]]
    assert values == ["3", "4", "6", "5", "2"]


def test_an_emulated_engine_takes_its_lengths_from_its_curve_alone() -> None:
    tier = {**demo_tiers()[0], "engine": "emulated", "curve": CURVE}
    tier["replica"] = {**tier["replica"], "contextTokens": 1024, "kvCacheTokens": 2048}
    args = stateful_set(tiers=[tier])["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [args.count(flag) for flag in ("--kv-cache-tokens", "--max-total-tokens")] == [1, 1]
    assert args[args.index("--kv-cache-tokens") + 1] == "65536"


def test_a_native_engine_hears_nothing_of_emulation() -> None:
    arguments = stateful_set()["spec"]["template"]["spec"]["containers"][0]["args"]
    assert not [part for part in arguments if "emulate" in part]


def test_an_emulated_pod_is_the_native_one_but_for_its_arguments() -> None:
    emulated, native = emulated_engine(CURVE), stateful_set(tiers=demo_tiers()[:1])["spec"]["template"]
    for template in (emulated, native):
        template["spec"]["containers"][0].pop("args")
        template["metadata"]["labels"].pop(names.LABEL_REVISION)
    assert emulated == native


def test_a_revision_keeps_the_image_that_it_was_made_with() -> None:
    model = with_set(make_model(), "full", [READY])
    kept = current_revision(model, model.spec.tiers[0], "registry.example/engine:2")
    made = current_revision(make_model(), model.spec.tiers[0], "registry.example/engine:2")
    assert kept.image == SETTINGS.engine_image
    assert made.image == "registry.example/engine:2"
    assert kept.revision != made.revision


@pytest.mark.parametrize(
    ("phases", "image"),
    [
        pytest.param([FAILED], "registry.example/engine:2", id="none started: the mistake can be corrected"),
        pytest.param([FAILED, PENDING], "registry.example/engine:2", id="some wait for a node"),
        pytest.param([FAILED, READY], "registry.example/engine:1", id="one serves"),
        pytest.param([FAILED, STARTING], "registry.example/engine:1", id="one may yet start"),
        pytest.param([PENDING], "registry.example/engine:1", id="no fault of the image"),
        pytest.param([], "registry.example/engine:1", id="no replica"),
    ],
)
def test_an_image_that_no_replica_could_start_from_is_not_kept(phases: list[PodPhase], image: str) -> None:
    model = with_set(make_model(), "int4", phases)
    tier = next(item for item in model.spec.tiers if item.name == "int4")
    current = current_revision(model, tier, "registry.example/engine:2")
    assert current.image == image
    assert (current.name == model.stateful_sets[0].name) == (image == SETTINGS.engine_image)


def test_replicas_that_fail_under_the_present_image_stay_the_present_revision() -> None:
    model = with_set(make_model(), "int4", [FAILED])
    tier = next(item for item in model.spec.tiers if item.name == "int4")
    assert current_revision(model, tier, SETTINGS.engine_image).name == model.stateful_sets[0].name


def test_what_a_rollback_left_behind_is_not_taken_up_again_under_another_image() -> None:
    rolled_back = PolicyMemory(quarantined_until={"int4": NOW + 900})
    model = with_set(make_model(memory=rolled_back), "int4", [])
    tier = next(item for item in model.spec.tiers if item.name == "int4")
    assert current_revision(model, tier, "registry.example/engine:2").image == "registry.example/engine:2"
    assert current_revision(model, tier, SETTINGS.engine_image).name == model.stateful_sets[0].name


WANTED = stamp_manifest(golden_manifests()["deployment-assistant-router"], epoch=5)


def test_what_the_api_server_adds_and_rewrites_is_no_difference() -> None:
    seen = copy.deepcopy(WANTED)
    container = seen["spec"]["template"]["spec"]["containers"][0]
    container["terminationMessagePath"] = "/dev/termination-log"
    container["resources"]["limits"] = {"cpu": "0.25", "memory": "262144Ki"}
    seen["spec"]["template"]["spec"]["containers"].append({"name": "sidecar-of-somebody"})
    seen["metadata"]["managedFields"] = []
    assert is_current(WANTED, seen)


@pytest.mark.parametrize(
    "path",
    [
        ("spec", "replicas"),
        ("spec", "strategy", "rollingUpdate", "maxUnavailable"),
        ("metadata", "labels", names.LABEL_MODEL),
        ("metadata", "annotations", names.ANNOTATION_EPOCH),
        ("metadata", "annotations", names.ANNOTATION_MANIFEST),
        ("spec", "template", "spec", "containers"),
    ],
    ids=".".join,
)
def test_an_edit_by_hand_is_a_difference(path: tuple[str, ...]) -> None:
    for edit in ("change", "remove"):
        seen: Any = copy.deepcopy(WANTED)
        parent = seen
        for key in path[:-1]:
            parent = parent[key]
        if edit == "remove":
            del parent[path[-1]]
        else:
            parent[path[-1]] = "edited"
        assert not is_current(WANTED, seen)


def test_a_new_leader_changes_the_epoch_and_nothing_else() -> None:
    unstamped = {"metadata": {"annotations": {}}, "spec": {"replicas": 1}}
    old, new = stamp_manifest(unstamped, 4), stamp_manifest(unstamped, 5)
    assert old["metadata"]["annotations"].pop(names.ANNOTATION_EPOCH) == "4"
    assert new["metadata"]["annotations"].pop(names.ANNOTATION_EPOCH) == "5"
    assert old == new


@pytest.mark.parametrize("has_served", [True, False])
def test_an_image_is_kept_that_a_replica_served_from_before_it_fell_into_a_crash_loop(has_served: bool) -> None:
    model = with_set(make_model(), "int4", [FAILED], has_served=has_served)
    tier = next(item for item in model.spec.tiers if item.name == "int4")
    assert (current_revision(model, tier, "registry.example/engine:2").image == SETTINGS.engine_image) is has_served


def test_a_tier_that_no_engine_can_serve_has_a_pod_that_says_so_beside_neighbours_that_serve() -> None:
    tiers = demo_tiers()
    tiers[0]["replica"] |= {"kvPrecision": "int8", "tensorParallel": 2}
    model = with_set(make_model(make_spec(tiers)), "int4", [READY])
    decision = make_decision({"full": 1, "int4": 1}, {"int4": 1.0})
    steps = plan_model(model, decision, SETTINGS, NOW, 1).steps
    manifests = [step.manifest for step in steps if isinstance(step, ApplyObject)]
    sets = {item["metadata"]["name"]: item for item in manifests if item["kind"] == "StatefulSet"}
    full = next(item for name, item in sets.items() if name.startswith("assistant-full-"))
    args = full["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[args.index("--kv-precision") + 1] == "int8"
    assert args[args.index("--tensor-parallel") + 1] == "2"
    table = next(item for item in manifests if item["metadata"]["name"].endswith("-routing"))
    assert '"int4"' in table["data"]["table.json"]
