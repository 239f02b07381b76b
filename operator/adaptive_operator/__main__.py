"""Composition root: settings → clients → Lease, planner, health → kopf. `python -m adaptive_operator`.

Crash-only: whatever part ends, the process ends, and a fresh one resumes from the cluster's state.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import kopf
from kubernetes.aio.config.config_exception import ConfigException

from adaptive_operator.apply.events import EventRecorder
from adaptive_operator.apply.lease import LeaseHolder
from adaptive_operator.apply.steps import StepTaker
from adaptive_operator.handlers import build_registry, quieten_kopf
from adaptive_operator.health import Health, HealthSettings, build_app, start_server
from adaptive_operator.kube import KubeClient, load_configuration
from adaptive_operator.metrics import OperatorMetrics
from adaptive_operator.observe.cluster import ClusterReader
from adaptive_operator.observe.inventory import NodeInventory
from adaptive_operator.observe.last_answers import LastAnswers
from adaptive_operator.observe.prometheus import PrometheusReader
from adaptive_operator.plan.model import plan_model
from adaptive_operator.planner import Planner, PlannerSettings
from adaptive_operator.policy import Policy
from adaptive_operator.pool_memory import PoolMemory
from adaptive_operator.reconcile import PassSettings, Reconciler
from adaptive_operator.settings import ConfigurationError, OperatorSettings, load_settings
from adaptive_operator.solving import SolverProcess

_LOG = logging.getLogger("adaptive_operator")
_OLD_COLLECTED_AFTER = 200  # collections of younger garbage; Python's own: 10


@dataclass(frozen=True, slots=True)
class Readers:
    """Who asks Prometheus: for the passes, and, beside them and slowly, for earlier periods."""

    present: PrometheusReader
    past: PrometheusReader

    def close(self) -> None:
        """Drop the connections."""
        self.present.close()
        self.past.close()


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs."""

    lease: LeaseHolder
    planner: Planner
    health: Health
    metrics: OperatorMetrics


def build_parts(settings: OperatorSettings, kube: KubeClient, prometheus: Readers, solver: SolverProcess) -> Parts:
    """Everything put together; nothing started."""
    lease_settings = settings.lease_settings()
    lease = LeaseHolder(kube, lease_settings)
    metrics = OperatorMetrics(lambda: lease.is_leading)
    events = EventRecorder(kube, lease_settings.identity)
    hurry = asyncio.Event()
    memory = PoolMemory(solver.solve, metrics.count_solver_failure, solver.prepare, metrics.note_solved)
    reconciler = Reconciler(
        cluster=ClusterReader(kube, settings.namespaces),
        nodes=NodeInventory(
            kube,
            settings.discover_accelerators,
            settings.engine_node_selector,
            remembered_seconds=settings.hold_after_stale_seconds,
        ),
        prometheus=LastAnswers(prometheus.present, hurry),
        policy=Policy(memory.decide_pool, plan_model, settings.decide_settings(), settings.plan_settings()),
        steps=StepTaker(kube, lease, events),
        lease=lease,
        metrics=metrics,
        settings=PassSettings(settings.accelerator_budgets, settings.windows, settings.model_timeout_seconds),
        memory=memory,
        decision_log=settings.build_decision_log(),
        past=settings.build_past(prometheus.past),
    )
    times = PlannerSettings(
        settings.planner_period_seconds, settings.nudge_debounce_seconds, settings.pass_timeout_seconds
    )
    planner = Planner(reconciler.run_pass, lambda: lease.is_leading, metrics, times, hurry=hurry)
    lease.call_on_change(lambda _leading: planner.nudge())
    reconciler.call_when_unfinished(planner.nudge)
    health_settings = HealthSettings(
        settings.planner_period_seconds, settings.pass_timeout_seconds, settings.lease_seconds
    )
    return Parts(lease, planner, Health(health_settings, lease, lambda: planner.finished_at), metrics)


async def run(settings: OperatorSettings) -> None:
    """Until SIGTERM, or until a part fails."""
    async with _connect(settings) as (kube, prometheus):
        solver = SolverProcess(settings.solver_seconds)
        parts = build_parts(settings, kube, prometheus, solver)
        ports = (settings.health_port, settings.metrics_port)
        server = await start_server(build_app(parts.health, parts.metrics.registry), settings.listen_address, ports)
        stopping = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                acting = [
                    group.create_task(parts.lease.run(), name="lease"),
                    group.create_task(parts.planner.run(), name="planner"),
                ]
                group.create_task(_release_on_stop(stopping, parts.lease, acting), name="release")
                await _watch(settings, parts.planner, stopping)
                stopping.set()
        finally:
            solver.close()
            await parts.lease.release()  # also when a part failed: the next process need not wait
            await server.cleanup()


async def _watch(settings: OperatorSettings, planner: Planner, stopping: asyncio.Event) -> None:
    """kopf: it returns on SIGTERM and SIGINT."""
    scope = {"namespaces": settings.namespaces} if settings.namespaces else {"clusterwide": True}
    await kopf.operator(
        registry=build_registry(planner.nudge_in_a_hurry, planner.nudge, stopping.set, settings.namespaces),
        standalone=True,
        # Given, because kopf would look its user's name up, and a pod's account has none.
        identity=settings.lease_settings().identity,  # type: ignore[arg-type]  # a NewType of str that kopf keeps private
        **scope,
    )


async def _release_on_stop(stopping: asyncio.Event, lease: LeaseHolder, acting: list[asyncio.Task[None]]) -> None:
    """Stop acting first, then let the successor in."""
    await stopping.wait()
    for task in acting:
        task.cancel()
    await asyncio.gather(*acting, return_exceptions=True)
    await lease.release()


@contextlib.asynccontextmanager
async def _connect(settings: OperatorSettings) -> AsyncIterator[tuple[KubeClient, Readers]]:
    kube = KubeClient(await load_configuration(), settings.api_timeout_seconds)
    prometheus = Readers(settings.build_prometheus(), settings.build_prometheus())
    try:
        yield kube, prometheus
    finally:
        prometheus.close()
        await kube.close()


def collect_old_garbage_seldom() -> None:
    """Python looks through all old objects for cycles after every 100,000 new ones or so; here after millions.

    A pass reads thousands of objects of the cluster, which are trees: each goes with its last reference. With 300
    models the search took an eighth of a pass's CPU, and the event loop stood still meanwhile.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _OLD_COLLECTED_AFTER)


def main() -> int:
    """Exit status: 0 after SIGTERM, 1 when a part failed, 2 when the configuration makes no sense."""
    try:
        settings = load_settings()
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    quieten_kopf()
    collect_old_garbage_seldom()
    try:
        asyncio.run(run(settings))
    except ConfigException as error:
        sys.stderr.write(f"no way to the API server: run in a pod, or set KUBECONFIG ({error})\n")
        return 2
    except Exception as error:  # noqa: BLE001 crash-only: say why, and let the next process begin anew
        _LOG.error("stopped: %s", error, exc_info=error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
