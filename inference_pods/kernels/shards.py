"""How the ranks of a replica share one decoder: whole KV groups, FFN neurons, vocabulary rows. Ranges only, no tensors.

Megatron's division (arXiv 1909.08053): q, k, v, gate and up by rows, o and down by columns, embedding and head by
vocabulary. Heads are dealt out as whole KV groups, however unevenly: SmolLM2's 3 groups become 2 + 1 on two ranks and
1 + 1 + 1 + 0 on four. FFN neurons then even out the weights. Why: docs/decisions/0006-tensor-parallel-in-one-pod.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from inference_pods.kernels.decoder import DecoderShape
from inference_pods.kernels.formats import GROUP


@dataclass(frozen=True, slots=True)
class Shard:
    """What one rank holds: consecutive KV heads (with their query heads), FFN neurons and vocabulary rows."""

    rank: int
    ranks: int
    kv_heads: range
    neurons: range
    vocabulary: range


def whole(shape: DecoderShape) -> Shard:
    """The only shard of a decoder that is not divided."""
    return divide(shape, 1)[0]


def divide(shape: DecoderShape, ranks: int) -> tuple[Shard, ...]:
    """One shard per rank; together they cover everything once.

    Raises:
        ValueError: more ranks than there are vocabulary rows to deal out, or none.
    """
    if not 1 <= ranks <= shape.vocab:
        raise ValueError(f"{ranks} ranks: between 1 and the vocabulary's {shape.vocab} rows can be used")
    heads = _even(shape.kv_heads, ranks)
    columns = zip(
        _ranges(heads), _ranges(_balance_neurons(shape, heads)), _ranges(_even(shape.vocab, ranks)), strict=True
    )
    return tuple(Shard(rank, ranks, *parts) for rank, parts in enumerate(columns))


def _even(items: int, ranks: int) -> list[int]:
    return [items // ranks + (rank < items % ranks) for rank in range(ranks)]


def _ranges(counts: list[int]) -> list[range]:
    ends = [sum(counts[: index + 1]) for index in range(len(counts))]
    return [range(end - count, end) for count, end in zip(counts, ends, strict=True)]


def _balance_neurons(shape: DecoderShape, heads: list[int]) -> list[int]:
    """Neurons per rank: one quantisation group after the other goes to the rank with the fewest weights.

    SmolLM2 on two ranks: 2 + 1 heads are 590 k + 295 k weights of a layer; 672 + 864 neurons make both about 1.77 M.
    """
    per_head = 2 * shape.dim * shape.head_dim * (shape.heads // shape.kv_heads + 1)  # q, o; k, v
    weights = [count * per_head for count in heads]
    neurons = [0] * len(heads)
    for start in range(0, shape.ffn, GROUP):
        count = min(GROUP, shape.ffn - start)
        lightest = weights.index(min(weights))
        neurons[lightest] += count
        weights[lightest] += 3 * shape.dim * count
    return neurons
