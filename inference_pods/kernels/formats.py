"""Numbers shared with cpp/format.h and cpp/model.h: precisions, GGUF tensor types, tensor roles."""

from __future__ import annotations

from enum import IntEnum, StrEnum

GROUP = 32  # weights that share one scale
SPANS = (32, 64, 128)  # weights that may share one int4 grid
BLOCK_TOKENS = 16  # tokens of one KV block


class Precision(StrEnum):
    """How a tier's weights are stored; the value is what users write."""

    FP32 = "fp32"
    INT8 = "int8"
    INT4 = "int4"
    BF16 = "bf16"  # 16-bit storage only: widened to fp32 in registers
    FP16 = "fp16"
    NESTED = "nested"  # two planes of nibbles: the upper one is int4, both together are int8 (cpp/nested.h)

    @property
    def code(self) -> int:
        return ("fp32", "int8", "int4", "bf16", "fp16", "nested").index(self.value)

    @property
    def head(self) -> Precision:
        """Of the output matrix, which is also the embedding: four bits cost too much there."""
        return Precision.INT8 if self in (Precision.INT4, Precision.NESTED) else self

    @property
    def kv(self) -> Precision:
        """Of keys and values, unless asked otherwise: fp16 halves what attention reads; its 11 bits are more than any
        weights but fp32's have.
        """
        return Precision.FP32 if self is Precision.FP32 else Precision.FP16

    @property
    def is_grouped(self) -> bool:
        """Whether weights are integer codes with a scale per group, multiplied with integer activations."""
        return self in (Precision.INT8, Precision.INT4, Precision.NESTED)


class SourceType(IntEnum):
    """GGUF tensor types that can be read."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q8_0 = 8
    BF16 = 30

    def row_bytes(self, columns: int) -> int:
        """Bytes of one row of `columns` weights."""
        plain = {SourceType.F32: 4, SourceType.F16: 2, SourceType.BF16: 2}
        if self in plain:
            return columns * plain[self]
        return columns // GROUP * {SourceType.Q4_0: 18, SourceType.Q4_1: 20, SourceType.Q8_0: 34}[self]


class TensorRole(IntEnum):
    """What a tensor does in the decoder; the order is that of `enum Tensor`."""

    ATTN_NORM = 0
    FFN_NORM = 1
    OUTPUT_NORM = 2
    Q = 3
    K = 4
    V = 5
    O = 6  # noqa: E741 - the usual name of the output projection
    GATE = 7
    UP = 8
    DOWN = 9
    HEAD = 10
