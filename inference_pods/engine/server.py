"""The aiohttp application: routes of both families, health, metrics, and the life cycle from loading to drained."""

from __future__ import annotations

from aiohttp import web

from inference_pods.engine import http_control, http_openai, http_tgi
from inference_pods.engine.errors import UnavailableError
from inference_pods.engine.http_common import MAX_BODY_BYTES, SERVICE, answer_errors, error_response
from inference_pods.engine.service import Service
from inference_pods.protocol import ROUTE_HEALTH, ROUTE_METRICS, ROUTE_PING, ROUTE_ROOT

routes = web.RouteTableDef()
_SHUTDOWN_SECONDS = 1.0


async def _health(request: web.Request) -> web.Response:
    """200 once a real token was generated; 503 while loading, stopping or broken."""
    service = request.app[SERVICE]
    if service.is_healthy:
        return web.Response()
    error = UnavailableError(f"unhealthy: {service.phase}")
    error.kind = "healthcheck"
    return error_response(error, openai=False)


@routes.get(ROUTE_PING)
async def _ping(request: web.Request) -> web.Response:
    """Liveness: loading and draining are fine, only an engine that no longer steps asks to be restarted."""
    if request.app[SERVICE].is_alive:
        return web.Response()
    return error_response(UnavailableError("the engine's loop has ended"), openai=False)


@routes.get(ROUTE_METRICS)
async def _metrics(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    service.refresh_gauges()
    return web.Response(
        body=service.metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )


def build_app(service: Service) -> web.Application:
    app = web.Application(middlewares=[answer_errors], client_max_size=MAX_BODY_BYTES)
    app[SERVICE] = service
    for path in (ROUTE_HEALTH, ROUTE_ROOT):
        app.router.add_get(path, _health)
    for table in (routes, http_tgi.routes, http_openai.routes, http_control.routes):
        app.router.add_routes(table)
    return app


async def start_server(service: Service, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Listens; returns the runner and the port (useful when 0 was asked for).

    handler_cancellation: a client that goes away cancels its handler, and with it the generation. shutdown_timeout: the
    drain is over by then; what still runs are clients that take no bytes.
    """
    runner = web.AppRunner(
        build_app(service),
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=75.0,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    await runner.setup()
    site = web.TCPSite(runner, host, port, reuse_address=True)
    await site.start()
    return runner, runner.addresses[0][1]
