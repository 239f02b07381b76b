"""What was seen, frozen: the only input of `decide/` beside its settings.

Pure data: importable from `decide/` and `plan/` without any client. Unknown is a value of its own and never zero.
Times are seconds since the Unix epoch (UTC); rates are requests per second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.api.status import AdaptiveModelStatus
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.levels import Level


@dataclass(frozen=True, slots=True)
class Sample:
    """One accepted reading: a finite, non-negative value and the age of the scrape it comes from."""

    value: float
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Unknown:
    """A reading that could not be had or was rejected. `query` and `cause` go into `MetricsAvailable=False`."""

    query: str
    cause: str


Reading = Sample | Unknown


@dataclass(frozen=True, slots=True)
class Series:
    """Arrivals (requests/s) in bins of equal length, oldest first. `end`: when the newest bin ended (Unix seconds)."""

    bins: tuple[float | None, ...]  # None: unknown, which is never zero
    bin_seconds: float
    end: float


@dataclass(frozen=True, slots=True)
class Season:
    """Arrivals (requests/s) at the same time of earlier periods, in bins of equal length, oldest first.

    `end`: when the newest bin ends in this period (Unix seconds); it lies ahead, up to where the forecast looks.
    """

    periods: tuple[tuple[float | None, ...], ...]  # bins of the last period, of the one before it; None: unknown
    period_seconds: float
    bin_seconds: float
    end: float


@dataclass(frozen=True, slots=True)
class TierReadings:
    """How fast one tier answered over the last `window_seconds`, and how busy it was at the least busy time of it."""

    answers: Mapping[str, float]  # level -> answers/s of all its replicas; all levels of the tier are there
    window_seconds: float
    least_waiting: float | None  # requests in its engines' queues; None: not known
    least_tpot_seconds: float | None  # of the medians of a shorter window; None: nobody streamed
    ttft_p95_seconds: float | None = None
    tpot_p95_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """Readings of one model, from Prometheus."""

    arrivals: Reading  # requests/s that reached the routers, stable window
    recent_arrivals: Reading  # the same over the panic window (a few scrapes)
    peak_arrivals: Reading  # maximum of `arrivals` over the hold window of the spec
    queue: Reading  # requests that wait in routers and engines
    ttft_p95_seconds: Reading
    tpot_p95_seconds: Reading
    served_quality_permille: Reading  # request-weighted, over the stable window
    pod_work: Mapping[str, Reading] = field(default_factory=dict)  # pod name -> running + waiting in its engine
    history: Series | None = None  # of arrivals, over the last ten minutes; None: nothing is known of them
    tiers: Mapping[str, TierReadings] = field(default_factory=dict)  # by name; one whose answers are unknown is absent
    season: Season | None = None  # of arrivals, around now and up to the horizon; None: two periods were not seen


class PodPhase(StrEnum):
    """Where a replica stands."""

    PENDING = "Pending"  # not scheduled yet
    STARTING = "Starting"  # scheduled, not ready
    READY = "Ready"
    TERMINATING = "Terminating"
    FAILED = "Failed"  # crash loop, image missing, weights refused


@dataclass(frozen=True, slots=True)
class PodObservation:
    """One engine pod that exists."""

    name: str
    uid: str
    tier: str
    revision: str
    stateful_set: str
    ordinal: int
    accelerators: int
    phase: PodPhase
    created_at: float
    ready_since: float | None = None
    trouble: str | None = None  # scheduler's or kubelet's words: why it is Pending or Failed
    load_failure_reason: str | None = None  # ModelNotFound, ModelCorrupt, … from the termination message
    lost_at: float | None = None  # its node went silent; the pod's deletion was due then (Unix seconds)
    started: bool = False  # its startup probe passed: it may have served, even if it is not ready now
    has_served: bool = False  # its container ended after it had served: by the engine's last word, or it was Ready
    node: str = ""  # that it was scheduled to; empty: none yet


@dataclass(frozen=True, slots=True)
class StatefulSetObservation:
    """One StatefulSet of a (tier, revision) that exists."""

    name: str
    uid: str
    resource_version: str
    tier: str
    revision: str
    tier_inputs: str
    image: str
    replicas: int  # spec.replicas
    accelerators: int  # per replica
    epoch: int
    draining: Mapping[str, float] = field(default_factory=dict)  # pod uid -> drain start (see plan/draining.py)
    manifest: Mapping[str, Any] = field(default_factory=dict)  # as read: an older revision's template is kept from it
    levels: tuple[Level, ...] | None = None  # what its replicas can serve, the top first; None: not written on it


@dataclass(frozen=True, slots=True)
class ChildObservation:
    """Any other child (Service, ConfigMap, Deployment, …), for preconditions and clean-up."""

    kind: str
    name: str
    uid: str
    resource_version: str
    epoch: int
    owner_uid: str | None  # None: exists, but is not ours
    labels: Mapping[str, str] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)  # as read: shows whether it still is as it should be


@dataclass(frozen=True, slots=True)
class SwapRecord:
    """The swap in flight (`status.swap`): replicas by tier before and after."""

    id: str
    reason: str
    origin: Mapping[str, int]
    target: Mapping[str, int]
    step: str
    started_at: float
    deadline: float
    epoch: int
    predicted_gain_permille: int | None = None  # None: not predicted
    predicted_gain_of: str | None = None  # Requests or Quality; None: also what an older operator predicted
    predicted_dip_permille: int | None = None


@dataclass(frozen=True, slots=True)
class Correction:
    """A factor on a tier's card, from what its replicas were seen to answer."""

    card_milli: int  # the card's rate (requests per 1000 s) that it was measured by: with another card it is void
    factor_permille: int
    moved_at: float
    inputs: str | None = None  # hash of what else it was measured with: void with others. None: an older operator's
    probes: int = 0  # last moves, in a row, that were up to see whether more is carried; 0: the last one was another
    failed_probes: int = 0  # such moves after which replicas were busy: each doubles the wait before the next one


