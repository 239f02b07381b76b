"""Measures which layers of a model matter least, for `recipe.nested.skipOrder`.

    python -m inference_pods.engine.rank_layers --model-source SOURCE --text FILE

The model predicts the second half of some windows of the text, whole and without each of its layers in turn. A layer's
cost is the mean KL divergence from the whole model. Use text like what the model is to write. Each layer is measured
alone, and two together cost more than the sum of both: measure the levels that you declare.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference_pods.engine.checkpoint import ModelFile, open_model, read_shape
from inference_pods.engine.errors import LoadError
from inference_pods.engine.model_runner import Runner, StepRunner, create_runner, load_model
from inference_pods.engine.source import resolve_source
from inference_pods.engine.tokenizer import TextTokenizer
from inference_pods.engine.vocabulary import read_vocabulary
from inference_pods.kernels.cpu import MOST_THREADS, detect_threads
from inference_pods.kernels.decoder import Chunk, DecoderLimits
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision
from inference_pods.kernels.levels import Level

_PRECISIONS = (Precision.BF16, Precision.FP16, Precision.FP32)
_OFFERED_SHARE = 0.25  # of the layers: without more than that hardly a model says anything sensible


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What leaving out one layer costs: KL divergence in nats per token, and its standard error over the windows."""

    layer: int
    divergence: float
    error: float  # NaN for one window


def levels_without_each_layer(precision: Precision, layers: int) -> tuple[Level, ...]:
    """The whole model, then for each layer the model without it, in this order."""
    without = (Level(f"without {layer}", precision, (layer,)) for layer in range(layers))
    return (Level("whole", precision), *without)


def cut_windows(tokens: Sequence[int], count: int, length: int) -> list[list[int]]:
    """`count` windows of `length` tokens, spread from the text's beginning to its end.

    Raises:
        ValueError: the text is too short.
    """
    if len(tokens) < count * length:
        needed = f"{count} windows of {length} tokens need a text of {count * length} tokens"
        raise ValueError(f"{needed}, this one has {len(tokens)}")
    last = len(tokens) - length
    starts = [last * index // max(count - 1, 1) for index in range(count)]
    return [list(tokens[start : start + length]) for start in starts]


def measure_costs(runner: StepRunner, layers: int, windows: Sequence[list[int]]) -> list[LayerCost]:
    """Costs of all layers, the cheapest first. The runner's levels are those of levels_without_each_layer."""
    figures: list[list[float]] = [[] for _ in range(layers)]
    for window in windows:
        whole = _score(runner, window, 0)
        for layer in range(layers):
            figures[layer].append(_divergence(whole, _score(runner, window, layer + 1)))
    costs = [
        LayerCost(layer, statistics.fmean(of_layer), _standard_error(of_layer))
        for layer, of_layer in enumerate(figures)
    ]
    return sorted(costs, key=lambda cost: (cost.divergence, cost.layer))


def _score(runner: StepRunner, window: list[int], level: int) -> NDArray[np.float32]:
    """Log probabilities [scored positions, vocabulary] of the window's second half."""
    blocks = list(range(-(-len(window) // BLOCK_TOKENS)))
    chunk = Chunk(window, 0, blocks, len(window) // 2, level)
    return np.stack([scores.logits - np.float32(scores.log_total) for scores in runner.step([chunk])])


def _divergence(whole: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean KL(whole || other) of log probabilities [positions, vocabulary]."""
    return float((np.exp(whole) * (whole - other)).sum(axis=1, dtype=np.float64).mean())


def _standard_error(figures: Sequence[float]) -> float:
    return statistics.stdev(figures) / math.sqrt(len(figures)) if len(figures) > 1 else math.nan


def _load(file: ModelFile, precision: Precision, window_tokens: int, threads: int) -> Runner:
    levels = levels_without_each_layer(precision, read_shape(file).layers)
    limits = DecoderLimits(
        max_rows=window_tokens,
        max_outputs=max(window_tokens // 2, 1),
        max_positions=window_tokens,
        kv_blocks=-(-window_tokens // BLOCK_TOKENS),
        threads=threads,
    )
    return load_model(
        file,
        limits,
        precision,
        0,
        create=lambda shape, limits, precision, _: create_runner(shape, limits, precision, levels),
    ).runner


def _at_least(least: int, most: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is below the minimum {least}")
        if most is not None and int(text) > most:
            raise argparse.ArgumentTypeError(f"{text} is above the maximum {most}")
        return int(text)

    return parse


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m inference_pods.engine.rank_layers", description="Measure which layers of a model matter least."
    )
    add = parser.add_argument
    add("--model-source", required=True, help="package://PACKAGE/PATH or file:///PATH, as in model.source")
    add("--text", required=True, type=Path, help="a text file like what the model is to write, some pages at least")
    add("--windows", type=_at_least(1), default=4, help="places of the text that are scored")
    add("--window-tokens", type=_at_least(2), default=512, help="length of each; its second half is scored")
    add("--precision", type=Precision, choices=_PRECISIONS, default=Precision.BF16, help="storage of the weights")
    add("--threads", type=_at_least(0, MOST_THREADS), default=0, help="compute threads (0: from the CPU quota)")
    return parser


def _report(costs: Sequence[LayerCost]) -> None:
    for cost in costs:
        sys.stdout.write(f"layer {cost.layer:4d}  KL {cost.divergence:.4f} ± {cost.error:.4f} nats per token\n")
    offered = costs[: math.ceil(_OFFERED_SHARE * len(costs))]
    sys.stdout.write(f"skipOrder: {[cost.layer for cost in offered]}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints all layers, the cheapest first, and the first quarter of them as `skipOrder`; returns the exit code."""
    parser = _build_parser()
    given = parser.parse_args(arguments)
    try:
        file = open_model(resolve_source(given.model_source))
        tokenizer = TextTokenizer(read_vocabulary(file))
        try:
            tokens = tokenizer.encode(given.text.read_text(encoding="utf-8"))
            windows = cut_windows(tokens, given.windows, given.window_tokens)
        except (OSError, ValueError) as error:
            parser.error(f"--text {given.text}: {error}")
        runner = _load(file, given.precision, given.window_tokens, given.threads or detect_threads())
    except LoadError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.reason.exit_code
    _report(measure_costs(runner, read_shape(file).layers, windows))
    runner.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
