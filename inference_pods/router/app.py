"""The HTTP face of the router: routes, header and body checks, refusals in the right dialect, health and metrics.

Wires fleet, admission, metrics and relay together; loop F runs here as a background task. Deliberately does not know
Kubernetes: tables and endpoints are offered to `fleet` by whoever has them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler

from inference_pods import protocol
from inference_pods.router.admission import Admission, Refused
from inference_pods.router.contract import ContractError, RequestContract, parse_contract
from inference_pods.router.dialect import build_error_body, dialect_of
from inference_pods.router.fleet import Fleet
from inference_pods.router.metrics import RouterMetrics
from inference_pods.router.relay import CONNECT_ERRORS, Exchange, Relay
from inference_pods.router.session import build_session
from inference_pods.router.settings import RouterSettings

logger = logging.getLogger(__name__)

INFERENCE_ROUTES: Final = (
    protocol.ROUTE_ROOT,
    protocol.ROUTE_GENERATE,
    protocol.ROUTE_GENERATE_STREAM,
    protocol.ROUTE_CHAT_COMPLETIONS,
    protocol.ROUTE_COMPLETIONS,
)
# Every engine answers these alike and at once: no tier, no place, no share of the load.
PLAIN_ROUTES: Final = (
    ("GET", protocol.ROUTE_INFO),
    ("GET", protocol.ROUTE_MODELS),
    ("POST", protocol.ROUTE_TOKENIZE),
)
HEALTH_ROUTES: Final = (protocol.ROUTE_HEALTH, protocol.ROUTE_PING, protocol.ROUTE_ROOT)


class RouterApp:
    """One router. `fleet` is fed from outside; `web_app` is served by the caller."""

    def __init__(self, settings: RouterSettings) -> None:
        clock = asyncio.get_running_loop().time
        self.settings = settings
        self.fleet = Fleet(clock)
        self.admission = Admission(self.fleet, clock)
        self.metrics = RouterMetrics(settings.model)
        self.draining = False
        self._clock = clock
        self._session: aiohttp.ClientSession
        self.relay: Relay
        self.fleet.on_change.append(lambda: self.metrics.follow(self.fleet))
        self.web_app = self._build_web_app()

    def _build_web_app(self) -> web.Application:
        app = web.Application(client_max_size=self.settings.max_body_bytes, middlewares=[_answer_in_dialect])
        for path in INFERENCE_ROUTES:
            app.router.add_post(path, self.infer)
        for method, path in PLAIN_ROUTES:
            app.router.add_route(method, path, self.pass_on)
        for path in HEALTH_ROUTES:
            app.router.add_get(path, self.health)
        app.router.add_get("/healthz", self.live)
        app.router.add_get(protocol.ROUTE_METRICS, self.expose)
        app.cleanup_ctx.append(self._resources)
        app.on_response_prepare.append(self._close_when_draining)
        return app

    async def _resources(self, _: web.Application) -> AsyncIterator[None]:
        self._session = build_session(self.settings)
        self.relay = Relay(self.settings, self.fleet, self.admission, self.metrics, self._session)
        loop_f = asyncio.create_task(self._rebalance_forever(), name="loop-f")
        yield
        loop_f.cancel()
        with suppress(asyncio.CancelledError):
            await loop_f
        await self._session.close()

    async def _close_when_draining(self, _: web.Request, response: web.StreamResponse) -> None:
        if self.draining:
            # A kept connection would bring the next request to a router that is going. aiohttp has written its own
            # Connection header before this signal: without ours the client would reuse what we are about to close.
            response.headers["Connection"] = "close"
            response.force_close()

    async def _rebalance_forever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.rebalance_seconds)
            try:
                self.fleet.rebalance()
            except Exception:  # the last shares stay in force; the loop must not die of one bad pass
                logger.exception("loop F: pass failed, the shares stay as they are")

    async def infer(self, request: web.Request) -> web.StreamResponse:
        """Relay one inference request to an engine of the tier that it gets."""
        arrived = self._clock()
        try:
            contract = parse_contract(request.headers)
        except ContractError as error:
            return self._reject(request, 400, str(error))
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            limit = self.settings.max_body_bytes
            return self._reject(request, 413, f"the request body is larger than {limit} bytes: shorten the prompt")
        self.fleet.arrivals.record(arrived)
        self.metrics.count_arrival()
        try:
            return await self.relay.serve(Exchange(request, contract, body, dialect_of(request.path), arrived))
        except Refused as refusal:
            return self._refuse(request, contract, refusal)

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """Relay a request that any ready engine can answer."""
        with self.relay.tracked():
            return await self._pass_on(request)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        replica = self.fleet.any_replica()
        if replica is None:
            return self._error(request, 503, "no engine is ready: try again", {"Retry-After": "5"})
        body = await request.read() if request.can_read_body else None
        try:
            async with asyncio.timeout(30), self._session.request(
                request.method, replica.base_url + request.rel_url.raw_path_qs, data=body,
                headers={"Content-Type": request.content_type} if body else None,
            ) as upstream:  # fmt: skip
                content_type = upstream.headers.get("Content-Type", "application/json")
                return web.Response(
                    status=upstream.status, body=await upstream.read(), headers={"Content-Type": content_type}
                )
        except CONNECT_ERRORS as error:
            self.fleet.book.put_aside(replica, self._clock())
            return self._error(request, 503, f"the engine did not answer ({type(error).__name__}): repeat the request",
                               {"Retry-After": "1"})  # fmt: skip

    async def health(self, _: web.Request) -> web.Response:
        """Readiness: a table, a ready engine (or one lost so recently that requests are held for it), not stopping."""
        if self.draining:
            return web.json_response({"status": "stopping"}, status=503)
        if not self.fleet.is_ready():
            missing = "no routing table yet" if self.fleet.table is None else "no engine is ready"
            return web.json_response({"status": missing}, status=503)
        return web.json_response({"status": "ready"})

    async def live(self, _: web.Request) -> web.Response:
        """Liveness: the event loop turns."""
        return web.json_response({"status": "alive"})

    async def expose(self, _: web.Request) -> web.Response:
        body = self.metrics.render(self.admission)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def _refuse(self, request: web.Request, contract: RequestContract, refusal: Refused) -> web.Response:
        headers = {protocol.HEADER_REQUEST_ID: contract.request_id, protocol.HEADER_ROUTE_REASON: refusal.cause.value}
        if refusal.retry_after_seconds is not None:
            seconds = min(refusal.retry_after_seconds + random.randint(0, refusal.retry_after_seconds // 4), 60)  # noqa: S311
            headers["Retry-After"] = str(seconds)
            if contract.deadline_seconds is not None and seconds > contract.deadline_seconds:
                headers["x-should-retry"] = "false"  # OpenAI's clients repeat by themselves: too late is useless load
        return self._reject(request, refusal.status, refusal.message, headers)

    def _reject(
        self, request: web.Request, status: int, message: str, headers: dict[str, str] | None = None
    ) -> web.Response:
        self.metrics.count_rejected(status)
        return self._error(request, status, message, headers)

    @staticmethod
    def _error(request: web.Request, status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
        body = build_error_body(dialect_of(request.path), status, message)
        return web.Response(status=status, body=body, content_type="application/json", headers=headers)


@web.middleware
async def _answer_in_dialect(request: web.Request, handler: Handler) -> web.StreamResponse:
    """aiohttp's own answers (404, 405, 413) are text: clients expect JSON."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        message = f"{request.method} {request.path}: {error.reason}"
        return RouterApp._error(request, error.status, message, headers)
