"""The one pooled client session towards the engines.

No total time limit (a stream lasts as long as it lasts), a short one to connect, and keep-alive probes in the kernel,
so that a node that vanished without a word is noticed in seconds. Bodies are not decompressed: bytes pass as they
are.
"""

from __future__ import annotations

import socket
from typing import Any, Final

import aiohttp

from inference_pods.router.settings import RouterSettings

KEEPALIVE_SECONDS: Final = 15.0  # below every engine's own limit, so that a pooled connection is not stale when used
UNACKNOWLEDGED_MS: Final = 10_000  # sent data that nobody acknowledges for this long: the peer is gone
_PROBES: Final = (
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 5),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 3),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS),
)


def build_session(settings: RouterSettings) -> aiohttp.ClientSession:
    """Must be called inside the event loop; the caller closes it."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS, socket_factory=_open_socket)
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=settings.connect_seconds, sock_read=settings.first_byte_seconds
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )


def _open_socket(address_info: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address_info
    opened = socket.socket(family=family, type=kind, proto=protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for level, option, value in _PROBES:
        if hasattr(socket, option):  # absent outside Linux
            opened.setsockopt(level, getattr(socket, option), value)
    return opened
