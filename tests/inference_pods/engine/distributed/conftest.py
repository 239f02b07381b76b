"""A small random checkpoint whose heads, neurons and vocabulary divide by no number of ranks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from inference_pods.engine.checkpoint import read_shape
from inference_pods.engine.gguf import GgufFile
from inference_pods.kernels.decoder import DecoderLimits, DecoderShape

LAYERS, DIM, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 2, 64, 176, 9, 3, 16, 131


@dataclass(frozen=True)
class TinyModel:
    """A GGUF file and what its decoder is made with."""

    path: Path
    source: str
    shape: DecoderShape
    limits: DecoderLimits


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, write_gguf):
    random = np.random.default_rng(3)

    def tensor(rows, columns):
        values = random.standard_normal((rows, columns), dtype=np.float32) * np.float32(columns**-0.5)
        values = 1.0 + 0.1 * values if rows == 1 else values
        return [columns, rows], 0, values.astype(np.float32).tobytes()

    tensors = {"token_embd.weight": tensor(VOCAB, DIM), "output_norm.weight": tensor(1, DIM)}
    for layer in range(LAYERS):
        sizes = {
            "attn_norm": (1, DIM),
            "ffn_norm": (1, DIM),
            "attn_q": (HEADS * HEAD_DIM, DIM),
            "attn_k": (KV_HEADS * HEAD_DIM, DIM),
            "attn_v": (KV_HEADS * HEAD_DIM, DIM),
            "attn_output": (DIM, HEADS * HEAD_DIM),
            "ffn_gate": (FFN, DIM),
            "ffn_up": (FFN, DIM),
            "ffn_down": (DIM, FFN),
        }
        tensors |= {f"blk.{layer}.{name}.weight": tensor(*size) for name, size in sizes.items()}
    metadata = {
        "general.architecture": "llama", "llama.block_count": LAYERS, "llama.embedding_length": DIM,
        "llama.feed_forward_length": FFN, "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS, "llama.rope.dimension_count": HEAD_DIM, "llama.context_length": 96,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 10000.0,
    }  # fmt: skip
    path = write_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", metadata, tensors)
    limits = DecoderLimits(max_rows=16, max_outputs=4, max_positions=96, kv_blocks=16, threads=1)
    return TinyModel(path, f"file://{path}", read_shape(GgufFile(path)), limits)
