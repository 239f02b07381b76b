"""Chooses the next token of one sequence from its scores. Numpy only; knows no batch and no text.

Log-probabilities that are reported are the model's own, before temperature and filters.
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from inference_pods.engine.sequence import SamplingParams
from inference_pods.kernels.decoder import TokenScores


def _needs_sampling(params: SamplingParams) -> bool:
    """Any filter implies sampling, as in TGI."""
    filters = params.temperature != 1.0 or params.top_k > 0 or params.top_p < 1.0 or params.typical_p < 1.0
    return params.do_sample or filters


def _has_penalties(params: SamplingParams) -> bool:
    return params.repetition_penalty != 1.0 or params.frequency_penalty != 0.0 or params.presence_penalty != 0.0


class Sampler:
    """Holds one sequence's random generator; the same seed and scores give the same tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._samples = _needs_sampling(params)
        self.seed = (params.seed if params.seed is not None else secrets.randbits(63)) if self._samples else None
        self._random = np.random.Generator(np.random.PCG64(self.seed or 0))

    def choose(self, scores: TokenScores, token_ids: list[int], prompt_tokens: int) -> int:
        """The next token after `token_ids` (prompt, then generated)."""
        if not self._samples and not _has_penalties(self._params):
            return scores.best
        logits = scores.logits.astype(np.float64)
        if _has_penalties(self._params):
            _penalise(logits, self._params, token_ids, prompt_tokens)
        if not self._samples:
            return int(logits.argmax())
        return self._draw(logits)

    def _draw(self, logits: NDArray[np.float64]) -> int:
        params = self._params
        candidates, probabilities = _softmax_descending(logits / params.temperature, params.top_k)
        if params.top_p < 1.0:
            keep = int(np.searchsorted(probabilities.cumsum(), params.top_p)) + 1
            candidates, probabilities = candidates[:keep], probabilities[:keep]
        if params.typical_p < 1.0:
            candidates, probabilities = _keep_typical(candidates, probabilities, params.typical_p)
        total = probabilities.cumsum()
        return int(
            candidates[np.searchsorted(total, self._random.random() * total[-1], side="right").clip(max=len(total) - 1)]
        )


def _penalise(logits: NDArray[np.float64], params: SamplingParams, token_ids: list[int], prompt_tokens: int) -> None:
    """Repetition penalty over prompt and output (CTRL), frequency and presence penalties over the output (OpenAI)."""
    if params.repetition_penalty != 1.0:
        seen = np.unique(token_ids)
        values = logits[seen]
        logits[seen] = np.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
    generated = token_ids[prompt_tokens:]
    if generated and (params.frequency_penalty or params.presence_penalty):
        seen, counts = np.unique(generated, return_counts=True)
        logits[seen] -= params.frequency_penalty * counts + params.presence_penalty


def _softmax_descending(logits: NDArray[np.float64], top_k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Token ids and probabilities, most probable first, limited to top_k (0: all)."""
    is_limited = 0 < top_k < len(logits)
    candidates = np.argpartition(-logits, top_k - 1)[:top_k] if is_limited else np.arange(len(logits))
    candidates = candidates[np.argsort(-logits[candidates], kind="stable")]
    weights = np.exp(logits[candidates] - logits[candidates[0]])
    return candidates, weights / weights.sum()


def _keep_typical(
    candidates: NDArray[np.int64], probabilities: NDArray[np.float64], mass: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Locally typical sampling: the tokens whose information is nearest to the entropy, until `mass` is reached."""
    probabilities = probabilities / probabilities.sum()
    surprise = -np.log(np.maximum(probabilities, 1e-300))
    order = np.argsort(np.abs(surprise - (probabilities * surprise).sum()), kind="stable")
    keep = order[: int(np.searchsorted(probabilities[order].cumsum(), mass)) + 1]
    return candidates[keep], probabilities[keep]


def top_tokens(scores: TokenScores, count: int) -> list[tuple[int, float]]:
    """The `count` most probable tokens with log-probabilities, best first."""
    if count == 0:
        return []
    candidates = np.argpartition(-scores.logits, count)[:count]
    candidates = candidates[np.argsort(-scores.logits[candidates], kind="stable")]
    return [(int(token), scores.logprob(int(token))) for token in candidates]
