"""The peer's side of the engine benchmark: llama.cpp's own benchmark programs, and what they print."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks.peer import peer_environment
from benchmarks.workload import BATCHES, PREFILL, PREFILL_TOKENS, Speeds, Workload, decode_name


def measure(tools: Path, model: Path, workload: Workload) -> Speeds:
    """Mean tokens/s of every measure; each program warms up by itself."""
    return {
        **parse_bench(_run_bench(tools, model, workload, decode=True)),
        **parse_batched(_run_batched(tools, model, workload)),
        **parse_bench(_run_bench(tools, model, workload, decode=False)),
    }


def parse_bench(text: str) -> Speeds:
    """Speeds in llama-bench's JSON."""
    names = {(0, True): decode_name(1), (PREFILL_TOKENS, False): PREFILL}
    return {names[int(run["n_prompt"]), int(run["n_gen"]) > 0]: float(run["avg_ts"]) for run in json.loads(text)}


def parse_batched(text: str) -> Speeds:
    """Decode speeds of all sequences together in llama-batched-bench's JSON lines, among other lines."""
    runs = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return {decode_name(int(run["pl"])): float(run["speed_tg"]) for run in runs}


def _run_bench(tools: Path, model: Path, workload: Workload, *, decode: bool) -> str:
    sizes = ["-p", "0", "-n", str(workload.new_tokens), "-d", str(workload.context), "-r", "1"]
    if not decode:
        sizes = ["-p", str(PREFILL_TOKENS), "-n", "0", "-r", str(workload.prefills)]
    return _run([str(tools / "llama-bench"), "-m", str(model), "-t", str(workload.threads), "-o", "json", *sizes])


def _run_batched(tools: Path, model: Path, workload: Workload) -> str:
    batches = [batch for batch in BATCHES if batch > 1]
    cells = max(batches) * (workload.context + workload.new_tokens)
    sizes = ["-npp", str(workload.context), "-ntg", str(workload.new_tokens), "-npl", ",".join(map(str, batches))]
    threads = ["-t", str(workload.threads), "-tb", str(workload.threads)]
    command = [str(tools / "llama-batched-bench"), "-m", str(model), "-c", str(cells), "-b", "2048", "-ub", "512"]
    return _run([*command, *threads, *sizes, "--output-format", "jsonl"])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=peer_environment())
    if done.returncode:
        raise SystemExit(f"{Path(command[0]).name} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return done.stdout
