"""Which header fields cross the router, and what it adds: who served, and why.

Knows names and rules of forwarding; deliberately does not know requests, sockets or bodies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import aiohttp
from multidict import CIMultiDict

from inference_pods import protocol
from inference_pods.router.places import Placement

EVENT_STREAM: Final = "text/event-stream"
# Hop-by-hop fields (RFC 9110 §7.6.1), and what the router sets itself. Accept-Encoding goes: frames must stay readable.
_NOT_FORWARDED: Final = frozenset(
    (
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "content-length", "host", "expect", "accept-encoding",
        protocol.HEADER_TIER_SERVED, protocol.HEADER_QUALITY_SERVED, protocol.HEADER_ROUTE_REASON,
        protocol.HEADER_REQUEST_ID, protocol.HEADER_LEVEL, protocol.HEADER_LEVEL_SERVED,
    )
)  # fmt: skip


def request_headers(incoming: Mapping[str, str], request_id: str, level: str) -> CIMultiDict[str]:
    """What the engine gets: the client's end-to-end headers, the request id, and the level that was chosen ("" = none).

    A client's own x-level has had its say in that choice.
    """
    named = {token.strip().lower() for token in incoming.get("connection", "").split(",")}
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in incoming.items():
        lower = name.lower()
        if lower not in _NOT_FORWARDED and lower not in named:
            headers.add(name, value)
    headers[protocol.HEADER_REQUEST_ID] = request_id
    if level:
        headers[protocol.HEADER_LEVEL] = level
    return headers


def response_headers(request_id: str, placement: Placement, upstream: aiohttp.ClientResponse) -> CIMultiDict[str]:
    """What the client gets: the engine's end-to-end headers, and who served."""
    headers = served_headers(request_id, placement)
    for name, value in upstream.headers.items():
        lower = name.lower()
        if lower not in _NOT_FORWARDED and lower not in ("server", "date"):
            headers.add(name, value)
    if upstream.content_type == EVENT_STREAM:
        headers["X-Accel-Buffering"] = "no"
        headers.setdefault("Cache-Control", "no-cache")
    return headers


def served_headers(request_id: str, placement: Placement) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    headers[protocol.HEADER_REQUEST_ID] = request_id
    headers[protocol.HEADER_TIER_SERVED] = placement.route.key.tier
    if placement.route.key.level:
        headers[protocol.HEADER_LEVEL_SERVED] = placement.route.key.level
    headers[protocol.HEADER_ROUTE_REASON] = placement.reason.value
    if placement.route.quality_permille is not None:
        headers[protocol.HEADER_QUALITY_SERVED] = str(placement.route.quality_permille)
    return headers
