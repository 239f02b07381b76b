"""What drafting with the int4 level gains an int8 answer: `make bench-drafting` (options: --help).

One nested engine, channels permuted, over HTTP. Each round asks the same continuations of held-out English text twice,
as they are and with `x-speculate: off`, in turn; answers must be equal. The engine's own gate is in force, so what is
measured is what a user gets, its trials included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine_process import read_metrics, run_engine
from benchmarks.held_out_text import read_passages
from benchmarks.idle import IdleCheck, wait_until_idle
from benchmarks.paired import paired_ratio
from benchmarks.server_process import ServerProcess
from inference_pods import protocol
from inference_pods.kernels.cpu import detect_cpu

BATCHES = (1, 4, 8)
PROMPT_WORDS, NEW_TOKENS = 80, 160
OUTPUT = Path("out/bench")
FLAGS = (
    "--precision", "nested", "--levels", "int8,int4", "--draft-level", "int4", "--permutation-seed", "1",
    "--prefix-cache", "off", "--max-batch-size", "8", "--kv-cache-tokens", "8192", "--max-total-tokens", "1024",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """Tokens/s of one batch with and without drafts, and what became of the drafts."""

    drafted_speed: float
    plain_speed: float
    drafted: float
    accepted: float


def ask(server: ServerProcess, prompt: str, headers: dict[str, str]) -> str:
    body = {"inputs": prompt, "parameters": {"max_new_tokens": NEW_TOKENS, "ignore_eos": True}}
    request = urllib.request.Request(
        f"{server.base}/generate", json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return str(json.load(response)["generated_text"])


def time_batch(server: ServerProcess, prompts: Sequence[str], headers: dict[str, str]) -> tuple[float, list[str]]:
    """Tokens/s of prompts that are asked at the same time, prompts read included, and their answers."""
    started = time.monotonic()
    with ThreadPoolExecutor(len(prompts)) as clients:
        answers = list(clients.map(lambda prompt: ask(server, prompt, headers), prompts))
    return len(prompts) * NEW_TOKENS / (time.monotonic() - started), answers


def measure_pair(server: ServerProcess, prompts: Sequence[str], drafts_first: bool) -> Pair:
    """Exits the program when a draft changed an answer."""
    before = read_metrics(server)
    sides: dict[bool, tuple[float, list[str]]] = {}
    for drafts in (drafts_first, not drafts_first):
        sides[drafts] = time_batch(server, prompts, {} if drafts else {protocol.HEADER_SPECULATE: "off"})
    if sides[True][1] != sides[False][1]:
        raise SystemExit("a drafted answer differs from the plain one: nothing to compare")
    after = read_metrics(server)
    grown = [after[name] - before[name] for name in (protocol.ENGINE_DRAFT_TOKENS, protocol.ENGINE_ACCEPTED_TOKENS)]
    return Pair(sides[True][0], sides[False][0], *grown)


def render(pairs: dict[int, list[Pair]]) -> str:
    lines = ["| sequences | drafted tok/s | plain tok/s | ratio | pairs | lower 90 % | accepted |", "|" + "---|" * 7]
    for batch, found in pairs.items():
        with_drafts, plain = [pair.drafted_speed for pair in found], [pair.plain_speed for pair in found]
        ratio = paired_ratio(with_drafts, plain)
        drafted, accepted = sum(pair.drafted for pair in found), sum(pair.accepted for pair in found)
        share = f"{accepted / drafted:.0%} of {drafted:.0f}" if drafted else "none drafted"
        medians = [statistics.median(speeds) for speeds in (with_drafts, plain)]
        lines.append(
            f"| {batch} | {medians[0]:.0f} | {medians[1]:.0f} | {ratio.median:.2f}x | {ratio.lowest:.2f}.."
            f"{ratio.highest:.2f} | {ratio.lower_bound:.2f} | {share} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What self-speculative decoding gains, over HTTP.")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--gate-seconds", type=float, default=10.0, help="how long to wait for an idle machine")
    options = parser.parse_args()
    texts = [" ".join(text.split()[:PROMPT_WORDS]) for text in read_passages(options.rounds * max(BATCHES), 512)]
    pairs: dict[int, list[Pair]] = {batch: [] for batch in BATCHES}
    gates: list[IdleCheck] = []
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with run_engine(FLAGS, OUTPUT / "drafting-engine.log") as server:
        ask(server, texts[0], {})
        for index in range(options.rounds):
            own = texts[index * max(BATCHES) : (index + 1) * max(BATCHES)]
            for batch in BATCHES:
                gates.append(wait_until_idle(options.gate_seconds))
                pairs[batch].append(measure_pair(server, own[:batch], drafts_first=bool(index % 2)))
            print(f"round {index + 1} of {options.rounds}", flush=True)
    print(f"{detect_cpu().describe()}; idle gate: {sum(gate.passed for gate in gates)} of {len(gates)} passed\n")
    print(render(pairs))


if __name__ == "__main__":
    main()
