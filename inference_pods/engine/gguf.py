"""Reads GGUF files (versions 2 and 3, little endian): metadata and where each tensor's bytes lie.

Bounds are checked against the file before anything is believed. Knows no architecture and dequantises nothing.
Format: ggml's docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.tensor_file import MappedFile, TensorInfo
from inference_pods.kernels.formats import SourceType

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_MAX_NESTING = 4  # arrays in arrays; no known file nests any
_MAX_ALIGNMENT = 2**20
_STRING_BYTES, _ARRAY_BYTES = 8, 12  # the least that one takes: its length; its type and length
_LENGTH = struct.Struct("<Q")


class GgufFile:
    """A mapped GGUF file.

    Raises:
        LoadError: ModelCorrupt when the file contradicts itself or ends early, ModelUnsupported for tensor types or
            versions that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        try:
            self.metadata, self.tensors = _Reader(self._file.map).read_header()
        except (struct.error, UnicodeDecodeError, IndexError, ValueError, OverflowError) as error:
            raise LoadError(
                LoadReason.CORRUPT, f"{path.name}: {error}; the file is truncated or damaged, download it again"
            ) from error
        for tensor in self.tensors.values():
            self._file.check_extent(tensor)

    @property
    def weights_files(self) -> tuple[Path, ...]:
        return (self.path,)

    def close(self) -> None:
        """Drops the mapping and with it the metadata, whose arrays are views of it; other views must be gone."""
        self.metadata = {}
        self._file.close()

    def data(self, tensor: TensorInfo) -> NDArray[np.uint8]:
        """The tensor's bytes, a read-only view of the mapping."""
        return self._file.view(tensor)


class _Reader:
    """A cursor over the header."""

    def __init__(self, buffer: mmap.mmap) -> None:
        self._buffer = buffer
        self._at = 0

    def read_header(self) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
        if self._buffer[:4] != b"GGUF":
            raise ValueError("it does not start with the GGUF magic")
        self._at = 4
        version = self._scalar("I")
        if version not in (2, 3):
            raise LoadError(
                LoadReason.UNSUPPORTED, f"GGUF version {version} is not supported; convert the model to version 3"
            )
        tensor_count, pair_count = self._scalar("Q"), self._scalar("Q")
        self._check_count(max(tensor_count, pair_count))
        metadata = dict(self._pair() for _ in range(pair_count))
        raw = [self._tensor() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= _MAX_ALIGNMENT:
            raise ValueError(f"general.alignment is {alignment!s:.40}, no number of 1 to {_MAX_ALIGNMENT} bytes")
        base = -(-self._at // alignment) * alignment
        return metadata, {name: _describe(name, shape, kind, base + offset) for name, shape, kind, offset in raw}

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._buffer, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def _check_count(self, count: int, least_bytes: int = 1) -> None:
        if count * least_bytes > len(self._buffer) - self._at:
            raise _too_many(count)

    def _string(self) -> str:
        (text,) = self._strings(1)
        return text

    def _strings(self, count: int) -> list[str]:
        """In one loop: a vocabulary has 100,000 and more, and a replica waits for them as it starts."""
        buffer, size, at = self._buffer, len(self._buffer), self._at
        texts: list[str] = []
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(buffer, at)
            start = at + _STRING_BYTES
            at = start + length
            if at > size:
                raise _too_many(length)
            texts.append(buffer[start:at].decode())
        self._at = at
        return texts

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(depth)
        if kind not in _SCALARS:
            raise ValueError(f"metadata type {kind} is unknown")
        return self._scalar(_SCALARS[kind])

    def _array(self, depth: int) -> list[Any] | NDArray[Any]:
        """Numbers as a view of the file, everything else as a list."""
        if depth == _MAX_NESTING:
            raise ValueError(f"arrays are nested more than {_MAX_NESTING} deep")
        kind, count = self._scalar("I"), self._scalar("Q")
        if kind not in _SCALARS:
            self._check_count(count, _STRING_BYTES if kind == _STRING else _ARRAY_BYTES)
            if kind == _STRING:
                return self._strings(count)
            return [self._value(kind, depth + 1) for _ in range(count)]
        dtype = np.dtype("<" + _SCALARS[kind])
        self._check_count(count, dtype.itemsize)
        values = np.frombuffer(self._buffer, dtype, count, self._at) if count else np.empty(0, dtype)
        self._at += values.nbytes
        return values

    def _pair(self) -> tuple[str, Any]:
        name = self._string()
        return name, self._value(self._scalar("I"))

    def _tensor(self) -> tuple[str, list[int], int, int]:
        name, dimensions = self._string(), self._scalar("I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise ValueError(f"tensor {name} has {dimensions} dimensions")
        return name, [self._scalar("Q") for _ in range(dimensions)], self._scalar("I"), self._scalar("Q")


def _too_many(count: int) -> ValueError:
    return ValueError(f"a count of {count} entries cannot fit in the rest of the file")


def _describe(name: str, shape: list[int], kind: int, offset_bytes: int) -> TensorInfo:
    """GGUF lists the fastest dimension first: [columns, rows]."""
    try:
        source = SourceType(kind)
    except ValueError:
        supported = ", ".join(member.name for member in SourceType)
        message = f"tensor {name} has ggml type {kind}; supported are {supported}: requantise the file to one of them"
        raise LoadError(LoadReason.UNSUPPORTED, message) from None
    columns, rows = shape[0], prod(shape[1:])
    return TensorInfo(name, rows, columns, source, offset_bytes, rows * source.row_bytes(columns))
