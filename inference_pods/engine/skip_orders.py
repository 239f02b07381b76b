"""In which order layers may be left out of a model: as its recipe says, else as measured of exactly its weights.

Never guessed, and never told from the number of layers: in a 30-layer model one layer costs perplexity x1.1 and another
one x1700, and which they are is another matter in another model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inference_pods.engine.errors import LoadError, LoadReason

# By the sha256 of the weights file. SmolLM2-135M-Instruct Q4_1: each of these layers alone costs perplexity x1.11 to
# x1.18, while 0, 1, 8, 11, 28 or 29 cost x2.5 to x1700.
_MEASURED: dict[str, tuple[int, ...]] = {
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53": (17, 14, 5, 4, 26, 12, 3, 25)
}


def find_skip_order(
    given: tuple[int, ...], depths: Sequence[int], layers: int, digest: Callable[[], str]
) -> tuple[int, ...]:
    """Layers that may be left out of a model of `layers` layers, the first one first; empty where no depth needs any.

    `digest` gives the sha256 of the weights; it is asked only where the answer depends on it, because it takes a while.

    Raises:
        LoadError: ModelUnsupported when a depth leaves layers out and no order is known.
    """
    if given or all(depth >= layers for depth in depths):
        return given
    if order := _MEASURED.get(digest()):
        return order
    raise LoadError(
        LoadReason.UNSUPPORTED,
        f"depth {min(depths)} leaves layers out, but which of these weights' {layers} layers matter least is not known;"
        " give recipe.nested.skipOrder (--skip-order) as `python -m inference_pods.engine.rank_layers` measures it, or"
        " leave depths out",
    )
