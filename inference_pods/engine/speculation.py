"""Self-speculative decoding: which level drafts how far, and whether that pays at the present batch. No tensors.

A lower level drafts k tokens, one step each; the top level then computes all of them in one step and keeps the longest
beginning that it would have chosen itself (greedy verification, Leviathan et al., arXiv 2211.17192), plus one token of
its own. The output is the top level's; only the time differs, so the gate measures time per token with and without.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as ReadOnlyList
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

_PLAIN_ROUNDS = 8  # measured before drafting is tried, and again now and then
_TRIAL_ROUNDS = 8  # drafted before the first verdict
_WINDOW_ROUNDS = 24  # drafted rounds that the running verdict looks at
_PLAIN_AGAIN_AFTER = 256  # drafted rounds; contexts grow, and with them the cost of a plain step
_ON_GAIN, _OFF_GAIN = 1.05, 1.0  # hysteresis: starts above the first, stops below the second
_HOPELESS_ROUNDS, _HOPELESS_GAIN = 3, 0.8  # a trial that loses this clearly this early ends: it costs real requests
_FIRST_RETRY, _LAST_RETRY = 128, 4096  # plain rounds before another trial, doubled after each that failed
_PAUSE = 3.0  # a round this many times slower than the median was a pause of the machine: it counts as no more


@dataclass(frozen=True, slots=True)
class DraftSettings:
    """Index of the level that drafts, and tokens per draft."""

    level: int
    tokens: int


def find_draft_settings(levels: ReadOnlyList[str], name: str, tokens: int) -> DraftSettings:
    """Settings for drafting with the level `name`; level 0 verifies.

    Raises:
        ValueError: no such level, or it is the only or the top one.
    """
    if len(levels) < 2:
        raise ValueError(
            f"--draft-level {name} needs weights with two levels or more, these have only {levels[0]}: "
            "use --precision nested or --depths, or leave it out"
        )
    if name not in levels[1:]:
        raise ValueError(f"--draft-level {name} must be below the top level {levels[0]}: use {' or '.join(levels[1:])}")
    return DraftSettings(levels.index(name), tokens)


class _Window:
    """Seconds and tokens of the last rounds."""

    def __init__(self, rounds: int) -> None:
        self._rounds: deque[tuple[float, float]] = deque(maxlen=rounds)

    def __len__(self) -> int:
        return len(self._rounds)

    def add(self, seconds: float, tokens: float) -> None:
        self._rounds.append((seconds, tokens))

    def clear(self) -> None:
        self._rounds.clear()

    @property
    def seconds_per_token(self) -> float:
        longest = _PAUSE * median(seconds for seconds, _ in self._rounds)
        return sum(min(seconds, longest) for seconds, _ in self._rounds) / sum(tokens for _, tokens in self._rounds)


class GateState(StrEnum):
    """What a kind of batch does at present."""

    PLAIN = "plain"  # measures without drafts
    TRIAL = "trial"  # measures with drafts
    ON = "on"
    OFF = "off"  # waits for the next trial


@dataclass(slots=True, eq=False)
class _Arm:
    """Verdict on one kind of batch."""

    state: GateState = GateState.PLAIN
    after_plain: GateState = GateState.TRIAL
    plain: _Window = field(default_factory=lambda: _Window(_PLAIN_ROUNDS))
    drafted: _Window = field(default_factory=lambda: _Window(_WINDOW_ROUNDS))
    rounds: int = 0  # in the present state
    retry: int = _FIRST_RETRY
    gain: float | None = None

    @property
    def drafts(self) -> bool:
        return self.state in (GateState.TRIAL, GateState.ON)

    def observe(self, drafted: bool, tokens: float, seconds: float) -> None:
        """A round of this kind that gave each sequence `tokens` tokens."""
        if drafted is not self.drafts:
            return  # asked to draft, but there was no room
        (self.drafted if drafted else self.plain).add(seconds, tokens)
        self.rounds += 1
        if self.state is GateState.PLAIN and self.rounds >= _PLAIN_ROUNDS:
            self._enter(self.after_plain)
        elif self.state is GateState.TRIAL:
            self._judge_trial()
        elif self.state is GateState.ON:
            self._judge_running()
        elif self.state is GateState.OFF and self.rounds >= self.retry:
            self.drafted.clear()
            self._enter(GateState.TRIAL)

    def _measure(self) -> float:
        self.gain = self.plain.seconds_per_token / max(self.drafted.seconds_per_token, 1e-9)
        return self.gain

    def _judge_trial(self) -> None:
        is_over = self.rounds >= _TRIAL_ROUNDS
        if not is_over and self.rounds < _HOPELESS_ROUNDS:
            return
        if self._measure() < (_ON_GAIN if is_over else _HOPELESS_GAIN):
            self.retry = min(2 * self.retry, _LAST_RETRY)
            self._enter(GateState.OFF)
        elif is_over:
            self._enter(GateState.ON)

    def _judge_running(self) -> None:
        if self._measure() < _OFF_GAIN:
            self.retry = _FIRST_RETRY
            self._enter(GateState.OFF)
        elif self.rounds >= _PLAIN_AGAIN_AFTER:
            self.after_plain = GateState.ON
            self._enter(GateState.PLAIN)

    def _enter(self, state: GateState) -> None:
        if state is GateState.OFF:
            self.after_plain = GateState.TRIAL
        self.state, self.rounds = state, 0


class SpeculationGate:
    """Decides before each round of pure decoding whether to draft; a kind of batch is (sequences, of them drafting).

    Kinds are judged apart because a verification of many rows costs more the more sequences share the step.
    """

    def __init__(self) -> None:
        self._arms: dict[tuple[int, int], _Arm] = {}
        self._present: _Arm | None = None
        self._is_asked = False

    @property
    def is_active(self) -> bool:
        """Whether the last round of pure decoding was meant to draft."""
        return self._present is not None and self._present.drafts

    @property
    def gain(self) -> float | None:
        """Time per token without drafts over that with them, at the present kind of batch; None: not measured."""
        return None if self._present is None else self._present.gain

    def begin_round(self) -> None:
        """A step is being planned; unless wants_drafts() is asked for it, what it takes says nothing."""
        self._is_asked = False

    def wants_drafts(self, sequences: int, drafting: int) -> bool:
        """Whether the coming round should draft; follow with observe()."""
        self._is_asked = True
        self._present = self._arms.setdefault((sequences, drafting), _Arm())
        return self._present.drafts

    def observe(self, drafted: bool, tokens: float, seconds: float) -> None:
        """A round ended: tokens per sequence, and all its seconds; ignored if wants_drafts() was not asked for it.

        One that gave no token (each of its requests failed) says nothing of the time per token.
        """
        if self._is_asked and self._present is not None and tokens > 0:
            self._present.observe(drafted, tokens, seconds)
