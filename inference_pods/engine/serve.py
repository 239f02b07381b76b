"""Composition root: settings -> HTTP server (not ready) -> model in a thread -> one real token -> ready -> drained.

Imports everything; `__main__` calls it once a stop signal can be obeyed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path

import uvloop

from inference_pods.engine.distributed.launch import Loss
from inference_pods.engine.emulated.startup import build_emulated_engine
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.memory import refuse_memory
from inference_pods.engine.metrics import EngineMetrics
from inference_pods.engine.server import start_server
from inference_pods.engine.service import Engine, Limits, Phase, Service
from inference_pods.engine.settings import Settings, parse_settings
from inference_pods.engine.startup import build_engine

logger = logging.getLogger("inference_pods.engine")
TERMINATION_LOG = Path("/dev/termination-log")
_LAST_WORDS_SECONDS = 1.0


def _report(reason: str, message: str) -> None:
    """One JSON line for people (stderr) and for the operator (terminationMessagePath)."""
    line = json.dumps({"reason": reason, "message": message})
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
    if TERMINATION_LOG.exists():
        with suppress(OSError):
            TERMINATION_LOG.write_text(line)


def _report_failure(error: LoadError) -> int:
    """Reports; returns the exit code."""
    _report(error.reason.value, error.message)
    return error.reason.exit_code


def _end_lost_replica(service: Service, loss: Loss) -> None:
    """Ends the process however stuck it is in a collective; open requests get a moment to hear of it."""
    loss = loss.explain(is_loading=service.phase is Phase.LOADING)
    service.phase = Phase.STOPPING
    _report(loss.reason, loss.message)
    time.sleep(_LAST_WORDS_SECONDS)
    os._exit(loss.exit_code)


async def _build(service: Service, settings: Settings) -> Engine:
    if settings.emulate:
        await asyncio.sleep(settings.emulate_load_seconds)
        return build_emulated_engine(settings, service.deliver, service.observe)
    on_lost = partial(_end_lost_replica, service)
    return await _run_unjoined(lambda: build_engine(settings, service.deliver, service.observe, on_lost))


async def _run_unjoined(build: Callable[[], Engine]) -> Engine:
    """What `build` returns or raises, called in a thread that nobody waits for.

    asyncio.to_thread is for short work: on its way out asyncio waits for its threads, so a replica that is told to stop
    while it loads would go on loading first.
    """
    future: Future[Engine] = Future()
    future.set_running_or_notify_cancel()  # from now on a cancelled waiter leaves it alone

    def work() -> None:
        try:
            future.set_result(build())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            future.set_exception(error)

    threading.Thread(target=work, name="load", daemon=True).start()
    return await asyncio.wrap_future(future)


async def _load(service: Service, settings: Settings, started: float) -> None:
    """Loads and proves the engine.

    Raises:
        LoadError: it failed; EngineFailed for what nobody foresaw, so that the operator hears of that too.
        MemoryError: there was not enough.
    """
    try:
        await _load_and_prove(service, settings, started)
    except (LoadError, MemoryError):
        raise
    except Exception as error:
        logger.exception("loading failed")
        message = f"loading {settings.model_source} failed with {type(error).__name__}: {error}; the log says where"
        raise LoadError(LoadReason.ENGINE_FAILED, message) from error


async def _load_and_prove(service: Service, settings: Settings, started: float) -> None:
    engine = await _build(service, settings)
    service.attach(engine)
    engine.loop.start()
    await service.prove()
    service.metrics.load_seconds.set(time.monotonic() - started)
    service.phase = Phase.READY
    logger.info("ready after %.2f s", time.monotonic() - started)


def _refuse_address(settings: Settings, error: OSError) -> LoadError:
    address = f"--host {settings.host} --port {settings.port}"
    remedy = "free it, or choose another port (0: any that is free) or host"
    return LoadError(LoadReason.ENGINE_FAILED, f"{address}: nothing can listen there ({error}); {remedy}")


async def _serve(settings: Settings, started: float) -> int:
    metrics = EngineMetrics(settings.served_model_name, settings.tier, settings.kv_blocks)
    limits = Limits(
        settings.max_total_tokens, settings.max_batch_size, settings.max_waiting, settings.write_timeout_seconds
    )
    service = Service(limits, metrics, settings.served_model_name)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        runner, port = await start_server(service, settings.host, settings.port)
    except OSError as error:
        return _report_failure(_refuse_address(settings, error))
    logger.info("listening on %s:%d, loading %s as %s", settings.host, port, settings.model_source, settings.precision)
    try:
        return await _run_until_stopped(service, settings, started, stop)
    except LoadError as error:
        return _report_failure(error)
    finally:
        await runner.cleanup()


async def _run_until_stopped(service: Service, settings: Settings, started: float, stop: asyncio.Event) -> int:
    """Exit code of a replica: 0 when it was told to stop.

    One whose loop ended by an error ends, too: a restart helps sooner than failing probes do. It leaves no message for
    the operator, which would take it for one that cannot load and give up the tier.

    Raises:
        LoadError: it could not be loaded.
    """
    loading = asyncio.create_task(_load(service, settings, started))
    stopped, crashed = asyncio.create_task(stop.wait()), asyncio.create_task(service.crashed.wait())
    await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():
        await loading
    await asyncio.wait({stopped, crashed}, return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():
        await service.wait_idle(_LAST_WORDS_SECONDS)  # open requests hear of it
        logger.error("the engine's loop ended by an error; the lines above say where")
        return LoadReason.ENGINE_FAILED.exit_code
    loading.cancel()  # as far as it still runs
    await asyncio.gather(loading, return_exceptions=True)
    service.phase = Phase.STOPPING
    await _drain(service, settings.drain_seconds)
    return 0


async def _drain(service: Service, seconds: float) -> None:
    """Lets running requests finish; those that do not get an error, and a moment to deliver it."""
    logger.info("stopping: %d requests to finish within %g s", service.live_requests, seconds)
    if not await service.wait_idle(seconds):
        logger.warning("%d requests are cut off", service.live_requests)
        service.cut_off()
        await service.wait_idle(_LAST_WORDS_SECONDS)


def run(started: float) -> int:
    """Serve until SIGTERM; returns the exit code. `started` is the process's start on the monotonic clock (seconds)."""
    settings = parse_settings()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        return uvloop.run(_serve(settings, started))
    except MemoryError as error:
        return _report_failure(refuse_memory(error))
