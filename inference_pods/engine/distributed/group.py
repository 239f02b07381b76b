"""The process group of one replica: sums and gathers of a step (gloo on CPU, nccl on GPUs), and rank 0's commands.

Commands go through a gloo group of their own that waits as long as a replica may be idle; a dead peer ends the wait at
once. Everything stays on the loopback interface: the ranks of a replica share a pod.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from inference_pods.engine.distributed.wire import Command
from inference_pods.kernels.torch_device import refusing_for_memory

_JOIN = timedelta(minutes=5)  # importing torch on a quarter of a core takes most of a minute
_IDLE = timedelta(days=365)


class Group:
    """This process's place among the ranks.

    Raises:
        RuntimeError: a peer is gone or did not come in time.
        DeviceMemoryError: the device is too full to meet the others on it.
    """

    def __init__(self, rank: int, ranks: int, port: int, device: torch.device, listener: socket.socket | None) -> None:
        self.rank, self.ranks = rank, ranks
        _stay_on_loopback()
        store = dist.TCPStore(  # type: ignore[attr-defined]
            "127.0.0.1", port, ranks, is_master=rank == 0, timeout=_JOIN, wait_for_workers=False,
            master_listen_fd=None if listener is None else listener.detach(),
        )  # fmt: skip
        is_cuda = device.type == "cuda"
        with refusing_for_memory(device):
            dist.init_process_group(
                "nccl" if is_cuda else "gloo", store=store, rank=rank, world_size=ranks, timeout=_JOIN,
                device_id=device if is_cuda else None,
            )  # fmt: skip
        self._control = dist.new_group(backend="gloo", timeout=_IDLE)

    def sum(self, x: Tensor) -> Tensor:
        """See Collectives."""
        dist.all_reduce(x)
        return x

    def gather_columns(self, x: Tensor, widths: Sequence[int]) -> Tensor | None:
        """See Collectives. Shorter ranks pad to the widest, because a gather takes equal parts."""
        padded = torch.nn.functional.pad(x, (0, max(widths) - x.shape[1])).contiguous()
        parts = [torch.empty_like(padded) for _ in widths] if self.rank == 0 else None
        dist.gather(padded, parts, dst=0)
        return None if parts is None else torch.cat([p[:, :w] for p, w in zip(parts, widths, strict=True)], 1)

    def send(self, command: Command, payload: NDArray[np.int32] | None = None) -> None:
        """Rank 0: tells all others what to do."""
        length = 0 if payload is None else len(payload)
        dist.broadcast(torch.tensor([int(command), length], dtype=torch.int32), 0, group=self._control)
        if payload is not None and length:
            dist.broadcast(torch.from_numpy(payload), 0, group=self._control)

    def receive(self) -> tuple[Command, NDArray[np.int32]]:
        """The others: waits for what rank 0 says."""
        header = torch.zeros(2, dtype=torch.int32)
        dist.broadcast(header, 0, group=self._control)
        command, length = header.tolist()
        payload = torch.zeros(length, dtype=torch.int32)
        if length:
            dist.broadcast(payload, 0, group=self._control)
        return Command(command), payload.numpy()

    def total(self, values: Sequence[int]) -> list[int]:
        """Sums over all ranks; returns when every rank has come here."""
        sums = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(sums, group=self._control)
        return [int(value) for value in sums]

    def close(self) -> None:
        with suppress(RuntimeError, AssertionError):
            dist.destroy_process_group()


def _stay_on_loopback() -> None:
    """gloo resolves the host's name otherwise, which in a pod may lead nowhere."""
    name = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
