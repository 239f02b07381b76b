"""Which device a replica computes on, and on how many ranks. Looks at device files only: torch is not imported."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.kernels.step_plans import Backend


class Device(StrEnum):
    """Where a replica computes."""

    CPU = "cpu"
    CUDA = "cuda"


DEVICE_CHOICES = ("auto", *Device)
PLAN_CHOICES = ("auto", *Backend)


@dataclass(frozen=True, slots=True)
class Placement:
    """Device and number of ranks, one process each, and how torch specialises their decoding steps."""

    device: Device
    ranks: int
    backend: Backend = Backend.EAGER

    @property
    def needs_torch(self) -> bool:
        """The compiled decoder serves one rank on a CPU; everything else runs on torch."""
        return self.device is Device.CUDA or self.ranks > 1 or self.backend is not Backend.EAGER

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


def place(device: str, tensor_parallel: int, visible: int, has_torch: bool, step_plans: str = "auto") -> Placement:
    """Resolves `--device`, `--tensor-parallel` (0: choose) and `--step-plans` on a host with `visible` CUDA devices.

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
    ranks = tensor_parallel or (visible if chosen is Device.CUDA else 1)
    if chosen is Device.CUDA and ranks > visible:
        message = f"--tensor-parallel {ranks}: only {visible} devices are here; raise replica.accelerators"
        raise LoadError(LoadReason.UNSUPPORTED, message)
    placement = Placement(chosen, ranks, _choose_backend(step_plans, chosen, ranks))
    if placement.needs_torch and not has_torch:
        asked = f"--device {chosen} with --tensor-parallel {ranks} and --step-plans {step_plans}"
        raise LoadError(
            LoadReason.UNSUPPORTED, f"{asked} needs torch, which this image leaves out; build it WITH_TORCH=1"
        )
    return placement


def _choose_backend(step_plans: str, device: Device, ranks: int) -> Backend:
    """CUDA graphs on a GPU, where launching the kernels of a decoding step costs more than running them."""
    if step_plans == "auto":
        return Backend.CUDA_GRAPH if device is Device.CUDA else Backend.EAGER
    backend = Backend(step_plans)
    if backend is Backend.CUDA_GRAPH and device is not Device.CUDA:
        raise LoadError(LoadReason.UNSUPPORTED, "--step-plans cuda-graph needs a GPU; use auto, eager or compile")
    if backend is Backend.COMPILE and ranks > 1:
        message = "--step-plans compile: torch.compile cannot see through the collectives of several ranks; use auto"
        raise LoadError(LoadReason.UNSUPPORTED, message)
    if backend is Backend.COMPILE and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise LoadError(
            LoadReason.UNSUPPORTED, "--step-plans compile needs a C++ compiler (g++) in the image; use auto"
        )
    return backend


def detect_placement(device: str, tensor_parallel: int, step_plans: str = "auto") -> Placement:
    """`place` on this host."""
    return place(device, tensor_parallel, count_cuda_devices(), find_spec("torch") is not None, step_plans)
