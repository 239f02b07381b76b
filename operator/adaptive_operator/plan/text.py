"""Short texts for status, the same wherever they appear."""

from __future__ import annotations

from collections.abc import Mapping


def trim(text: str, length: int) -> str:
    """At most `length` characters; what was cut off shows as an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def describe_replicas(replicas: Mapping[str, int]) -> str:
    """`full 1 · int4 1`; tiers without replicas are left out."""
    return " · ".join(f"{tier} {count}" for tier, count in replicas.items() if count > 0) or "none"
