"""The reused input arrays of the compiled step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.kernels.decoder import Chunk
from inference_pods.kernels.formats import BLOCK_TOKENS
from inference_pods.kernels.step_buffers import StepBuffers, count_rows
from inference_pods.kernels.step_plans import PlanKey

TABLE_BLOCKS = 4


@st.composite
def chunks(draw):
    count, start = draw(st.integers(1, 8)), draw(st.integers(0, 40))
    blocks = -(-(start + count) // BLOCK_TOKENS)
    tokens = draw(st.lists(st.integers(0, 1000), min_size=count, max_size=count))
    table = draw(st.lists(st.integers(0, 99), min_size=blocks, max_size=blocks + 3))
    return Chunk(tokens, start, table, draw(st.integers(0, count)))


@given(steps=st.lists(st.lists(chunks(), min_size=1, max_size=4), min_size=1, max_size=4))
def test_buffers_hold_each_step_whatever_was_in_them_before(steps):
    buffers = StepBuffers(PlanKey(32, 32), TABLE_BLOCKS)
    for step in steps:
        rows, outputs = count_rows(step, 1)
        groups, order = buffers.fill(step)
        assert (buffers.groups[:groups].tolist(), order) == ([[0, rows, outputs]], list(range(outputs)))
        expected = [(t, c.start + i, s) for s, c in enumerate(step) for i, t in enumerate(c.token_ids)]
        actual = zip(buffers.tokens[:rows], buffers.positions[:rows], buffers.sequences[:rows], strict=True)
        assert list(actual) == expected
        ends = np.cumsum([len(c.token_ids) for c in step])
        wanted = [row for end, c in zip(ends, step, strict=True) for row in range(end - c.scores, end)]
        assert buffers.outputs[:outputs].tolist() == wanted
        for index, chunk in enumerate(step):
            needed = -(-(chunk.start + len(chunk.token_ids)) // BLOCK_TOKENS)
            assert buffers.tables[index, :needed].tolist() == chunk.block_table[:needed]


def test_addresses_are_those_of_the_arrays():
    buffers = StepBuffers(PlanKey(4, 2), TABLE_BLOCKS)
    arrays = (buffers.groups, buffers.tokens, buffers.positions, buffers.sequences, buffers.tables, buffers.outputs)
    assert buffers.addresses == tuple(array.__array_interface__["data"][0] for array in arrays)


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (Chunk([1], 0, [0], 2), "scores of 2 tokens are wanted of a chunk of 1"),
        (Chunk([1], 16, [0], 1), "too short for position 17"),
    ],
)
def test_a_chunk_that_contradicts_itself_is_refused(chunk, message):
    with pytest.raises(ValueError, match=message):
        count_rows([chunk], 1)


def test_rows_of_one_level_lie_together_and_scores_are_found_in_the_order_of_the_chunks():
    step = [Chunk([1], 0, [4], 1, 1), Chunk([2, 3], 0, [5], 2, 0), Chunk([6], 0, [7], 1, 1)]
    assert count_rows(step, 2) == (4, 4)
    buffers = StepBuffers(PlanKey(4, 4), TABLE_BLOCKS)
    assert buffers.fill(step) == (2, [2, 0, 1, 3])
    assert buffers.groups[:2].tolist() == [[0, 2, 2], [1, 2, 2]]
    assert buffers.tokens.tolist() == [2, 3, 1, 6]
    assert buffers.sequences.tolist() == [1, 1, 0, 2]
    assert buffers.outputs.tolist() == [0, 1, 0, 1]
