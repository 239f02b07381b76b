"""What a llama model is called in a Hugging Face checkpoint: config.json, and the names of the tensors.

Everything that the decoder does not compute is refused by its name in config.json; nothing is ignored that would change
the answers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.safetensors import SafetensorsModel
from inference_pods.kernels.decoder import DecoderShape
from inference_pods.kernels.formats import TensorRole

_LAYER_TENSORS = {
    TensorRole.ATTN_NORM: "input_layernorm",
    TensorRole.FFN_NORM: "post_attention_layernorm",
    TensorRole.Q: "self_attn.q_proj",
    TensorRole.K: "self_attn.k_proj",
    TensorRole.V: "self_attn.v_proj",
    TensorRole.O: "self_attn.o_proj",
    TensorRole.GATE: "mlp.gate_proj",
    TensorRole.UP: "mlp.up_proj",
    TensorRole.DOWN: "mlp.down_proj",
}
_MODEL_TENSORS = {TensorRole.HEAD: "model.embed_tokens.weight", TensorRole.OUTPUT_NORM: "model.norm.weight"}
Positive = Annotated[int, pydantic.Field(gt=0, le=2**31 - 1)]  # what each field allows is the decoder's to say


class LlamaConfig(pydantic.BaseModel):
    """The fields of config.json that decide the computation, with transformers' defaults."""

    model_config = pydantic.ConfigDict(extra="ignore", hide_input_in_errors=True)

    model_type: Literal["llama"]
    hidden_size: Positive
    intermediate_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    num_key_value_heads: Positive | None = None
    head_dim: Positive | None = None
    vocab_size: Positive
    max_position_embeddings: Positive = 2048
    rms_norm_eps: float = pydantic.Field(default=1e-6, gt=0)
    rope_theta: float = pydantic.Field(default=10000.0, gt=0)
    hidden_act: Literal["silu"] = "silu"
    tie_word_embeddings: Literal[True]
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    quantization_config: None = None
    auto_map: None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    @pydantic.field_validator("rope_scaling", "rope_parameters")
    @classmethod
    def _only_plain_rope(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and value.get("rope_type", value.get("type", "default")) != "default":
            raise ValueError("scaled rotary embeddings are not supported")
        if value and type(value.get("rope_theta", 1.0)) not in (int, float):
            raise ValueError("rope_theta is no number")
        return value

    @property
    def rope_base(self) -> float:
        return float((self.rope_parameters or {}).get("rope_theta", self.rope_theta))

    @property
    def eos_ids(self) -> tuple[int, ...]:
        ids = self.eos_token_id
        return () if ids is None else tuple(ids) if isinstance(ids, list) else (ids,)


def parse_config(document: dict[str, Any]) -> LlamaConfig:
    """config.json of a checkpoint that can be served.

    Raises:
        LoadError: ModelUnsupported for what the decoder does not compute, ModelCorrupt for missing or wrong fields;
            both name the field.
    """
    document = {"tie_word_embeddings": False, **document}
    try:
        return LlamaConfig.model_validate(document)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    field = str(first["loc"][0])
    if field == "auto_map":
        message = "config.json: `auto_map` asks for code from the model's repository, which is never run; remove it"
        raise LoadError(LoadReason.UNSUPPORTED, message)
    if first["type"] in ("literal_error", "none_required", "value_error"):
        message = f"config.json: `{field}` = {document[field]!r:.80} is not supported: {first['msg']}"
        raise LoadError(LoadReason.UNSUPPORTED, f"{message}; choose another model, or save this one without it")
    raise LoadError(LoadReason.CORRUPT, f"config.json: `{field}`: {first['msg']}; download it again")


def tensor_name(role: TensorRole, layer: int) -> str:
    return _MODEL_TENSORS.get(role) or f"model.layers.{layer}.{_LAYER_TENSORS[role]}.weight"


def read_shape(file: SafetensorsModel) -> DecoderShape:
    """Shape of the decoder.

    Raises:
        LoadError: see parse_config.
        ShapeError: a field is out of range.
    """
    config = parse_config(file.config)
    heads = config.num_attention_heads
    return DecoderShape(
        layers=config.num_hidden_layers,
        dim=config.hidden_size,
        ffn=config.intermediate_size,
        heads=heads,
        kv_heads=config.num_key_value_heads or heads,
        head_dim=config.head_dim or config.hidden_size // heads,
        vocab=config.vocab_size,
        rms_eps=config.rms_norm_eps,
        rope_base=config.rope_base,
    )


def context_length(file: SafetensorsModel) -> int:
    return parse_config(file.config).max_position_embeddings
