"""What a llama model is called in a GGUF file: metadata of the shape, names of the tensors."""

from __future__ import annotations

from typing import Any

from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.gguf import GgufFile
from inference_pods.kernels.decoder import DecoderShape
from inference_pods.kernels.formats import TensorRole

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
_SHOWN = 40  # characters of a wrong value in a message
_EMBEDDING = "token_embd.weight"
_MODEL_TENSORS = {TensorRole.HEAD: _EMBEDDING, TensorRole.OUTPUT_NORM: "output_norm.weight"}


def tensor_name(role: TensorRole, layer: int) -> str:
    return _MODEL_TENSORS.get(role) or f"blk.{layer}.{_LAYER_TENSORS[role]}.weight"


def read_shape(file: GgufFile) -> DecoderShape:
    """Shape of the decoder.

    Raises:
        LoadError: ModelUnsupported for another architecture or untied output weights, ModelCorrupt for fields that
            are missing or of another type.
        ShapeError: a field is out of range.
    """
    metadata = file.metadata
    architecture = _required(metadata, "general.architecture")
    if architecture != "llama":
        raise LoadError(LoadReason.UNSUPPORTED, f"architecture {architecture!r} is not supported; only 'llama' is")
    if "output.weight" in file.tensors or "rope_freqs.weight" in file.tensors:
        raise LoadError(
            LoadReason.UNSUPPORTED, "separate output weights and scaled rotary embeddings are not supported"
        )
    heads, dim = _whole(metadata, "llama.attention.head_count"), _whole(metadata, "llama.embedding_length")
    if _EMBEDDING not in file.tensors:
        raise LoadError(LoadReason.CORRUPT, f"tensor {_EMBEDDING!r} is missing; the file is no complete llama model")
    return DecoderShape(
        layers=_whole(metadata, "llama.block_count"),
        dim=dim,
        ffn=_whole(metadata, "llama.feed_forward_length"),
        heads=heads,
        kv_heads=_whole(metadata, "llama.attention.head_count_kv", heads),
        head_dim=_whole(metadata, "llama.rope.dimension_count", dim // heads),
        vocab=file.tensors[_EMBEDDING].rows,
        rms_eps=_real(metadata, "llama.attention.layer_norm_rms_epsilon"),
        rope_base=_real(metadata, "llama.rope.freq_base", 10000.0),
    )


def context_length(file: GgufFile) -> int:
    return _whole(file.metadata, "llama.context_length")


def _whole(metadata: dict[str, Any], key: str, default: int | None = None) -> int:
    """A number that counts something; how large it may be depends on what."""
    value = _required(metadata, key, default)
    if type(value) is not int or value < 1:
        message = f"metadata {key!r} is {str(value)[:_SHOWN]!r}, no whole number above 0; the file is damaged"
        raise LoadError(LoadReason.CORRUPT, message)
    return value


def _real(metadata: dict[str, Any], key: str, default: float | None = None) -> float:
    value = _required(metadata, key, default)
    if type(value) not in (int, float):
        raise LoadError(
            LoadReason.CORRUPT, f"metadata {key!r} is {str(value)[:_SHOWN]!r}, no number; the file is damaged"
        )
    return float(value)


def _required(metadata: dict[str, Any], key: str, default: Any = None) -> Any:
    value = metadata.get(key, default)
    if value is None:
        raise LoadError(LoadReason.CORRUPT, f"metadata {key!r} is missing; the file is no complete llama model")
    return value
