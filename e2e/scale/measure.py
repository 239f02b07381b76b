"""The run itself, inside the cluster's network: models, the operator, quiet, edits, a load step; then the figures."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from e2e.demo.settings import DemoError
from e2e.demo.settings import Settings as DemoSettings
from e2e.scale import audit, manifests, operator
from e2e.scale.api import Api, ApiError, connect
from e2e.scale.cluster import describe_cluster
from e2e.scale.figures import Figures, Spread, format_figures, to_json
from e2e.scale.mirror import Mirror
from e2e.scale.settings import EXPORTER_PORT, SYSTEM_NAMESPACE, ScaleSettings, parse_settings
from e2e.scale.watching import OperatorEndedError, Watcher, cpu_cores

_MODELS = "/apis/adaptivellm.dev/v1alpha1"
_CALLS_AT_ONCE = 4
_QUIET_BEFORE = 30.0  # seconds without a write, so that the models count as settled
_CHANGE_SECONDS, _STEP_SECONDS = 20.0, 150.0  # longest waits for an answer


_T = TypeVar("_T")


class ScaleError(Exception):
    """The run cannot go on; the text says why."""


@dataclass(slots=True)
class Run:
    """What the parts of a run share."""

    settings: ScaleSettings
    api: Api
    models: Mirror
    watcher: Watcher
    log: audit.AuditLog
    figures: Figures
    started: float = field(default_factory=time.time)

    def writes(self) -> list[audit.Write]:
        """All that the operator wrote so far, Lease renewals too."""
        return self.log.read()

    def say(self, text: str) -> None:
        print(f"scale: {time.time() - self.started:5.0f} s  {text}", flush=True)


async def prepare(api: Api, settings: ScaleSettings) -> None:
    """Nodes and namespaces."""
    await _all([lambda n=n: api.call("POST", "/api/v1/nodes", n) for n in manifests.build_nodes(settings)])
    spaces = manifests.build_namespaces(settings)
    await _all([lambda s=s: api.call("POST", "/api/v1/namespaces", s) for s in spaces])


async def start_models(run: Run) -> None:
    """Apply all; until all are Ready."""
    settings, begin = run.settings, time.time()
    bodies = [manifests.build_model(i, settings) for i in range(settings.models)]
    await _all([lambda b=b: run.api.call("POST", f"{_path(b['metadata']['namespace'])}", b) for b in bodies])
    run.say(f"{settings.models} models are applied")
    said = time.time()
    while (ready := sum(_is_ready(m) for m in run.models.objects.values())) < settings.models:
        if time.time() - begin > settings.ready_seconds:
            raise ScaleError(f"only {ready} of {settings.models} models were Ready after {settings.ready_seconds:g} s")
        if time.time() - said > 15:
            said = time.time()
            run.say(f"{ready} models are Ready")
        await asyncio.sleep(0.2)
    figures, end = run.figures, time.time()
    figures.ready_seconds = end - begin
    figures.passes_starting = _passes(run, begin, end)
    figures.cpu_starting = cpu_cores(run.watcher.usages, begin, end)
    figures.writes_starting = audit.count_by_kind(audit.without_lease(audit.between(run.writes(), begin, end)))
    run.say(f"all are Ready after {figures.ready_seconds:.0f} s")


def _is_ready(model: dict[str, Any]) -> bool:
    status = model.get("status") or {}
    is_seen = status.get("observedGeneration") == model["metadata"]["generation"]
    return is_seen and any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))


async def measure_quiet(run: Run) -> None:
    """Wait until the operator has nothing left to write, then count."""
    ready = time.time()
    await _settle(run)
    run.say("quiet begins")
    begin = time.time()
    await asyncio.sleep(run.settings.quiet_seconds)
    end, figures = time.time(), run.figures
    written = audit.between(run.writes(), begin, end)
    figures.quiet_seconds = end - begin
    figures.writes_quiet = audit.count_by_kind(audit.without_lease(written))
    figures.lease_writes_quiet = len(written) - sum(figures.writes_quiet.values())
    figures.passes_quiet = _passes(run, begin, end)
    figures.solved_quiet = _solved(run, begin, end)
    figures.settle_seconds = begin - ready
    figures.changes_settling = audit.count_replica_changes(run.writes(), ready, begin)
    figures.changes_quiet = audit.count_replica_changes(run.writes(), begin, end)
    figures.counts["quiet"] = run.watcher.counts
    figures.cpu_quiet = cpu_cores(run.watcher.usages, begin, end)
    figures.rss_quiet = run.watcher.usages[-1].rss_bytes
    run.say(f"quiet: {figures.writes_per_minute:.1f} writes per minute, {figures.cpu_quiet:.2f} cores")


async def _settle(run: Run) -> float | None:
    """Wait for quiet, but not for ever: when the last write before it was; None where it still writes."""
    begin = time.time()
    while time.time() - begin < run.settings.settle_seconds:
        last = max((w.at for w in audit.without_lease(run.writes())), default=0.0)
        if time.time() - max(last, begin) > _QUIET_BEFORE:
            return last
        await asyncio.sleep(1)
    run.say("it still writes: counted all the same")
    return None


async def measure_changes(run: Run) -> None:
    """Edit specs one after the other, spread over the planner's period."""
    answered: list[float] = []
    for number in range(run.settings.changes):
        index = number * run.settings.models // run.settings.changes
        model = (manifests.model_namespace(index), manifests.model_name(index))
        begin = time.time()
        path, patch = f"{_path(model[0])}/{model[1]}", manifests.build_change(1)
        await run.api.call("PATCH", path, patch, "application/json-patch+json")
        seconds = await _until(lambda m=model, b=begin: audit.first_after(run.writes(), m, b), _CHANGE_SECONDS)
        answered += [] if seconds is None else [seconds]
        run.figures.unanswered_changes += seconds is None
        await asyncio.sleep(2 + number % 5)  # not always at the same moment of the planner's period
    run.figures.change_to_write = Spread.of(answered)
    run.say(f"from a spec change to the first write: {run.figures.change_to_write}")


