"""Which device a replica computes on, and on how many ranks. Looks at device files only: torch is not imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from inference_pods.engine.errors import LoadError, LoadReason


class Device(StrEnum):
    """Where a replica computes."""

    CPU = "cpu"
    CUDA = "cuda"


DEVICE_CHOICES = ("auto", *Device)


@dataclass(frozen=True, slots=True)
class Placement:
    """Device and number of ranks, one process each."""

    device: Device
    ranks: int

    @property
    def needs_torch(self) -> bool:
        """The compiled decoder serves one rank on a CPU; everything else runs on torch."""
        return self.device is Device.CUDA or self.ranks > 1

    def divide_threads(self, threads: int) -> int:
        """Threads of each rank, at least one: more than the quota allows would only burn it at barriers."""
        return max(1, threads // self.ranks)


def count_cuda_devices(devices: Path = Path("/dev"), environment: Mapping[str, str] = os.environ) -> int:
    """NVIDIA devices that this container was given, further limited by CUDA_VISIBLE_DEVICES."""
    present = sum(path.name[6:].isdigit() for path in devices.glob("nvidia[0-9]*"))
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return present
    names = [name.strip() for name in chosen.split(",")]
    return min(present, next((at for at, name in enumerate(names) if name in {"", "-1"}), len(names)))


def place(device: str, tensor_parallel: int, visible: int, has_torch: bool) -> Placement:
    """Resolves `--device` and `--tensor-parallel` (0: choose) on a host with `visible` CUDA devices.

    A replica takes all devices that it was given; on CPUs one rank, because the compiled decoder is faster than any
    number of torch ranks on the same cores.

    Raises:
        LoadError: ModelUnsupported, when what was asked for isn't there.
    """
    chosen = Device.CUDA if device == Device.CUDA or (device == "auto" and visible and has_torch) else Device.CPU
    if chosen is Device.CUDA and not visible:
        raise LoadError(
            LoadReason.UNSUPPORTED, "--device cuda: no NVIDIA device in this container; give the replica one"
        )
    placement = Placement(chosen, tensor_parallel or (visible if chosen is Device.CUDA else 1))
    if chosen is Device.CUDA and placement.ranks > visible:
        message = f"--tensor-parallel {placement.ranks}: only {visible} devices are here; raise replica.accelerators"
        raise LoadError(LoadReason.UNSUPPORTED, message)
    if placement.needs_torch and not has_torch:
        message = f"--device {chosen} with --tensor-parallel {placement.ranks} needs torch, which this image leaves out"
        raise LoadError(LoadReason.UNSUPPORTED, f"{message}; build it WITH_TORCH=1")
    return placement


def detect_placement(device: str, tensor_parallel: int) -> Placement:
    """`place` on this host."""
    return place(device, tensor_parallel, count_cuda_devices(), find_spec("torch") is not None)
