"""The inference pods' side of the names that they share with the operator (tests/fixtures/contract.json)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inference_pods import protocol
from inference_pods.engine.distributed.launch import EXIT_RANK_LOST, RANK_LOST
from inference_pods.engine.emulated.curve import Curve
from inference_pods.engine.emulated.startup import build_emulated_engine
from inference_pods.engine.errors import HeaderError, LoadReason
from inference_pods.engine.http_common import error_response
from inference_pods.engine.metrics import EngineMetrics
from inference_pods.engine.request_options import parse_options
from inference_pods.engine.settings import parse_settings
from inference_pods.kernels.levels import LevelPlan
from inference_pods.router.admission import Admission
from inference_pods.router.dialect import is_level_refusal
from inference_pods.router.fleet import Fleet
from inference_pods.router.metrics import RouterMetrics
from inference_pods.router.settings import parse_arguments
from inference_pods.router.table import ReferenceRequest, parse_table

CONTRACT: dict[str, Any] = json.loads((Path(__file__).parents[1] / "fixtures" / "contract.json").read_text())
REFUSAL: str = CONTRACT["levelRefusal"]["message"]


def metric_names(prefix: str) -> set[str]:
    return {
        value
        for name, value in vars(protocol).items()
        if name.startswith(prefix) and str(value).startswith("adaptive_")
    }


def test_labels_ports_headers_and_paths_are_those_of_the_contract() -> None:
    labels = CONTRACT["labels"]
    assert (labels["model"], labels["tier"], labels["component"]) == (
        protocol.LABEL_MODEL,
        protocol.LABEL_TIER,
        protocol.LABEL_COMPONENT,
    )
    assert CONTRACT["components"]["engine"] == protocol.COMPONENT_ENGINE
    assert CONTRACT["components"]["router"] == protocol.COMPONENT_ROUTER
    assert CONTRACT["ports"] == {"engine": protocol.ENGINE_PORT, "router": protocol.ROUTER_PORT}
    headers = {value for name, value in vars(protocol).items() if name.startswith("HEADER_")}
    assert set(CONTRACT["headers"].values()) == headers
    assert CONTRACT["probes"] == {
        "ready": protocol.ROUTE_HEALTH,
        "engineAlive": protocol.ROUTE_PING,
        "metrics": protocol.ROUTE_METRICS,
    }


def test_an_engine_takes_the_operators_arguments() -> None:
    settings = parse_settings(CONTRACT["engineArguments"])
    assert (settings.tier, settings.served_model_name, settings.permutation_seed) == ("int4", "assistant", 7)
    assert (settings.port, settings.drain_seconds) == (protocol.ENGINE_PORT, 120.0)


def test_an_engine_that_is_told_nothing_takes_what_the_operator_says_it_does() -> None:
    settings = asdict(parse_settings(["--model-source", "file:///model.gguf"]))
    flags = CONTRACT["engineDefaults"]
    assert {flag: settings[flag.removeprefix("--").replace("-", "_")] for flag in flags} == flags


def test_an_engine_takes_the_arguments_of_the_largest_batch_and_needs_none_for_its_steps_up_to_64() -> None:
    settings = parse_settings(CONTRACT["largestBatchEngineArguments"])
    assert (settings.max_batch_size, settings.max_step_tokens) == (1024, 1024)
    given = CONTRACT["engineArguments"]
    assert parse_settings([*given, "--max-batch-size", "64"]).max_step_tokens == 64


def test_an_engine_takes_the_arguments_of_a_nested_tier_and_both_sides_name_its_levels_alike() -> None:
    settings = parse_settings(CONTRACT["nestedEngineArguments"])
    assert (settings.precision, settings.kv_precision, settings.tensor_parallel) == ("nested", "fp32", 2)
    assert settings.model_sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert (settings.max_total_tokens, settings.kv_cache_tokens) == (8192, 32_768)
    assert (settings.max_batch_size, settings.max_step_tokens) == (8, 512)
    assert (settings.draft_level, settings.draft_tokens) == ("int4-d28", 3)
    plan = LevelPlan(settings.levels, settings.depths, settings.skip_order)
    assert {level.name for level in plan.build(settings.precision, 30)} == set(CONTRACT["levelNames"])


def test_an_engine_takes_the_arguments_of_an_emulated_tier_and_knows_its_levels_by_the_same_names() -> None:
    settings = parse_settings(CONTRACT["emulatedEngineArguments"])
    assert (settings.max_batch_size, settings.max_total_tokens, settings.emulate_load_seconds) == (32, 8192, 5.0)
    engine = build_emulated_engine(settings, lambda _events: None, lambda _result, _seconds: None)
    assert set(engine.levels) == set(CONTRACT["levelNames"])
    assert engine.description["curves"] == {
        level: asdict(Curve(4000, 20, 40) if level == "int4-d28" else Curve(7000, 30, 50)) for level in engine.levels
    }


def test_a_router_takes_the_operators_arguments() -> None:
    settings = parse_arguments(CONTRACT["routerArguments"])
    assert (settings.model, settings.namespace) == ("assistant", "demo")
    assert settings.table_configmap == "assistant-routing"
    assert str(settings.table_path) == f"/etc/adaptive/{protocol.TABLE_KEY}"


def test_a_router_reads_the_operators_table() -> None:
    table = parse_table(json.dumps(CONTRACT["table"]["example"]), "assistant")
    assert table.version == (3, 12)
    assert table.draining == {"full-new-1"}
    assert [(route.key.tier, route.quality_permille, route.mu, route.weight) for route in table.routes] == [
        ("full", 1000, 0.8, 0.7),
        ("nested", 998, 0.6, 0.15),
        ("int4", 780, 0.65, 0.1),
        ("nested", 770, 0.8, 0.05),
        ("plain", None, None, 0.0),
    ]
    assert [(route.key.level, route.load, route.price) for route in table.routes] == [
        ("", 1.0, 0.22),
        ("int8", 1.0, 0.218),
        ("", 1.0, 0.0),
        ("int4", 0.75, 0.218),
        ("", 1.0, 0.0),
    ]
    assert table.reference == ReferenceRequest(prompt_tokens=16, output_tokens=24)
    assert CONTRACT["table"]["key"] == protocol.TABLE_KEY
    assert CONTRACT["table"]["example"]["schemaVersion"] == protocol.TABLE_SCHEMA_VERSION


@pytest.mark.parametrize(("prefix", "component"), [("ROUTER_", "router"), ("ENGINE_", "engine")])
def test_metric_names_are_those_of_the_contract(prefix: str, component: str) -> None:
    assert metric_names(prefix) == set(CONTRACT["metrics"][component])


def shown_labels(exposition: bytes) -> dict[str, set[str]]:
    """Label names by metric, as Prometheus would see them."""
    shown: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exposition.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    return {name: labels for name, labels in shown.items() if not name.endswith("_created")}


def test_an_engine_shows_its_metrics_with_the_contracts_labels_from_the_start() -> None:
    """What names a level or the kernels appears once the model is loaded, before the first request."""
    metrics = EngineMetrics("assistant", "int4", 8)
    contract = {name: set(labels) for name, labels in CONTRACT["metrics"]["engine"].items()}
    of_the_model = {name for name, labels in contract.items() if labels & {"level", "kernels"}}
    assert of_the_model == {
        protocol.ENGINE_KERNELS_INFO, protocol.ENGINE_LEVEL_REQUESTS, protocol.ENGINE_LEVEL_GENERATED_TOKENS
    }  # fmt: skip
    shown = {name: labels for name, labels in shown_labels(metrics.render()).items() if labels}
    assert shown == {name: contract[name] for name in contract.keys() - of_the_model}
    metrics.name_model("avx2", ("int8", "int4"))
    assert shown_labels(metrics.render()) == contract


async def test_a_router_shows_its_metrics_with_the_contracts_labels_once_it_has_a_table() -> None:
    fleet = Fleet(asyncio.get_running_loop().time)
    metrics, admission = RouterMetrics("assistant"), Admission(fleet, asyncio.get_running_loop().time)
    fleet.offer_table(parse_table(json.dumps(CONTRACT["table"]["example"]), "assistant"))
    metrics.follow(fleet)
    shown = shown_labels(metrics.render(admission))
    assert shown == {name: set(labels) for name, labels in CONTRACT["metrics"]["router"].items()}


def test_load_failures_end_with_the_contracts_exit_codes() -> None:
    assert {reason.value: reason.exit_code for reason in LoadReason} == CONTRACT["loadFailures"]


def test_a_lost_rank_has_a_reason_and_an_exit_code_of_its_own() -> None:
    assert CONTRACT["rankLost"] == {RANK_LOST: EXIT_RANK_LOST}


@pytest.mark.parametrize("path", [protocol.ROUTE_GENERATE, protocol.ROUTE_CHAT_COMPLETIONS])
def test_a_router_understands_an_engine_that_does_not_have_a_level(path: str) -> None:
    asked: str = CONTRACT["levelRefusal"]["asked"]
    with pytest.raises(HeaderError) as refused:
        parse_options({protocol.HEADER_LEVEL: asked}, ("int8", "int4"))
    assert refused.value.message == REFUSAL
    answer = error_response(refused.value, openai=path.startswith("/v1/"))
    assert isinstance(answer.body, bytes)
    assert is_level_refusal(answer.status, answer.body, asked)


@pytest.mark.parametrize(
    ("status", "body", "level"),
    [
        pytest.param(400, {"error": REFUSAL}, "int4", id="another level"),
        pytest.param(422, {"error": REFUSAL}, "int2", id="another status"),
        pytest.param(400, {"error": f"inputs: {REFUSAL}"}, "int2", id="an echo"),
        pytest.param(400, {"error": 7}, "int2", id="no text"),
        pytest.param(400, [REFUSAL], "int2", id="no object"),
    ],
)
def test_other_refusals_are_not_taken_for_it(status: int, body: Any, level: str) -> None:
    assert not is_level_refusal(status, json.dumps(body).encode(), level)


def test_text_that_is_no_json_is_not_taken_for_it() -> None:
    assert not is_level_refusal(400, REFUSAL.encode(), "int2")
