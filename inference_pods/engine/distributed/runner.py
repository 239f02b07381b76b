"""Rank 0's side of a divided decoder: a runner like any other, whose steps all ranks take.

What is wrong with a step is found before the others hear of it; whatever fails after that leaves the ranks at different
places, so it ends the replica instead of the request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch

from inference_pods.engine.distributed.group import Group
from inference_pods.engine.distributed.launch import RANK_LOST, Loss, RankProcesses, RankSpec, listen_for_ranks
from inference_pods.engine.distributed.placement import Device
from inference_pods.engine.distributed.wire import Command, encode_chunks
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.model_runner import RunnerLostError
from inference_pods.kernels.decoder import Chunk, DecoderShape, TokenScores
from inference_pods.kernels.shards import Shard, divide
from inference_pods.kernels.step_plans import PlanCounts
from inference_pods.kernels.torch_decoder import TorchDecoder
from inference_pods.kernels.torch_device import refusing_for_memory

logger = logging.getLogger(__name__)

_CAUSE_SECONDS = 2.0  # a dead peer breaks a collective before its exit is seen


def build_rank(spec: RankSpec, shape: DecoderShape, group: Group) -> TorchDecoder:
    """The decoder of one rank, without weights."""
    shard = divide(shape, spec.ranks)[spec.rank]
    return _build(spec, shape, shard, group)


def rank_device(spec: RankSpec) -> torch.device:
    """Rank n computes on the n-th device."""
    return torch.device("cuda", spec.rank) if spec.device == Device.CUDA else torch.device("cpu")


def build_alone(spec: RankSpec, shape: DecoderShape) -> TorchDecoder:
    """The whole decoder on one device."""
    return _build(spec, shape, None, None)


def _build(spec: RankSpec, shape: DecoderShape, shard: Shard | None, group: Group | None) -> TorchDecoder:
    if spec.device == Device.CUDA:  # Triton launches and captures go to the current device, not to that of the tensors
        with refusing_for_memory(rank_device(spec)):
            torch.cuda.set_device(rank_device(spec))
    return TorchDecoder(
        shape,
        spec.limits,
        spec.precision,
        shard,
        group,
        device=str(rank_device(spec)),
        backend=spec.backend,
        levels=spec.levels,
        span=spec.span,
    )


class DistributedRunner:
    """All ranks of one replica as one decoder; `spec` is rank 0's, its port is chosen here.

    Raises:
        LoadError: another rank cannot load, with its reason, or is lost.
    """

    def __init__(self, spec: RankSpec, shape: DecoderShape, on_lost: Callable[[Loss], None]) -> None:
        listener = listen_for_ranks()
        spec = replace(spec, port=listener.getsockname()[1])
        self.processes = RankProcesses([replace(spec, rank=rank) for rank in range(1, spec.ranks)], on_lost)
        try:
            with self._blaming_ranks():
                self._group = Group(0, spec.ranks, spec.port, rank_device(spec), listener)
                self._decoder = build_rank(spec, shape, self._group)
        except Exception:
            self.processes.close()
            raise
        self.levels, self.kv_precision = self._decoder.levels, self._decoder.kv_precision
        self.variant = f"{self._decoder.variant}, {spec.ranks} ranks"
        self.weight_bytes = self.kv_bytes = 0  # of all ranks, known once all have loaded

    @property
    def paths(self) -> dict[str, str]:
        """Of this rank; the others have the same device and formats."""
        return self._decoder.paths

    def load(self, *arguments: Any, **named: Any) -> None:
        """See Decoder.load; the other ranks read the file themselves."""
        self._decoder.load(*arguments, **named)

    def warm(self) -> PlanCounts:
        """Waits until every rank has its weights, then lets all build their plans.

        Raises:
            LoadError: another rank cannot load, with its reason, or is lost.
        """
        with self._blaming_ranks():
            self.weight_bytes, self.kv_bytes = self._group.total([self._decoder.weight_bytes, self._decoder.kv_bytes])
            self._group.send(Command.WARM)
            return self._decoder.warm()

    @contextmanager
    def _blaming_ranks(self) -> Iterator[None]:
        """While loading: an error between the ranks comes of the one that is lost, if one is, and is told in its words:
        what broke between them would hide the cause."""
        try:
            yield
        except RuntimeError as error:
            loss = self.processes.wait_for_loss(_CAUSE_SECONDS)
            if loss is None:
                raise
            loss = loss.explain(is_loading=True)
            raise LoadError(LoadReason(loss.reason), loss.message) from error

    def step(self, chunks: list[Chunk]) -> list[TokenScores]:
        """See Decoder.step.

        Raises:
            ValueError: the step does not fit; nothing was computed.
            RunnerLostError: the ranks are no longer together; the loss is reported.
        """
        self._decoder.check(chunks)
        try:
            self._group.send(Command.STEP, encode_chunks(chunks))
            return self._decoder.step(chunks)
        except Exception as error:
            if self.processes.wait_for_loss(_CAUSE_SECONDS) is None:
                message = f"a step failed between the ranks ({type(error).__name__}: {error}): the replica ends"
                self.processes.report(Loss(RANK_LOST, message))
            raise RunnerLostError("the ranks of this replica are no longer together") from error

    def close(self) -> None:
        """Ends all other ranks and leaves the group."""
        with suppress(RuntimeError):
            self._group.send(Command.STOP)
        self.processes.close()
        self._group.close()
        self._decoder.close()
