"""Every knob of the operator, from the environment (ADAPTIVE_*). What belongs to one model is in its spec instead.

Turns them into the settings of `decide/`, `plan/`, the Lease and the pass; nothing else reads the environment.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final
from uuid import uuid4

from pydantic import AnyHttpUrl, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from adaptive_operator.apply.lease import LeaseSettings
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.decision_log import DecisionLog
from adaptive_operator.observe.past_arrivals import PastArrivals
from adaptive_operator.observe.prometheus import PrometheusReader
from adaptive_operator.observe.queries import Windows
from adaptive_operator.plan.settings import PlanSettings

PREFIX: Final = "ADAPTIVE_"
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# For one program; edits of models in other pools wait for it in the pass. All of 1,000 models take 5 s: twice that at
# least, since the process may have to start first.
_SOLVER_SECONDS_AT_MOST: Final = 20.0
_SOLVER_SECONDS_AT_LEAST: Final = 10.0
_DNS_LABEL: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_Resource = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]


class ConfigurationError(Exception):
    """The environment does not make sense; the text names the variables and the remedy."""


class OperatorSettings(BaseSettings):
    """One field per environment variable: `prometheus_url` is ADAPTIVE_PROMETHEUS_URL. Lists and maps are JSON."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", populate_by_name=True)

    # Where models live. Empty: all namespaces (needs a ClusterRole). E.g. ["team-a","team-b"].
    namespaces: tuple[Annotated[str, Field(pattern=_DNS_LABEL)], ...] = ()

    # Prometheus' address as seen from the operator's pod.
    prometheus_url: AnyHttpUrl
    # File with a bearer token for Prometheus, read anew for each request. Unset: no authentication.
    prometheus_token_file: Path | None = None
    # How often Prometheus scrapes routers and engines. All windows and stale thresholds follow from it.
    scrape_interval_seconds: float = Field(default=15.0, gt=0, le=300)
    # One query takes at most so long.
    prometheus_request_seconds: float = Field(default=5.0, gt=0, le=60)
    # All queries of one pool take at most so long; what has no answer by then is unknown in this pass.
    prometheus_read_seconds: float = Field(default=10.0, gt=0, le=120)

    # After so long, whole hours, the load is expected to repeat itself; a forecast looks at the last two of it, as far
    # back as Prometheus keeps samples. 0: never.
    season_period_seconds: int = Field(default=86_400, ge=0, le=1_209_600, multiple_of=3600)

    # Time between passes over a pool; its models may ask for another one (spec.scaling.plannerPeriodSeconds).
    planner_period_seconds: float = Field(default=15.0, gt=0, le=3600)
    # Changes that come together are answered by one pass: it waits so long after the first.
    nudge_debounce_seconds: float = Field(default=0.3, ge=0, le=10)
    # One model's steps take at most so long in one pass; the next pass goes on.
    model_timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    # A whole pass takes at most so long; then it is given up and the next one starts.
    pass_timeout_seconds: float = Field(default=60.0, gt=0, le=600)
    # One call to the API server takes at most so long.
    api_timeout_seconds: float = Field(default=10.0, gt=0, le=120)

    # Accelerators that all models of a resource may hold together, e.g. {"nvidia.com/gpu": 4}. A resource that is not
    # named here gets what nodes advertise, or the largest spec.accelerators.budget of its models when none do.
    accelerator_budgets: dict[_Resource, Annotated[int, Field(ge=0, le=100_000)]] = Field(default_factory=dict)

    # Count what nodes advertise where nobody names a budget; needs the right to list nodes.
    discover_accelerators: bool = True

    # Images of the pods. The engine image is pinned per revision: a new one restarts no running pod.
    engine_image: str = Field(default="localhost/adaptive-llm-engine:dev", min_length=1, max_length=512)
    router_image: str = Field(default="localhost/adaptive-llm-router:dev", min_length=1, max_length=512)
    image_pull_policy: str = Field(default="IfNotPresent", pattern="^(Always|IfNotPresent|Never)$")
    # Names of Secrets for pulling images; they have to exist in the models' namespaces.
    image_pull_secrets: tuple[str, ...] = ()
    # Labels of the nodes that engine pods may run on, e.g. {"accelerator": "a100"}.
    engine_node_selector: dict[str, str] = Field(default_factory=dict)
    # Engine pods tolerate a taint whose key is their accelerator resource.
    accelerator_toleration: bool = True
    # PriorityClass of engine and router pods.
    priority_class: str | None = None
    # Sequences that an engine decodes at once, and requests that it queues.
    engine_max_batch_size: int = Field(default=8, ge=1, le=1024)
    engine_max_waiting: int = Field(default=256, ge=0, le=100_000)
    # A replica may load for so long before the kubelet restarts it.
    engine_startup_seconds: int = Field(default=1200, ge=10, le=86_400)
    # Resources of one router.
    router_cpu: str = "250m"
    router_memory: str = "256Mi"
    # Streams through a router that goes away may take so long.
    router_drain_seconds: int = Field(default=30, ge=0, le=3600)

    # Readings older than so many scrapes are stale: demand may then only drift up.
    stale_after_scrapes: float = Field(default=2.0, ge=1, le=100)
    # Readings older than this hold all replicas.
    hold_after_stale_seconds: float = Field(default=120.0, gt=0, le=3600)
    # A tier that did not start is left out for so long.
    quarantine_seconds: float = Field(default=900.0, ge=0, le=86_400)
    # Share of a replica's capacity that is planned with.
    utilisation: float = Field(default=0.9, gt=0, le=1)

    # The Lease: its name, where it is (unset: the operator's own namespace), and for how long it holds without renewal.
    lease_name: str = Field(default="adaptive-llm-operator", pattern=_DNS_LABEL)
    lease_namespace: str | None = Field(default=None, pattern=_DNS_LABEL)
    lease_seconds: float = Field(default=15.0, ge=3, le=300)
    # Who this process is. Unset: the pod's name (a container that restarts takes its lease over at once), outside of a
    # pod the host's name and a random part.
    identity: str | None = Field(default=None, min_length=1, max_length=200)

    # Ports of /healthz and of /metrics.
    health_port: int = Field(default=8080, ge=1, le=65535)
    metrics_port: int = Field(default=9090, ge=1, le=65535)
    # Address that both listen on.
    listen_address: str = "0.0.0.0"  # noqa: S104 the kubelet and Prometheus come from outside of the pod
    # File that changes of decision are written to, as JSON lines that can be replayed. Unset: none is written.
    decision_log: Path | None = None
    # The file is begun anew at this size; the one before it is kept.
    decision_log_mebibytes: int = Field(default=8, ge=1, le=1024)
    # DEBUG, INFO, WARNING or ERROR.
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @field_validator("namespaces", mode="before")
    @classmethod
    def _accept_none(cls, value: object) -> object:
        return () if value is None else value

    @model_validator(mode="after")
    def _check_times(self) -> OperatorSettings:
        if self.prometheus_read_seconds >= self.pass_timeout_seconds:
            raise ValueError(
                f"{PREFIX}PROMETHEUS_READ_SECONDS must be less than {PREFIX}PASS_TIMEOUT_SECONDS; lower the first"
            )
        return self

    @property
    def own_namespace(self) -> str:
        """Where the Lease is."""
        if self.lease_namespace:
            return self.lease_namespace
        return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.exists() else "adaptive-system"

    @property
    def windows(self) -> Windows:
        """Windows of the queries."""
        return Windows(self.scrape_interval_seconds)

    @property
    def solver_seconds(self) -> float:
        """How long the answer to a pool's program may take: a third of the period, within bounds, or of a pass."""
        third = max(_SOLVER_SECONDS_AT_LEAST, self.planner_period_seconds / 3)
        return min(_SOLVER_SECONDS_AT_MOST, third, self.pass_timeout_seconds / 3)

    def build_past(self, reader: PrometheusReader) -> PastArrivals | None:
        """Who asks for earlier periods; None when the load is not expected to repeat itself."""
        period = self.season_period_seconds
        return PastArrivals(reader, self.windows, float(period)) if period else None

    def build_prometheus(self) -> PrometheusReader:
        """A reader with a thread of its own."""
        return PrometheusReader(
            str(self.prometheus_url),
            self.prometheus_request_seconds,
            self.prometheus_read_seconds,
            self.prometheus_token_file,
        )

    def build_decision_log(self) -> DecisionLog | None:
        """The decision log; None when no file is named for it."""
        return DecisionLog(self.decision_log, self.decision_log_mebibytes << 20) if self.decision_log else None

    def lease_settings(self) -> LeaseSettings:
        """Settings of the Lease."""
        identity = self.identity or _default_identity()
        return LeaseSettings(self.own_namespace, self.lease_name, identity, self.lease_seconds)

    def decide_settings(self) -> DecideSettings:
        """Settings of `decide/`."""
        return DecideSettings(
            utilisation=self.utilisation,
            stale_after_scrapes=self.stale_after_scrapes,
            scrape_interval_seconds=self.scrape_interval_seconds,
            hold_after_stale_seconds=self.hold_after_stale_seconds,
            quarantine_seconds=self.quarantine_seconds,
            planner_period_seconds=self.planner_period_seconds,
        )

    def plan_settings(self) -> PlanSettings:
        """Settings of `plan/`."""
        return PlanSettings(
            engine_image=self.engine_image,
            router_image=self.router_image,
            image_pull_policy=self.image_pull_policy,
            image_pull_secrets=self.image_pull_secrets,
            node_selector=self.engine_node_selector,
            accelerator_toleration=self.accelerator_toleration,
            priority_class=self.priority_class,
            max_batch_size=self.engine_max_batch_size,
            max_waiting=self.engine_max_waiting,
            startup_seconds=self.engine_startup_seconds,
            router_cpu=self.router_cpu,
            router_memory=self.router_memory,
            router_drain_seconds=self.router_drain_seconds,
            stale_after_seconds=self.stale_after_scrapes * self.scrape_interval_seconds,
            hold_after_stale_seconds=self.hold_after_stale_seconds,
        )


