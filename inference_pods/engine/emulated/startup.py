"""Builds an engine without weights from settings: built-in vocabulary, real scheduler, a runner that waits. Quick."""

from __future__ import annotations

import logging
from dataclasses import asdict

from inference_pods.engine.chat import ChatTemplate
from inference_pods.engine.core import EngineCore
from inference_pods.engine.emulated.curve import Curves, gather_curves
from inference_pods.engine.emulated.runner import EmulatedRunner
from inference_pods.engine.emulated.vocabulary import CHAT_TEMPLATE, SENTENCE, build_vocabulary
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.loop import Deliver, EngineLoop, Observe
from inference_pods.engine.service import Engine
from inference_pods.engine.settings import Settings
from inference_pods.engine.startup import build_scheduler, package_version
from inference_pods.engine.tokenizer import TextTokenizer
from inference_pods.kernels.levels import LevelError, LevelPlan

logger = logging.getLogger(__name__)


def build_emulated_engine(settings: Settings, deliver: Deliver, observe: Observe) -> Engine:
    """An engine whose loop is not yet started.

    Raises:
        LoadError: levels or curves that contradict each other, or what needs a model.
    """
    if settings.draft_level is not None:
        raise LoadError(LoadReason.UNSUPPORTED, "--draft-level needs a model that can agree; leave it out")
    levels = _name_levels(settings)
    curves = _gather_curves(settings, levels)
    tokenizer = TextTokenizer(build_vocabulary())
    sentence = [token for word in SENTENCE for token in tokenizer.encode(word)]
    runner = EmulatedRunner([curves.of(level) for level in levels], sentence, tokenizer.vocabulary_size)
    scheduler = build_scheduler(settings)
    loop = EngineLoop(EngineCore(runner, scheduler, tokenizer), deliver, observe)
    template = ChatTemplate(CHAT_TEMPLATE, tokenizer.bos_token, tokenizer.eos_token)
    description = _describe(settings, levels, curves)
    logger.warning("emulated: no weights, the text is filler: %s", description)
    return Engine(loop, scheduler, tokenizer, template, levels, description)


def _name_levels(settings: Settings) -> tuple[str, ...]:
    """The names that the native engine would give them. No model says how many layers there are: the first depth does,
    and without an order any of them may be left out."""
    layers = settings.depths[0] if settings.depths else 1
    plan = LevelPlan(settings.levels, settings.depths, settings.skip_order or tuple(range(layers)))
    try:
        return tuple(level.name for level in plan.build(settings.precision, layers))
    except LevelError as error:
        raise LoadError(LoadReason.UNSUPPORTED, f"{error}; change --levels, --depths or --skip-order") from error


def _gather_curves(settings: Settings, levels: tuple[str, ...]) -> Curves:
    try:
        return gather_curves(settings.emulate, levels)
    except ValueError as error:
        raise LoadError(LoadReason.UNSUPPORTED, f"--emulate: {error}") from error


def _describe(settings: Settings, levels: tuple[str, ...], curves: Curves) -> dict[str, object]:
    """What /info says about the replica: the native engine's keys as far as they mean something here."""
    return {
        "model_id": settings.served_model_name,
        "model_dtype": settings.precision.value,
        "model_device_type": "emulated",
        "version": package_version(),
        "sha": None,
        "docker_label": None,
        "engine": "emulated",
        "tier": settings.tier,
        "precision": settings.precision.value,
        "levels": list(levels),
        "kernels": EmulatedRunner.variant,
        "skip_order": list(settings.skip_order),
        "curves": {level: asdict(curves.of(level)) for level in levels},
        "weight_bytes": EmulatedRunner.weight_bytes,
        "kv_cache_bytes": EmulatedRunner.kv_bytes,
        "load_seconds": settings.emulate_load_seconds,
    }
