"""The step that warming takes: as many rows and scores as asked for, and reads as far as any step can."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.kernels.formats import BLOCK_TOKENS
from inference_pods.kernels.torch_batch import build_batch, build_filler

SPARE = 9


def test_the_prompt_of_a_filler_step_reads_all_positions_as_the_end_of_a_long_prompt_does():
    batch = build_batch(build_filler(64, 8, 1000, SPARE), torch.device("cpu"))

    (prompt,) = batch.prompts
    assert prompt.visible.shape == (63, 1000)
    assert prompt.visible[-1].all()
    assert prompt.blocks.tolist() == [SPARE] * 63


def test_a_filler_step_decodes_one_row_at_the_last_position():
    batch = build_batch(build_filler(64, 8, 1000, SPARE), torch.device("cpu"))

    assert batch.decoding.tolist() == [0]
    assert batch.lengths.tolist() == [1000]


@given(rows=st.integers(1, 300), scores=st.integers(0, 300), longest=st.integers(1, 200))
def test_a_filler_step_has_all_its_rows_and_scores_within_the_positions(rows, scores, longest):
    chunks = build_filler(rows, min(scores, rows), longest, SPARE)

    assert sum(len(chunk.token_ids) for chunk in chunks) == rows
    assert sum(chunk.scores for chunk in chunks) == min(scores, rows)
    for chunk in chunks:
        assert chunk.scores <= len(chunk.token_ids)
        assert chunk.start >= 0
        assert chunk.start + len(chunk.token_ids) == longest
        assert chunk.block_table == [SPARE] * -(-longest // BLOCK_TOKENS)
