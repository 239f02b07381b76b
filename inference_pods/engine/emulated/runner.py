"""A model runner without a model: waits as long as the curve says and answers with filler."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from inference_pods.engine.emulated.curve import Curve, step_seconds
from inference_pods.kernels.batch import Chunk, check_chunk
from inference_pods.kernels.decoder import TokenScores

_SURE = 20.0  # logit of the next word over 0 for all else: sampling at usual temperatures keeps to the sentence
_BETWEEN_STEPS_SECONDS = 0.005  # what the engine may need between two steps; a longer pause means that it was idle


class EmulatedRunner:
    """Repeats `sentence` (token ids, all different) whatever it is asked; `curves` by index of the level.

    A step's time includes what the engine itself needed since the step before, as long as that is less than
    _BETWEEN_STEPS_SECONDS: so the pace is the curve's on a slow machine too. `clock` gives monotonic seconds.
    """

    variant = "emulated"
    weight_bytes = 0
    kv_bytes = 0

    def __init__(
        self,
        curves: Sequence[Curve],
        sentence: Sequence[int],
        vocabulary_size: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._curves = tuple(curves)
        self._clock, self._sleep = clock, sleep
        self._due = -math.inf
        self._first = _score(sentence[0], vocabulary_size)
        following = [*sentence[1:], sentence[0]]
        self._after = {word: _score(after, vocabulary_size) for word, after in zip(sentence, following, strict=True)}

    def step(self, chunks: list[Chunk]) -> list[TokenScores]:
        """Scores of the tokens that want them, once the step is over.

        Raises:
            ValueError: a chunk contradicts itself or names a level that isn't there; no time has passed then.
        """
        for chunk in chunks:
            check_chunk(chunk, len(self._curves))
        self._wait(step_seconds(chunks, self._curves))
        wanted = (token for chunk in chunks for token in chunk.token_ids[len(chunk.token_ids) - chunk.scores :])
        return [self._after.get(token, self._first) for token in wanted]

    def _wait(self, seconds: float) -> None:
        now = self._clock()
        start = self._due if now - self._due <= _BETWEEN_STEPS_SECONDS else now
        self._due = start + seconds
        if self._due > now:
            self._sleep(self._due - now)


def _score(best: int, vocabulary_size: int) -> TokenScores:
    logits = np.zeros(vocabulary_size, np.float32)
    logits[best] = _SURE
    logits.flags.writeable = False  # one array serves all steps
    return TokenScores(best, math.log(math.exp(_SURE) + vocabulary_size - 1), logits)
