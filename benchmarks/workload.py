"""What both sides of the engine benchmark do: the measures, and the number of tokens in each. Figures are tokens/s."""

from __future__ import annotations

from dataclasses import dataclass

PREFILL_TOKENS = 512
PREFILL = "prefill 512"
BATCHES = (1, 8, 16)


def decode_name(batch: int) -> str:
    return f"decode {batch}"


MEASURES = (*(decode_name(batch) for batch in BATCHES), PREFILL)
Speeds = dict[str, float]  # tokens per second by measure


@dataclass(frozen=True, slots=True)
class Workload:
    """`context` tokens are in the KV cache of each sequence before `new_tokens` more are decoded."""

    context: int
    new_tokens: int
    prefills: int  # whose mean is one figure
    threads: int