@dataclass(frozen=True, slots=True)
class PolicyMemory:
    """What a decision remembers of earlier ones (`status.memory`)."""

    last_change_at: float | None = None
    last_add_at: float | None = None
    last_restore_at: float | None = None
    agreed_plan: str | None = None
    agreed_count: int = 0
    quarantined_until: Mapping[str, float] = field(default_factory=dict)
    quarantine_causes: Mapping[str, str] = field(default_factory=dict)  # tier -> the pod's words, while it is left out
    agreed_at: float | None = None  # when `agreed_count` was last raised: at most once per planner period
    wanted: Mapping[str, int] = field(default_factory=dict)  # replicas by tier that the last decision wanted
    proven: Mapping[str, str] = field(default_factory=dict)  # tier -> inputs of the revision that last worked
    failed_starts: Mapping[str, int] = field(default_factory=dict)  # tier -> starts in a row that failed
    planned_demand_milli: int | None = None  # demand (requests per 1000 s) that the weights stand on: moves in steps
    generation: int | None = None  # of the spec that was decided on last
    hold_seconds: int | None = None  # the hold window while it is longer than the spec's
    hold_changed_at: float | None = None  # when it became longer or shorter
    corrections: Mapping[str, Correction] = field(default_factory=dict)  # tier -> factor on its card; absent: 1


