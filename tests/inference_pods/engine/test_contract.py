"""The engine against the names that the operator relies on (tests/fixtures/contract.json)."""

import json
from pathlib import Path

import pytest

from inference_pods.engine.errors import LoadReason
from inference_pods.engine.metrics import EngineMetrics
from inference_pods.engine.settings import parse_settings
from inference_pods.kernels.step_plans import PlanCounts

CONTRACT = json.loads((Path(__file__).parents[2] / "fixtures" / "contract.json").read_text())


def test_the_operators_arguments_are_understood():
    settings = parse_settings(CONTRACT["engineArguments"])
    assert (settings.served_model_name, settings.tier, settings.precision) == ("assistant", "int4", "int4")
    assert (settings.permutation_seed, settings.max_waiting, settings.drain_seconds) == (7, 256, 120.0)


def test_exit_codes_mean_what_the_operator_reads():
    assert {reason.value: reason.exit_code for reason in LoadReason} == CONTRACT["loadFailures"]


@pytest.mark.parametrize("name", CONTRACT["metrics"]["engine"])
def test_every_metric_exists_with_its_labels_before_the_first_request(name):
    metrics = EngineMetrics("smol", "full", 8)
    metrics.name_model("avx2", ("int8", "int4"))
    rendered = metrics.render().decode()
    values = {"model": "smol", "tier": "full", "bound": "queue", "kernels": "avx2", "level": "int4"}
    labels = ",".join(f'{label}="{values[label]}"' for label in sorted(CONTRACT["metrics"]["engine"][name]))
    assert f"{name}{{{labels}}} " in rendered or f"{name}_count{{{labels}}} " in rendered


def test_plan_counters_follow_the_cache_and_never_fall():
    metrics, counts = EngineMetrics("smol", "full", 8), PlanCounts(hits=3, misses=2, evictions=1, build_seconds=0.5)
    metrics.follow_plans(counts)
    metrics.follow_plans(counts)
    counts.hits = 7
    metrics.follow_plans(counts)
    rendered = metrics.render().decode()
    for name, value in (("hits", 7.0), ("misses", 2.0), ("evictions", 1.0), ("build_seconds", 0.5)):
        assert f'adaptive_engine_plan_{name}_total{{model="smol",tier="full"}} {value}' in rendered


async def test_the_probes_of_the_contract_answer(serve, scripted_runner, http):
    engine = await serve(scripted_runner)
    for path in CONTRACT["probes"].values():
        async with http.get(engine.url + path) as response:
            assert response.status == 200
