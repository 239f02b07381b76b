"""The order of the demo inside the cluster's network: install, apply, calibrate, load, watch, sum up.

Every number it prints comes from the records and samples of this run.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import aiohttp

from e2e.demo.calibration import Level, Objective, capacity_within, measure_levels, scale_card
from e2e.demo.endpoint import reach_model
from e2e.demo.install import apply, install_chart, load_example, wait_for_mix, with_cards
from e2e.demo.kube import Kube, connect
from e2e.demo.load_plan import LoadPlan, TierCapacity, plan_load
from e2e.demo.loading import LoadRun
from e2e.demo.plot import draw
from e2e.demo.progress import Progress
from e2e.demo.sampler import Sampler
from e2e.demo.settings import DemoError, Settings
from e2e.demo.summary import Run, as_json, describe, faults
from e2e.demo.timeline import find_timeline, most_held
from e2e.load.accounting import account, errors
from e2e.load.client import Prompt, StreamClient
from e2e.load.closed_loop import run_levels
from e2e.load.probe import stream_text

Clock = Callable[[], float]


async def tell_story(settings: Settings, progress: Progress) -> int:
    """Exit status: 0 iff no request failed and load was shed, swapped and restored within the budget."""
    with progress.stage("Helm chart"):
        install_chart(settings)
    run = await live_through(settings, progress)
    with progress.stage("Summary"):
        return _report(settings, run, progress)


async def live_through(settings: Settings, progress: Progress) -> Run:
    """Apply the example, calibrate, load, and give what was measured."""
    others, model = load_example(settings.example)
    async with connect(settings.kube_context) as kube:
        with progress.stage("AdaptiveModel ready"):
            apply(settings, *others, model)
            await wait_for_mix(settings, kube, start_mix(model), progress, settings.ready_timeout_seconds)
        async with reach_model(settings, kube, settings.namespace, settings.model) as url:
            with progress.stage("Calibration"):
                await _probe(url, reference(model)[1], progress)
                capacities = await _calibrate(settings, model, url, progress)
            with progress.stage("Load"):
                return await _load(settings, kube, model, url, capacities, progress)


def start_mix(model: dict[str, Any]) -> dict[str, int]:
    """What runs before the load: the best tier and the warm tier, one replica each."""
    return {model["spec"]["tiers"][0]["name"]: 1, model["spec"]["routing"]["warmTier"]: 1}


def reference(model: dict[str, Any]) -> tuple[int, int]:
    """Prompt and output tokens of the reference request."""
    card = model["spec"]["tiers"][0]["card"]
    return card["referencePromptTokens"], card["referenceOutputTokens"]


def objective(model: dict[str, Any]) -> Objective:
    """The latency objective of the spec."""
    slo = model["spec"]["slo"]
    return Objective(slo["ttftMilliseconds"] / 1000, slo["tpotMilliseconds"] / 1000, slo["attainmentPercent"] / 100)


async def _probe(url: str, output_tokens: int, progress: Progress) -> None:
    text, tokens = await stream_text(url, output_tokens)
    progress.tell(f"huggingface_hub, the maintained TGI client, streams {tokens} tokens: “{text.strip()[:70]}…”")


async def _calibrate(settings: Settings, model: dict[str, Any], url: str, progress: Progress) -> dict[str, float]:
    """Measure the best and the warm tier side by side, with the operator paused so that it does not react to it."""
    apply(settings, {**model, "spec": {**model["spec"], "mode": "Paused"}})
    tiers = list(start_mix(model))
    async with _client(settings, url) as (client, now):
        found = await asyncio.gather(*(_calibrate_tier(settings, model, client, now, t, progress) for t in tiers))
    capacities = dict(zip(tiers, found, strict=True))
    declared = {t["name"]: t["card"]["capacityMilliRequestsPerSecond"] / 1000 for t in model["spec"]["tiers"]}
    warm = tiers[-1]
    for name in declared:
        if name not in capacities:
            capacities[name] = scale_card(declared[name], declared[warm], capacities[warm])
            progress.tell(f"{name}: {capacities[name]:.2f} requests/s, by its declared ratio to {warm}")
    ordered = {name: capacities[name] for name in declared}
    progress.tell(f"waiting {settings.settle_seconds:.0f} s: the operator must not take the calibration for load")
    await asyncio.sleep(settings.settle_seconds)
    apply(settings, with_cards(model, ordered))
    return ordered


async def _calibrate_tier(
    settings: Settings, model: dict[str, Any], client: StreamClient, now: Clock, tier: str, progress: Progress
) -> float:
    output_tokens = reference(model)[1]
    levels, seconds, begin = settings.calibration_levels, settings.calibration_level_seconds, now()
    records = await run_levels(client, now, levels, seconds, lambda text: Prompt(text, output_tokens, tier))
    if account(records).failed:
        raise DemoError(f"calibration of {tier}: {errors(records, 1)[0][0]}")
    measured = measure_levels(records, levels, seconds, begin, output_tokens, objective(model))
    capacity = capacity_within(measured)
    text = "; ".join(_level_text(level) for level in measured)
    if capacity is None:
        raise DemoError(f"{tier} misses the objective at every level ({text}): is the machine busy?")
    progress.tell(f"{tier}: {capacity:.2f} requests/s within the objective ({text})")
    return capacity


def _level_text(level: Level) -> str:
    ttft = "-" if level.ttft_seconds is None else f"{level.ttft_seconds:.1f}"
    tpot = "-" if level.tpot_seconds is None else f"{1000 * level.tpot_seconds:.0f}"
    missed = "" if level.meets else ", misses it"
    return f"{level.in_flight} at once {level.requests_per_second:.2f}/s, TTFT {ttft} s, TPOT {tpot} ms{missed}"


async def _load(
    settings: Settings, kube: Kube, model: dict[str, Any], url: str, capacities: dict[str, float], progress: Progress
) -> Run:
    plan = _plan(settings, model, capacities)
    best = model["spec"]["tiers"][0]["name"]
    for line in plan.explain(best):
        progress.tell(line)
    await wait_for_mix(settings, kube, start_mix(model), progress, settings.ready_timeout_seconds)
    async with _client(settings, url) as (client, now):
        sampler = Sampler(kube, settings.namespace, settings.model, now)
        load = LoadRun(settings, plan.steps, client, sampler, now, best, reference(model)[1])
        await load.run(progress)
    timeline = None
    if load.baseline is not None:
        starts = load.step_starts
        timeline = find_timeline(sampler.samples, load.records, load.baseline, starts[1], starts[-1])
    wanted = objective(model)
    return Run(
        steps=plan.steps,
        step_starts=load.step_starts,
        records=load.records,
        samples=sampler.samples,
        baseline=load.baseline,
        timeline=timeline,
        capacities=capacities,
        budget=model["spec"]["accelerators"]["budget"],
        ttft_objective_seconds=wanted.ttft_seconds,
        tpot_objective_seconds=wanted.tpot_seconds,
        stage_seconds=progress.seconds,
    )


def _plan(settings: Settings, model: dict[str, Any], capacities: dict[str, float]) -> LoadPlan:
    spec = model["spec"]
    tiers = [TierCapacity(t["name"], t["replica"]["accelerators"], capacities[t["name"]]) for t in spec["tiers"]]
    return plan_load(tiers, spec["routing"]["warmTier"], spec["accelerators"]["budget"], settings.step_seconds)


def _report(settings: Settings, run: Run, progress: Progress) -> int:
    """Print the summary, write the files, give the exit status."""
    text = describe(run)
    found = faults(run)
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / "summary.txt").write_text(text + "\n")
    (settings.out / "summary.json").write_text(json.dumps(as_json(run), indent=1, ensure_ascii=False) + "\n")
    (settings.out / "requests.jsonl").write_text("".join(json.dumps(asdict(r)) + "\n" for r in run.records))
    (settings.out / "samples.jsonl").write_text(
        "".join(json.dumps(asdict(s), ensure_ascii=False) + "\n" for s in run.samples)
    )
    draw(run, settings.out / "demo.png")
    print(text)
    print(f"\nPlot, records and this summary: {settings.out}")
    print(f"Stages: {', '.join(f'{name} {seconds:.0f} s' for name, seconds in progress.seconds.items())}")
    print("Result: " + ("; ".join(found) if found else f"ok, {most_held(run.samples)} accelerators at most"))
    return 1 if found else 0


@asynccontextmanager
async def _client(settings: Settings, url: str) -> AsyncIterator[tuple[StreamClient, Clock]]:
    start = time.monotonic()

    def now() -> float:
        return time.monotonic() - start

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield StreamClient(session, url, now, settings.request_timeout_seconds), now
