"""What a CUDA device's errors mean for a decoder: too little memory, a step that failed, or the end of the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from inference_pods.kernels.decoder import DeviceLostError, DeviceMemoryError

_NO_MEMORY = ("out of memory", "ALLOC_FAILED")  # in the words of the driver, Triton and nccl; of cuBLAS


def check_room(device: torch.device, needed_bytes: int) -> None:
    """Raises DeviceMemoryError unless `needed_bytes` are free on a CUDA device; the CPU's memory is the container's."""
    if device.type != "cuda":
        return
    with refusing_for_memory(device, needed_bytes):
        free, _ = torch.cuda.mem_get_info(device)
    if needed_bytes > free:
        raise _refuse(device, needed_bytes)


@contextmanager
def refusing_for_memory(device: torch.device, needed_bytes: int | None = None) -> Iterator[None]:
    """Makes a DeviceMemoryError of whatever error says, inside, that a CUDA device has no memory left.

    `needed_bytes`: what weights and KV cache take; None: they are not planned yet.
    """
    try:
        yield
    except RuntimeError as error:
        if device.type != "cuda" or not _is_out_of_memory(error):
            raise
        raise _refuse(device, needed_bytes) from error


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Only torch's own allocator has a type for it. The end of a capture raises an error of its own on top of it."""
    if error is None:
        return False
    message = str(error)
    is_said = "CUDA" in message and any(words in message for words in _NO_MEMORY)
    return isinstance(error, torch.OutOfMemoryError) or is_said or _is_out_of_memory(error.__context__)


def _refuse(device: torch.device, needed_bytes: int | None) -> DeviceMemoryError:
    if needed_bytes is None:
        return DeviceMemoryError(f"{device}'s memory is too full for its own driver; {_describe_memory(device)}")
    needed = f"weights and KV cache need {needed_bytes} bytes of {device}'s memory, driver and steps some more"
    return DeviceMemoryError(f"{needed}; {_describe_memory(device)}")


def _describe_memory(device: torch.device) -> str:
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # asking takes some memory, too
        return "it does not tell how much is free"
    return f"{free} of its {total} bytes are free"


@contextmanager
def ending_if_lost(device: torch.device) -> Iterator[None]:
    """Raises DeviceLostError for an error, inside, that a CUDA device does not get over.

    What a kernel does wrong (an illegal access, a failed assertion) stays with the process: every later call reports it
    again. Too little memory or a wrong argument is reported once. So the device is asked once more.
    """
    try:
        yield
    except Exception as error:
        if device.type == "cuda" and (lasting := _find_lasting_error(device)):
            message = f"{device} fails every call ({lasting}); only a new process can use it"
            raise DeviceLostError(message) from error
        raise


def _find_lasting_error(device: torch.device) -> str | None:
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return str(error).partition("\n")[0]  # torch appends advice on debugging
    return None
