"""The relay: one request in, one engine's answer out, byte for byte.

Before the first byte a failing replica is replaced by another (at most twice), one that does not have the level by any
that has it; after it, a stream that breaks ends with an error frame, never with a clean end. Whatever happens, the
upstream is closed and the place is given back. Parses frames beside the stream only to time it and to see its end.
Deliberately does not know how a replica was chosen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import aiohttp
from aiohttp import web
from yarl import URL

from inference_pods.router.admission import Admission, Refused
from inference_pods.router.contract import RequestContract
from inference_pods.router.dialect import (
    Dialect,
    UpstreamError,
    build_error_frames,
    is_level_refusal,
    wants_stream,
)
from inference_pods.router.fleet import Fleet
from inference_pods.router.headers import EVENT_STREAM, request_headers, response_headers, served_headers
from inference_pods.router.metrics import CLIENT_GONE, UPSTREAM_BROKE, RouterMetrics
from inference_pods.router.places import Demand, Placement
from inference_pods.router.prices import estimate_work
from inference_pods.router.settings import RouterSettings
from inference_pods.router.sse import FrameWatch
from inference_pods.router.table import Route
from inference_pods.router.verdicts import (
    ClientGoneError,
    LevelRefusedError,
    TryAnother,
    UpstreamBrokeError,
    verdict_of_status,
)

logger = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 3
SAME_REPLICA_SECONDS: Final = 1.0  # without another replica, a failed one is asked again after this time
LAST_WRITE_SECONDS: Final = 5.0
PROLONG_FRACTION: Final = 0.05  # of the idle time: how stale its timer may be
CONNECT_ERRORS: Final = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(slots=True)
class Exchange:
    """One client request on its way: what came in, and what is known of the answer so far."""

    request: web.Request
    contract: RequestContract
    body: bytes
    dialect: Dialect
    arrived: float  # event loop's clock
    placement: Placement | None = None
    response: web.StreamResponse | None = None
    frames: FrameWatch | None = None  # of a stream whose first frame is there
    first_token_at: float | None = None


class Relay:
    """Serves exchanges over one pooled session."""

    def __init__(
        self, settings: RouterSettings, fleet: Fleet, admission: Admission, metrics: RouterMetrics,
        session: aiohttp.ClientSession,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._fleet = fleet
        self._admission = admission
        self._metrics = metrics
        self._session = session
        self._active: set[asyncio.Task[object]] = set()
        self._aborting = False

    @property
    def active(self) -> int:
        return len(self._active)

    async def wait_until_idle(self, seconds: float) -> None:
        """Return when nothing is in progress, or after `seconds`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self._active and loop.time() < end:  # a connection that is kept open may bring another request
            await asyncio.wait(self._active, timeout=end - loop.time())

    def abort_all(self) -> None:
        """End of the drain: every exchange still running gets an error frame or a 503."""
        self._aborting = True
        for task in tuple(self._active):
            task.cancel()

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Answer one request. Raises Refused when no replica could take it; the caller writes the refusal."""
        with self.tracked() as task:
            try:
                return await self._serve(exchange)
            except asyncio.CancelledError:
                if self._aborting:
                    task.uncancel()
                    return await self._end_for_shutdown(exchange)
                self._count_departure(exchange)
                raise
            except ClientGoneError:
                self._count_departure(exchange)
                _abort_connection(exchange)  # a client that does not read would block the end of the answer too
                return exchange.response or web.Response()

    @contextmanager
    def tracked(self) -> Iterator[asyncio.Task[object]]:
        """Count the current task as a request in progress, for the drain to wait for."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is served inside a task")
        self._active.add(task)
        try:
            yield task
        finally:
            self._active.discard(task)

    async def _serve(self, exchange: Exchange) -> web.StreamResponse:
        demand = Demand(
            exchange.contract.tier,
            exchange.contract.level,
            exchange.contract.quality_min,
            held_bytes=len(exchange.body),
            streams=wants_stream(exchange.request.path, exchange.body),
            work=estimate_work(exchange.body, table.reference if (table := self._fleet.table) else None),
        )
        deadline = exchange.arrived + self._wait_seconds(exchange.contract)
        failure: TryAnother | None = None
        attempts = 0
        while attempts < MAX_ATTEMPTS:
            placement = exchange.placement = await self._acquire(demand, deadline, failure)
            try:
                return await self._attempt(exchange, placement)
            except TryAnother as verdict:
                failure = verdict
                attempts += verdict.reached_engine
                demand = replace(demand, avoid=demand.avoid | {placement.replica.uid})
                self._note_failure(exchange, placement, verdict)
            except LevelRefusedError:  # at most once per replica and level: it is remembered
                self._note_refused_level(exchange, placement)
            finally:
                self._admission.release(placement)
        raise self._exhausted(failure)

    async def _acquire(self, demand: Demand, deadline: float, failure: TryAnother | None) -> Placement:
        """A place; on a retry on another replica, or after a second on the same one if there is no other."""
        if failure is None:
            return await self._admission.acquire(demand, deadline)
        try:
            soon = min(deadline, asyncio.get_running_loop().time() + SAME_REPLICA_SECONDS)
            return await self._admission.acquire(demand, soon)
        except Refused as refusal:
            # An overloaded engine is not asked again; after the deadline nobody is.
            if failure.status == 429 or asyncio.get_running_loop().time() >= deadline:
                raise self._exhausted(failure) from refusal
            return await self._admission.acquire(replace(demand, avoid=frozenset()), deadline)

    async def _attempt(self, exchange: Exchange, placement: Placement) -> web.StreamResponse:
        upstream = await self._open(exchange, placement)
        try:
            if upstream.status in (429, 503):
                raise verdict_of_status(upstream.status)
            if upstream.content_type == EVENT_STREAM:
                response = await self._relay_stream(exchange, placement, upstream)
            else:
                response = await self._relay_whole(exchange, placement, upstream)
        finally:
            upstream.close()  # no effect after a complete answer; otherwise the engine sees it and cancels
        return response

    async def _open(self, exchange: Exchange, placement: Placement) -> aiohttp.ClientResponse:
        url = URL(placement.replica.base_url + _target(exchange.request), encoded=True)
        try:
            return await self._session.request(
                exchange.request.method,
                url,
                data=exchange.body,
                headers=request_headers(
                    exchange.request.headers, exchange.contract.request_id, placement.route.key.level
                ),
                allow_redirects=False,
            )
        except CONNECT_ERRORS as error:
            raise TryAnother(503, f"unreachable: {type(error).__name__}", put_aside=True) from error

    async def _relay_whole(
        self, exchange: Exchange, placement: Placement, upstream: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        try:
            body = await upstream.read()
        except CONNECT_ERRORS as error:
            raise TryAnother(502, f"broke off: {type(error).__name__}", put_aside=True) from error
        self._fleet.book.mark_healthy(placement.replica)
        if placement.route.key.level and is_level_refusal(upstream.status, body, placement.route.key.level):
            raise LevelRefusedError
        response = web.Response(
            status=upstream.status,
            body=body,
            headers=response_headers(exchange.contract.request_id, placement, upstream),
        )
        self._count(placement, upstream.status)
        return response

    async def _relay_stream(
        self, exchange: Exchange, placement: Placement, upstream: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        watch = FrameWatch(exchange.dialect)
        first = await self._first_frame(watch, upstream)
        if watch.error is not None and watch.data_frames == 1:
            return self._answer_error(exchange, placement, watch.error)
        exchange.frames = watch
        exchange.body = b""  # from here on nothing can be repeated
        self._fleet.book.mark_healthy(placement.replica)
        self._note_first_token(exchange, placement, watch)
        headers = response_headers(exchange.contract.request_id, placement, upstream)
        response = exchange.response = web.StreamResponse(status=upstream.status, headers=headers)
        try:
            await self._pump(exchange, placement, response, upstream, watch, first)
        except UpstreamBrokeError as error:
            await self._end_broken(exchange, placement, response, error)
        else:
            self._count_stream(exchange, placement, watch)
        return response

    async def _end_broken(
        self, exchange: Exchange, placement: Placement, response: web.StreamResponse, error: UpstreamBrokeError
    ) -> None:
        logger.warning("request %s: replica %s: %s", exchange.contract.request_id, placement.replica.base_url, error)
        self._fleet.book.put_aside(placement.replica, asyncio.get_running_loop().time())
        await _write_end(exchange, response, "the engine broke off before the answer was complete")
        self._count(placement, UPSTREAM_BROKE)

    async def _first_frame(self, watch: FrameWatch, upstream: aiohttp.ClientResponse) -> bytes:
        """Everything up to the first data frame: only then is the status committed."""
        collected = b""
        try:
            while not watch.data_frames:
                chunk = await upstream.content.readany()
                collected += watch.feed(chunk) if chunk else watch.finish()
                if not chunk and not watch.data_frames:
                    raise TryAnother(502, "ended before its first frame", put_aside=True)
        except CONNECT_ERRORS as error:
            raise TryAnother(502, f"broke off: {type(error).__name__}", put_aside=True) from error
        if watch.error is not None and watch.data_frames == 1 and watch.error.status in (429, 503):
            raise verdict_of_status(watch.error.status)
        return collected

    async def _pump(
        self, exchange: Exchange, placement: Placement, response: web.StreamResponse,
        upstream: aiohttp.ClientResponse, watch: FrameWatch, data: bytes,
    ) -> None:  # fmt: skip
        """Forward until the end. Raises UpstreamBrokeError or ClientGoneError; each step may take `idle_seconds`."""
        now = asyncio.get_running_loop().time
        idle_seconds = self._settings.idle_seconds
        prolong_at = 0.0
        reading = False
        try:
            async with asyncio.timeout(idle_seconds) as idle:
                await response.prepare(exchange.request)
                while True:
                    if data:
                        await response.write(data)
                    if now() > prolong_at:  # not at every frame: setting a timer costs as much as relaying one
                        idle.reschedule(now() + idle_seconds)
                        prolong_at = now() + idle_seconds * PROLONG_FRACTION
                    reading = True
                    chunk = await upstream.content.readany()
                    reading = False
                    if not chunk:
                        break
                    data = watch.feed(chunk)
                    if exchange.first_token_at is None:
                        self._note_first_token(exchange, placement, watch)
                await response.write(_checked_end(watch))
                await response.write_eof()
        except CONNECT_ERRORS as error:
            if reading and watch.is_complete():
                await response.write_eof()  # the client has the whole answer: how the engine hangs up is its business
            elif reading:
                raise UpstreamBrokeError(f"stream broke off: {type(error).__name__}") from error
            else:
                raise ClientGoneError from error

    def _note_first_token(self, exchange: Exchange, placement: Placement, watch: FrameWatch) -> None:
        """With its first token the request has left the engine's queue."""
        if not watch.has_token():
            return
        now = exchange.first_token_at = asyncio.get_running_loop().time()
        self._admission.note_first_token(placement)
        self._metrics.observe_ttft(placement.route, now - exchange.arrived)

    def _answer_error(self, exchange: Exchange, placement: Placement, error: UpstreamError) -> web.StreamResponse:
        """The engine's first frame is an error: send it as what it is, with its status."""
        headers = served_headers(exchange.contract.request_id, placement)
        self._count(placement, error.status)
        return web.Response(status=error.status, body=error.body, content_type="application/json", headers=headers)

    async def _end_for_shutdown(self, exchange: Exchange) -> web.StreamResponse:
        if exchange.response is None:
            raise Refused.shutting_down()
        self._metrics.count_answer(_route_of(exchange), UPSTREAM_BROKE)
        await _write_end(exchange, exchange.response, "the router had to stop before the answer was complete")
        return exchange.response

    def _count(self, placement: Placement, status: int) -> None:
        self._metrics.count_answer(placement.route, status)
        if status == 200:
            self._metrics.count_shed(placement.reason)

    def _count_stream(self, exchange: Exchange, placement: Placement, frames: FrameWatch) -> None:
        """A stream that had its final frame; an error frame of the engine counts as broken."""
        if frames.error is not None:
            self._count(placement, UPSTREAM_BROKE)
            return
        self._count(placement, 200)
        tokens = frames.token_count()
        if tokens > 1 and exchange.first_token_at is not None:
            elapsed = asyncio.get_running_loop().time() - exchange.first_token_at
            self._metrics.observe_tpot(placement.route, elapsed / (tokens - 1))

    def _count_departure(self, exchange: Exchange) -> None:
        """The client left. Many clients close right after the final frame: they have their answer."""
        placement, frames = exchange.placement, exchange.frames
        if placement is not None and frames is not None and frames.is_complete():
            self._count_stream(exchange, placement, frames)
        else:
            self._metrics.count_answer(_route_of(exchange), CLIENT_GONE)

    def _note_failure(self, exchange: Exchange, placement: Placement, verdict: TryAnother) -> None:
        if verdict.put_aside:
            self._fleet.book.put_aside(placement.replica, asyncio.get_running_loop().time())
        address = placement.replica.base_url
        logger.info("request %s: replica %s: %s; trying another", exchange.contract.request_id, address, verdict.cause)

    def _note_refused_level(self, exchange: Exchange, placement: Placement) -> None:
        level, address = placement.route.key.level, placement.replica.base_url
        self._fleet.note_refused_level(placement.replica, level)
        logger.warning("request %s: replica %s has no level %s", exchange.contract.request_id, address, level)

    def _exhausted(self, failure: TryAnother | None) -> Refused:
        if failure is not None and failure.status == 429:
            return Refused.overloaded(self._admission.retry_after_seconds())
        return Refused.unreachable(str(failure))

    def _wait_seconds(self, contract: RequestContract) -> float:
        longest = self._fleet.table.max_queue_seconds if self._fleet.table else 0.0
        return longest if contract.deadline_seconds is None else min(longest, contract.deadline_seconds)


def _target(request: web.Request) -> str:
    """Path and query exactly as they came; a proxy's absolute form is reduced to them."""
    return request.raw_path if request.raw_path.startswith("/") else request.rel_url.raw_path_qs


def _route_of(exchange: Exchange) -> Route | None:
    return exchange.placement.route if exchange.placement else None


def _abort_connection(exchange: Exchange) -> None:
    transport = exchange.request.transport
    if transport is not None:
        transport.abort()


def _checked_end(watch: FrameWatch) -> bytes:
    rest = watch.finish()
    if not watch.is_complete():
        raise UpstreamBrokeError("stream ended without its final frame")
    return rest


async def _write_end(exchange: Exchange, response: web.StreamResponse, message: str) -> None:
    """Close a broken stream so that the client notices."""
    try:
        async with asyncio.timeout(LAST_WRITE_SECONDS):
            await response.write(build_error_frames(exchange.dialect, message))
            await response.write_eof()
    except (OSError, TimeoutError) as error:
        raise ClientGoneError from error
