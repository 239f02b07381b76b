"""Eight HTTP clients against our engine's server and against llama-server: `bench_engine --http`.

Every round starts each server anew, right after its peer's: cold start (process start to the first token of a first
request, model file in the page cache), a small load to warm up, then the load that counts, then the most memory that
was resident. Same weights, context, slots, threads, prompts and number of tokens; greedy; no prompt is reused. The
clients' own time is in both sides' figures, on the same cores. Differences that remain: our keys and values of fp32
weights are fp32, the peer's fp16; our frames carry each token's probability. Writes out/bench/http.json and prints
tables.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import http_load
from benchmarks.engine_process import run_engine
from benchmarks.http_load import Endpoint, LoadShape, run_load, tokens_per_second
from benchmarks.http_report import HttpResults, ServerFigures, render_http_report
from benchmarks.idle import wait_until_idle
from benchmarks.peer import SOURCE, find_model, peer_environment
from benchmarks.server_process import ServerProcess, free_port, run_server
from inference_pods.engine.source import resolve_source
from inference_pods.kernels.formats import Precision
from inference_pods.kernels.library import choose_variant, load_library
from inference_pods.protocol import HEADER_LEVEL

CLIENTS = 8
CONTEXT_TOKENS = 8192  # of all clients together
OUTPUT = Path("out/bench")


@dataclass(frozen=True, slots=True)
class Tier:
    """One of our tiers (or a level of the nested one) and the peer's format that it is compared with."""

    name: str
    peer: str
    precision: Precision
    level: str | None = None


TIERS = (
    Tier("fp32", "F32", Precision.FP32),
    Tier("bf16", "F16", Precision.BF16),
    Tier("int8", "Q8_0", Precision.INT8),
    Tier("int4", "Q4_0", Precision.INT4),
    Tier("nested int8", "Q8_0", Precision.NESTED, "int8"),
    Tier("nested int4", "Q4_0", Precision.NESTED, "int4"),
)


@dataclass(frozen=True, slots=True)
class HttpBench:
    """One configuration of the benchmark. `tools`: the peer's programs."""

    tools: Path
    tiers: Sequence[Tier]
    shape: LoadShape
    threads: int
    gate_seconds: float

    def warm_machine(self) -> None:
        """Fills the page cache and builds the kernels: the first round's cold start must be like the others'."""
        load_library(choose_variant())
        for path in (resolve_source(SOURCE), *(find_model(self.tools, tier.peer) for tier in self.tiers)):
            path.read_bytes()

    def run_round(self, index: int, results: HttpResults) -> None:
        """Measures every tier that has its own peer right beside it, then its nested level; orders rotate."""
        formats = list(dict.fromkeys(tier.peer for tier in self.tiers))
        turn = index % len(formats)
        for format_name in formats[turn:] + formats[:turn]:
            results.gates.append(wait_until_idle(self.gate_seconds))
            for name, figures in self._run_pair(format_name, index):
                results.add(name, figures)

    def _run_pair(self, format_name: str, index: int) -> Iterator[tuple[str, ServerFigures]]:
        tiers = [tier for tier in self.tiers if tier.peer == format_name]
        if index % 2:
            yield format_name, self._measure_peer(format_name, index)
        for tier in tiers:
            yield tier.name, self._measure_ours(tier, index)
        if not index % 2:
            yield format_name, self._measure_peer(format_name, index)

    def _measure_ours(self, tier: Tier, seed: int) -> ServerFigures:
        flags = (
            "--precision", tier.precision.value, "--threads", str(self.threads),
            "--max-batch-size", str(self.shape.clients),
            "--max-total-tokens", str(CONTEXT_TOKENS // CLIENTS), "--kv-cache-tokens", str(CONTEXT_TOKENS),
            "--prefix-cache", "off",
        )  # fmt: skip
        headers = {HEADER_LEVEL: tier.level} if tier.level else {}
        running = run_engine(flags, OUTPUT / "http-engine.log")
        return measure_server(running, Endpoint("", http_load.OURS, headers), self.shape, seed)

    def _measure_peer(self, format_name: str, seed: int) -> ServerFigures:
        port = free_port()
        threads = ["-t", str(self.threads), "-tb", str(self.threads)]
        sizes = ["-c", str(CONTEXT_TOKENS), "-np", str(self.shape.clients), "--no-webui", "--cache-ram", "0"]
        place = ["--host", "127.0.0.1", "--port", str(port)]
        command = [str(self.tools / "llama-server"), "-m", str(find_model(self.tools, format_name))]
        log = OUTPUT / "http-peer.log"
        running = run_server([*command, *threads, *sizes, *place], port, log, peer_environment())
        return measure_server(running, Endpoint("", http_load.LLAMA, {}), self.shape, seed)


def measure_server(
    running: AbstractContextManager[ServerProcess], endpoint: Endpoint, shape: LoadShape, seed: int
) -> ServerFigures:
    """Starts the server, measures it once, ends it. `endpoint.base` is filled in here."""
    with running as server:
        endpoint = Endpoint(server.base, endpoint.dialect, endpoint.headers)
        first = asyncio.run(run_load(endpoint, LoadShape(1, 1, 8, 1), seed))[0]
        asyncio.run(run_load(endpoint, LoadShape(shape.clients, 1, 32, 8), seed))
        times = asyncio.run(run_load(endpoint, shape, seed))
        return ServerFigures(
            tokens_per_second(times),
            [one.ttft_seconds for one in times],
            [one.tpot_seconds for one in times],
            first.first - server.started,
            server.ready - server.started,
            server.peak_rss_bytes(),
        )


def choose_tiers(names: str) -> list[Tier]:
    """Tiers by their names, separated by commas.

    Raises:
        argparse.ArgumentTypeError: an unknown name; its message has those that there are.
    """
    wanted = names.split(",")
    known = {tier.name: tier for tier in TIERS}
    if unknown := [name for name in wanted if name not in known]:
        raise argparse.ArgumentTypeError(f"no tier {unknown[0]!r}; there are {', '.join(known)}")
    return [known[name] for name in wanted]


def run_bench(bench: HttpBench, conditions: dict[str, object], rounds: int) -> None:
    """All rounds; the JSON is written after each, so that an interrupted run keeps its finished ones."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    results = HttpResults()
    bench.warm_machine()
    conditions = {**conditions, "load": asdict(bench.shape), "context": CONTEXT_TOKENS, "threads": bench.threads}
    for index in range(rounds):
        started = time.monotonic()
        bench.run_round(index, results)
        content = {"conditions": conditions, **asdict(results)}
        (OUTPUT / "http.json").write_text(json.dumps(content, indent=1))
        print(f"round {index + 1} of {rounds}: {time.monotonic() - started:.0f} s", flush=True)
    pairs = {tier.name: tier.peer for tier in bench.tiers}
    print(render_http_report(conditions, results, pairs))
