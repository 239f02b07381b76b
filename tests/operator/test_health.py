"""/healthz proves progress; /metrics speaks the contract's names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from adaptive_operator.health import Health, HealthSettings, build_app, start_server
from adaptive_operator.metrics import OperatorMetrics
from adaptive_operator.observe.queries import QueryName
from adaptive_operator.observe.readings import Cause
from tests.operator.plan.situations import make_decision

CONTRACT = Path(__file__).parents[1] / "fixtures" / "contract.json"
PINNED: dict[str, list[str]] = json.loads(CONTRACT.read_text())["metrics"]["operator"]
SETTINGS = HealthSettings(period_seconds=15.0, pass_timeout_seconds=60.0, lease_seconds=15.0)


class Scene:
    def __init__(self) -> None:
        self.now, self.is_leading, self.tried_at, self.finished_at = 1000.0, False, 1000.0, None
        self.health = Health(SETTINGS, self, lambda: self.finished_at, monotonic=lambda: self.now)

    def after(self, seconds: float, *, lease_tried: bool = True) -> str | None:
        self.now += seconds
        if lease_tried:
            self.tried_at = self.now
        return self.health.find_trouble()


def test_a_standby_that_keeps_asking_for_the_lease_is_healthy() -> None:
    scene = Scene()
    assert [scene.after(100.0) for _ in range(10)] == [None] * 10


def test_a_standby_that_stopped_asking_is_not() -> None:
    scene = Scene()
    assert scene.after(119.0, lease_tried=False) is None
    assert scene.after(2.0, lease_tried=False) == "the Lease was not asked for for 121 s"


def test_a_leader_that_finishes_passes_is_healthy() -> None:
    scene = Scene()
    scene.is_leading = True
    for _ in range(10):
        scene.finished_at = scene.now
        assert scene.after(100.0) is None


def test_a_leader_whose_passes_do_not_finish_is_not() -> None:
    scene = Scene()
    scene.is_leading = True
    assert scene.after(0.0) is None
    assert scene.after(120.0) is None
    assert scene.after(1.0) == "no pass finished for 121 s"


def test_a_new_leader_has_time_for_its_first_pass() -> None:
    scene = Scene()
    scene.finished_at = scene.now
    scene.after(1000.0)
    scene.is_leading = True
    assert scene.after(0.0) is None
    assert scene.after(119.0) is None


async def test_healthz_answers_503_with_the_cause_and_metrics_are_served() -> None:
    scene = Scene()
    async with TestClient(TestServer(build_app(scene.health, OperatorMetrics().registry))) as client:
        assert (await client.get("/healthz")).status == 200
        scene.after(500.0, lease_tried=False)
        answer = await client.get("/healthz")
        assert (answer.status, await answer.text()) == (503, "the Lease was not asked for for 500 s\n")
        text = await (await client.get("/metrics")).text()
    assert "adaptive_operator_leader 0.0" in text
    assert "adaptive_operator_pass_seconds_bucket" in text


def test_counters_of_rejected_samples_exist_at_zero_from_the_start() -> None:
    registry = OperatorMetrics().registry
    for query in QueryName:
        for cause in Cause:
            labels = {"query": query.value, "cause": cause.value}
            assert registry.get_sample_value("adaptive_operator_rejected_samples_total", labels) == 0.0


def test_the_factor_on_a_card_is_one_until_measured_and_goes_with_its_tier_and_model() -> None:
    metrics = OperatorMetrics()

    def factors() -> dict[str, float]:
        samples = next(m for m in metrics.registry.collect() if m.name == "adaptive_operator_card_factor").samples
        return {sample.labels["tier"]: sample.value for sample in samples}

    metrics.note_decision("demo", "a", make_decision({"full": 1, "int4": 0}, {}, factors={"full": 0.85}))
    assert factors() == {"full": 0.85, "int4": 1.0}
    metrics.note_decision("demo", "a", make_decision({"full": 1}, {}))
    assert factors() == {"full": 1.0}
    metrics.keep_models([("demo", "a")])
    metrics.keep_models([])
    assert factors() == {}


def test_counters_of_programs_without_a_plan_exist_at_zero_from_the_start_for_each_cause_of_the_contract() -> None:
    samples = next(m for m in OperatorMetrics().registry.collect() if m.name == "adaptive_operator_solver_failures")
    counted = {sample.labels["cause"]: sample.value for sample in samples.samples}
    assert counted == dict.fromkeys(json.loads(CONTRACT.read_text())["solverFailureCauses"], 0.0)


@pytest.mark.parametrize("name", PINNED)
def test_a_metric_has_name_and_labels_of_the_contract(name: str) -> None:
    collectors = OperatorMetrics().registry._names_to_collectors
    assert list(collectors[name]._labelnames) == PINNED[name]  # type: ignore[attr-defined]


def test_every_metric_is_in_the_contract() -> None:
    registry = OperatorMetrics().registry
    names = {f"{m.name}_total" if m.type == "counter" else m.name for m in registry.collect()}
    assert names == set(PINNED)


async def test_both_ports_are_served_until_cleaned_up() -> None:
    scene = Scene()
    app = build_app(scene.health, OperatorMetrics().registry)
    runner = await start_server(app, "127.0.0.1", (0,))
    assert len(runner.addresses) == 1
    await runner.cleanup()