async def measure_step(run: Run) -> None:
    """More load for a tenth of the models, all at once."""
    settings = run.settings
    chosen = range(settings.models - settings.stepped, settings.models)
    models = [(manifests.model_namespace(i), manifests.model_name(i)) for i in chosen]
    body = {"models": ["/".join(m) for m in models], "requestsPerSecond": manifests.stepped_load(settings)}
    begin = time.time()
    url = f"http://127.0.0.1:{EXPORTER_PORT}/load"
    async with aiohttp.ClientSession() as session, session.put(url, json=body) as answer:
        answer.raise_for_status()

    def found() -> list[float] | None:
        writes = run.writes()
        seconds = [s for m in models if (s := audit.first_replica_change(writes, m, begin)) is not None]
        return seconds if len(seconds) == len(models) else None

    await _until(found, _STEP_SECONDS)
    writes = run.writes()
    seconds = [s for m in models if (s := audit.first_replica_change(writes, m, begin)) is not None]
    run.figures.step_to_replicas = Spread.of(seconds)
    run.figures.unanswered_steps = len(models) - len(seconds)
    run.say(f"from the load step to the first replica change: {run.figures.step_to_replicas}")
    if settings.program:  # what others give comes after the first changes
        last = await _settle(run)
        run.figures.step_to_quiet = None if last is None else last - begin
        run.say(f"from the load step to the last write: {run.figures.step_to_quiet}")


