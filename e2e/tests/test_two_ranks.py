"""A replica of two ranks in one pod serves what one rank serves, restarts when a rank is lost, stops when told to."""

from __future__ import annotations

import json
import time
from asyncio import timeout, to_thread
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from e2e.demo.commands import kubectl
from e2e.demo.endpoint import reach_model
from e2e.demo.install import apply
from e2e.demo.kube import Kube
from e2e.demo.settings import Settings
from e2e.tests.models import condition, namespace, variant, wait_ready
from e2e.tests.traffic import eventually

NS, NAME, ENGINE_PORT = "two-ranks", "m", 8000
DRAIN_SECONDS = 60  # so long that a replica which hangs instead of stopping is not taken for one that stops
SHAPES: dict[str, dict[str, Any]] = {
    "one-rank": {"accelerators": 2, "cpu": "500m", "memory": "1200Mi"},
    "two-ranks": {"accelerators": 2, "cpu": "800m", "memory": "1600Mi", "tensorParallel": 2},
}
CHAT = {
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    "temperature": 0,
    "max_tokens": 24,
    "logprobs": True,
}
# Sums over two ranks are in another order: fp32 log-probabilities moved by 2e-5 at most, while the closest two
# tokens of this answer lie 0.05 apart. So all tokens have to be the same.
SAME_LOGPROB = 1e-3
LONG = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 1000}}
KILL_RANK_1 = """
import os, pathlib, signal
lines = {int(path.parent.name): path.read_bytes() for path in pathlib.Path("/proc").glob("[0-9]*/cmdline")}
worker = b"inference_pods.engine.distributed.worker"
(rank_1,) = [process for process, line in lines.items() if worker in line.split(b"\\0")]
os.kill(rank_1, signal.SIGKILL)
"""


def two_forms(settings: Settings) -> dict[str, Any]:
    """The example's full tier twice, whole and divided among two ranks, one replica each."""
    model: dict[str, Any] = variant(
        settings,
        NS,
        NAME,
        {"full": {"replicas": {"min": 1, "max": 1}}},
        scaling={"drainDeadlineSeconds": DRAIN_SECONDS},
    )
    (full,) = model["spec"]["tiers"]
    model["spec"]["tiers"] = [{**full, "name": name, "replica": shape} for name, shape in SHAPES.items()]
    model["spec"]["routing"] = {"warmTier": "one-rank"}
    return model


async def chat(session: aiohttp.ClientSession, url: str, tier: str) -> tuple[list[str], list[float]]:
    """Tokens of a greedy answer of this tier, and the log-probability of each."""
    async with timeout(60), session.post(f"{url}/v1/chat/completions", json=CHAT, headers={"x-tier": tier}) as answer:
        assert (answer.status, answer.headers.get("x-tier-served")) == (200, tier), await answer.text()
        tokens = (await answer.json())["choices"][0]["logprobs"]["content"]
    return [token["token"] for token in tokens], [token["logprob"] for token in tokens]


async def the_pod(kube: Kube) -> Mapping[str, Any]:
    """The pod of the replica that has two ranks."""
    (pod,) = await pods(kube)
    return pod


async def pods(kube: Kube) -> list[Any]:
    return await kube.pods(NS, "app.kubernetes.io/component=engine,adaptivellm.dev/tier=two-ranks")


def container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status of its only container."""
    (status,) = pod["status"]["containerStatuses"]
    return dict(status)


async def kill_rank_1_within_an_answer(settings: Settings, pod: str, session: aiohttp.ClientSession, url: str) -> str:
    """Kills it once the answer has begun; the last frame of that answer, which must not be waited for in vain."""
    async with (
        timeout(60),
        session.post(f"{url}/generate_stream", json=LONG, headers={"x-tier": "two-ranks"}) as answer,
    ):
        assert answer.status == 200, await answer.text()
        await answer.content.readuntil(b"\n\n")
        await to_thread(kubectl, settings, "-n", NS, "exec", pod, "--", "python", "-c", KILL_RANK_1)
        async with timeout(15):
            frames = (await answer.content.read()).decode().split("\n\n")
    return [frame for frame in frames if frame.startswith("data:")][-1]


@pytest.mark.timeout(300)
async def test_two_ranks_serve_what_one_serves_restart_when_one_is_lost_and_stop_when_told_to(
    settings: Settings, kube: Kube
) -> None:
    with namespace(settings, NS):
        apply(settings, two_forms(settings))
        await to_thread(wait_ready, settings, NS, NAME, {"one-rank": 1, "two-ranks": 1})
        before = await the_pod(kube)
        name = before["metadata"]["name"]
        assert container(before)["restartCount"] == 0
        info = await kube.json(f"/api/v1/namespaces/{NS}/pods/{name}:{ENGINE_PORT}/proxy/info")
        assert (info["tensor_parallel"], info["kernels"]) == (2, "torch, 2 ranks")

        async with reach_model(settings, kube, NS, NAME) as url, aiohttp.ClientSession() as session:
            tokens, logprobs = await chat(session, url, "one-rank")
            assert len(tokens) == CHAT["max_tokens"]
            assert await chat(session, url, "two-ranks") == (tokens, pytest.approx(logprobs, abs=SAME_LOGPROB))

            last = await kill_rank_1_within_an_answer(settings, name, session, url)
            assert "error" in json.loads(last.removeprefix("data:"))
            assert (await chat(session, url, "one-rank"))[0] == tokens, "the other replica serves on"
            restarted = await eventually(
                lambda: the_pod(kube),
                lambda pod: container(pod)["ready"] and container(pod)["restartCount"],
                "ready again",
                60,
            )
            ended = container(restarted)["lastState"]["terminated"]
            assert (ended["exitCode"], json.loads(ended["message"])["reason"]) == (7, "RankLost")
            assert (container(restarted)["restartCount"], restarted["metadata"]["uid"]) == (
                1,
                before["metadata"]["uid"],
            )
            assert condition(await kube.model(NS, NAME), "ModelLoaded")["status"] == "True"
            assert (await chat(session, url, "two-ranks"))[0] == tokens

        begun = time.monotonic()
        await to_thread(kubectl, settings, "-n", NS, "delete", "am", NAME, "--timeout=30s")
        left = DRAIN_SECONDS / 2 - (time.monotonic() - begun)
        await eventually(lambda: pods(kube), lambda found: not found, "both ranks have stopped", left)
