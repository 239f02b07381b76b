"""Builds an engine from settings: file, tokenizer, decoder, scheduler, loop. Runs in a thread, may take seconds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.chat import ChatTemplate
from inference_pods.engine.checkpoint import ModelFile, context_length, open_model, read_shape
from inference_pods.engine.core import EngineCore
from inference_pods.engine.digest import DigestCheck
from inference_pods.engine.distributed.launch import Loss, RankSpec
from inference_pods.engine.distributed.placement import Placement, detect_placement
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.loop import Deliver, EngineLoop, Observe
from inference_pods.engine.memory import check_memory, estimate_needed_bytes, read_memory_bounds
from inference_pods.engine.model_runner import (
    LoadedModel,
    ReportingRunner,
    Runner,
    RunnerFactory,
    create_runner,
    load_model,
)
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.service import Engine
from inference_pods.engine.settings import Settings
from inference_pods.engine.skip_orders import find_skip_order
from inference_pods.engine.source import resolve_source
from inference_pods.engine.speculation import DraftSettings, find_draft_settings
from inference_pods.engine.tokenizer import TextTokenizer
from inference_pods.engine.vocabulary import read_chat_template, read_vocabulary
from inference_pods.kernels.cpu import detect_cpu, detect_threads
from inference_pods.kernels.decoder import Decoder, DecoderLimits, DecoderShape
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision
from inference_pods.kernels.levels import Level, LevelPlan, readable_precisions

logger = logging.getLogger(__name__)


_KV_OF_ONE_RANK = (
    "replica.kvPrecision (--kv-precision) fp16 and int8 need the compiled decoder, which is one rank on a CPU: leave it"
    " out, or set replica.tensorParallel: 1 on a node without GPUs"
)


def package_version() -> str:
    """Version of this distribution, for /info."""
    try:
        return version("adaptive-llm")
    except PackageNotFoundError:
        return "unknown"


def choose_runner(settings: Settings, placement: Placement, on_lost: Callable[[Loss], None]) -> RunnerFactory:
    """The compiled decoder for one rank on a CPU; torch, which costs seconds to import, for all else."""
    if not placement.needs_torch:
        return partial(create_runner, span=settings.group_size)

    def create(shape: DecoderShape, limits: DecoderLimits, precision: Precision, levels: tuple[Level, ...]) -> Runner:
        from inference_pods.engine.distributed.runner import DistributedRunner, build_alone

        if limits.kv_precision is not Precision.FP32:
            raise LoadError(LoadReason.UNSUPPORTED, _KV_OF_ONE_RANK)
        source, seed = settings.model_source, settings.permutation_seed
        spec = RankSpec(
            0,
            placement.ranks,
            0,
            placement.device,
            source,
            seed,
            precision,
            limits,
            levels,
            placement.backend,
            settings.group_size,
        )
        return DistributedRunner(spec, shape, on_lost) if placement.ranks > 1 else build_alone(spec, shape)

    return create


def build_engine(settings: Settings, deliver: Deliver, observe: Observe, on_lost: Callable[[Loss], None]) -> Engine:
    """A loaded engine whose loop is not yet started. `on_lost`: called if one of several ranks is lost, at any time.

    Raises:
        LoadError: the model cannot be served, with the reason.
    """
    file = open_model(resolve_source(settings.model_source))
    digest = DigestCheck(file.weights_files, settings.model_sha256)
    tokenizer = TextTokenizer(read_vocabulary(file))
    template = ChatTemplate(read_chat_template(file), tokenizer.bos_token, tokenizer.eos_token)
    placement = detect_placement(settings.device, settings.tensor_parallel, settings.step_plans)
    limits = build_limits(settings, file, placement)
    skip_order = find_skip_order(settings.skip_order, settings.depths, read_shape(file).layers, digest.finish)
    plan = LevelPlan(settings.levels, settings.depths, skip_order)
    readings = len(set(plan.precisions or readable_precisions(settings.precision)))
    needed_bytes = estimate_needed_bytes(read_shape(file), limits, settings.precision, placement, readings)
    check_memory(needed_bytes, read_memory_bounds())
    model = load_model(
        file,
        limits,
        settings.precision,
        settings.permutation_seed,
        plan=plan,
        create=choose_runner(settings, placement, on_lost),
    )
    model_sha, context_tokens = digest.finish(), context_length(file)
    file.close()
    levels = tuple(level.name for level in model.runner.levels)
    scheduler = build_scheduler(settings, _find_drafts(settings, levels))
    core = EngineCore(model.runner, scheduler, tokenizer)
    description = _describe(settings, model, limits, placement)
    description |= {"skip_order": list(skip_order), "model_sha": model_sha}
    _warn_if_slow(model.runner.variant)
    logger.info("loaded %s", description)
    loop = EngineLoop(core, deliver, observe)
    return Engine(loop, scheduler, tokenizer, template, levels, description, context_tokens, model.plan_counts)


def build_scheduler(settings: Settings, drafts: DraftSettings | None = None) -> Scheduler:
    """The scheduler with its KV blocks, as every kind of engine has it."""
    return Scheduler(
        BlockManager(settings.kv_blocks, BLOCK_TOKENS, settings.prefix_cache),
        settings.max_batch_size,
        settings.max_step_tokens,
        tpot_seconds=settings.tpot_milliseconds / 1000 or None,
        drafts=drafts,
    )


def build_limits(settings: Settings, file: ModelFile, placement: Placement) -> DecoderLimits:
    """What the decoder has to reserve for these settings."""
    return DecoderLimits(
        max_rows=settings.max_step_tokens,
        max_outputs=_most_outputs(settings),
        max_positions=min(settings.max_total_tokens, context_length(file)),
        kv_blocks=settings.kv_blocks,
        threads=placement.divide_threads(settings.threads or detect_threads()),
        kv_precision=settings.kv_precision or _default_kv_precision(settings, placement),
        max_sequences=settings.max_batch_size,
    )


def _default_kv_precision(settings: Settings, placement: Placement) -> Precision:
    """What goes with the weights; torch keeps fp32 only."""
    return Precision.FP32 if placement.needs_torch else settings.precision.kv


def _most_outputs(settings: Settings) -> int:
    """Tokens per step whose scores may be wanted: each sequence's, and its drafts' where they are verified."""
    per_sequence = 1 + settings.draft_tokens if settings.draft_level else 1
    return min(settings.max_step_tokens, settings.max_batch_size * per_sequence)


def _find_drafts(settings: Settings, levels: tuple[str, ...]) -> DraftSettings | None:
    if settings.draft_level is None:
        return None
    try:
        return find_draft_settings(levels, settings.draft_level, settings.draft_tokens)
    except ValueError as error:
        raise LoadError(LoadReason.UNSUPPORTED, str(error)) from error


def _warn_if_slow(variant: str) -> None:
    if variant != "generic":
        return
    cpu = detect_cpu()
    if (best := cpu.best_variant()) == "generic":
        why = f"this CPU lacks AVX2, FMA or F16C ({cpu.describe()})"
    else:
        why = f"ADAPTIVE_KERNEL_VARIANT asks for it, though this CPU can run {best} ({cpu.describe()})"
    logger.warning("%s: decoding with the generic kernels, slower", why)


def _describe(settings: Settings, model: LoadedModel, limits: DecoderLimits, placement: Placement) -> dict[str, object]:
    """What /info says about the replica."""
    return {
        "model_id": settings.served_model_name,
        "model_dtype": settings.precision.value,
        "model_device_type": placement.device.value,
        "version": package_version(),
        "sha": None,
        "docker_label": None,
        "engine": "native",
        "tier": settings.tier,
        "precision": settings.precision.value,
        "group_size": settings.group_size,
        "permutation_seed": settings.permutation_seed,
        "kv_precision": model.runner.kv_precision.value,
        "levels": [level.name for level in model.runner.levels],
        "draft_level": settings.draft_level,
        "kernels": model.runner.variant,
        "kernel_paths": model.runner.paths if isinstance(model.runner, ReportingRunner) else {},
        "step_plans": "buffers" if isinstance(model.runner, Decoder) else placement.backend.value,
        "cpu": detect_cpu().describe(),
        "threads": limits.threads,
        "tensor_parallel": placement.ranks,
        "weight_bytes": model.runner.weight_bytes,
        "kv_cache_bytes": model.runner.kv_bytes,
        "load_seconds": round(model.load_seconds, 3),
    }
