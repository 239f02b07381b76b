"""A step on its way to the other ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.engine.distributed.wire import decode_chunks, encode_chunks
from inference_pods.kernels.decoder import Chunk

numbers = st.integers(0, 2**31 - 1)
chunks = st.builds(
    Chunk,
    st.lists(numbers, max_size=70),
    numbers,
    st.lists(numbers, max_size=20),
    st.integers(0, 70),
    st.integers(0, 3),
)


@given(step=st.lists(chunks, max_size=9))
def test_chunks_arrive_as_they_were_sent(step):
    assert decode_chunks(encode_chunks(step)) == step


@given(step=st.lists(chunks, min_size=1, max_size=3), missing=st.integers(1, 4))
def test_a_step_that_ends_within_its_last_chunk_is_refused(step, missing):
    with pytest.raises(ValueError, match="ends within a chunk"):
        decode_chunks(encode_chunks(step)[:-missing])


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(OverflowError):
        encode_chunks([Chunk([2**40], 0, [0], 1)])
    assert encode_chunks([]).dtype == np.int32
