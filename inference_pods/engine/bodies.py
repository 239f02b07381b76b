"""Request bodies of both API families, as pydantic models: the border where unknown types stop."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_STOP_SEQUENCES = 4
MAX_TOP_TOKENS = 5
MAX_TOP_LOGPROBS = 20
MAX_SIBLINGS = 8
MAX_MESSAGES = 4096
MAX_PARTS = 4096
MAX_PROMPT_TOKENS = 262_144

Item = TypeVar("Item")
# One error per bad item would cost time and memory in proportion to the body, so the first bad one ends it.
BriefList = Annotated[list[Item], Field(fail_fast=True)]

OpenUnit = Annotated[float, Field(gt=0.0, lt=1.0)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0)]
Siblings = Annotated[int, Field(ge=1, le=MAX_SIBLINGS)]
Temperature = Annotated[float, Field(ge=0.0, le=100.0)]
PositiveTemperature = Annotated[float, Field(gt=0.0, le=100.0)]
RepetitionPenalty = Annotated[float, Field(ge=0.1, le=10.0)]  # near 0 the scores would overflow
Seed = Annotated[int, Field(ge=0, lt=2**64)]


class Body(BaseModel):
    """Unknown fields are ignored: clients of other servers send many. Numbers are finite."""

    model_config = ConfigDict(extra="ignore", strict=False, allow_inf_nan=False)


class GenerateParameters(Body):
    """TGI's parameters; null means unset."""

    best_of: Siblings | None = None
    temperature: PositiveTemperature | None = None
    repetition_penalty: RepetitionPenalty | None = None
    frequency_penalty: Penalty | None = None
    top_k: int | None = Field(default=None, gt=0)
    top_p: OpenUnit | None = None
    typical_p: OpenUnit | None = None
    do_sample: bool = False
    max_new_tokens: int | None = Field(default=None, gt=0)
    return_full_text: bool | None = None
    stop: BriefList[str] = Field(default_factory=list, max_length=MAX_STOP_SEQUENCES)
    truncate: int | None = Field(default=None, gt=0)
    watermark: Literal[False] = False
    details: bool = False
    decoder_input_details: Literal[False] = False
    seed: Seed | None = None
    top_n_tokens: int | None = Field(default=None, ge=0, le=MAX_TOP_TOKENS)
    grammar: None = None
    adapter_id: None = None
    ignore_eos: bool = False


class GenerateBody(Body):
    """POST /generate and /generate_stream. Without `parameters` TGI samples."""

    inputs: str = Field(min_length=1)
    parameters: GenerateParameters = Field(default_factory=lambda: GenerateParameters(do_sample=True))


class RootBody(GenerateBody):
    """POST /: what TGI's own clients call."""

    stream: bool = False


class TokenizeBody(Body):
    """POST /tokenize."""

    inputs: str = Field(min_length=1)


class LevelBody(Body):
    """PUT /requests/ID/level."""

    level: str


class StreamOptions(Body):
    """OpenAI's stream_options."""

    include_usage: bool = False


class OpenAiBody(Body):
    """What chat and plain completions share. Features that are absent are refused by name, not ignored."""

    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, gt=0)
    temperature: Temperature | None = None
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    stop: str | Annotated[BriefList[str], Field(max_length=MAX_STOP_SEQUENCES)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    n: Siblings | None = None
    ignore_eos: bool = False
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class TextPart(Body):
    """A part of a message's content; only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """One turn."""

    role: str = Field(min_length=1)
    content: str | Annotated[BriefList[TextPart], Field(max_length=MAX_PARTS)]

    def as_template_input(self) -> dict[str, Any]:
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role, "content": content}


class ResponseFormat(Body):
    """Constrained output is not supported; plain text is the default."""

    type: Literal["text"]


class ChatBody(OpenAiBody):
    """POST /v1/chat/completions."""

    messages: BriefList[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(default=None, gt=0)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    tools: Annotated[BriefList[Any], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _check_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self


class CompletionBody(OpenAiBody):
    """POST /v1/completions; one prompt, as text or tokens."""

    prompt: (
        str
        | Annotated[BriefList[str], Field(min_length=1, max_length=1)]
        | Annotated[BriefList[int], Field(min_length=1, max_length=MAX_PROMPT_TOKENS)]
    )
    max_tokens: int | None = Field(default=16, gt=0)
    echo: Literal[False] | None = None
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_TOKENS)
    best_of: Siblings | None = None
