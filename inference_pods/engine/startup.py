"""Builds an engine from settings: file, tokenizer, decoder, scheduler, loop. Runs in a thread, may take seconds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.chat import ChatTemplate
from inference_pods.engine.checkpoint import context_length
from inference_pods.engine.core import EngineCore
from inference_pods.engine.distributed.launch import Loss, RankSpec
from inference_pods.engine.distributed.placement import Placement, detect_placement
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.gguf import GgufFile
from inference_pods.engine.loop import Deliver, EngineLoop, Observe
from inference_pods.engine.model_runner import LoadedModel, Runner, RunnerFactory, create_runner, load_model
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.service import Engine
from inference_pods.engine.settings import Settings
from inference_pods.engine.source import resolve_source
from inference_pods.engine.tokenizer import TextTokenizer
from inference_pods.kernels.cpu import detect_cpu, detect_threads
from inference_pods.kernels.decoder import DecoderLimits, DecoderShape
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision
from inference_pods.kernels.levels import Level, default_levels

logger = logging.getLogger(__name__)


def _package_version() -> str:
    try:
        return version("adaptive-llm")
    except PackageNotFoundError:
        return "unknown"


def _choose_runner(settings: Settings, placement: Placement, on_lost: Callable[[Loss], None]) -> RunnerFactory:
    """The compiled decoder for one rank on a CPU; torch, which costs seconds to import, for all else."""
    if not placement.needs_torch:
        return create_runner

    def create(shape: DecoderShape, limits: DecoderLimits, precision: Precision, levels: tuple[Level, ...]) -> Runner:
        from inference_pods.engine.distributed.runner import DistributedRunner, build_alone

        if levels != default_levels(precision):
            raise LoadError(LoadReason.UNSUPPORTED, "levels and depths need the compiled decoder: one rank on a CPU")
        source, seed = settings.model_source, settings.permutation_seed
        spec = RankSpec(0, placement.ranks, 0, placement.device, source, seed, precision, limits)
        return DistributedRunner(spec, shape, on_lost) if placement.ranks > 1 else build_alone(spec, shape)

    return create


def build_engine(settings: Settings, deliver: Deliver, observe: Observe, on_lost: Callable[[Loss], None]) -> Engine:
    """A loaded engine whose loop is not yet started. `on_lost`: called if one of several ranks is lost, at any time.

    Raises:
        LoadError: the model cannot be served, with the reason.
    """
    file = GgufFile(resolve_source(settings.model_source))
    tokenizer = TextTokenizer(file.metadata)
    template = ChatTemplate(file.metadata.get("tokenizer.chat_template"), tokenizer.bos_token, tokenizer.eos_token)
    placement = detect_placement(settings.device, settings.tensor_parallel)
    threads = placement.divide_threads(settings.threads or detect_threads())
    limits = DecoderLimits(
        max_rows=settings.max_step_tokens,
        max_outputs=settings.max_batch_size,
        max_positions=min(settings.max_total_tokens, context_length(file)),
        kv_blocks=settings.kv_blocks,
        threads=threads,
    )
    model = load_model(
        file, limits, settings.precision, settings.permutation_seed, create=_choose_runner(settings, placement, on_lost)
    )
    file.close()
    scheduler = Scheduler(
        BlockManager(settings.kv_blocks, BLOCK_TOKENS), settings.max_batch_size, settings.max_step_tokens
    )
    core = EngineCore(model.runner, scheduler, tokenizer)
    description = _describe(settings, model, threads, placement)
    logger.info("loaded %s", description)
    return Engine(EngineLoop(core, deliver, observe), scheduler, tokenizer, template, description, model.plan_counts)


def _describe(settings: Settings, model: LoadedModel, threads: int, placement: Placement) -> dict[str, object]:
    """What /info says about the replica."""
    return {
        "model_id": settings.served_model_name,
        "model_sha": None,
        "model_dtype": settings.precision.value,
        "model_device_type": placement.device.value,
        "version": _package_version(),
        "sha": None,
        "docker_label": None,
        "tier": settings.tier,
        "precision": settings.precision.value,
        "permutation_seed": settings.permutation_seed,
        "levels": [level.name for level in model.runner.levels],
        "kernels": model.runner.variant,
        "cpu": detect_cpu().describe(),
        "threads": threads,
        "tensor_parallel": placement.ranks,
        "weight_bytes": model.runner.weight_bytes,
        "kv_cache_bytes": model.runner.kv_bytes,
        "load_seconds": round(model.load_seconds, 3),
    }
