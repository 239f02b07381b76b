"""A scripted TGI server for the generator's own tests: it answers what the request's prompt tells it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer

TOKENS = 3
TOKEN_GAP_SECONDS = 0.01


def _frame(index: int, last: bool) -> bytes:
    details = {"finish_reason": "length", "generated_tokens": TOKENS} if last else None
    body = {
        "index": index,
        "token": {"id": index, "text": "x", "logprob": -0.1, "special": False},
        "generated_text": "xxx" if last else None,
        "details": details,
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


class ScriptedTgi:
    """State: what was asked, how long to wait before answering, what to do wrong."""

    def __init__(self) -> None:
        self.fault = ""
        self.delay_seconds = 0.0
        self.tiers_asked: list[str] = []
        self.most_at_once = 0
        self._at_once = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.tiers_asked.append(request.headers.get("x-tier", ""))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._answer(request)
        finally:
            self._at_once -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(self.delay_seconds)
        if self.fault == "429":
            return web.json_response({"error": "full", "error_type": "overloaded"}, status=429)
        response = web.StreamResponse(headers={"x-tier-served": "int4", "x-quality-served": "780"})
        await response.prepare(request)
        if self.fault == "error frame":
            await response.write(b'data: {"error":"broke","error_type":"generation"}\n\n')
            return response
        for index in range(1, TOKENS + 1):
            last = index == TOKENS
            if last and self.fault == "no final frame":
                return response
            if self.fault == "abort" and index == 2:
                assert request.transport is not None
                request.transport.abort()
                return response
            if self.fault == "lost token" and index == 2:
                continue
            await response.write(_frame(index, last))
            await asyncio.sleep(TOKEN_GAP_SECONDS)
        return response


@asynccontextmanager
async def serving(script: ScriptedTgi) -> AsyncIterator[str]:
    """Serve on a loopback port; gives the base URL."""
    app = web.Application()
    app.router.add_post("/generate_stream", script.handle)
    server = TestServer(app)
    await server.start_server()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.close()
