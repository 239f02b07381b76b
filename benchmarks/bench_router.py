"""What the router costs: added latency per request, and streamed events per second and core, against the engine direct.

Both paths are measured in the same rounds, alternating, with the same fake engine in a process of its own; medians
over the rounds. Run: `python benchmarks/bench_router.py [--rounds 7]`. Trust ratios and differences of one run, not
runs of two machines: the figure "events/s per core" divides by the CPU time that the router process itself used.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web

BODY = json.dumps({"inputs": "x" * 80, "parameters": {"max_new_tokens": 24}}).encode()
HEADERS = {"Content-Type": "application/json"}
ANSWER = json.dumps({"generated_text": "a" * 100}).encode()


def build_frame(index: int, *, last: bool) -> bytes:
    token = {"id": index, "text": " token", "logprob": -0.1, "special": False}
    frame = {"index": index, "token": token, "generated_text": "text" if last else None, "details": None}
    return b"data: " + json.dumps(frame).encode() + b"\n\n"


async def run_engine(port_file: Path) -> None:
    """The fake engine: answers at once; streams `x-tokens` frames with `x-gap-ms` between them."""

    async def generate(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(body=ANSWER, content_type="application/json")

    async def stream(request: web.Request) -> web.StreamResponse:
        await request.read()
        tokens, gap = int(request.headers["x-tokens"]), float(request.headers["x-gap-ms"]) / 1000
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for index in range(1, tokens + 1):
            await response.write(build_frame(index, last=index == tokens))
            await asyncio.sleep(gap)
        return response

    app = web.Application()
    app.router.add_post("/generate", generate)
    app.router.add_post("/generate_stream", stream)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await asyncio.to_thread(port_file.write_text, str(runner.addresses[0][1]))
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Round:
    """One path in one round. Latencies in ms; CPU seconds of the router process (0 for the direct path)."""

    p50_ms: float
    p95_ms: float
    events_per_second: float
    cpu_seconds_per_1000_requests: float
    cpu_seconds_per_1000_events: float


class Bench:
    def __init__(self, session: aiohttp.ClientSession, bases: dict[str, str], router_pid: int, quick: bool) -> None:
        self._session = session
        self._bases = bases
        self._pid = router_pid
        self._requests = 300 if quick else 1500
        self._streams, self._tokens, self._gap_ms = (20, 50, 20.0) if quick else (60, 100, 20.0)

    async def measure(self, path: str) -> Round:
        base = self._bases[path]
        cpu = cpu_seconds(self._pid)
        latencies = await self._one_after_the_other(base)
        request_cpu = cpu_seconds(self._pid) - cpu
        cpu, start = cpu_seconds(self._pid), time.perf_counter()
        events = sum(await asyncio.gather(*(self._read_stream(base) for _ in range(self._streams))))
        elapsed, stream_cpu = time.perf_counter() - start, cpu_seconds(self._pid) - cpu
        latencies.sort()
        return Round(
            p50_ms=statistics.median(latencies),
            p95_ms=latencies[int(len(latencies) * 0.95)],
            events_per_second=events / elapsed,
            cpu_seconds_per_1000_requests=request_cpu / self._requests * 1000,
            cpu_seconds_per_1000_events=stream_cpu / events * 1000,
        )

    async def _one_after_the_other(self, base: str) -> list[float]:
        latencies = []
        for _ in range(self._requests):
            start = time.perf_counter()
            async with self._session.post(base + "/generate", data=BODY, headers=HEADERS) as response:
                assert response.status == 200
                await response.read()
            latencies.append((time.perf_counter() - start) * 1000)
        return latencies

    async def _read_stream(self, base: str) -> int:
        headers = HEADERS | {"x-tokens": str(self._tokens), "x-gap-ms": str(self._gap_ms)}
        count = 0
        async with self._session.post(base + "/generate_stream", data=BODY, headers=headers) as response:
            assert response.status == 200
            async for chunk in response.content.iter_any():
                count += chunk.count(b"\n\n")
        assert count == self._tokens, f"{count} of {self._tokens} events arrived"
        return count


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def build_table() -> str:
    route = {"tier": "full", "qualityPermille": 1000, "mu": 1000.0, "weight": 1.0}
    slo = {"ttftMilliseconds": 1000, "tpotMilliseconds": 100}
    table = {"schemaVersion": 1, "generation": 1, "epoch": 1, "model": "bench", "slo": slo, "routes": [route]}
    return json.dumps(table | {"reference": {"promptTokens": 16, "outputTokens": 24}})


@asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def wait_for(check: str, session: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                async with session.get(check) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


async def run_rounds(rounds: int, quick: bool, router_port: int) -> dict[str, list[Round]]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        table, port_file = folder / "table.json", folder / "port"
        table.write_text(build_table())
        await stack.enter_async_context(child(__file__, "--engine", str(port_file)))
        async with asyncio.timeout(30):
            while not port_file.exists() or not port_file.read_text():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)
        engine = f"127.0.0.1:{port_file.read_text()}"
        router = await stack.enter_async_context(
            child("-m", "inference_pods.router", "--model", "bench", "--table-path", str(table), "--host", "127.0.0.1",
                  "--port", str(router_port), "--static-endpoint", f"full={engine}")
        )  # fmt: skip
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        bases = {"direct": f"http://{engine}", "router": f"http://127.0.0.1:{router_port}"}
        await wait_for(bases["router"] + "/health", session)
        bench = Bench(session, bases, router.pid, quick)
        results: dict[str, list[Round]] = {"direct": [], "router": []}
        for _ in range(rounds + 1):
            for path in ("direct", "router"):
                results[path].append(await bench.measure(path))
        return {path: measured[1:] for path, measured in results.items()}  # the first round warms up


def report(results: dict[str, list[Round]]) -> None:
    def median(path: str, name: str) -> float:
        return statistics.median(getattr(measured, name) for measured in results[path])

    def added(name: str) -> float:
        pairs = zip(results["router"], results["direct"], strict=True)
        return statistics.median(getattr(routed, name) - getattr(direct, name) for routed, direct in pairs)

    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
          f"medians of {len(results['direct'])} rounds, load average {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"{'':26}{'direct':>10}{'router':>10}{'added':>10}")
    for label, name in (("latency p50, ms", "p50_ms"), ("latency p95, ms", "p95_ms")):
        print(f"{label:26}{median('direct', name):>10.2f}{median('router', name):>10.2f}{added(name):>10.2f}")
    name = "events_per_second"
    print(f"{'events/s offered, arrived':26}{median('direct', name):>10.0f}{median('router', name):>10.0f}")
    per_request = median("router", "cpu_seconds_per_1000_requests")
    per_event = median("router", "cpu_seconds_per_1000_events")
    print(f"router CPU per request {per_request * 1000:.0f} us = {1000 / per_request:.0f} requests/s per core")
    print(f"router CPU per event   {per_event * 1000:.0f} us = {1000 / per_event:.0f} events/s per core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small rounds, for a smoke test")
    parser.add_argument("--router-port", type=int, default=18_080)
    parser.add_argument("--engine", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        uvloop.run(run_engine(arguments.engine))
    else:
        report(uvloop.run(run_rounds(arguments.rounds, arguments.quick, arguments.router_port)))


if __name__ == "__main__":
    main()
