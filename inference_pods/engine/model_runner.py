"""Loads a checkpoint into the fastest decoder that this host has; everything above speaks only of chunks and scores."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from inference_pods.engine.checkpoint import ModelFile, TensorSink, load_weights, plan_tensors, read_shape
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.memory import refuse_memory
from inference_pods.kernels.build import KernelUnavailableError
from inference_pods.kernels.decoder import (
    Chunk,
    Decoder,
    DecoderLimits,
    DecoderShape,
    DecoderUnsupportedError,
    TokenScores,
)
from inference_pods.kernels.formats import GROUP, Precision
from inference_pods.kernels.levels import Level, LevelError, LevelPlan
from inference_pods.kernels.step_plans import PlanCounts

logger = logging.getLogger(__name__)


class RunnerLostError(RuntimeError):
    """The runner can take no further step, whatever it is asked."""


class StepRunner(Protocol):
    """What the engine's core asks of a model, and all of it: the scores of a step."""

    def step(self, chunks: list[Chunk]) -> list[TokenScores]:
        """Scores of all tokens that want them, in order.

        Raises:
            RunnerLostError: it is over, and something else ends the process, which it has told.
            DeviceLostError: it is over, and whoever steps has to end the process.
            Exception: anything else is a failure of this step alone.
        """
        ...


class Runner(TensorSink, StepRunner, Protocol):
    """A loaded decoder."""

    variant: str
    levels: tuple[Level, ...]
    kv_precision: Precision  # that keys and values are stored in; torch has its own, whatever the limits say

    @property
    def weight_bytes(self) -> int: ...

    @property
    def kv_bytes(self) -> int: ...

    def close(self) -> None: ...


@runtime_checkable
class PlanningRunner(Protocol):
    """A runner that keeps plans of its steps: `warm` builds those that every load needs."""

    def warm(self) -> PlanCounts: ...


@runtime_checkable
class ReportingRunner(Protocol):
    """A runner that chose a path for each of its operations."""

    @property
    def paths(self) -> dict[str, str]:
        """What computes each operation: a kernel's name or torch."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A decoder with its weights, and what loading it took."""

    runner: Runner
    shape: DecoderShape
    load_seconds: float
    plan_counts: PlanCounts


RunnerFactory = Callable[[DecoderShape, DecoderLimits, Precision, tuple[Level, ...]], Runner]


def create_runner(
    shape: DecoderShape, limits: DecoderLimits, precision: Precision, levels: tuple[Level, ...], span: int = GROUP
) -> Runner:
    """The compiled decoder, or plain torch where it cannot be; `span` weights share an int4 grid."""
    try:
        return Decoder(shape, limits, precision, levels=levels, span=span)
    except (KernelUnavailableError, DecoderUnsupportedError) as error:
        logger.warning("no compiled kernels (%s): decoding in plain torch, several times slower", error)
    from inference_pods.kernels.reference_decoder import (
        ReferenceDecoder,
    )  # torch costs seconds: only where it is needed

    return ReferenceDecoder(shape, limits, precision, levels, span)


def load_model(
    file: ModelFile,
    limits: DecoderLimits,
    precision: Precision,
    permutation_seed: int,
    plan: LevelPlan = LevelPlan(),  # noqa: B008 - frozen
    create: RunnerFactory = create_runner,
) -> LoadedModel:
    """Decoder of `precision` with the file's weights, serving the levels of `plan`; `create` makes it without weights.

    Raises:
        LoadError: with the reason, also for memory that cannot be had and for levels that the model cannot serve.
    """
    started = time.monotonic()
    shape = read_shape(file)
    plan_tensors(file, shape)  # before the decoder maps what a damaged header asks for
    try:
        levels = plan.build(precision, shape.layers)
        runner = create(shape, limits, precision, levels)
        threads = limits.threads if isinstance(runner, Decoder) else 1
        load_weights(file, shape, runner, permutation_seed, threads)
        counts = runner.warm() if isinstance(runner, PlanningRunner) else PlanCounts()
    except LevelError as error:
        raise LoadError(LoadReason.UNSUPPORTED, f"{error}; change --levels, --depths or --skip-order") from error
    except MemoryError as error:
        raise refuse_memory(error) from error
    return LoadedModel(runner, shape, time.monotonic() - started, counts)
