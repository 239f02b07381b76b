"""How long a step of an emulated engine takes: the linear batch model of a tier, one curve per level. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inference_pods.kernels.batch import Chunk

_FORM = re.compile(r"(?:(?P<level>[a-z0-9-]+)=)?(?P<numbers>\d+,\d+,\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Curve:
    """Microseconds of a step: a part of its own, one for each decoding sequence, one for each prompt token."""

    step_microseconds: int
    decode_microseconds_per_sequence: int
    prefill_microseconds_per_token: int

    def step_seconds(self, decoding: int, prompt_tokens: int) -> float:
        """Seconds of a step with `decoding` sequences that decode and `prompt_tokens` tokens of prompts beside them."""
        microseconds = (
            self.step_microseconds
            + self.decode_microseconds_per_sequence * decoding
            + self.prefill_microseconds_per_token * prompt_tokens
        )
        return microseconds / 1e6


@dataclass(frozen=True, slots=True)
class LevelCurve:
    """A curve as the command line gives it; `level` is empty for the tier's own."""

    level: str
    curve: Curve


def parse_level_curve(text: str) -> LevelCurve:
    """Reads `STEP,DECODE,PREFILL` or `LEVEL=STEP,DECODE,PREFILL`, in microseconds.

    Raises:
        ValueError: another form, or a step that takes no time of its own.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:80]!r} is not [LEVEL=]STEP,DECODE,PREFILL in whole microseconds, e.g. 7000,30,50")
    curve = Curve(*(int(number) for number in match["numbers"].split(",")))
    if curve.step_microseconds < 1:
        raise ValueError(f"{text[:80]!r}: a step takes at least 1 microsecond")
    return LevelCurve(match["level"] or "", curve)


@dataclass(frozen=True, slots=True)
class Curves:
    """The curve of each level; a level without one of its own is as fast as the tier."""

    own: Curve
    by_level: Mapping[str, Curve] = field(default_factory=dict)

    def of(self, level: str) -> Curve:
        return self.by_level.get(level, self.own)


def gather_curves(given: Sequence[LevelCurve], levels: Sequence[str]) -> Curves:
    """The tier's curve and those of its levels.

    Raises:
        ValueError: not exactly one curve of the tier, two of one level, or one of a level that is not there.
    """
    own = [one.curve for one in given if not one.level]
    if len(own) != 1:
        raise ValueError(f"{len(own)} curves without a level were given; give exactly one")
    by_level: dict[str, Curve] = {}
    for one in given:
        if one.level and one.level not in levels:
            raise ValueError(f"there is no level {one.level}, only {', '.join(levels)}")
        if one.level in by_level:
            raise ValueError(f"two curves of level {one.level} were given; give one")
        if one.level:
            by_level[one.level] = one.curve
    return Curves(own[0], by_level)


def step_seconds(chunks: Sequence[Chunk], curves: Sequence[Curve]) -> float:
    """Seconds of a step, `curves` by index of the level: levels run one after the other, as in the native decoder.

    A chunk of one token that does not begin a text decodes; so does the last token of a prompt that was cut before it,
    which nothing tells apart.
    """
    return sum(_pass_seconds([chunk for chunk in chunks if chunk.level == i], curve) for i, curve in enumerate(curves))


def _pass_seconds(chunks: Sequence[Chunk], curve: Curve) -> float:
    if not chunks:
        return 0.0
    decoding = sum(len(chunk.token_ids) == 1 and chunk.start > 0 for chunk in chunks)
    return curve.step_seconds(decoding, sum(len(chunk.token_ids) for chunk in chunks) - decoding)
