"""A llama checkpoint in a GGUF file: its shape, its tensors' roles, and copying them into a decoder one by one.

Only one tensor is ever held beside the decoder's own memory. Knows nothing of tokens or requests.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.gguf import GgufFile, TensorInfo
from inference_pods.engine.permutation import IndexMap, draw_order, tensor_maps
from inference_pods.kernels.decoder import DecoderShape
from inference_pods.kernels.formats import SourceType, TensorRole

_LAYER_TENSORS = {
    TensorRole.ATTN_NORM: "attn_norm",
    TensorRole.Q: "attn_q",
    TensorRole.K: "attn_k",
    TensorRole.V: "attn_v",
    TensorRole.O: "attn_output",
    TensorRole.FFN_NORM: "ffn_norm",
    TensorRole.GATE: "ffn_gate",
    TensorRole.UP: "ffn_up",
    TensorRole.DOWN: "ffn_down",
}


class TensorSink(Protocol):
    """What both decoders offer for loading."""

    def load(
        self,
        role: TensorRole,
        layer: int,
        source: NDArray[np.uint8],
        kind: SourceType,
        rows: int,
        columns: int,
        row_map: IndexMap | None = None,
        column_map: IndexMap | None = None,
    ) -> None: ...


def _required(metadata: dict[str, Any], key: str) -> Any:
    if key not in metadata:
        raise LoadError(LoadReason.CORRUPT, f"metadata {key!r} is missing; the file is no complete llama model")
    return metadata[key]


def read_shape(file: GgufFile) -> DecoderShape:
    """Shape of the decoder.

    Raises:
        LoadError: ModelUnsupported for another architecture or untied output weights, ModelCorrupt for missing fields.
    """
    metadata = file.metadata
    architecture = _required(metadata, "general.architecture")
    if architecture != "llama":
        raise LoadError(LoadReason.UNSUPPORTED, f"architecture {architecture!r} is not supported; only 'llama' is")
    if "output.weight" in file.tensors or "rope_freqs.weight" in file.tensors:
        raise LoadError(
            LoadReason.UNSUPPORTED, "separate output weights and scaled rotary embeddings are not supported"
        )
    heads, dim = (
        int(_required(metadata, "llama.attention.head_count")),
        int(_required(metadata, "llama.embedding_length")),
    )
    embedding = _tensor(file, "token_embd.weight")
    return DecoderShape(
        layers=int(_required(metadata, "llama.block_count")),
        dim=dim,
        ffn=int(_required(metadata, "llama.feed_forward_length")),
        heads=heads,
        kv_heads=int(metadata.get("llama.attention.head_count_kv", heads)),
        head_dim=int(metadata.get("llama.rope.dimension_count", dim // max(heads, 1))),
        vocab=embedding.rows,
        rms_eps=float(_required(metadata, "llama.attention.layer_norm_rms_epsilon")),
        rope_base=float(metadata.get("llama.rope.freq_base", 10000.0)),
    )


def context_length(file: GgufFile) -> int:
    return int(_required(file.metadata, "llama.context_length"))


def _tensor(file: GgufFile, name: str) -> TensorInfo:
    if name not in file.tensors:
        raise LoadError(LoadReason.CORRUPT, f"tensor {name!r} is missing; the file is no complete llama model")
    return file.tensors[name]


def _expected_size(shape: DecoderShape, role: TensorRole) -> tuple[int, int]:
    q_dim, kv_dim = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = {
        TensorRole.Q: (q_dim, shape.dim),
        TensorRole.K: (kv_dim, shape.dim),
        TensorRole.V: (kv_dim, shape.dim),
        TensorRole.O: (shape.dim, q_dim),
        TensorRole.GATE: (shape.ffn, shape.dim),
        TensorRole.UP: (shape.ffn, shape.dim),
        TensorRole.DOWN: (shape.dim, shape.ffn),
        TensorRole.HEAD: (shape.vocab, shape.dim),
    }
    return sizes.get(role, (1, shape.dim))


def load_weights(file: GgufFile, shape: DecoderShape, sink: TensorSink, permutation_seed: int) -> None:
    """Copies every tensor into `sink`, channels permuted by the seed (0: as in the file)."""
    order = draw_order(shape, permutation_seed)
    plan = [(TensorRole.HEAD, 0, "token_embd.weight"), (TensorRole.OUTPUT_NORM, 0, "output_norm.weight")]
    for layer in range(shape.layers):
        plan += [(role, layer, f"blk.{layer}.{name}.weight") for role, name in _LAYER_TENSORS.items()]
    for role, layer, name in plan:
        tensor = _tensor(file, name)
        if (tensor.rows, tensor.columns) != _expected_size(shape, role):
            message = (
                f"tensor {name} is [{tensor.rows}, {tensor.columns}], expected {list(_expected_size(shape, role))}"
            )
            raise LoadError(LoadReason.CORRUPT, message)
        rows, columns = tensor_maps(shape, order, role, layer)
        sink.load(role, layer, file.data(tensor), tensor.kind, tensor.rows, tensor.columns, rows, columns)
