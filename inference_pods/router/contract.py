"""What a request asks of the router: the x- headers, checked and typed.

Deliberately does not know which tiers exist or are ready.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from inference_pods.protocol import (
    HEADER_DEADLINE_MS,
    HEADER_LEVEL,
    HEADER_QUALITY_MIN,
    HEADER_REQUEST_ID,
    HEADER_TIER,
)

MAX_DEADLINE_MS: Final = 86_400_000
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class ContractError(ValueError):
    """A header value that cannot be obeyed; the message names header, cause and remedy."""


@dataclass(frozen=True, slots=True)
class RequestContract:
    """`tier`: serve from this tier or refuse; `level`: at this level of a nested tier or refuse. `quality_min` in
    permille: never from below. `deadline_seconds`: the longest wait for a place, from arrival."""

    request_id: str
    tier: str | None = None
    level: str | None = None
    quality_min: int | None = None
    deadline_seconds: float | None = None


def parse_contract(headers: Mapping[str, str]) -> RequestContract:
    """Read the request headers (case-insensitive mapping). Raises ContractError."""
    deadline_ms = _integer(headers, HEADER_DEADLINE_MS, 1, MAX_DEADLINE_MS)
    return RequestContract(
        request_id=parse_request_id(headers),
        tier=_name(headers, HEADER_TIER, "a tier"),
        level=_name(headers, HEADER_LEVEL, "a level"),
        quality_min=_integer(headers, HEADER_QUALITY_MIN, 0, 1000),
        deadline_seconds=None if deadline_ms is None else deadline_ms / 1000,
    )


def parse_request_id(headers: Mapping[str, str]) -> str:
    """The client's id, or a new one. Raises ContractError: the id goes into logs and headers."""
    value = headers.get(HEADER_REQUEST_ID)
    if value is None:
        return uuid.uuid4().hex
    if not _REQUEST_ID.fullmatch(value):
        raise ContractError(f"{HEADER_REQUEST_ID} must be 1 to 128 of the characters A-Z a-z 0-9 . _ : -")
    return value


def _name(headers: Mapping[str, str], header: str, kind: str) -> str | None:
    value = headers.get(header)
    if value is not None and not _NAME.fullmatch(value):
        raise ContractError(f"{header} must be the name of {kind} (lower-case letters, digits, hyphens)")
    return value


def _integer(headers: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 9 and low <= int(value) <= high):
        raise ContractError(f"{name} must be an integer from {low} to {high}")
    return int(value)
