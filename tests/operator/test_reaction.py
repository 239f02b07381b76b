"""From the edit of a model to its status: the loop, the pass and the readings together, in real time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from adaptive_operator.observe.last_answers import LastAnswers
from adaptive_operator.observe.prometheus import Answers, Failed
from adaptive_operator.observe.queries import Query
from adaptive_operator.planner import Planner, PlannerSettings
from stand_ins.raw_objects import build_model
from tests.operator.test_reconcile import Scene

KEY = ("AdaptiveModel", "demo", "assistant")


class BusyPrometheus:
    """A read of all queries takes `seconds`."""

    seconds = 0.0

    async def read(self, queries: Sequence[Query]) -> Answers:
        await asyncio.sleep(self.seconds)
        return dict.fromkeys(queries, Failed("nothing scraped yet"))


async def test_an_edit_shows_in_the_status_within_a_second_though_prometheus_takes_longer() -> None:
    """The edit comes in the middle of a pass, which alone would wait for Prometheus as long as it takes."""
    scene, prometheus, hurry = Scene(build_model()), BusyPrometheus(), asyncio.Event()
    scene.reconciler.prometheus = LastAnswers(prometheus, hurry)
    await scene.lease.step()
    settings = PlannerSettings(period_seconds=30.0, debounce_seconds=0.1, pass_timeout_seconds=60.0)
    planner = Planner(scene.reconciler.run_pass, lambda: True, scene.metrics, settings, hurry=hurry)
    await planner.step()
    generation = scene.kube.objects[KEY]["metadata"]["generation"]
    assert scene.kube.objects[KEY]["status"]["observedGeneration"] == generation
    prometheus.seconds = 30.0
    loop = asyncio.create_task(planner.run())
    planner.nudge()
    await asyncio.sleep(0.3)  # now a pass waits for Prometheus
    edited = scene.kube.objects[KEY]
    scene.kube.objects[KEY] = edited | {"metadata": edited["metadata"] | {"generation": generation + 1}}
    began = time.monotonic()
    planner.nudge_in_a_hurry()
    try:
        while scene.kube.objects[KEY]["status"]["observedGeneration"] == generation:
            await asyncio.sleep(0.02)
            assert time.monotonic() - began < 5.0
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
    assert time.monotonic() - began < 1.0