@dataclass(frozen=True, slots=True)
class ModelObservation:
    """Everything seen of one AdaptiveModel in one pass."""

    namespace: str
    name: str
    uid: str
    generation: int
    created_at: float
    spec: AdaptiveModelSpec
    memory: PolicyMemory
    swap: SwapRecord | None
    metrics: ModelMetrics
    stateful_sets: tuple[StatefulSetObservation, ...] = ()
    pods: tuple[PodObservation, ...] = ()
    children: tuple[ChildObservation, ...] = ()
    routers_ready: int = 0
    routers_ready_since: float | None = None  # of the router that has been Ready for longest; Unix seconds
    routing_generation: int = 0
    status: AdaptiveModelStatus | None = None  # as last written; None: never, or unreadable
    routing_table: str | None = None  # text of the routing table as last written; None: there is none
    pool: str = ""  # the AcceleratorPool that it names; empty: none
    node_selector: Mapping[str, str] = field(default_factory=dict)  # of that pool, for engine pods
    pool_price_milli: int | None = None  # of an accelerator of that pool for an hour; None: it names none
    rates_from_curves: tuple[str, ...] = ()  # tiers whose cards leave the rate to the curve; the spec here has it

    @property
    def key(self) -> str:
        """`namespace/name`, unique in the cluster."""
        return f"{self.namespace}/{self.name}"

    @property
    def hold_seconds(self) -> int:
        """The hold window that the peak of the arrivals is asked for: the spec's, or the longer one in memory."""
        return max(self.spec.scaling.hold_seconds, self.memory.hold_seconds or 0)


@dataclass(frozen=True, slots=True)
class PoolShare:
    """What an AcceleratorPool promises one model, or (`model` empty) all other models of a namespace together."""

    namespace: str
    model: str
    reservation: int = 0  # accelerators
    weight: int = 1


@dataclass(frozen=True, slots=True)
class NodeRoom:
    """Accelerators of one node: what a pool's pods may hold there at most, and what of it no pod holds or is to hold.

    What is to come counts of other pools on the same nodes only: of its own ones a pool knows.

    `is_open`: does it take new pods? One that does not keeps those that it has.
    """

    name: str
    capacity: int
    free: int
    is_open: bool = True


class Planning(StrEnum):
    """How the pool's program is answered in this pass."""

    SOLVED = "Solved"
    BY_NEED = "ByNeed"  # not at all: the solver failed a moment ago, or took too long
    GREEDY = "Greedy"  # without a solver, which failed several times in a row


@dataclass(frozen=True, slots=True)
class ModelBefore:
    """A model as the program had it when it was last planned anew, to tell whether it changed since."""

    numbers: tuple[float, ...]  # what moves a little all the time: demands and rates (requests/s)
    digest: str  # of all else, with the replicas that the last plan gave it
    uses: tuple[int, ...]  # accelerators of those replicas, by limit


@dataclass(frozen=True, slots=True)
class LastPlan:
    """A large pool's last plan, as far as it takes to tell what changed since."""

    frame: str  # digest of what all models share: the budget, the kinds of limits
    rooms: tuple[int, ...]  # accelerators that the plan left over, by limit
    parts: int  # plans of only a part of the models since the last of all
    models: Mapping[str, ModelBefore]  # by key


@dataclass(frozen=True, slots=True)
class PoolObservation:
    """All models that share accelerators, seen at `now`."""

    now: float
    resource: str
    budget: int  # accelerators that all models together may hold
    epoch: int
    acting_since: float  # when this process became the leader: no shrink for one hold after it
    models: tuple[ModelObservation, ...]  # sorted by key
    name: str = ""  # of the AcceleratorPool; empty: the models of the resource that name none
    surge: int = 0  # accelerators beyond the budget, for old and new replicas side by side
    shares: tuple[PoolShare, ...] = ()
    prices: Mapping[str, float] = field(default_factory=dict)  # of an accelerator by the last plan; none after a start
    planning: Planning = Planning.SOLVED
    solver_was_late: bool = False  # it failed in this pass by taking too long; records of before tell no cause
    last_plan: LastPlan | None = None  # of a large pool; None: plan all models anew
    left_free: bool = False  # the last plan handed out nothing of what is free: it gained too little with it
    division: PoolDivision = PoolDivision.WEIGHTED  # of an AcceleratorPool; without one, the pool's plan divides
    nodes: tuple[
        NodeRoom, ...
    ] = ()  # by name; none: nobody counted them, or no replica takes more than one accelerator

    @property
    def has_plan(self) -> bool:
        """Does one program over its models divide the accelerators?"""
        return self.division.is_by_plan(self.name)
