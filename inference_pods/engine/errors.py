"""Domain errors of the engine: why a model could not be loaded, why a request is refused."""

from __future__ import annotations

import traceback
from enum import StrEnum
from pathlib import Path


class LoadReason(StrEnum):
    """Why the engine could not load; the operator puts what its termination message says into `ModelLoaded=False`."""

    NOT_FOUND = "ModelNotFound"
    CORRUPT = "ModelCorrupt"
    UNSUPPORTED = "ModelUnsupported"
    OUT_OF_MEMORY = "OutOfMemory"
    ENGINE_FAILED = "EngineFailed"  # the port is taken, or an error that nobody foresaw

    @property
    def exit_code(self) -> int:
        """Of the process. 8 is also that of an engine that crashed later, which leaves no message; 7 is a lost rank's
        (distributed/launch.py)."""
        codes = {"ModelNotFound": 3, "ModelCorrupt": 4, "ModelUnsupported": 5, "OutOfMemory": 6, "EngineFailed": 8}
        return codes[self.value]


class LoadError(Exception):
    """The model cannot be served; the message names the field, the cause and the remedy."""

    def __init__(self, reason: LoadReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class RequestError(Exception):
    """A request that gets an error body. `kind` is TGI's error_type, `status` the HTTP status."""

    status = 500
    kind = "generation"
    openai_status: int | None = None  # where that family needs another one
    openai_code: str | None = None

    def __init__(self, message: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class ValidationError(RequestError):
    """The request breaks a limit or a rule, which the message names."""

    status = 422
    kind = "validation"


class HeaderError(RequestError):
    """A header asks for what is not there, or cannot be read."""

    status = 400
    kind = "validation"


class LevelUnknownError(RequestError):
    """A level that is not served here; the message names those that are."""

    status = 400
    kind = "validation"


class NotRunningError(RequestError):
    """No request of this name is waiting or running."""

    status = 404
    kind = "not_found"


class TemplateError(ValidationError):
    """The chat template refused the messages."""

    kind = "template_error"


class OverloadedError(RequestError):
    """The waiting line is full."""

    status = 429
    kind = "overloaded"


class UnavailableError(RequestError):
    """The engine is loading or stopping; another replica may serve."""

    status = 503
    kind = "unhealthy"


class GenerationError(RequestError):
    """The model failed on this request."""

    status = 424
    kind = "generation"


class InternalError(RequestError):
    """A defect of the engine met this request; the words say nothing of the inside."""

    kind = "incomplete_generation"
    openai_code = "internal_error"

    def __init__(self) -> None:
        super().__init__("the engine failed on this request; its log says where")


class DeadlineError(RequestError):
    """The client's deadline passed. Repeating would start with no time left, so clients are told not to."""

    status = 424
    kind = "generation"
    openai_status = 504
    openai_code = "deadline_exceeded"


def locate(error: BaseException) -> str:
    """Type and place of an unexpected error for the log, without its message: that may hold a part of a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(frame.filename).name}:{frame.lineno} ({frame.name})" for frame in reversed(frames)]
    return f"{type(error).__name__} at {', called at '.join(places)}"
