"""What each rank gets of a decoder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.kernels.decoder import DecoderShape
from inference_pods.kernels.formats import GROUP
from inference_pods.kernels.shards import divide, whole

SMOL = DecoderShape(
    layers=30, dim=576, ffn=1536, heads=9, kv_heads=3, head_dim=64, vocab=49152, rms_eps=1e-5, rope_base=1e5
)


def weights_of_a_layer(shape, shard):
    group = shape.heads // shape.kv_heads
    return shape.dim * (len(shard.kv_heads) * shape.head_dim * 2 * (group + 1) + 3 * len(shard.neurons))


@pytest.mark.parametrize(
    ("ranks", "heads", "neurons"),
    [(1, [3], [1536]), (2, [2, 1], [672, 864]), (3, [1, 1, 1], [512] * 3), (4, [1, 1, 1, 0], [352, 352, 320, 512])],
)
def test_kv_groups_stay_whole_and_neurons_even_out_the_weights(ranks, heads, neurons):
    shards = divide(SMOL, ranks)
    assert [len(shard.kv_heads) for shard in shards] == heads
    assert [len(shard.neurons) for shard in shards] == neurons
    weights = [weights_of_a_layer(SMOL, shard) for shard in shards]
    assert max(weights) - min(weights) <= 3 * SMOL.dim * GROUP


def test_one_rank_gets_everything():
    shard = whole(SMOL)
    assert (shard.kv_heads, shard.neurons, shard.vocabulary) == (range(3), range(1536), range(49152))


@given(
    kv_heads=st.integers(1, 8),
    group=st.sampled_from([1, 2, 3, 4, 8]),
    ffn=st.integers(1, 700),
    vocab=st.integers(8, 500),
    ranks=st.integers(1, 8),
)
def test_shards_cover_everything_once_in_order(kv_heads, group, ffn, vocab, ranks):
    shape = DecoderShape(1, 64, ffn, kv_heads * group, kv_heads, 16, vocab, 1e-5, 1e4)
    shards = divide(shape, ranks)
    for name, total in (("kv_heads", kv_heads), ("neurons", ffn), ("vocabulary", vocab)):
        assert [item for shard in shards for item in getattr(shard, name)] == list(range(total))
    assert [shard.rank for shard in shards] == list(range(ranks))


@pytest.mark.parametrize("ranks", [0, SMOL.vocab + 1])
def test_a_number_of_ranks_that_cannot_be_is_refused(ranks):
    with pytest.raises(ValueError, match="between 1 and"):
        divide(SMOL, ranks)
