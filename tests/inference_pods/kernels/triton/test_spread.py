"""How products are spread: no part of K is empty or left out, and sums are the same in however many parts."""

import pytest
import torch
import triton
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.kernels.triton import nested, sparse24, spread, w4a16, w8a16
from inference_pods.kernels.triton.dispatch import TILE_ROWS
from inference_pods.kernels.triton.linear import Format, linear, pack_linear
from inference_pods.kernels.triton.spread import SMALLEST_TILE, Tile, choose_spread, choose_tile

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
KERNELS = {module.__name__.rsplit(".", 1)[1]: module.TILES for module in (nested, sparse24, w4a16, w8a16)}


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_has_a_tile_for_each_size_that_is_warmed(name):
    assert tuple(tile.rows for tile in KERNELS[name]) == TILE_ROWS
    assert all(tile.outputs >= SMALLEST_TILE for tile in KERNELS[name])


@pytest.mark.parametrize(("rows", "taken"), [(1, 16), (16, 16), (17, 32), (64, 64), (65, 64), (500, 64)])
def test_the_smallest_tile_that_holds_all_rows_is_taken_or_the_largest(rows, taken):
    assert choose_tile(w8a16.TILES, rows).rows == taken


@given(
    rows=st.integers(1, 300),
    outputs=st.integers(1, 3000),
    parts=st.integers(1, 200),
    programs=st.integers(1, 16),
    processors=st.integers(1, 200),
)
def test_no_part_of_k_is_empty_or_left_out(rows, outputs, parts, programs, processors):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spread, "_count_processors", lambda device: processors)
        tiles = (Tile(16, 32, 4, 3, programs), Tile(64, 128, 4, 3, programs))
        found = choose_spread(tiles, rows, outputs, parts, CPU)
    share = triton.cdiv(parts, found.splits)
    assert (found.splits - 1) * share < parts <= found.splits * share
    assert found.splits == 1 or rows <= found.tile.rows  # one counter for a tile of outputs
    across, down, _ = found.grid
    assert across * found.tile.outputs >= outputs
    assert down * found.tile.rows >= rows


@pytest.mark.parametrize("kind", list(Format))
def test_sums_are_the_same_in_however_many_parts_and_in_every_run(kind, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 768, generator=generator).half()
    matrix = pack_linear(torch.randn(70, 768, generator=generator) * 0.1, kind)
    monkeypatch.setattr(spread, "_count_processors", lambda device: 1000)
    assert choose_spread(w4a16.TILES, 3, 70, 6, CPU).splits == 3
    first, second = linear(x, matrix), linear(x, matrix)
    assert torch.equal(first, second)
    assert matrix.counters.count_nonzero() == 0  # ready for the next product
    monkeypatch.setattr(spread, "_count_processors", lambda device: 0)
    torch.testing.assert_close(first, linear(x, matrix), rtol=2**-10, atol=2**-11)
