"""A llama small enough to draw at random, for comparing decoders with each other."""

from functools import lru_cache

import numpy as np

from inference_pods.kernels.decoder import DecoderLimits, DecoderShape
from inference_pods.kernels.formats import SourceType, TensorRole

SHAPE = DecoderShape(
    layers=3, dim=96, ffn=160, heads=6, kv_heads=2, head_dim=32, vocab=131, rms_eps=1e-5, rope_base=10000.0
)
LIMITS = DecoderLimits(max_rows=48, max_outputs=6, max_positions=96, kv_blocks=24, threads=2)


def load_random_weights(decoder, seed=0, shape=SHAPE, shuffles_columns=False):
    for role, layer, source, size, row_map, column_map in _draw(seed, shape, shuffles_columns):
        decoder.load(role, layer, source, SourceType.F32, *size, row_map, column_map)
    return decoder


@lru_cache(maxsize=4)  # the decoders of a test have the same weights; nobody may write to them
def _draw(seed, shape, shuffles_columns):
    random = np.random.default_rng(seed)
    q_dim, kv_dim = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = {
        TensorRole.ATTN_NORM: (1, shape.dim),
        TensorRole.FFN_NORM: (1, shape.dim),
        TensorRole.Q: (q_dim, shape.dim),
        TensorRole.K: (kv_dim, shape.dim),
        TensorRole.V: (kv_dim, shape.dim),
        TensorRole.O: (shape.dim, q_dim),
        TensorRole.GATE: (shape.ffn, shape.dim),
        TensorRole.UP: (shape.ffn, shape.dim),
        TensorRole.DOWN: (shape.dim, shape.ffn),
    }
    plan = [(TensorRole.HEAD, 0, (shape.vocab, shape.dim)), (TensorRole.OUTPUT_NORM, 0, (1, shape.dim))]
    plan += [(role, layer, size) for layer in range(shape.layers) for role, size in sizes.items()]
    drawn = []
    for role, layer, (rows, columns) in plan:
        weights = random.standard_normal((rows, columns), dtype=np.float32) * np.float32(columns**-0.5)
        if rows == 1:
            weights = 1.0 + weights
        source = np.frombuffer(weights.astype(np.float32).tobytes(), np.uint8)
        row_map = random.permutation(rows).astype(np.int32) if rows > 1 else None
        column_map = random.permutation(columns).astype(np.int32) if shuffles_columns else None
        for array in (row_map, column_map):
            if array is not None:
                array.flags.writeable = False
        drawn.append((role, layer, source, (rows, columns), row_map, column_map))
    return drawn
