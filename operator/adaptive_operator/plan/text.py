"""Short texts for status, the same wherever they appear."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

_BETWEEN: Final = " · "
_NO_REPLICAS: Final = "none"
_ELLIPSIS: Final = "…"


def trim(text: str, length: int) -> str:
    """At most `length` characters; what was cut off shows as an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + _ELLIPSIS


def join_fitting(parts: Iterable[str], size: int) -> str:
    """Parts with ` | ` between them, in at most `size` bytes of UTF-8; empty ones are left out.

    What was cut off shows as an ellipsis.
    """
    text = " | ".join(part for part in parts if part)
    if len(text.encode()) <= size:
        return text
    return text.encode()[: size - len(_ELLIPSIS.encode())].decode(errors="ignore") + _ELLIPSIS


def describe_replicas(replicas: Mapping[str, int]) -> str:
    """`full 1 · int4 1`; tiers without replicas are left out."""
    return _BETWEEN.join(f"{tier} {count}" for tier, count in replicas.items() if count > 0) or _NO_REPLICAS


def read_replicas(text: str) -> dict[str, int] | None:
    """The inverse of `describe_replicas`; None for any other text, such as one that was cut off."""
    if text == _NO_REPLICAS:
        return {}
    pairs = [part.rpartition(" ") for part in text.split(_BETWEEN)]
    if not all(tier and count.isascii() and count.isdecimal() for tier, _, count in pairs):
        return None
    return {tier: int(count) for tier, _, count in pairs}
