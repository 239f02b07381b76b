"""The engine's settings: one flag each, nothing from the environment but what the kernels read."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from inference_pods.engine.distributed.placement import DEVICE_CHOICES, PLAN_CHOICES
from inference_pods.engine.emulated.curve import LevelCurve, parse_level_curve
from inference_pods.kernels.cpu import MOST_THREADS
from inference_pods.kernels.formats import BLOCK_TOKENS, GROUP, SPANS, Precision
from inference_pods.kernels.library import VariantUnknownError, choose_variant
from inference_pods.protocol import ENGINE_PORT


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a replica is told."""

    # Where the weights are: package://PACKAGE/PATH or file:///PATH of a .gguf, a .safetensors, or a folder with them.
    model_source: str
    # sha256 of the weights (digest.py says of what for shards); None: not checked, only shown in /info.
    model_sha256: str | None
    # Storage of the weights; fp32 reproduces the file exactly.
    precision: Precision
    # Weights that share an int4 grid; 64 and 128 reproduce a coarser grid, and take the memory and the time of 32.
    group_size: int
    # Sub-models that the weights serve, for x-level: precisions of a nested tier and numbers of layers. Empty: all
    # precisions that the weights can be read as, all layers. The first of each make the default level.
    levels: tuple[Precision, ...]
    depths: tuple[int, ...]
    # Layers that the depths may leave out, the first one first. Empty: as measured here, if these weights were.
    skip_order: tuple[int, ...]
    # Function-preserving shuffle of the channels before quantising; 0 keeps the file's order.
    permutation_seed: int
    # Name that clients see in /v1/models and responses.
    served_model_name: str
    # Label of this tier in metrics.
    tier: str
    host: str
    port: int
    # Sequences that decode together. More costs latency per token, fewer costs throughput.
    max_batch_size: int
    # Requests that may wait for a place in the batch; beyond it clients get 429.
    max_waiting: int
    # How long a client may leave an event of its stream unread; then its request ends, because it holds a place. A flag
    # and not a field of the CR: it guards against clients that hang, and no objective of a model depends on it.
    write_timeout_seconds: int
    # Longest prompt plus output of one request.
    max_total_tokens: int
    # Tokens that the KV cache holds for all sequences together (22.5 KiB each in fp16 for the 135M model).
    kv_cache_tokens: int
    # Tokens computed per step: decoding sequences first, the rest is a prompt's chunk. Lower it for steadier streams.
    max_step_tokens: int
    # Objective for the time per output token; steps and batch are kept small enough for it. 0: none.
    tpot_milliseconds: int
    # Level that drafts tokens for the top level to verify, and how many at a time; None: no speculative decoding.
    draft_level: str | None
    draft_tokens: int
    # Share the KV blocks of equal beginnings among requests.
    prefix_cache: bool
    # After SIGTERM: how long running requests may take to finish.
    drain_seconds: float
    # Storage of keys and values: int8 takes 27 % of fp32's memory, for a little quality.
    kv_precision: Precision | None
    # Compute threads; 0: as many whole cores as the container's CPU quota allows.
    threads: int
    # Where to compute: cpu, cuda, or auto (cuda where the container was given a device).
    device: str
    # Ranks that share the weights, one process each; 0: all devices that are visible, one on a CPU.
    tensor_parallel: int
    # How decoding steps are specialised where torch computes: auto captures CUDA graphs on a GPU, and nothing on CPUs;
    # compile hands them to torch.compile, and on a CPU takes torch instead of the compiled decoder.
    step_plans: str
    # How long steps take of an engine without weights: one curve, and one for each level that differs. Empty: the model
    # at model_source is loaded and computed.
    emulate: tuple[LevelCurve, ...]
    # How long an engine without weights acts as if it loaded some.
    emulate_load_seconds: float

    @property
    def kv_blocks(self) -> int:
        return -(-self.kv_cache_tokens // BLOCK_TOKENS)


_MOST_PORT = 2**16 - 1  # a larger one would be cut to 16 bits, which is another port


def _at_least(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is below the minimum of {minimum}")
        if maximum is not None and value > maximum:
            raise argparse.ArgumentTypeError(f"{value} is above the maximum of {maximum}")
        return value

    parse.__name__ = "int"
    return parse


def _seconds(text: str) -> float:
    with suppress(ValueError):
        value = float(text)
        if math.isfinite(value) and value >= 0:
            return value
    raise argparse.ArgumentTypeError(f"{text[:80]} is no number of seconds from 0 up")


def _parse_switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither on nor off")
    return text == "on"


def _level_curve(text: str) -> LevelCurve:
    try:
        return parse_level_curve(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no sha256: 64 hexadecimal digits are expected")
    return text.lower()


def _names(text: str) -> tuple[Precision, ...]:
    try:
        return tuple(Precision(name.strip()) for name in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; give precisions, for example int8,int4") from None


def _numbers(what: str) -> Callable[[str], tuple[int, ...]]:
    """Reads numbers with commas between them; `what` says what to give instead of something else."""

    def parse(text: str) -> tuple[int, ...]:
        try:
            return tuple(int(number) for number in text.split(","))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text[:80]!r}: give {what}") from None

    return parse


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m inference_pods.engine", description="Serve one tier of a model over HTTP."
    )
    add = parser.add_argument
    add("--model-source", required=True, help="package://PACKAGE/PATH or file:///PATH (GGUF or safetensors)")
    add("--model-sha256", type=_digest, default=None, help="refuse weights with another sha256")
    add("--precision", type=Precision, choices=list(Precision), default=Precision.FP32, help="storage of the weights")
    add("--group-size", type=int, choices=SPANS, default=GROUP, help="weights that share an int4 grid")
    add("--levels", type=_names, default=(), help="precisions that a nested tier serves, the default first: int8,int4")
    add(
        "--depths",
        type=_numbers("numbers of layers, for example 30,28"),
        default=(),
        help="layers that its levels run, the default first: 30,28",
    )
    add(
        "--skip-order",
        type=_numbers("layers counted from 0, for example 17,14"),
        default=(),
        help="layers that the depths leave out, the first one first, as inference_pods.engine.rank_layers prints them",
    )
    add(
        "--permutation-seed",
        type=_at_least(0),
        default=0,
        help="shuffle channels before quantising (0: keep the order)",
    )
    add("--served-model-name", default="model", help="name in /v1/models and responses")
    add("--tier", default="full", help="tier label of the metrics")
    add("--host", default="0.0.0.0")  # noqa: S104 - a pod is reached on its own address
    add("--port", type=_at_least(0, _MOST_PORT), default=ENGINE_PORT)
    add("--max-batch-size", type=_at_least(1), default=8, help="sequences that decode together")
    add("--max-waiting", type=_at_least(0), default=64, help="requests that may wait before clients get 429")
    add("--write-timeout-seconds", type=_at_least(1), default=60, help="time for a client to take an event")
    add("--max-total-tokens", type=_at_least(2), default=2048, help="longest prompt plus output")
    add("--kv-cache-tokens", type=_at_least(1), default=4096, help="tokens in the KV cache, all sequences together")
    add("--max-step-tokens", type=_at_least(1), default=64, help="tokens computed per step")
    add("--tpot-milliseconds", type=_at_least(0), default=0, help="objective that bounds steps and batch (0: none)")
    add("--draft-level", default=None, help="level that drafts for the top one (speculative decoding), e.g. int4")
    add("--draft-tokens", type=_at_least(1), default=4, help="tokens per draft")
    add(
        "--prefix-cache",
        type=_parse_switch,
        default=True,
        metavar="on|off",
        help="share the KV cache of equal beginnings (default: on)",
    )
    add("--drain-seconds", type=_seconds, default=30.0, help="time for running requests to finish after SIGTERM")
    add("--device", choices=DEVICE_CHOICES, default="auto", help="where to compute (auto: a device if there is one)")
    add("--tensor-parallel", type=_at_least(0), default=0, help="ranks that share the weights (0: one per device)")
    add(
        "--step-plans",
        choices=PLAN_CHOICES,
        default="auto",
        help="how torch specialises decoding steps (auto: cuda-graph on a GPU, eager on CPUs)",
    )
    add(
        "--kv-precision",
        type=Precision,
        choices=[Precision.FP32, Precision.FP16, Precision.INT8],
        help="storage of keys and values (default: fp16 with the compiled decoder, but fp32 for fp32 weights)",
    )
    add("--threads", type=_at_least(0, MOST_THREADS), default=0, help="compute threads (0: from the CPU quota)")
    add(
        "--emulate",
        type=_level_curve,
        action="append",
        default=[],
        metavar="[LEVEL=]STEP,DECODE,PREFILL",
        help="load no weights, answer with filler; microseconds of a step, and more of them per decoding sequence and"
        " per prompt token. Again with a level's name for each level that differs",
    )
    add("--emulate-load-seconds", type=_seconds, default=0.0, help="time that loading seems to take with --emulate")
    return parser


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Settings from the command line; exits with status 2 and a message that names the flag if they don't fit, or the
    variable if the environment asks for kernels that there are not."""
    parser = _build_parser()
    values = vars(parser.parse_args(arguments))
    settings = Settings(**{**values, "emulate": tuple(values["emulate"])})
    _refuse_contradictions(parser, settings)
    try:
        choose_variant()
    except VariantUnknownError as error:
        parser.error(str(error))
    return settings


def _refuse_contradictions(parser: argparse.ArgumentParser, settings: Settings) -> None:
    if settings.group_size != GROUP and settings.precision is not Precision.INT4:
        parser.error(f"--group-size {settings.group_size} needs --precision int4, not {settings.precision}")
    if settings.kv_cache_tokens < settings.max_total_tokens:
        parser.error(
            f"--kv-cache-tokens {settings.kv_cache_tokens} is below --max-total-tokens {settings.max_total_tokens}"
        )
    if settings.max_step_tokens < settings.max_batch_size:
        parser.error(
            f"--max-step-tokens {settings.max_step_tokens} is below --max-batch-size {settings.max_batch_size}"
        )
