"""How far one model's next-token distributions are from another's. Pure functions of logits."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WindowFigures:
    """Means over a window's scored positions, in nats."""

    divergence: float  # KL(reference || candidate)
    extra_loss: float  # negative log likelihood of the true tokens, candidate minus reference
    agreement: float  # share of positions with the same best token


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over windows; errors are standard errors over windows (NaN for one)."""

    divergence: float
    divergence_error: float
    perplexity_ratio: float
    agreement: float


def log_softmax(logits: Array) -> Array:
    """Row-wise log probabilities of [positions, vocabulary] logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float32)


def compare(reference: Array, candidate: Array, targets: Sequence[int]) -> WindowFigures:
    """Figures of one window; both are log probabilities [positions, vocabulary], `targets` the tokens that followed."""
    rows = np.arange(len(targets))
    gaps = (np.exp(reference) * (reference - candidate)).sum(axis=1, dtype=np.float64)
    losses = reference[rows, list(targets)] - candidate[rows, list(targets)]
    same = reference.argmax(axis=1) == candidate.argmax(axis=1)
    return WindowFigures(float(gaps.mean()), float(losses.mean(dtype=np.float64)), float(same.mean()))


def summarise(windows: Sequence[WindowFigures]) -> Quality:
    divergences = [window.divergence for window in windows]
    error = statistics.stdev(divergences) / math.sqrt(len(windows)) if len(windows) > 1 else math.nan
    ratio = math.exp(statistics.fmean(window.extra_loss for window in windows))
    return Quality(
        statistics.fmean(divergences), error, ratio, statistics.fmean(window.agreement for window in windows)
    )
