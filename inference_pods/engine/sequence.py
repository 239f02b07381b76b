"""What a request becomes inside the engine: its tokens, sampling wishes and progress. Plain data, no torch, no text."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class FailureKind(StrEnum):
    """Why a request ended without its answer."""

    MODEL = "model"
    INTERNAL = "internal"  # a defect in the engine's own work on it
    DEADLINE = "deadline"
    STOPPED = "stopped"  # the replica ends; another one may serve


class FinishReason(StrEnum):
    """Why a generation ended; the values are TGI's."""

    LENGTH = "length"
    EOS = "eos_token"
    STOP = "stop_sequence"


GREEDY_TEMPERATURE = 1e-5  # up to here the best token is as good as certain, and dividing by it may overflow


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen; the defaults change nothing. `top_k` 0: no limit. `temperature` 0: greedy."""

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None

    @property
    def needs_sampling(self) -> bool:
        """Any filter implies sampling, as in TGI, unless the temperature leaves only the best token."""
        if self.temperature <= GREEDY_TEMPERATURE:
            return False
        return self.do_sample or self.temperature != 1.0 or self.top_k > 0 or self.top_p < 1.0 or self.typical_p < 1.0

    @property
    def has_penalties(self) -> bool:
        return self.repetition_penalty != 1.0 or self.frequency_penalty != 0.0 or self.presence_penalty != 0.0


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One validated request: prompt and limits in tokens.

    `level` is an index into the decoder's levels, 0 the top one. `priority`: lower goes first; waiting makes up for it
    (see Scheduler). `deadline_seconds` is on the monotonic clock; a request not finished by then ends with an error.
    `speculate`: may be drafted by a lower level where the engine does that; its output is the same either way.
    """

    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    sampling: SamplingParams = SamplingParams()
    stop_strings: tuple[str, ...] = ()
    top_n_tokens: int = 0
    ignore_eos: bool = False
    level: int = 0
    priority: int = 0
    deadline_seconds: float | None = None
    speculate: bool = True


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token with its text and the model's log-probability."""

    id: int
    text: str
    logprob: float
    special: bool


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One step of one request: a token, perhaps the end, or the error that ended it."""

    request_id: int
    token: ScoredToken | None = None
    top_tokens: tuple[ScoredToken, ...] = ()
    finish: FinishReason | None = None
    error: str | None = None
    failure: FailureKind | None = None
    queue_seconds: float = 0.0

    @property
    def is_last(self) -> bool:
        return self.finish is not None or self.error is not None


@dataclass(slots=True, eq=False)
class Sequence:
    """A request's tokens (prompt, then generated) and how far the KV cache covers them.

    `draftable_until`: the most tokens it may come to have, if it may be drafted, else 0.
    `shared_blocks` of its table were found cached when it was admitted. `block_keys` are the keys of the full blocks
    among its tokens, as far as they were needed; `unmixed_blocks` is set once the level has changed: blocks from there
    on hold keys and values of several levels and are never shared.
    """

    request_id: int
    token_ids: list[int]
    prompt_tokens: int
    priority: int = 0
    arrived_at: float = 0.0
    level: int = 0
    draftable_until: int = 0
    computed_tokens: int = 0
    block_table: list[int] = field(default_factory=list)
    shared_blocks: int = 0
    block_keys: list[bytes] = field(default_factory=list)
    unmixed_blocks: int | None = None

    @property
    def pending_tokens(self) -> int:
        """Tokens whose keys and values are still to be computed: 1 while decoding."""
        return len(self.token_ids) - self.computed_tokens

    @property
    def generated_tokens(self) -> int:
        return len(self.token_ids) - self.prompt_tokens

    @property
    def draftable_tokens(self) -> int:
        """Tokens that may be drafted now: the last one of a request never is, verifying gives it anyway."""
        is_decoding = self.pending_tokens == 1 and self.generated_tokens > 0
        return max(0, self.draftable_until - len(self.token_ids) - 1) if is_decoding and self.level == 0 else 0

    @property
    def own_blocks(self) -> int:
        """Blocks that it did not find cached."""
        return len(self.block_table) - self.shared_blocks

    def forget_computed(self) -> None:
        """Its blocks are gone: everything is to be computed again, all at the present level."""
        self.computed_tokens = self.shared_blocks = 0
        if self.unmixed_blocks is not None:
            self.block_keys.clear()
            self.unmixed_blocks = None
