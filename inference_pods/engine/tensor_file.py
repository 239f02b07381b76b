"""What every weights format offers: tensors by name, and their bytes as views of mapped files."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.kernels.formats import SourceType


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: [rows, columns] as stored (a vector has one row), its type, and its bytes in its file."""

    name: str
    rows: int
    columns: int
    kind: SourceType
    offset_bytes: int
    size_bytes: int


class MappedFile:
    """A file as read-only memory.

    Raises:
        LoadError: ModelNotFound when it cannot be opened, ModelCorrupt when it is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            message = f"{path.name}: {error.strerror or error}; check the volume and its permissions"
            raise LoadError(LoadReason.NOT_FOUND, message) from error
        except ValueError as error:
            raise LoadError(LoadReason.CORRUPT, f"{path.name}: the file is empty; download it again") from error
        self.bytes = np.frombuffer(self.map, np.uint8)

    def check_extent(self, tensor: TensorInfo) -> None:
        """Raises LoadError (ModelCorrupt) unless all of the tensor lies inside."""
        if tensor.offset_bytes + tensor.size_bytes > len(self.bytes):
            message = f"{self.path.name}: tensor {tensor.name} ends beyond the end of the file; download it again"
            raise LoadError(LoadReason.CORRUPT, message)

    def view(self, tensor: TensorInfo) -> NDArray[np.uint8]:
        return self.bytes[tensor.offset_bytes : tensor.offset_bytes + tensor.size_bytes]

    def close(self) -> None:
        """Drops the mapping (views of it must be gone), so that its pages no longer count as this process's."""
        del self.bytes
        self.map.close()
