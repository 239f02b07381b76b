"""How a product with quantised weights is spread over a GPU: tiles of outputs, parts of K, depth of the pipeline.

A decoding step has few rows, so its products are bound by reading the weights, and the memory of a GPU is only busy
while every multiprocessor waits for many bytes. One program per tile of outputs is too few of them: K is split, too.
The part of a tile that is done last adds up all of them in their order, so that the same inputs give the same sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from inference_pods.kernels.triton.dispatch import INTERPRETED

SMALLEST_TILE = 32  # outputs of a program: a counter for each is there, whatever tile a step chooses
_SHORTEST_PART = 2  # tiles of K: below, starting a pipeline costs more than it hides
_INTERPRETED_PROCESSORS = 2  # so that small shapes are split there, too


@dataclass(frozen=True, slots=True)
class Tile:
    """What a kernel is compiled for: rows and outputs of a program, its warps, and the stages of its pipeline.

    `programs`: that a multiprocessor is given, if K can be split that often.
    """

    rows: int
    outputs: int
    warps: int
    stages: int
    programs: int

    @property
    def constants(self) -> dict[str, int]:
        return {"BLOCK_M": self.rows, "BLOCK_N": self.outputs}

    @property
    def options(self) -> dict[str, int]:
        return {"num_warps": self.warps, "num_stages": self.stages}


@dataclass(frozen=True, slots=True)
class Spread:
    """A product [rows, K] times [outputs, K]ᵀ in tiles, each of them computed in `splits` parts of K."""

    rows: int
    outputs: int
    tile: Tile
    splits: int

    @property
    def grid(self) -> tuple[int, int, int]:
        return triton.cdiv(self.outputs, self.tile.outputs), triton.cdiv(self.rows, self.tile.rows), self.splits

    @property
    def arguments(self) -> dict[str, int]:
        return {**self.tile.constants, **self.tile.options}

    def make_partial_sums(self, device: torch.device) -> torch.Tensor:
        """fp32, for the sums of all parts; one element where K is not split."""
        across, down, splits = self.grid
        size = across * down * splits * self.tile.rows * self.tile.outputs if splits > 1 else 1
        return torch.empty(size, dtype=torch.float32, device=device)


def make_counters(outputs: int, device: torch.device) -> torch.Tensor:
    """int32: how many parts of each tile are done. All are zero between two products."""
    return torch.zeros(triton.cdiv(outputs, SMALLEST_TILE), dtype=torch.int32, device=device)


def counter_bytes(outputs: int) -> int:
    """That `make_counters` takes."""
    return -(-outputs // SMALLEST_TILE) * torch.int32.itemsize


def choose_tile(tiles: Sequence[Tile], rows: int) -> Tile:
    """The first that holds all rows of activations, or the last."""
    return next((tile for tile in tiles if rows <= tile.rows), tiles[-1])


def choose_spread(tiles: Sequence[Tile], rows: int, outputs: int, parts: int, device: torch.device) -> Spread:
    """`tiles`: those that the kernel is made for, TILE_ROWS rows each. `parts`: the groups of columns that a program
    takes at once, and the most that K can be divided in."""
    tile = choose_tile(tiles, rows)
    splits = 1
    if rows <= tile.rows:  # there is one counter for each tile of outputs, and many rows have programs enough
        wanted = _count_processors(device) * tile.programs // triton.cdiv(outputs, tile.outputs)
        share = triton.cdiv(parts, max(1, min(wanted, parts // _SHORTEST_PART)))
        splits = triton.cdiv(parts, share)  # none is empty
    return Spread(rows, outputs, tile, splits)


def _count_processors(device: torch.device) -> int:
    if INTERPRETED:
        return _INTERPRETED_PROCESSORS
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


@triton.jit
def own_part(tiles):
    """The first tile of K of this program, and the one after its last."""
    share = tl.cdiv(tiles, tl.num_programs(2))
    first = tl.program_id(2) * share
    return first, tl.minimum(first + share, tiles)


@triton.jit
def store_sum(total, y, partial, counters, rows, outputs, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Stores a tile of the product; where K is split, the part that is done last does so for all of them."""
    mask = (rows[:, None] < M) & (outputs[None, :] < N)
    target = y + rows[:, None].to(tl.int64) * N + outputs[None, :]
    splits = tl.num_programs(2)
    if splits == 1:
        tl.store(target, total.to(y.dtype.element_ty), mask=mask)
    else:
        tile = tl.program_id(0)
        inner = tl.arange(0, BLOCK_M)[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
        sums = partial + tile.to(tl.int64) * splits * (BLOCK_M * BLOCK_N) + inner
        tl.store(sums + tl.program_id(2) * (BLOCK_M * BLOCK_N), total, mask=mask)
        tl.debug_barrier()  # all threads have stored before one of them says so
        if tl.atomic_add(counters + tile, 1, sem="acq_rel") == splits - 1:
            tl.store(counters + tile, 0)
            total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
            for part in range(splits):
                # Past the first cache, which does not see what other processors store.
                total += tl.load(sums + part * (BLOCK_M * BLOCK_N), mask=mask, other=0.0, cache_modifier=".cg")
            tl.store(target, total.to(y.dtype.element_ty), mask=mask)
