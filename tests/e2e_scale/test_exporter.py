"""From the API server's objects to the exposition: one set of series per ready pod, with the names of the contract."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from e2e.scale.exporter import Exporter, build_app, demand, gather_ready, parse_load, parse_options, trim_pod
from e2e.scale.mirror import Mirror
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


@pytest.mark.parametrize("option", ["--period-seconds", "--interval-seconds"])
@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf"])
def test_times_that_divide_by_zero_are_refused(option: str, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(["--context", "x", f"{option}={given}"])
    assert f"argument {option}: {given}: must be above 0" in capsys.readouterr().err


def test_a_trimmed_pod_says_all_that_counts() -> None:
    full = [{**p, "spec": {"containers": []}, "status": {**p["status"], "phase": "Running"}} for p in PODS]
    assert gather_ready(trim_pod(p) for p in full) == gather_ready(PODS)
    assert "spec" not in trim_pod(full[0])


async def test_a_load_that_was_set_holds_for_the_named_models_only() -> None:
    exporter = Exporter(OPTIONS)
    async with TestClient(TestServer(build_app(exporter))) as client:
        answer = await client.put("/load", json={"models": ["ns/emulated"], "requestsPerSecond": 1})
        assert answer.status == 204
        exporter.advance(1000.0, 10.0, [model(), model("other")], gather_ready(PODS))
        text = await (await client.get("/metrics")).text()
    assert 'adaptive_router_arrivals_total{model="emulated",namespace="ns",pod="router-1"} 5.0' in text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"models": ["a"], "requestsPerSecond": 1},
        {"models": ["a/b"], "requestsPerSecond": -1},
        {"models": ["a/b"], "requestsPerSecond": "much"},
    ],
)
async def test_a_load_that_makes_no_sense_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        parse_load(body)
    async with TestClient(TestServer(build_app(Exporter(OPTIONS)))) as client:
        assert (await client.put("/load", json=body)).status == 400


class Nowhere:
    """An API server that is never asked: the mirrors of this test are filled by hand."""


async def test_nothing_is_counted_before_the_cluster_is_known_and_on_by_the_last_view_afterwards() -> None:
    exporter = Exporter(parse_options(["--context", "x", "--interval-seconds", "0.01", "--swing", "0"]))
    models, pods = Mirror(Nowhere(), ""), Mirror(Nowhere(), "")  # type: ignore[arg-type]
    models.objects = {("ns", "emulated"): model()}
    models.is_known = True
    task = asyncio.create_task(exporter.follow(models, pods))
    await asyncio.sleep(0.05)
    assert scrape(exporter) == {}
    pods.objects = {("ns", p["metadata"]["name"]): p for p in PODS}
    pods.is_known = True
    async with asyncio.timeout(5):
        while not scrape(exporter):  # noqa: ASYNC110 nobody tells
            await asyncio.sleep(0.01)
    before = value(scrape(exporter), "adaptive_router_arrivals_total", pod="router-1")
    await asyncio.sleep(0.05)
    assert value(scrape(exporter), "adaptive_router_arrivals_total", pod="router-1") > before
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_scrape_between_two_intervals_counts_up_to_its_own_moment() -> None:
    """Else a steady load seems to move: three scrapes hold now nine intervals of 5 s, now eight."""
    exporter = Exporter(parse_options(["--context", "x", "--interval-seconds", "3600", "--swing", "0"]))
    models, pods = Mirror(Nowhere(), ""), Mirror(Nowhere(), "")  # type: ignore[arg-type]
    models.objects = {("ns", "emulated"): model()}
    pods.objects = {("ns", p["metadata"]["name"]): p for p in PODS}
    models.is_known = pods.is_known = True
    task = asyncio.create_task(exporter.follow(models, pods))
    seen = []
    for _ in range(3):
        await asyncio.sleep(0.01)
        seen.append(value(scrape(exporter), "adaptive_router_arrivals_total", pod="router-1"))
    assert 0 < seen[0] < seen[1] < seen[2]
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
