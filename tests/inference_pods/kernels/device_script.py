"""A small llama, and steps that use every kernel of the torch decoder, interpreted on a CPU and compiled on a GPU."""

from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from inference_pods.kernels.decoder import Chunk, DecoderLimits, DecoderShape
from inference_pods.kernels.formats import Precision
from inference_pods.kernels.torch_decoder import TorchDecoder
from tests.inference_pods.kernels import random_model

SHAPE = DecoderShape(
    layers=2, dim=64, ffn=96, heads=6, kv_heads=2, head_dim=32, vocab=131, rms_eps=1e-5, rope_base=10000.0
)
LIMITS = DecoderLimits(max_rows=32, max_outputs=4, max_positions=64, kv_blocks=12, threads=1)
_PRODUCTS = ("qkv", "o", "gate_up", "down")
_ATTENTION = {
    "rotation": "triton norm_rope",
    "decode_attention": "triton paged_attention",
    "prompt_attention": "torch",
    "norm": "triton rms_norm",
}
EXPECTED_PATHS = {
    precision: {**dict.fromkeys(_PRODUCTS, product), "head": head, **_ATTENTION}
    for precision, product, head in (
        (Precision.INT8, "triton w8a16", "triton w8a16"),
        (Precision.INT4, "triton w4a16", "triton w8a16"),
        (Precision.NESTED, "triton nested", "triton w8a16"),
        (Precision.BF16, "torch", "torch"),
    )
}


def build(precision, kernels, shape=SHAPE, **options):
    decoder = TorchDecoder(shape, LIMITS, precision, kernels=kernels, **options)
    return random_model.load_random_weights(decoder, shape=shape)


def script(shape=SHAPE, levels=(0, 0, 0, 0)):
    """Two prompts, decoding beside a third one, decoding alone, a verified draft; `levels` per sequence and step."""
    tables = [[3, 1], [2, 5, 9], [7, 4]]
    prompts = [
        np.random.default_rng(seed).integers(0, shape.vocab, count).tolist()
        for seed, count in ((0, 9), (1, 20), (2, 5))
    ]
    steps = [
        [Chunk(prompts[0], 0, tables[0], 1), Chunk(prompts[1], 0, tables[1], 1)],
        [Chunk([7], 9, tables[0], 1), Chunk(prompts[2], 0, tables[2], 1), Chunk([8], 20, tables[1], 1)],
        [Chunk([1], 10, tables[0], 1), Chunk([2], 5, tables[2], 0), Chunk([3], 21, tables[1], 1)],
        [Chunk([5, 6, 7], 11, tables[0], 3), Chunk([2], 22, tables[1], 1)],
    ]
    return [
        [replace(chunk, level=levels[(number + at) % len(levels)]) for at, chunk in enumerate(step)]
        for number, step in enumerate(steps)
    ]


def run(decoder, steps):
    return [score.logits.copy() for chunks in steps for score in decoder.step(chunks)]


def compare(decoder, plain, steps, compute=torch.bfloat16):
    """Scores may differ by what rounding activations to 16 bits explains: a few units of that type, of their spread.

    Measured: at most 2.5 units on average and 10.4 at worst (bf16, whose rounding the interpreter does less well).
    """
    unit = torch.finfo(compute).eps
    for got, want in zip(run(decoder, steps), run(plain, steps), strict=True):
        error = np.abs(got - want) / (want.std() * unit)
        assert error.mean() < 4
        assert error.max() < 16


def generate(decoder, count):
    """Greedy continuation of one prompt."""
    tokens, table = [5, 9, 2, 77, 31], [2, 6]
    (score,) = decoder.step([Chunk(tokens, 0, table, 1)])
    for _ in range(count):
        tokens.append(score.best)
        (score,) = decoder.step([Chunk(tokens[-1:], len(tokens) - 1, table, 1)])
    return tokens


def count_launches(monkeypatch):
    """Counts launches of each kernel by the name of its module."""
    from inference_pods.kernels.triton import nested, norm_rope, paged_attention, rms_norm, w4a16, w8a16

    launched = Counter()
    for module in (nested, norm_rope, paged_attention, rms_norm, w4a16, w8a16):
        name = module.__name__.rsplit(".", 1)[1]
        monkeypatch.setattr(module, f"{name}_kernel", _Counted(getattr(module, f"{name}_kernel"), name, launched))
    return launched


class _Counted:
    def __init__(self, kernel, name, launched):
        self.kernel, self.name, self.launched = kernel, name, launched

    def __getitem__(self, grid):
        self.launched[self.name] += 1
        return self.kernel[grid]
