"""From the API server's objects to the exposition: one set of series per ready pod, with the names of the contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from e2e.scale.exporter import Exporter, demand, gather_ready, parse_options
from e2e.scale.series import Times

ROOT = Path(__file__).parents[2]
CONTRACT = json.loads((ROOT / "tests" / "fixtures" / "contract.json").read_text())
OPTIONS = parse_options(["--context", "x", "--requests-per-second", "6", "--swing", "0"])


def model(name: str = "emulated") -> dict[str, Any]:
    spec = yaml.safe_load((ROOT / "examples" / "emulated.yaml").read_text())["spec"]
    return {"metadata": {"namespace": "ns", "name": name}, "spec": {**spec, "routing": {"maxQueueSeconds": 10}}}


def pod(name: str, component: str, tier: str = "", ready: str = "True", **meta: Any) -> dict[str, Any]:
    labels = {"adaptivellm.dev/model": "emulated", "app.kubernetes.io/component": component}
    labels |= {"adaptivellm.dev/tier": tier} if tier else {}
    return {
        "metadata": {"namespace": "ns", "name": name, "labels": labels, **meta},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


PODS = [
    pod("router-1", "router"),
    pod("router-2", "router"),
    pod("full-0", "engine", "full"),
    pod("int4-0", "engine", "int4"),
    pod("int4-1", "engine", "int4", ready="False"),
    pod("int4-2", "engine", "int4", deletionTimestamp="2026-01-01T00:00:00Z"),
]


def scrape(exporter: Exporter) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Values by sample name and labels, read as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(exporter)
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def value(found: Any, metric: str, **labels: str) -> float:
    wanted = {("namespace", "ns"), ("model", "emulated"), *labels.items()}
    (only,) = [number for key, number in found[metric].items() if wanted <= set(key)]
    return only


def advanced(seconds: float = 10.0, pods: list[dict[str, Any]] = PODS) -> Exporter:
    exporter = Exporter(OPTIONS)
    exporter.advance(1000.0, seconds, [model()], gather_ready(pods))
    return exporter


def test_only_ready_pods_that_stay_have_series() -> None:
    found = scrape(advanced())
    assert {dict(key)["pod"] for key in found["adaptive_engine_running"]} == {"full-0", "int4-0"}
    assert {dict(key)["pod"] for key in found["adaptive_router_arrivals_total"]} == {"router-1", "router-2"}


def test_routers_share_the_load_and_the_best_tier_serves_it() -> None:
    found = scrape(advanced())
    assert value(found, "adaptive_router_arrivals_total", pod="router-1") == pytest.approx(30)
    served = value(found, "adaptive_router_requests_total", pod="router-1", tier="full", code="200")
    assert served == pytest.approx(30)
    assert value(found, "adaptive_router_quality_sum_total", pod="router-1", tier="full") == pytest.approx(30)
    assert value(found, "adaptive_router_tpot_seconds_count", pod="router-1", tier="full") == pytest.approx(30)
    assert 0 < value(found, "adaptive_engine_running", pod="full-0", tier="full") <= 16


def test_counters_exist_at_zero_before_the_first_request_of_a_tier() -> None:
    found = scrape(advanced())
    assert value(found, "adaptive_router_requests_total", pod="router-1", tier="int4", code="200") == 0
    assert value(found, "adaptive_router_ttft_seconds_count", pod="router-1", tier="int4") == 0


def test_counters_rise_from_look_to_look_and_a_new_router_begins_at_zero() -> None:
    exporter = advanced()
    exporter.advance(1010.0, 10.0, [model()], gather_ready([*PODS[1:], pod("router-3", "router")]))
    found = scrape(exporter)
    assert value(found, "adaptive_router_arrivals_total", pod="router-2") == pytest.approx(60)
    assert value(found, "adaptive_router_arrivals_total", pod="router-3") == pytest.approx(30)
    assert "router-1" not in str(found)


def test_a_model_that_is_gone_takes_its_series_along() -> None:
    exporter = advanced()
    exporter.advance(1010.0, 10.0, [], {})
    assert scrape(exporter) == {}


def test_names_and_labels_are_those_of_the_contract_with_the_pod_in_front() -> None:
    known = {**CONTRACT["metrics"]["router"], **CONTRACT["metrics"]["engine"]}
    for name, samples in scrape(advanced()).items():
        base = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
        for key in samples:
            assert {label for label, _ in key} - {"le"} == {"namespace", "pod", *known[base]}


def test_a_histogram_counts_into_the_bucket_of_the_mean_and_all_above() -> None:
    times = Times((0.1, 0.2))
    times.observe(0.2, 3.0)
    times.observe(5.0, 1.0)
    assert times.buckets() == [("0.1", 0.0), ("0.2", 3.0), ("+Inf", 4.0)]
    assert times.total == pytest.approx(5.6)


def test_demand_swings_around_its_mean_and_models_swing_apart() -> None:
    loads = [demand("ns/a", at, 5.0, 0.5, 600.0) for at in range(600)]
    assert sum(loads) / 600 == pytest.approx(5.0)
    assert (min(loads), max(loads)) == pytest.approx((2.5, 7.5), abs=0.01)
    assert demand("ns/a", 0.0, 5.0, 0.5, 600.0) != demand("ns/b", 0.0, 5.0, 0.5, 600.0)