async def measure(settings: ScaleSettings) -> Figures:
    """All of it. Raises ScaleError, ApiError and DemoError."""
    cluster, out = describe_cluster(), settings.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    demo = DemoSettings(context=cluster.context, system_namespace=SYSTEM_NAMESPACE)
    figures = Figures(settings.models, settings.pods, settings.nodes, settings.scrape_seconds, program=settings.program)
    account, chart = operator.install(demo, settings.scrape_seconds)
    kubeconfig = cluster.folder / "operator.kubeconfig"
    operator.write_kubeconfig(demo, account, kubeconfig)
    environment = operator.build_environment(chart, kubeconfig, out)
    log = audit.AuditLog(cluster.audit_log, f"system:serviceaccount:{SYSTEM_NAMESPACE}:{account}")
    async with connect(cluster.context) as api:
        await prepare(api, settings)
        with operator.run_operator(environment, out / "operator.log") as pid:
            mirror = Mirror(api, f"{_MODELS}/adaptivemodels")
            run = Run(settings, api, mirror, Watcher(pid), log, figures)
            background = [asyncio.create_task(mirror.run()), asyncio.create_task(run.watcher.run())]
            try:
                await _beside(_story(run), background)
            finally:
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)
                figures.rss_most = max((u.rss_bytes for u in run.watcher.usages), default=0)
    return figures


async def _story(run: Run) -> None:
    await start_models(run)
    await measure_quiet(run)
    begin = time.time()
    await measure_changes(run)
    await measure_step(run)
    end, figures = time.time(), run.figures
    figures.passes_after = _passes(run, begin, end)
    figures.solved_after = _solved(run, begin, end)
    figures.changes_after = audit.count_replica_changes(run.writes(), begin, end)
    figures.counts["end"] = run.watcher.counts


async def _beside(story: Awaitable[None], background: list[asyncio.Task[None]]) -> None:
    """A story that ends when what runs beside it fails (the operator is gone, for instance)."""
    task = asyncio.ensure_future(story)
    done, _ = await asyncio.wait({task, *background}, return_when=asyncio.FIRST_COMPLETED)
    if task not in done:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    for ended in done:
        ended.result()


def _passes(run: Run, begin: float, end: float) -> Spread:
    return Spread.of([p.seconds for p in run.watcher.passes.times if begin <= p.at < end])


def _solved(run: Run, begin: float, end: float) -> Spread:
    return Spread.of([p.seconds for p in run.watcher.solved.times if begin <= p.at < end])


def _path(namespace: str) -> str:
    return f"{_MODELS}/namespaces/{namespace}/adaptivemodels"


async def _all(calls: list[Callable[[], Awaitable[object]]]) -> None:
    """A few at a time."""
    limit = asyncio.Semaphore(_CALLS_AT_ONCE)

    async def one(call: Callable[[], Awaitable[object]]) -> None:
        async with limit:
            await call()

    await asyncio.gather(*(one(call) for call in calls))


async def _until(look: Callable[[], _T | None], seconds: float) -> _T | None:
    deadline = time.time() + seconds
    while (found := look()) is None and time.time() < deadline:  # noqa: ASYNC110 a file grows
        await asyncio.sleep(0.5)
    return found


def describe_machine() -> dict[str, object]:
    """Cores and CPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    return {"cores": os.cpu_count(), "cpu": model}


def main() -> int:
    """Exit status: 1 when the run could not go on, or the operator was not quiet."""
    settings = parse_settings()
    try:
        figures = asyncio.run(measure(settings))
    except (ScaleError, OperatorEndedError, ApiError, DemoError, OSError) as error:
        print(f"scale: failed: {error}; the operator's log is in {settings.out}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    text = format_figures(figures)
    machine = describe_machine()
    document = {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine, "figures": dataclasses.asdict(figures)}
    path = settings.out / f"{settings.models}-models{'-program' if settings.program else ''}.json"
    path.write_text(json.dumps(to_json(document), indent=2) + "\n")
    print(f"\n{text}\n\nscale: written to {path}", flush=True)
    if not figures.is_quiet():
        print("scale: failed: the operator writes although nothing happens", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
