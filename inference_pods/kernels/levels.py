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


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """The levels that are wanted of a model before its depth is known; nothing set: every precision, all layers.

    `skip_order`: the layers that may be left out, the first one first; measured of the model, never guessed.
    """

    precisions: tuple[Precision, ...] = ()
    depths: tuple[int, ...] = ()
    skip_order: tuple[int, ...] = ()

    def build(self, stored: Precision, layers: int) -> tuple[Level, ...]:
        """Levels of weights stored as `stored`. Raises LevelError."""
        precisions = self.precisions or readable_precisions(stored)
        levels = build_levels(precisions, self.depths, layers, self.skip_order)
        check_levels(levels, stored, layers)
        return levels


def readable_precisions(stored: Precision) -> tuple[Precision, ...]:
    """What weights stored as `stored` can be read as, the best first."""
    return (Precision.INT8, Precision.INT4) if stored is Precision.NESTED else (stored,)


def default_levels(stored: Precision) -> tuple[Level, ...]:
    """One level per readable precision, all layers."""
    return tuple(Level(precision.value, precision) for precision in readable_precisions(stored))


def build_levels(
    precisions: Sequence[Precision], depths: Sequence[int], layers: int, skip_order: Sequence[int] = ()
) -> tuple[Level, ...]:
    """Every precision at every depth, in this order; a depth is the number of layers that run, none given: all.

    Names: `int8` with all layers, `int8-d28` with 28.

    Raises:
        LevelError: an order that does not fit the model, or a depth that it does not lead to.
    """
    order = tuple(skip_order)
    _check_skip_order(order, layers)
    smallest = layers - len(order)
    for depth in depths:
        if not smallest <= depth <= layers:
            possible = f"{layers}" if smallest == layers else f"{smallest} to {layers}"
            raise LevelError(
                f"depth {depth} is not possible: {len(order)} of {layers} layers may be left out, so {possible} are"
            )
    return tuple(
        _build_level(precision, order[: layers - depth], depth)
        for depth in depths or (layers,)
        for precision in precisions
    )


def _check_skip_order(order: tuple[int, ...], layers: int) -> None:
    for place, layer in enumerate(order):
        if not 0 <= layer < layers:
            raise LevelError(f"the skip order names layer {layer}, beyond the layers 0 to {layers - 1}")
        if layer in order[:place]:
            raise LevelError(f"the skip order names layer {layer} twice")


def _build_level(precision: Precision, skipped: tuple[int, ...], depth: int) -> Level:
    name = f"{precision.value}-d{depth}" if skipped else precision.value
    return Level(name, precision, tuple(sorted(skipped)))


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
