"""Quality of every tier and level against fp32, through the engine's own decoder: `make bench-quality`.

Held-out English text in windows of 512 tokens, of which the second half is scored, as llama-perplexity does. The first
half is a prompt's chunk, the second is decoded token by token, four windows at a time, because decoding rounds
activations where a prompt's matrix products do not. `permuted`: channels are shuffled first, so that weights are off
the example file's own int4 grid, on which int4 loses nothing by itself; `on grid`: the file's own order. The figure of
a tier is the permuted one. Keys and values are those that ship with the weights, fp16 for all but fp32, or are named.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.divergence import Array, Quality, compare, log_softmax, summarise
from benchmarks.held_out_text import read_passages
from benchmarks.peer import SOURCE
from inference_pods.engine.checkpoint import read_shape
from inference_pods.engine.digest import compute_digest
from inference_pods.engine.gguf import GgufFile
from inference_pods.engine.model_runner import Runner, create_runner, load_model
from inference_pods.engine.skip_orders import find_skip_order
from inference_pods.engine.source import resolve_source
from inference_pods.engine.tokenizer import TextTokenizer
from inference_pods.engine.vocabulary import read_vocabulary
from inference_pods.kernels.cpu import detect_cpu, detect_threads
from inference_pods.kernels.decoder import Chunk, DecoderLimits
from inference_pods.kernels.formats import BLOCK_TOKENS, GROUP, Precision
from inference_pods.kernels.levels import LevelPlan

WINDOW, PROMPT = 512, 256
TOGETHER = 4  # windows decoded in one batch
OUTPUT = Path("out/bench/quality.json")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Weights and KV cache to be measured, at all their levels. `asked_kv` None: what ships with the weights."""

    precision: Precision
    asked_kv: Precision | None = None
    seed: int = 1
    depths: tuple[int, ...] = ()
    group_size: int = GROUP

    @property
    def kv(self) -> Precision:
        return self.asked_kv or self.precision.kv

    @property
    def weights(self) -> str:
        return self.precision if self.group_size == GROUP else f"{self.precision} g{self.group_size}"

    @property
    def grid(self) -> str:
        return "permuted" if self.seed else "on grid"


CANDIDATES = (
    Candidate(Precision.BF16),
    Candidate(Precision.FP16),
    Candidate(Precision.INT8),
    Candidate(Precision.INT4),
    Candidate(Precision.INT4, group_size=64),
    Candidate(Precision.INT4, group_size=128),
    Candidate(Precision.NESTED, depths=(30, 28)),
    Candidate(Precision.FP32, asked_kv=Precision.FP16),
    Candidate(Precision.FP32, asked_kv=Precision.INT8),
    Candidate(Precision.INT8, asked_kv=Precision.FP32),
    Candidate(Precision.INT8, asked_kv=Precision.INT8),
    Candidate(Precision.INT4, asked_kv=Precision.FP32),
    Candidate(Precision.INT8, seed=0),
    Candidate(Precision.INT4, seed=0),
    Candidate(Precision.NESTED, seed=0),
)


def load(candidate: Candidate) -> Runner:
    blocks = TOGETHER * WINDOW // BLOCK_TOKENS
    limits = DecoderLimits(WINDOW, TOGETHER, WINDOW, blocks, detect_threads(), candidate.kv)
    file = GgufFile(resolve_source(SOURCE))
    order = find_skip_order((), candidate.depths, read_shape(file).layers, lambda: compute_digest(file.weights_files))
    plan = LevelPlan(depths=candidate.depths, skip_order=order)
    create = partial(create_runner, span=candidate.group_size)
    return load_model(file, limits, candidate.precision, candidate.seed, plan, create).runner


def score(runner: Runner, windows: list[list[int]], level: int) -> Iterator[Array]:
    """Log probabilities [scored positions, vocabulary] of each window."""
    for first in range(0, len(windows), TOGETHER):
        yield from _score_together(runner, windows[first : first + TOGETHER], level)


def _score_together(runner: Runner, windows: list[list[int]], level: int) -> list[Array]:
    blocks = WINDOW // BLOCK_TOKENS
    tables = [list(range(index * blocks, (index + 1) * blocks)) for index in range(len(windows))]
    for window, table in zip(windows, tables, strict=True):
        runner.step([Chunk(window[:PROMPT], 0, table, 0, level)])
    rows: list[list[Array]] = [[] for _ in windows]
    for position in range(PROMPT, WINDOW - 1):
        chunks = [Chunk([w[position]], position, table, 1, level) for w, table in zip(windows, tables, strict=True)]
        for row, scores in zip(rows, runner.step(chunks), strict=True):
            row.append(scores.logits.copy())
    return [log_softmax(np.stack(row)) for row in rows]


def measure(candidate: Candidate, windows: list[list[int]], references: list[Array]) -> dict[str, Quality]:
    """Quality by level."""
    runner = load(candidate)
    result = {}
    for index, level in enumerate(runner.levels):
        figures = [
            compare(reference, scored, window[PROMPT + 1 :])
            for reference, scored, window in zip(references, score(runner, windows, index), windows, strict=True)
        ]
        result[level.name] = summarise(figures)
    runner.close()
    return result


def read_windows(count: int) -> list[list[int]]:
    tokenizer = TextTokenizer(read_vocabulary(GgufFile(resolve_source(SOURCE))))
    return [tokenizer.encode(text)[:WINDOW] for text in read_passages(count, WINDOW)]


def main() -> None:
    parser = argparse.ArgumentParser(description="KL, perplexity and top-1 agreement of all tiers and levels.")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--only", choices=[*dict.fromkeys(each.weights for each in CANDIDATES)], help="these weights")
    options = parser.parse_args()
    count = options.windows
    windows = read_windows(count)
    runner = load(Candidate(Precision.FP32))
    references = list(score(runner, windows, 0))
    positions = count * (WINDOW - PROMPT - 1)
    losses = [-ref[np.arange(len(ref)), w[PROMPT + 1 :]].mean() for ref, w in zip(references, windows, strict=True)]
    print(f"CPU: {detect_cpu().describe()}, kernels {runner.variant}; {count} windows, {positions} positions, "
          f"fp32 perplexity {np.exp(np.mean(losses)):.2f}\n")  # fmt: skip
    runner.close()
    print(
        "| weights | level | KV | channels | KL to fp32 | perplexity | same top token |\n|---|---|---|---|---|---|---|"
    )
    records = []
    for candidate in (each for each in CANDIDATES if options.only in (None, each.weights)):
        for level, quality in measure(candidate, windows, references).items():
            records.append({**asdict(candidate), "kv": candidate.kv, "level": level, **asdict(quality)})
            print(f"| {candidate.weights} | {level} | {candidate.kv} | {candidate.grid} | {quality.divergence:.4f} ± "
                  f"{quality.divergence_error:.4f} | x{quality.perplexity_ratio:.4f} | {quality.agreement:.1%} |",
                  flush=True)  # fmt: skip
    if options.only is not None:  # a part of the table does not replace it
        return
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"cpu": detect_cpu().describe(), "positions": positions, "figures": records}))


if __name__ == "__main__":
    main()
