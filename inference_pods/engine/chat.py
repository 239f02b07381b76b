"""Turns chat messages into the prompt that the model was trained on, with the template from its file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from jinja2 import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from inference_pods.engine.errors import LoadError, LoadReason, TemplateError


def _refuse(message: str) -> None:
    raise JinjaError(message)


def _format_now(pattern: str) -> str:
    """Llama 3's template tells the model today's date."""
    return datetime.now(tz=UTC).strftime(pattern)


class ChatTemplate:
    """A sandboxed template: it can read the messages and nothing else.

    Raises:
        LoadError: ModelCorrupt for a source that is no template.
    """

    def __init__(self, source: str | None, bos_token: str, eos_token: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _format_now
        try:
            self._template = environment.from_string(source) if source else None
        except JinjaError as error:
            message = f"the model's chat template cannot be read: {error}; download the model again"
            raise LoadError(LoadReason.CORRUPT, message) from error
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    def render(self, messages: list[dict[str, Any]]) -> str:
        """Prompt text that ends where the assistant's turn begins.

        Raises:
            TemplateError: the template refuses the messages, or the model has none.
        """
        if self._template is None:
            raise TemplateError("messages: this model's file has no chat template; use /v1/completions or /generate")
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._tokens)
        except JinjaError as error:
            raise TemplateError(f"messages: the model's chat template refused them: {error}") from error
        except Exception as error:
            # The template is the model's, not ours: it may fail in any way, and the words may repeat a message.
            name = type(error).__name__
            raise TemplateError(f"messages: the model's chat template cannot render them: {name}") from error
