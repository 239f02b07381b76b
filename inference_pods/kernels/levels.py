"""Levels: the sub-models that one set of resident weights can serve. Names and layer choice only, no tensors."""

from __future__ import annotations

from dataclasses import dataclass

from inference_pods.kernels.formats import Precision


@dataclass(frozen=True, slots=True)
class Level:
    """One way to run a decoder: which planes of the weights are read, and which layers are skipped.

    A skipped layer still computes the keys and values of its tokens (state propagation, arXiv 2207.07061), so that a
    sequence may change its level at any token.
    """

    name: str
    precision: Precision
    skipped_layers: tuple[int, ...] = ()
