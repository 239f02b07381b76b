"""Chooses the next token of one sequence from its scores. Numpy only; knows no batch and no text.

Log-probabilities that are reported are the model's own, before temperature and filters. Runs once per token in the
engine's thread, so a vocabulary is never sorted as a whole: filters look at the most probable candidates, four times as
many each time, until they are satisfied.
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from inference_pods.engine.sequence import SamplingParams
from inference_pods.kernels.decoder import TokenScores

_FIRST_CANDIDATES = 256


class Sampler:
    """Holds one sequence's random generator; the same seed and scores give the same tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._samples = params.needs_sampling
        self.seed = (params.seed if params.seed is not None else secrets.randbits(63)) if self._samples else None
        self._random = np.random.Generator(np.random.PCG64(self.seed or 0))

    def choose(self, scores: TokenScores, token_ids: list[int], prompt_tokens: int) -> int:
        """The next token after `token_ids` (prompt, then generated).

        Raises:
            ValueError: the scores, after the penalties, are not numbers.
        """
        params = self._params
        if not self._samples and not params.has_penalties:
            return scores.best
        logits = scores.logits
        if params.has_penalties:
            logits = logits.copy()
            _penalise(logits, params, token_ids, prompt_tokens)
        best = int(logits.argmax())  # the first NaN, if there is one
        if not np.isfinite(logits[best]):
            raise ValueError("the scores of the next token are not numbers")
        return self._draw(logits, logits[best]) if self._samples else best

    def _draw(self, logits: NDArray[np.float32], highest: np.float32) -> int:
        params = self._params
        weights = np.exp((logits - highest) / np.float32(params.temperature))
        if params.typical_p < 1.0:
            candidates = _order(weights, params.top_k or len(weights))
            candidates = candidates[: _nucleus(weights[candidates], params.top_p)]
            candidates = _keep_typical(candidates, weights, params.typical_p)
        elif params.top_k or params.top_p < 1.0:
            candidates = _most_probable(weights, params.top_k, params.top_p)
        else:
            return self._pick(weights)
        return int(candidates[self._pick(weights[candidates])])

    def _pick(self, weights: NDArray[np.float32]) -> int:
        """An index, drawn in proportion to the weights."""
        total = weights.cumsum(dtype=np.float64)
        drawn = np.searchsorted(total, self._random.random() * total[-1], side="right")
        return int(min(drawn, len(total) - 1))


def _penalise(logits: NDArray[np.float32], params: SamplingParams, token_ids: list[int], prompt_tokens: int) -> None:
    """Repetition penalty over prompt and output (CTRL), frequency and presence penalties over the output (OpenAI)."""
    if params.repetition_penalty != 1.0:
        seen = np.unique(token_ids)
        values = logits[seen]
        logits[seen] = np.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
    generated = token_ids[prompt_tokens:]
    if generated and (params.frequency_penalty or params.presence_penalty):
        seen, counts = np.unique(generated, return_counts=True)
        logits[seen] -= (params.frequency_penalty * counts + params.presence_penalty).astype(np.float32)


def _order(weights: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Indices of the `count` largest weights, largest first."""
    if count >= len(weights):
        return np.argsort(-weights, kind="stable")
    candidates = np.argpartition(-weights, count - 1)[:count]
    return candidates[np.argsort(-weights[candidates], kind="stable")]


def _nucleus(descending: NDArray[np.float32], mass: float, total: float | None = None) -> int:
    """How many of the first weights reach `mass` of the total; more than there are if they don't."""
    if mass >= 1.0:
        return len(descending)
    reached = descending.cumsum(dtype=np.float64)
    return int(np.searchsorted(reached, mass * (reached[-1] if total is None else total))) + 1


def _most_probable(weights: NDArray[np.float32], top_k: int, top_p: float) -> NDArray[np.int64]:
    """Candidates after top-k, then top-p of what is left, most probable first."""
    if top_k:
        candidates = _order(weights, min(top_k, len(weights)))
        return candidates[: _nucleus(weights[candidates], top_p)]
    total, count = float(weights.sum(dtype=np.float64)), _FIRST_CANDIDATES
    while True:
        candidates = _order(weights, count)
        kept = _nucleus(weights[candidates], top_p, total)
        if kept <= len(candidates) or count >= len(weights):
            return candidates[:kept]
        count *= 4


def _keep_typical(candidates: NDArray[np.int64], weights: NDArray[np.float32], mass: float) -> NDArray[np.int64]:
    """Locally typical sampling: the tokens whose information is nearest to the entropy, until `mass` is reached."""
    probabilities = weights[candidates].astype(np.float64)
    probabilities /= probabilities.sum()
    surprise = -np.log(np.maximum(probabilities, 1e-300))
    order = np.argsort(np.abs(surprise - (probabilities * surprise).sum()), kind="stable")
    keep = order[: int(np.searchsorted(probabilities[order].cumsum(), mass)) + 1]
    return candidates[keep]


def top_tokens(scores: TokenScores, count: int) -> list[tuple[int, float]]:
    """The `count` most probable tokens with log-probabilities, best first."""
    if count == 0:
        return []
    candidates = _order(scores.logits, count)
    return [(int(token), scores.logprob(int(token))) for token in candidates]
