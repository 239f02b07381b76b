"""Levels: the sub-models that one set of resident weights can serve. Names and layer choice only, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference_pods.kernels.formats import Precision

# Layers that cost least when left out, cheapest first, by the model's number of layers. 30: SmolLM2-135M, where each of
# these alone costs perplexity x1.11 to x1.18, and 0, 1, 8, 11, 28 or 29 x2.5 to x1700.
_MEASURED_SKIP_ORDERS: dict[int, tuple[int, ...]] = {30: (17, 14, 5, 4, 26, 12, 3, 25)}


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

    `skip_order`: which layers to leave out first, for a model whose own order was measured.
    """

    precisions: tuple[Precision, ...] = ()
    depths: tuple[int, ...] = ()
    skip_order: tuple[int, ...] | None = None

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


def default_skip_order(layers: int) -> tuple[int, ...]:
    """Layers that may be left out of a model with `layers` layers, cheapest first.

    Measured where known. Else a guess that keeps what hurt most wherever it was measured, the first two and the last
    two layers: up to a quarter of the layers, evenly spread over the others, those nearest to 60 % of the depth first
    (deep but not last: arXiv 2403.17887).
    """
    if measured := _MEASURED_SKIP_ORDERS.get(layers):
        return measured
    inner = range(2, layers - 2)
    spread = inner[1::3][: layers // 4]
    return tuple(sorted(spread, key=lambda layer: abs(layer - 0.6 * layers)))


def build_levels(
    precisions: Sequence[Precision], depths: Sequence[int], layers: int, skip_order: Sequence[int] | None = None
) -> tuple[Level, ...]:
    """Every precision at every depth, in this order; a depth is the number of layers that run, none given: all.

    Names: `int8` with all layers, `int8-d28` with 28.

    Raises:
        LevelError: a depth that the model does not have or that nothing may be left out for.
    """
    order = default_skip_order(layers) if skip_order is None else tuple(skip_order)
    smallest = layers - len(order)
    for depth in depths:
        if not smallest <= depth <= layers:
            possible = f"{layers}" if smallest == layers else f"{smallest} to {layers}"
            raise LevelError(f"depth {depth} is not possible for a model of {layers} layers, only {possible}")
    return tuple(
        _build_level(precision, order[: layers - depth], depth)
        for depth in depths or (layers,)
        for precision in precisions
    )


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
