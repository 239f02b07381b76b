"""Levels: the sub-models that one set of resident weights can serve. Names and layer choice only, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
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


class LevelError(ValueError):
    """A level that these weights or this depth of model cannot serve; the message names those that are possible."""


def readable_precisions(stored: Precision) -> tuple[Precision, ...]:
    """What weights stored as `stored` can be read as, the best first."""
    return (Precision.INT8, Precision.INT4) if stored is Precision.NESTED else (stored,)


def default_levels(stored: Precision) -> tuple[Level, ...]:
    """One level per readable precision, all layers."""
    return tuple(Level(precision.value, precision) for precision in readable_precisions(stored))


def check_levels(levels: Sequence[Level], stored: Precision, layers: int) -> None:
    """Raises LevelError unless weights stored as `stored`, of a model with `layers` layers, can serve all levels."""
    if not levels or len({level.name for level in levels}) < len(levels):
        raise LevelError(f"levels need distinct names, at least one: {[level.name for level in levels]}")
    possible = readable_precisions(stored)
    for level in levels:
        if level.precision not in possible:
            names = ", ".join(possible)
            raise LevelError(f"level {level.name}: {stored} weights cannot be read as {level.precision}, only {names}")
        if any(not 0 <= layer < layers for layer in level.skipped_layers):
            raise LevelError(f"level {level.name} skips {level.skipped_layers}, beyond the layers 0 to {layers - 1}")
