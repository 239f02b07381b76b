"""Builds an engine from settings: file, tokenizer, decoder, scheduler, loop. Runs in a thread, may take seconds."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version

from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.chat import ChatTemplate
from inference_pods.engine.checkpoint import ModelFile, context_length, open_model, read_shape
from inference_pods.engine.core import EngineCore
from inference_pods.engine.digest import DigestCheck
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.loop import Deliver, EngineLoop, Observe
from inference_pods.engine.memory import check_memory, estimate_needed_bytes, read_memory_bounds
from inference_pods.engine.model_runner import LoadedModel, load_model
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.service import Engine
from inference_pods.engine.settings import Settings
from inference_pods.engine.source import resolve_source
from inference_pods.engine.speculation import DraftSettings, find_draft_settings
from inference_pods.engine.tokenizer import TextTokenizer
from inference_pods.engine.vocabulary import read_chat_template, read_vocabulary
from inference_pods.kernels.cpu import detect_cpu, detect_threads
from inference_pods.kernels.decoder import DecoderLimits
from inference_pods.kernels.formats import BLOCK_TOKENS
from inference_pods.kernels.levels import LevelPlan

logger = logging.getLogger(__name__)


def _package_version() -> str:
    try:
        return version("adaptive-llm")
    except PackageNotFoundError:
        return "unknown"


def build_engine(settings: Settings, deliver: Deliver, observe: Observe) -> Engine:
    """A loaded engine whose loop is not yet started.

    Raises:
        LoadError: the model cannot be served, with the reason.
    """
    file = open_model(resolve_source(settings.model_source))
    digest = DigestCheck(file.weights_files, settings.model_sha256)
    tokenizer = TextTokenizer(read_vocabulary(file))
    template = ChatTemplate(read_chat_template(file), tokenizer.bos_token, tokenizer.eos_token)
    limits = _build_limits(settings, file)
    check_memory(estimate_needed_bytes(read_shape(file), limits, settings.precision), read_memory_bounds())
    plan = LevelPlan(settings.levels, settings.depths)
    model = load_model(file, limits, settings.precision, settings.permutation_seed, plan=plan)
    model_sha, context_tokens = digest.finish(), context_length(file)
    file.close()
    levels = tuple(level.name for level in model.runner.levels)
    drafts = _find_drafts(settings, levels)
    scheduler = Scheduler(
        BlockManager(settings.kv_blocks, BLOCK_TOKENS, settings.prefix_cache),
        settings.max_batch_size,
        settings.max_step_tokens,
        tpot_seconds=settings.tpot_milliseconds / 1000 or None,
        drafts=drafts,
    )
    core = EngineCore(model.runner, scheduler, tokenizer)
    description = {**_describe(settings, model, limits.threads), "model_sha": model_sha}
    _warn_if_slow(model.runner.variant)
    logger.info("loaded %s", description)
    loop = EngineLoop(core, deliver, observe)
    return Engine(loop, scheduler, tokenizer, template, levels, description, context_tokens)


def _build_limits(settings: Settings, file: ModelFile) -> DecoderLimits:
    return DecoderLimits(
        max_rows=settings.max_step_tokens,
        max_outputs=_most_outputs(settings),
        max_positions=min(settings.max_total_tokens, context_length(file)),
        kv_blocks=settings.kv_blocks,
        threads=settings.threads or detect_threads(),
    )


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
    if variant == "generic":
        logger.warning("this CPU has no AVX2 (%s): decoding with the scalar kernels, slower", detect_cpu().describe())


def _describe(settings: Settings, model: LoadedModel, threads: int) -> dict[str, object]:
    """What /info says about the replica."""
    return {
        "model_id": settings.served_model_name,
        "model_dtype": settings.precision.value,
        "model_device_type": "cpu",
        "version": _package_version(),
        "sha": None,
        "docker_label": None,
        "tier": settings.tier,
        "precision": settings.precision.value,
        "permutation_seed": settings.permutation_seed,
        "levels": [level.name for level in model.runner.levels],
        "draft_level": settings.draft_level,
        "kernels": model.runner.variant,
        "cpu": detect_cpu().describe(),
        "threads": threads,
        "weight_bytes": model.runner.weight_bytes,
        "kv_cache_bytes": model.runner.kv_bytes,
        "load_seconds": round(model.load_seconds, 3),
    }
