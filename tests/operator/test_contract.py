"""The operator's side of the names that it shares with routers and engines (tests/fixtures/contract.json)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adaptive_operator import names
from adaptive_operator.api.base import Api
from adaptive_operator.api.recipe import Draft, Recipe
from adaptive_operator.api.tiers import MAX_TOKENS_PER_STEP, Replica
from adaptive_operator.levels import levels_of
from adaptive_operator.observe import queries
from adaptive_operator.observe.pods import RANK_LOST
from adaptive_operator.plan import PlanSettings, plan_model
from adaptive_operator.plan.plan import ApplyObject
from adaptive_operator.plan.routing import parse_written_table, plan_table
from adaptive_operator.reasons import ConditionReason
from tests.operator.plan.situations import (
    NOW,
    READY,
    SETTINGS,
    make_decision,
    make_model,
    make_spec,
    make_tier,
    with_set,
)

CONTRACT: dict[str, Any] = json.loads((Path(__file__).parents[1] / "fixtures" / "contract.json").read_text())


SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NESTED_TIER: dict[str, Any] = {
    "name": "nested",
    "recipe": {
        "nested": {
            "levels": ["int8", "int4"],
            "depths": [30, 28],
            "skipOrder": [17, 14],
            "draft": {"level": "int4-d28", "tokens": 3},
        }
    },
    "replica": {
        "accelerators": 2,
        "cpu": "500m",
        "memory": "1Gi",
        "tensorParallel": 2,
        "kvPrecision": "fp32",
        "contextTokens": 8192,
        "kvCacheTokens": 32_768,
        "maxTokensPerStep": 512,
    },
}
EMULATED_TIER: dict[str, Any] = {
    "name": "emulated",
    "recipe": {"nested": {"levels": ["int8", "int4"], "depths": [30, 28]}},
    "engine": "emulated",
    "curve": {
        "stepMicroseconds": 7000,
        "decodeMicrosecondsPerSequence": 30,
        "prefillMicrosecondsPerToken": 50,
        "levels": [
            {
                "name": "int4-d28",
                "stepMicroseconds": 4000,
                "decodeMicrosecondsPerSequence": 20,
                "prefillMicrosecondsPerToken": 40,
            }
        ],
        "maxSequences": 32,
        "loadSeconds": 5,
    },
    "replica": {"accelerators": 1, "cpu": "250m", "memory": "256Mi"},
}


def containers(tier: dict[str, Any] | None = None, settings: PlanSettings = SETTINGS, **spec: Any) -> dict[str, Any]:
    """The engine container of a tier (int4 unless given) and the router container, by name."""
    tier = tier or make_tier("int4", "int4", 1)
    model = make_model(make_spec([tier], **spec))
    steps = plan_model(model, make_decision({tier["name"]: 1}), settings, NOW, 1).steps
    manifests = [step.manifest for step in steps if isinstance(step, ApplyObject)]
    specs = [item["spec"]["template"]["spec"] for item in manifests if "template" in item.get("spec", {})]
    return {container["name"]: container for spec in specs for container in spec["containers"]}


def test_labels_and_components_are_those_of_the_contract() -> None:
    assert CONTRACT["labels"] == {
        "managedBy": names.LABEL_MANAGED_BY,
        "component": names.LABEL_COMPONENT,
        "model": names.LABEL_MODEL,
        "tier": names.LABEL_TIER,
        "revision": names.LABEL_REVISION,
    }
    assert CONTRACT["components"] == {
        "engine": names.COMPONENT_ENGINE,
        "router": names.COMPONENT_ROUTER,
        "routing": names.COMPONENT_ROUTING,
    }


@pytest.mark.parametrize("component", ["engine", "router"])
def test_containers_get_the_arguments_ports_and_probes_of_the_contract(component: str) -> None:
    container = containers()[component]
    assert container["args"] == CONTRACT[f"{component}Arguments"]
    assert [port["containerPort"] for port in container["ports"]] == [CONTRACT["ports"][component]]
    assert container["readinessProbe"]["httpGet"]["path"] == CONTRACT["probes"]["ready"]


UNSET: dict[str, tuple[type[Api], str]] = {
    "--max-total-tokens": (Replica, "context_tokens"),
    "--kv-cache-tokens": (Replica, "kv_cache_tokens"),
    "--max-step-tokens": (Replica, "max_tokens_per_step"),
    "--draft-tokens": (Draft, "tokens"),
    "--group-size": (Recipe, "group_size"),
}


@pytest.mark.parametrize("flag", UNSET)
def test_what_the_reference_says_of_an_unset_field_is_what_the_engine_takes_then(flag: str) -> None:
    model, field = UNSET[flag]
    assert re.search(rf"[Uu]nset: {CONTRACT['engineDefaults'][flag]}\b", str(model.model_fields[field].description))


def test_every_default_of_an_engine_in_the_contract_is_one_of_a_field() -> None:
    assert set(UNSET) == set(CONTRACT["engineDefaults"])


def test_rules_and_arguments_count_with_the_engines_defaults() -> None:
    defaults = CONTRACT["engineDefaults"]
    shape = {"accelerators": 1, "cpu": "1", "memory": "1Gi"}
    Replica.model_validate({**shape, "contextTokens": defaults["--kv-cache-tokens"]})
    Replica.model_validate({**shape, "kvCacheTokens": defaults["--max-total-tokens"]})
    for beyond in (
        {"contextTokens": defaults["--kv-cache-tokens"] + 1},
        {"kvCacheTokens": defaults["--max-total-tokens"] - 1},
    ):
        with pytest.raises(ValidationError, match="kvCacheTokens must not be less"):
            Replica.model_validate(shape | beyond)
    assert defaults["--max-step-tokens"] == MAX_TOKENS_PER_STEP


def test_an_engine_with_the_largest_batch_gets_steps_that_hold_it_as_in_the_contract() -> None:
    largest = replace(SETTINGS, max_batch_size=1024)
    assert containers(settings=largest)["engine"]["args"] == CONTRACT["largestBatchEngineArguments"]


@pytest.mark.parametrize(
    ("batch", "chosen", "steps"),
    [
        pytest.param(1, None, None, id="the smallest batch"),
        pytest.param(64, None, None, id="a batch as large as an engine's own steps"),
        pytest.param(65, None, "65", id="a batch above them"),
        pytest.param(1024, None, "1024", id="the largest batch"),
        pytest.param(8, 512, "512", id="larger steps, as chosen"),
        pytest.param(8, 16, "16", id="smaller steps, as chosen"),
        pytest.param(8, 64, "64", id="chosen as they are anyway"),
        pytest.param(32, 16, "32", id="smaller than the batch"),
    ],
)
def test_an_engine_hears_of_its_steps_only_what_was_chosen_or_its_batch_needs(
    batch: int, chosen: int | None, steps: str | None
) -> None:
    tier = make_tier("int4", "int4", 1)
    tier["replica"] |= {"maxTokensPerStep": chosen} if chosen else {}
    args = containers(tier, replace(SETTINGS, max_batch_size=batch))["engine"]["args"]
    told = args[args.index("--max-step-tokens") + 1] if "--max-step-tokens" in args else None
    assert told == steps


def test_the_engine_of_a_nested_tier_gets_digest_levels_depths_and_shape_as_in_the_contract() -> None:
    promised = {**make_spec().model.model_dump(by_alias=True), "sha256": SHA256}
    assert containers(NESTED_TIER, model=promised)["engine"]["args"] == CONTRACT["nestedEngineArguments"]
    spec = make_spec([NESTED_TIER])
    assert [level.name for level in levels_of(spec.tiers[0])] == CONTRACT["levelNames"]


def test_the_engine_of_an_emulated_tier_gets_its_curve_as_in_the_contract() -> None:
    assert containers(EMULATED_TIER)["engine"]["args"] == CONTRACT["emulatedEngineArguments"]


def test_an_engine_is_alive_while_it_answers_ping() -> None:
    assert containers()["engine"]["livenessProbe"]["httpGet"]["path"] == CONTRACT["probes"]["engineAlive"]


def test_the_routing_table_is_written_as_in_the_contract() -> None:
    example = CONTRACT["table"]["example"]
    nested = make_tier("nested", "int8", 1)
    nested["recipe"] = {"nested": {"levels": ["int8", "int4"]}}
    nested["card"] = {
        "levels": [
            {"name": "int8", "qualityPermille": 998, "capacityMilliRequestsPerSecond": 600},
            {"name": "int4", "qualityPermille": 770, "capacityMilliRequestsPerSecond": 800},
        ]
    }
    tiers = [
        make_tier("full", "fp32", 2, 1000),
        make_tier("int4", "int4", 1, 780),
        nested,
        make_tier("plain", "int8", 1),
    ]
    for tier in tiers[:2]:
        tier["card"].update(referencePromptTokens=16, referenceOutputTokens=24)
    spec = make_spec(
        tiers, slo=example["slo"], quality={"floorPermille": 750}, routing={"maxQueueSeconds": 60}, accelerators={}
    )
    model = with_set(with_set(make_model(spec), "full", [READY, READY]), "int4", [READY])
    model = with_set(model, "nested", [READY])
    decision = make_decision(
        {"full": 1, "nested": 1, "int4": 1, "plain": 0},
        {"full": 0.7, "nested": 0.2, "int4": 0.1},
        levels={"nested": {"int8": 0.75, "int4": 0.25}},
    )
    decision = replace(decision, tier_prices={"full": 0.22, "nested": 0.218, "int4": 0.0})
    table = plan_table(model, decision, frozenset({"full-new-1"}), None, 0.05)
    written = json.loads(replace(table, generation=12).to_text(epoch=3))
    assert written == example
    assert CONTRACT["table"]["key"] == names.TABLE_KEY


def test_the_operator_reads_the_table_of_the_contract_back() -> None:
    written = parse_written_table(json.dumps(CONTRACT["table"]["example"]))
    assert written is not None
    assert (written.epoch, written.generation, written.draining) == (3, 12, {"full-new-1"})


def test_queries_ask_for_metrics_of_the_contract_only() -> None:
    known = {name for group in CONTRACT["metrics"].values() for name in group}
    asked = {
        value
        for value in vars(queries).values()
        if isinstance(value, str) and value.startswith(("adaptive_router_", "adaptive_engine_"))
    }
    assert asked
    assert asked <= known


def test_a_lost_rank_is_known_by_the_engines_word() -> None:
    assert list(CONTRACT["rankLost"]) == [RANK_LOST]
    assert RANK_LOST not in CONTRACT["loadFailures"]


def test_every_load_failure_of_an_engine_is_a_reason_of_model_loaded() -> None:
    assert set(CONTRACT["loadFailures"]) <= set(ConditionReason)
