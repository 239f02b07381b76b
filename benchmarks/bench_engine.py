"""The engine against llama.cpp: same weights, same machine, same rounds. `make bench-engine` (options: --help).

Without --http it measures bare steps; with it, whole servers (bench_http.py).

Every round measures each tier on both sides right after each other; the order of the tiers and which side goes first
rotate. Before each pair the machine has to be idle (with a time-out; what the gate found is recorded). Both sides
average over the same number of tokens at the same context lengths. Prints a table with the targets, also those missed,
and writes everything to out/bench/engine.json. Differences that remain: our keys and values of fp32 weights are fp32;
our step computes the best token and the normaliser of its probability, the peer's only the scores.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import llama
from benchmarks.bench_http import CLIENTS, TIERS, HttpBench, Tier, choose_tiers, run_bench
from benchmarks.conditions import PEER_VARIANTS, describe_conditions
from benchmarks.http_load import LoadShape
from benchmarks.idle import IdleCheck, wait_until_idle
from benchmarks.ours import BareEngine
from benchmarks.paired import PairedRatio, paired_ratio
from benchmarks.peer import find_model, find_tools
from benchmarks.report import render_report
from benchmarks.workload import Speeds, Workload
from inference_pods.kernels.cpu import detect_threads
from inference_pods.kernels.formats import Precision

PEER_FORMATS = {Precision.FP32: "F32", Precision.BF16: "F16", Precision.INT8: "Q8_0", Precision.INT4: "Q4_0"}
NESTED_LEVELS = (Precision.INT8, Precision.INT4)  # in the order of the nested decoder's levels
OUTPUT = Path("out/bench/engine.json")


@dataclass(slots=True)
class Results:
    """Speeds of all rounds by side (`fp32`, `F32`, `nested int8`, …), and the idle gate's findings."""

    speeds: dict[str, list[Speeds]] = field(default_factory=dict)
    gates: list[IdleCheck] = field(default_factory=list)

    def add(self, side: str, speeds: Speeds) -> None:
        self.speeds.setdefault(side, []).append(speeds)

    def ratio(self, ours: str, peer: str, measure: str) -> PairedRatio:
        return paired_ratio(self.series(ours, measure), self.series(peer, measure))

    def series(self, side: str, measure: str) -> list[float]:
        return [speeds[measure] for speeds in self.speeds[side]]


class Bench:
    def __init__(
        self, tools: Path, engines: dict[Precision, BareEngine], workload: Workload, gate_seconds: float
    ) -> None:
        self._tools, self._engines, self._workload, self._gate_seconds = tools, engines, workload, gate_seconds
        self._tiers = [precision for precision in engines if precision in PEER_FORMATS]
        self.results = Results()

    def run_round(self, index: int) -> None:
        turn = index % len(self._tiers)
        for tier in self._tiers[turn:] + self._tiers[:turn]:
            self.results.gates.append(wait_until_idle(self._gate_seconds))
            sides = [self._run_peer, self._run_ours]
            for run in sides if index % 2 else reversed(sides):
                run(tier)

    def _run_peer(self, tier: Precision) -> None:
        name = PEER_FORMATS[tier]
        self.results.add(name, llama.measure(self._tools, find_model(self._tools, name), self._workload))

    def _run_ours(self, tier: Precision) -> None:
        """The dedicated tier, and right after it the nested level of the same precision."""
        self.results.add(tier.value, self._engines[tier].measure())
        if tier in NESTED_LEVELS and Precision.NESTED in self._engines:
            speeds = self._engines[Precision.NESTED].measure(NESTED_LEVELS.index(tier))
            self.results.add(f"nested {tier.value}", speeds)


def choose_engines(tiers: Sequence[Tier]) -> list[Precision]:
    """Engines that bare steps need: a nested level is measured beside the dedicated tier of its precision."""
    peers = {tier.peer for tier in tiers}
    nested = [Precision.NESTED] if any(tier.precision is Precision.NESTED for tier in tiers) else []
    return [precision for precision, peer in PEER_FORMATS.items() if peer in peers] + nested


def write_json(conditions: dict[str, object], results: Results) -> None:
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    gates = [asdict(gate) for gate in results.gates]
    OUTPUT.write_text(json.dumps({"conditions": conditions, "speeds": results.speeds, "idle": gates}, indent=1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Decode and prefill speed against llama.cpp, alternating.")
    parser.add_argument("--variant", choices=list(PEER_VARIANTS), default="avx2", help="instructions of both sides")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=64, help="decode steps per figure")
    parser.add_argument("--context", type=int, default=128, help="tokens before the decoded ones")
    parser.add_argument("--threads", type=int, default=detect_threads())
    parser.add_argument("--gate-seconds", type=float, default=30.0, help="how long to wait for an idle machine")
    parser.add_argument("--http", action="store_true", help="eight HTTP clients against both servers instead")
    parser.add_argument("--tiers", type=choose_tiers, default=list(TIERS), help="some, e.g. int8,'nested int8'")
    parser.add_argument("--requests", type=int, default=2, help="of each client of --http, after each other")
    parser.add_argument("--quick", action="store_true", help="two short rounds: shows that it runs, measures nothing")
    return parser.parse_args()


def run_bare(arguments: argparse.Namespace, tools: Path, rounds: int, new_tokens: int, gate_seconds: float) -> None:
    """Bare decoder steps against the peer's own benchmark programs."""
    workload = Workload(context=arguments.context, new_tokens=new_tokens, prefills=2, threads=arguments.threads)
    conditions = describe_conditions(arguments.variant, rounds, workload=asdict(workload))
    engines = {precision: BareEngine(precision, workload) for precision in choose_engines(arguments.tiers)}
    bench = Bench(tools, engines, workload, gate_seconds)
    for index in range(rounds):
        started = time.monotonic()
        bench.run_round(index)
        write_json(conditions, bench.results)
        print(f"round {index + 1} of {rounds}: {time.monotonic() - started:.0f} s", flush=True)
    print(render_report(conditions, bench.results))


def run_http(arguments: argparse.Namespace, tools: Path, rounds: int, new_tokens: int, gate_seconds: float) -> None:
    """Our server against the peer's."""
    shape = LoadShape(CLIENTS, arguments.requests, arguments.context, new_tokens)
    bench = HttpBench(tools, arguments.tiers, shape, arguments.threads, gate_seconds)
    run_bench(bench, describe_conditions(arguments.variant, rounds), rounds)


def main() -> None:
    arguments = parse_arguments()
    os.environ["ADAPTIVE_KERNEL_VARIANT"] = arguments.variant
    tools = find_tools(PEER_VARIANTS[arguments.variant])
    run = run_http if arguments.http else run_bare
    if arguments.quick:
        run(arguments, tools, 2, 8, 1.0)
    else:
        run(arguments, tools, arguments.rounds, arguments.new_tokens, arguments.gate_seconds)


if __name__ == "__main__":
    main()
