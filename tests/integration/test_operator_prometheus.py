"""The queries on a real Prometheus: values, ages and what happens when a target goes away."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.observe.observation import ModelMetrics, PodObservation, PodPhase, Sample, Unknown
from adaptive_operator.observe.prometheus import Failed, PrometheusReader
from adaptive_operator.observe.queries import ModelScope, Windows, build_queries
from adaptive_operator.observe.readings import Cause, Readings, RouterPod, Subject
from e2e.cluster import binaries
from e2e.cluster.settings import ClusterError
from tests.integration.operator_fixtures import build_model
from tests.needed import give_up

SCRAPE_SECONDS = 0.5
RATE = 10.0  # requests/s that the exporter pretends
SPEC = AdaptiveModelSpec.model_validate(build_model("demo")["spec"])
POD = PodObservation("engine-0", "u", "full", "r", "set", 0, 2, PodPhase.READY, 0.0)
ENGINE = """
adaptive_engine_running{model="assistant",tier="full"} 2
adaptive_engine_waiting{model="assistant",tier="full"} 3
"""


class Exporter:
    """A router's and an engine's /metrics; counters grow with time."""

    def __init__(self) -> None:
        started, exporter = time.monotonic(), self
        self.down = False

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = (ENGINE if self.path == "/engine" else router_text(time.monotonic() - started)).encode()
                self.send_response(503 if exporter.down else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def router_text(seconds: float) -> str:
    """Half of the answers from full (quality 1), half from int4 (quality 0.8), some from a tier without a card."""
    count = RATE * seconds
    labels = 'model="assistant",tier="{}",level=""'
    lines = [
        f'adaptive_router_arrivals_total{{model="assistant"}} {count}',
        'adaptive_router_queue_length{model="assistant"} 4',
    ]
    for tier, quality in (("full", 1.0), ("int4", 0.8), ("bare", 0.0)):
        own = labels.format(tier)
        lines.append(f'adaptive_router_requests_total{{{own},code="200"}} {count / 2}')
        lines.append(f'adaptive_router_requests_total{{{own},code="429"}} {count}')
        lines.append(f"adaptive_router_quality_sum_total{{{own}}} {quality * count / 2}")
        lines += _histograms(own, count)
    quiet = labels.format("int8")  # answered once, and nobody calls it now
    lines += [f'adaptive_router_requests_total{{{quiet},code="200"}} 1000', *_histograms(quiet, 1000.0)]
    return "\n".join(lines) + "\n"


def _histograms(labels: str, count: float) -> list[str]:
    lines = []
    for name in ("ttft", "tpot"):
        metric = f"adaptive_router_{name}_seconds"
        lines += [f'{metric}_bucket{{{labels},le="{le}"}} {count}' for le in ("0.5", "1", "+Inf")]
        lines.append(f"{metric}_count{{{labels}}} {count}")
    return lines


def find_prometheus() -> str:
    """The user's own, else the one that was built for the clusters."""
    if path := shutil.which("prometheus"):
        return path
    try:
        return str(binaries.find_binaries()["prometheus"])
    except ClusterError as error:
        give_up(f"there is no prometheus: {error}")


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    running = Exporter()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def prometheus_url(exporter: Exporter, tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    interval = f"{round(SCRAPE_SECONDS * 1000)}ms"
    jobs = [
        {
            "job_name": path,
            "metrics_path": f"/{path}",
            "static_configs": [{"targets": [exporter.address], "labels": {"namespace": "demo", "pod": pod}}],
        }
        for path, pod in (("router", "router-0"), ("engine", "engine-0"))
    ]
    config = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": jobs}
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    argv = [
        find_prometheus(),
        f"--config.file={tmp_path / 'prometheus.yaml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    ]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        yield f"http://{address}"
        process.terminate()
        process.wait(timeout=20)


async def read(url: str) -> tuple[ModelMetrics, list[Cause]]:
    reader = PrometheusReader(url, 2.0, 10.0)
    answers = await reader.read(build_queries([ModelScope("demo", "assistant", 20)], Windows(SCRAPE_SECONDS)))
    reader.close()
    failed = {query.name: answer.cause for query, answer in answers.items() if isinstance(answer, Failed)}
    rejected: list[Cause] = []
    readings = Readings(answers, time.time(), lambda _query, cause: rejected.append(cause))
    metrics = readings.read_model(
        Subject("demo", "assistant", SPEC, 4, (POD,), (RouterPod("router-0", 0.0),), SPEC.scaling.hold_seconds)
    )
    assert not any("refused" in cause for cause in failed.values()), failed
    return metrics, rejected


async def read_until_known(url: str) -> ModelMetrics:
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        metrics, rejected = await read(url)
        assert rejected == []
        if isinstance(metrics.arrivals, Sample) and isinstance(metrics.served_quality_permille, Sample):
            return metrics
        await asyncio.sleep(0.5)
    raise AssertionError(f"still unknown: {metrics}")


async def test_every_reading_is_what_the_pods_report(prometheus_url: str) -> None:
    await read_until_known(prometheus_url)
    await asyncio.sleep(Windows(SCRAPE_SECONDS).stable_seconds)  # a rate is whole when its window is
    metrics, _ = await read(prometheus_url)
    for name in ("arrivals", "recent_arrivals", "peak_arrivals"):
        reading = getattr(metrics, name)
        assert isinstance(reading, Sample), reading
        assert reading.value == pytest.approx(RATE, rel=0.15), name
        assert 0.0 <= reading.age_seconds < 3 * SCRAPE_SECONDS
    assert isinstance(metrics.served_quality_permille, Sample)
    assert metrics.served_quality_permille.value == pytest.approx(900.0, abs=1.0)
    assert isinstance(metrics.ttft_p95_seconds, Sample)
    assert metrics.ttft_p95_seconds.value == pytest.approx(0.475)
    assert isinstance(metrics.queue, Sample)
    assert metrics.queue.value == 7.0
    work = metrics.pod_work["engine-0"]
    assert isinstance(work, Sample)
    assert (work.value, work.age_seconds < 3 * SCRAPE_SECONDS) == (5.0, True)
    assert {tier: seen.least_tpot_seconds for tier, seen in metrics.tiers.items()} == {
        "full": pytest.approx(0.25),
        "int8": 0.0,  # nobody streams: no token is late
        "int4": pytest.approx(0.25),
    }


async def test_when_scrapes_fail_the_age_grows_and_a_pods_work_is_unknown(
    prometheus_url: str, exporter: Exporter
) -> None:
    await read_until_known(prometheus_url)
    await asyncio.sleep(3.0)
    exporter.down = True
    await asyncio.sleep(4.0)
    metrics, _ = await read(prometheus_url)
    assert isinstance(metrics.arrivals, Sample)
    assert metrics.arrivals.age_seconds == pytest.approx(4.0, abs=1.5)
    assert isinstance(metrics.queue, Unknown)
    assert isinstance(metrics.pod_work["engine-0"], Unknown)


async def test_a_model_that_nobody_scraped_has_no_samples_yet(prometheus_url: str) -> None:
    await read_until_known(prometheus_url)
    reader = PrometheusReader(prometheus_url, 2.0, 10.0)
    answers = await reader.read(build_queries([ModelScope("demo", "other", 20)], Windows(SCRAPE_SECONDS)))
    reader.close()
    metrics = Readings(answers, time.time(), lambda *_: None).read_model(
        Subject("demo", "other", SPEC, 4, (), (), SPEC.scaling.hold_seconds)
    )
    assert isinstance(metrics.arrivals, Unknown)
    assert "no samples yet" in metrics.arrivals.cause
