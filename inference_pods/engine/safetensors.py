"""Reads safetensors: one file or the shards of an index, with the config.json beside them. Own header reader.

Bounds are checked before anything is believed; nothing is executed. Knows no architecture and converts nothing.
Format: 8 bytes length, JSON header {name: {dtype, shape, data_offsets}}, then the data
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.tensor_file import MappedFile, TensorInfo
from inference_pods.kernels.formats import SourceType

INDEX_NAME = "model.safetensors.index.json"
_SINGLE_NAME = "model.safetensors"
_MAX_HEADER_BYTES = 100_000_000
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_PICKLE_REMEDY = (
    "pickle files can run code when they are opened; convert the checkpoint to safetensors "
    "(transformers: save_pretrained) or GGUF"
)


class SafetensorsModel:
    """A mapped checkpoint: `path` is its folder or one .safetensors file; config.json lies in the same folder.

    Raises:
        LoadError: ModelNotFound for a missing file, ModelCorrupt for one that contradicts itself, ModelUnsupported for
            pickle files and for types that cannot be read. The message names the file and the remedy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path if path.is_dir() else path.parent
        self.config = read_json(self.folder / "config.json")
        self._files: dict[str, MappedFile] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self._file_of: dict[str, str] = {}
        weight_map = _find_weights(path)
        for name in sorted(set(weight_map.values())) if weight_map else [_single_file(path).name]:
            self._add(name)
        for tensor, name in weight_map.items():
            if self._file_of.get(tensor) != name:
                raise LoadError(
                    LoadReason.CORRUPT,
                    f"{INDEX_NAME}: tensor {tensor} is not in {name}, as the index says; download both again",
                )

    @property
    def weights_files(self) -> tuple[Path, ...]:
        return tuple(file.path for file in self._files.values())

    def data(self, tensor: TensorInfo) -> NDArray[np.uint8]:
        """The tensor's bytes, a read-only view of its file's mapping."""
        return self._files[self._file_of[tensor.name]].view(tensor)

    def close(self) -> None:
        """Drops the mappings; views of them must be gone."""
        for file in self._files.values():
            file.close()

    def _add(self, name: str) -> None:
        file = self._files[name] = MappedFile(self.folder / name)
        for tensor in _read_header(file):
            file.check_extent(tensor)
            if tensor.name in self.tensors:
                message = f"{name}: tensor {tensor.name} is also in {self._file_of[tensor.name]}; remove one of them"
                raise LoadError(LoadReason.CORRUPT, message)
            self.tensors[tensor.name] = tensor
            self._file_of[tensor.name] = name


def refuse_pickle(path: Path) -> None:
    """Raises LoadError (ModelUnsupported) for the formats that run code when opened."""
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise LoadError(LoadReason.UNSUPPORTED, f"{path.name}: {_PICKLE_REMEDY}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        LoadError: ModelNotFound or ModelCorrupt.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        message = f"{path.name}: {error.strerror or error}; it must lie in the folder of the weights"
        raise LoadError(LoadReason.NOT_FOUND, message) from error
    except (ValueError, RecursionError) as error:
        raise LoadError(LoadReason.CORRUPT, f"{path.name}: no JSON ({error}); download it again") from error
    if not isinstance(document, dict):
        raise LoadError(LoadReason.CORRUPT, f"{path.name}: a JSON object was expected; download it again")
    return document


def _find_weights(path: Path) -> dict[str, str]:
    """{tensor: file} of an index; empty when one file holds everything."""
    if not path.is_dir() or not (path / INDEX_NAME).is_file() or (path / _SINGLE_NAME).is_file():
        return {}
    weight_map = read_json(path / INDEX_NAME).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise LoadError(LoadReason.CORRUPT, f"{INDEX_NAME}: `weight_map` is missing; download it again")
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise LoadError(
                LoadReason.CORRUPT, f"{INDEX_NAME}: tensor {tensor} names no file of the same folder; correct it"
            )
        refuse_pickle(Path(name))
    return weight_map


def _single_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.safetensors"))
    if path / _SINGLE_NAME in found:
        return path / _SINGLE_NAME
    if len(found) == 1:
        return found[0]
    if found:
        message = f"{path.name}: {len(found)} .safetensors files, but no {INDEX_NAME} that says which tensor is where"
        raise LoadError(LoadReason.NOT_FOUND, f"{message}; add it, or name one file")
    for other in sorted(path.iterdir()):
        refuse_pickle(other)
    raise LoadError(LoadReason.NOT_FOUND, f"{path.name}: no .safetensors file in this folder; check model.source")


def _read_header(file: MappedFile) -> list[TensorInfo]:
    name, size = file.path.name, len(file.bytes)
    try:
        (length,) = struct.unpack_from("<Q", file.map, 0)
        if length > min(_MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"a header of {length} bytes does not fit")
        header = json.loads(file.map[8 : 8 + length], object_pairs_hook=_unique)
        if not isinstance(header, dict):
            raise ValueError("the header is no JSON object")
        header.pop("__metadata__", None)
        return [_describe(name, tensor, entry, 8 + length) for tensor, entry in header.items()]
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{name}: {error}; the file is truncated or damaged, download it again"
        raise LoadError(LoadReason.CORRUPT, message) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a name occurs twice in the header")
    return dict(pairs)


def _describe(file: str, name: str, entry: Any, base: int) -> TensorInfo:
    """Row-major: the last dimension is the fastest one."""
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    kind = {"F32": SourceType.F32, "F16": SourceType.F16, "BF16": SourceType.BF16}.get(dtype)
    if kind is None:
        message = f"{file}: tensor {name} has type {dtype}; save the checkpoint as F32, F16 or BF16"
        raise LoadError(LoadReason.UNSUPPORTED, message)
    if not shape or not all(type(size) is int and size >= 0 for size in (*shape, begin, end)):
        raise ValueError(f"tensor {name} has no valid shape or place")
    rows, columns = prod(shape[:-1]), shape[-1]
    if end - begin != rows * kind.row_bytes(columns):
        raise ValueError(f"tensor {name} of {shape} takes {end - begin} bytes")
    return TensorInfo(name, rows, columns, kind, base + begin, end - begin)
