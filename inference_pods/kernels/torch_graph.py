"""The torch decoder's step plan: one decoding step of a fixed number of rows, compiled by torch or captured on a GPU.

A graph runs on its own static tensors; a step is copied in, and rows that it hasn't got write into a spare KV block.
Capturing needs a GPU and saves the launches of some 20 kernels per layer; torch.compile takes seconds per bucket.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import torch
from torch import Tensor

from inference_pods.kernels.torch_batch import Batch

Forward = Callable[[Batch], Tensor | None]


class Backend(StrEnum):
    """How decoding steps are specialised."""

    EAGER = "eager"
    COMPILE = "compile"
    CUDA_GRAPH = "cuda-graph"


class GraphPlan:
    """`forward` specialised for `rows` decoding rows that read up to `positions` KV slots each."""

    def __init__(
        self, forward: Forward, rows: int, positions: int, spare_slot: int, device: torch.device, backend: Backend
    ) -> None:
        def fill(*size: int, value: int = 0) -> Tensor:
            return torch.full(size, value, dtype=torch.int64, device=device)

        every_row = torch.arange(rows, device=device)
        visible = torch.zeros(rows, positions, dtype=torch.bool, device=device)
        visible[:, 0] = True  # a row that sees nothing would be NaN
        self._spare_slot = spare_slot
        self._static = Batch(
            fill(rows), fill(rows), fill(rows, value=spare_slot), every_row,
            fill(rows, positions, value=spare_slot), visible, (), every_row,
        )  # fmt: skip
        self._run = _specialise(forward, self._static, backend)

    def __call__(self, batch: Batch) -> Tensor | None:
        """Scores of the batch's outputs; the batch decodes only and has at most the plan's rows."""
        static, (count, longest) = self._static, batch.read_slots.shape
        static.tokens[:count] = batch.tokens
        static.positions[:count] = batch.positions
        static.write_slots[:count] = batch.write_slots
        static.write_slots[count:] = self._spare_slot
        static.read_slots[:count, :longest] = batch.read_slots
        static.visible[:count, :longest] = batch.visible
        static.visible[:count, longest:] = False
        logits = self._run()
        return None if logits is None else logits[batch.outputs]


def _specialise(forward: Forward, static: Batch, backend: Backend) -> Callable[[], Tensor | None]:
    if backend is Backend.CUDA_GRAPH:
        return _capture(forward, static)
    if backend is Backend.COMPILE:
        compiled = torch.compile(forward, fullgraph=True, dynamic=False)
        compiled(static)
        return lambda: compiled(static)
    return lambda: forward(static)


def _capture(forward: Forward, static: Batch) -> Callable[[], Tensor | None]:
    """Records the kernels of one run; what libraries set up at their first call must lie outside of the recording."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            forward(static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = forward(static)

    def replay() -> Tensor | None:
        graph.replay()
        return logits

    return replay
