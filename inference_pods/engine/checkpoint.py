"""A llama checkpoint in a GGUF file or in safetensors: opening it, its shape, and copying it into a decoder.

Tensors go from the mapped file straight into the decoder's memory; only one row is ever held beside it. Knows nothing
of tokens or requests.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inference_pods.engine import gguf_llama, hf_llama
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.gguf import GgufFile
from inference_pods.engine.permutation import IndexMap, draw_order, tensor_maps
from inference_pods.engine.safetensors import SafetensorsModel
from inference_pods.engine.tensor_file import TensorInfo
from inference_pods.kernels.decoder import DecoderShape, ShapeError
from inference_pods.kernels.formats import SourceType, TensorRole

logger = logging.getLogger(__name__)

ModelFile = GgufFile | SafetensorsModel

_LAYER_ROLES = tuple(role for role in TensorRole if role not in (TensorRole.HEAD, TensorRole.OUTPUT_NORM))
_PROGRESS_SHARE = 0.2


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


def open_model(path: Path) -> ModelFile:
    """The checkpoint at `path`, as resolve_source found it.

    Raises:
        LoadError: it cannot be read.
    """
    return GgufFile(path) if path.suffix.lower() == ".gguf" else SafetensorsModel(path)


def read_shape(file: ModelFile) -> DecoderShape:
    """Shape of the decoder.

    Raises:
        LoadError: ModelUnsupported for what the decoder does not compute, ModelCorrupt for fields that are missing or
            out of range.
    """
    try:
        return gguf_llama.read_shape(file) if isinstance(file, GgufFile) else hf_llama.read_shape(file)
    except ShapeError as error:
        message = f"{file.path.name}: {error}; the file is damaged or no llama model"
        raise LoadError(LoadReason.CORRUPT, message) from error


def context_length(file: ModelFile) -> int:
    """Longest context that the model was trained for, in tokens."""
    return gguf_llama.context_length(file) if isinstance(file, GgufFile) else hf_llama.context_length(file)


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


def plan_tensors(file: ModelFile, shape: DecoderShape) -> list[tuple[TensorRole, int, TensorInfo]]:
    """All tensors of the decoder, each with its layer.

    Raises:
        LoadError: ModelCorrupt, naming a tensor that is missing or has another size than the shape says.
    """
    name_of = gguf_llama.tensor_name if isinstance(file, GgufFile) else hf_llama.tensor_name
    places = [(TensorRole.HEAD, 0), (TensorRole.OUTPUT_NORM, 0)]
    places += [(role, layer) for layer in range(shape.layers) for role in _LAYER_ROLES]
    plan = []
    for role, layer in places:
        name, expected = name_of(role, layer), _expected_size(shape, role)
        if name not in file.tensors:
            message = f"{file.path.name}: tensor {name!r} is missing; this is no complete llama model"
            raise LoadError(LoadReason.CORRUPT, message)
        tensor = file.tensors[name]
        if (tensor.rows, tensor.columns) != expected:
            message = f"tensor {name} is [{tensor.rows}, {tensor.columns}], expected {list(expected)}"
            raise LoadError(LoadReason.CORRUPT, message)
        plan.append((role, layer, tensor))
    return plan


def load_weights(
    file: ModelFile, shape: DecoderShape, sink: TensorSink, permutation_seed: int, threads: int = 1
) -> None:
    """Copies every tensor into `sink`, channels permuted by the seed (0: as in the file); logs each fifth of it.

    `threads` above 1 needs a sink that may load several tensors at once, as the compiled decoder does: no two share
    memory. Query and key rows of a GGUF file are in rotary pairs, those of Hugging Face in halves like the decoder's.
    """
    order = draw_order(shape, permutation_seed)
    plan = plan_tensors(file, shape)
    rotary_pairs = isinstance(file, GgufFile)

    def load(entry: tuple[TensorRole, int, TensorInfo]) -> int:
        role, layer, tensor = entry
        rows, columns = tensor_maps(shape, order, role, layer, rotary_pairs)
        sink.load(role, layer, file.data(tensor), tensor.kind, tensor.rows, tensor.columns, rows, columns)
        return tensor.size_bytes

    total, done, shown = sum(tensor.size_bytes for _, _, tensor in plan), 0, 0.0
    with ThreadPoolExecutor(threads, thread_name_prefix="load") as pool:
        for size in pool.map(load, plan):
            done += size
            if done / total >= shown + _PROGRESS_SHARE:
                shown = done / total
                logger.info("loading: %.0f %% of %.0f MB", 100 * shown, total / 1e6)
