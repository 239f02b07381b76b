"""Table and endpoints from a mounted file and from the command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from inference_pods.router import sources
from inference_pods.router.app import RouterApp
from inference_pods.router.settings import RouterSettings


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(sources, "FILE_PERIOD_SECONDS", 0.02)


def write(path: Path, table) -> None:
    path.write_text(json.dumps(table))


async def run_briefly(app, seconds=0.15):
    task = asyncio.create_task(sources.follow_table_file(app))
    await asyncio.sleep(seconds)
    return task


async def test_the_mounted_table_is_read_at_start_and_followed_but_never_taken_if_older(tmp_path, tools, quick):
    path = tmp_path / "table.json"
    app = RouterApp(RouterSettings(model="assistant", table_path=path))
    task = await run_briefly(app)
    assert app.fleet.table is None, "not there yet"
    for generation, text, want in [
        (5, None, 5),
        (4, None, 5),
        (6, "{ half a fi", 5),
        (6, None, 6),
    ]:
        if text is None:
            await asyncio.to_thread(write, path, tools.build_table(generation=generation))
        else:
            await asyncio.to_thread(path.write_text, text)
        await asyncio.sleep(0.15)
        assert app.fleet.table.generation == want
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_static_endpoints_replace_the_cluster(tools):
    settings = RouterSettings(model="assistant", static_endpoints={"full": ["127.0.0.1:1", "127.0.0.1:2"]})
    assert sources.build_sources(settings) == [sources.offer_static_endpoints]
    app = RouterApp(settings)
    await sources.offer_static_endpoints(app)
    assert [replica.base_url for replica in app.fleet.endpoints.of_tier("full")] == [
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
    ]


def test_in_a_cluster_the_file_serves_the_cold_start_and_the_watch_the_rest(tmp_path):
    settings = RouterSettings(model="assistant", table_configmap="c", table_path=tmp_path / "table.json")
    assert sources.build_sources(settings) == [sources.follow_table_file, sources.follow_cluster]


async def test_outside_a_cluster_the_router_keeps_serving_what_it_has(monkeypatch, caplog):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    app = RouterApp(RouterSettings(model="assistant"))
    task = asyncio.create_task(sources.follow_cluster(app))
    await asyncio.sleep(0.3)
    assert not task.done()
    assert "no API server" in caplog.text
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