def load_settings(environment: Mapping[str, object] | None = None) -> OperatorSettings:
    """Read the environment, or the given values instead of it. Raises ConfigurationError."""
    try:
        return OperatorSettings(**(environment or {}))  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(item) for item in error.errors())) from error
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        variable = PREFIX + field[1].upper() if field else "a variable"
        raise ConfigurationError(f'{variable} is not JSON: write ["team-a"] or {{"nvidia.com/gpu": 4}}') from error


def _explain(item: object) -> str:
    """`ADAPTIVE_LEASE_SECONDS: Input should be … (is '1'); set it to …`."""
    details: Mapping[str, object] = dict(item)  # type: ignore[call-overload]
    location = [str(step) for step in details["loc"]]  # type: ignore[attr-defined]
    if not location:
        return str(details["msg"]).removeprefix("Value error, ")
    variable = PREFIX + location[0].upper() + "".join(f"[{step}]" for step in location[1:] if step != "[key]")
    if details["type"] == "missing":
        return f"{variable} is not set: set it, e.g. {_EXAMPLES.get(location[0], '…')}"
    return f"{variable}: {details['msg']} (is {details['input']!r}): {_remedy(location[0])}"


def _remedy(field: str) -> str:
    if field in _EXAMPLES:
        return f"set it, e.g. {_EXAMPLES[field]}"
    return "correct it, or unset it to use the default"


_EXAMPLES: Final = {"prometheus_url": "http://prometheus.monitoring.svc:9090"}


def _default_identity() -> str:
    host = socket.gethostname()
    return host if _NAMESPACE_FILE.exists() else f"{host}-{uuid4().hex[:8]}"
