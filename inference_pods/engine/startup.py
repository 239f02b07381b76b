"""Builds an engine from settings: file, tokenizer, decoder, scheduler, loop. Runs in a thread, may take seconds."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version

from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.chat import ChatTemplate
from inference_pods.engine.checkpoint import context_length
from inference_pods.engine.core import EngineCore
from inference_pods.engine.gguf import GgufFile
from inference_pods.engine.loop import Deliver, EngineLoop, Observe
from inference_pods.engine.model_runner import LoadedModel, load_model
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.service import Engine
from inference_pods.engine.settings import Settings
from inference_pods.engine.source import resolve_source
from inference_pods.engine.tokenizer import TextTokenizer
from inference_pods.kernels.cpu import detect_cpu, detect_threads
from inference_pods.kernels.decoder import DecoderLimits
from inference_pods.kernels.formats import BLOCK_TOKENS

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
    file = GgufFile(resolve_source(settings.model_source))
    tokenizer = TextTokenizer(file.metadata)
    template = ChatTemplate(file.metadata.get("tokenizer.chat_template"), tokenizer.bos_token, tokenizer.eos_token)
    threads = settings.threads or detect_threads()
    limits = DecoderLimits(
        max_rows=settings.max_step_tokens,
        max_outputs=settings.max_batch_size,
        max_positions=min(settings.max_total_tokens, context_length(file)),
        kv_blocks=settings.kv_blocks,
        threads=threads,
    )
    model = load_model(file, limits, settings.precision, settings.permutation_seed)
    file.close()
    scheduler = Scheduler(
        BlockManager(settings.kv_blocks, BLOCK_TOKENS), settings.max_batch_size, settings.max_step_tokens
    )
    core = EngineCore(model.runner, scheduler, tokenizer)
    description = _describe(settings, model, threads)
    logger.info("loaded %s", description)
    return Engine(EngineLoop(core, deliver, observe), scheduler, tokenizer, template, description, model.plan_counts)


def _describe(settings: Settings, model: LoadedModel, threads: int) -> dict[str, object]:
    """What /info says about the replica."""
    return {
        "model_id": settings.served_model_name,
        "model_sha": None,
        "model_dtype": settings.precision.value,
        "model_device_type": "cpu",
        "version": _package_version(),
        "sha": None,
        "docker_label": None,
        "tier": settings.tier,
        "precision": settings.precision.value,
        "permutation_seed": settings.permutation_seed,
        "kernels": model.runner.variant,
        "cpu": detect_cpu().describe(),
        "threads": threads,
        "weight_bytes": model.runner.weight_bytes,
        "kv_cache_bytes": model.runner.kv_bytes,
        "load_seconds": round(model.load_seconds, 3),
    }
