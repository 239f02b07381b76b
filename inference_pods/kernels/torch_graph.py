"""The torch decoder's step plan: one decoding step of a fixed number of rows, compiled by torch or captured on a GPU.

A graph runs on its own static tensors; a step is copied in, and rows that it hasn't got write into a spare KV block.
Capturing needs a GPU and saves the launches of some 20 kernels per layer; torch.compile takes seconds per bucket.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import FunctionType

import torch
from torch import Tensor

from inference_pods.kernels.step_plans import Backend
from inference_pods.kernels.torch_batch import Batch

Forward = Callable[[Batch], Tensor | None]


class GraphPlan:
    """`forward` specialised for `rows` decoding rows whose block tables have up to `blocks` entries."""

    def __init__(
        self, forward: Forward, rows: int, blocks: int, spare_block: int, device: torch.device, backend: Backend
    ) -> None:
        def fill(*size: int, value: int = 0, kind: torch.dtype = torch.int64) -> Tensor:
            return torch.full(size, value, dtype=kind, device=device)

        every_row = torch.arange(rows, device=device)
        self._spare_block = spare_block
        self._static = Batch(
            tokens=fill(rows),
            positions=fill(rows, kind=torch.int32),
            write_blocks=fill(rows, value=spare_block),
            write_offsets=fill(rows),
            decoding=every_row,
            block_tables=fill(rows, blocks, value=spare_block, kind=torch.int32),
            lengths=fill(rows, value=1, kind=torch.int32),  # a row that sees nothing would be NaN
            prompts=(),
            outputs=every_row,
        )
        self._run = _specialise(forward, self._static, backend)

    def __call__(self, batch: Batch) -> Tensor | None:
        """Scores of the batch's outputs; the batch decodes only and has at most the plan's rows."""
        static, (count, longest) = self._static, batch.block_tables.shape
        static.tokens[:count] = batch.tokens
        static.positions[:count] = batch.positions
        static.write_blocks[:count] = batch.write_blocks
        static.write_blocks[count:] = self._spare_block
        static.write_offsets[:count] = batch.write_offsets
        static.block_tables[:count, :longest] = batch.block_tables  # what lies beyond is not read: lengths say so
        static.lengths[:count] = batch.lengths
        static.lengths[count:] = 1
        logits = self._run()
        return None if logits is None else logits[batch.outputs]


def _specialise(forward: Forward, static: Batch, backend: Backend) -> Callable[[], Tensor | None]:
    if backend is Backend.CUDA_GRAPH:
        return _capture(forward, static)
    if backend is Backend.COMPILE:
        return _compile(forward, static)
    return lambda: forward(static)


def _compile(forward: Forward, static: Batch) -> Callable[[], Tensor | None]:
    """What torch makes of a function belongs to its code, and is freed with what is returned here."""
    # Seconds to import, and only torch.compile needs it.
    from torch._dynamo.eval_frame import reset_code  # type: ignore[attr-defined]

    own = _with_own_code(forward)
    compiled = torch.compile(own, fullgraph=True, dynamic=False)
    compiled(static)

    def replay() -> Tensor | None:
        return compiled(static)

    weakref.finalize(replay, reset_code, own.__code__).atexit = False
    return replay


def _with_own_code(forward: Forward) -> Forward:
    """The same function with a code object of its own.

    torch keeps at most eight versions of each code object: one for all plans would make the ninth plan fail.
    """

    def run(batch: Batch) -> Tensor | None:
        return forward(batch)

    return FunctionType(run.__code__.replace(), run.__globals__, run.__name__, closure=run.__closure__)


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
