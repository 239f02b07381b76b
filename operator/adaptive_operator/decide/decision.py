"""What should be: the output of `decide/` and the input of `plan/`. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adaptive_operator.decide.adopted import AdoptedPlan
from adaptive_operator.observe.observation import LastPlan, PolicyMemory, SwapRecord
from adaptive_operator.reasons import Reason, ShareReason


@dataclass(frozen=True, slots=True)
class Finding:
    """Something true beside the decision that a user should know; becomes a condition's reason and message."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class PoolPart:
    """What one model gets of an AcceleratorPool, and why."""

    granted: int  # accelerators of the decided replicas
    reservation: int
    weight: int
    reason: ShareReason
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What one model should run, and why.

    `replicas` is where to go, not what to write now: `plan/` finds the order that never passes the budget.
    `swap` is the record to keep: a new one (not yet in `status`), the one in flight, or None when all is as wanted.
    """

    key: str
    reason: Reason
    message: str  # one sentence for people, with the numbers
    inputs: str  # what was seen, compact: "demand 1.80/s (age 2 s), capacity 1.31/s, queue 3"
    replicas: Mapping[str, int]  # tier -> replicas wanted; every tier of the spec has an entry
    weights: Mapping[str, float]  # tier -> baseline share, sums to 1, or all 0 when nothing can serve
    memory: PolicyMemory
    swap: SwapRecord | None
    accelerators_granted: int  # what this model may hold at most in this pass, its current holding included
    findings: tuple[Finding, ...] = ()
    binding: tuple[str, ...] = ()  # constraints without which the model would be served better
    alternative: str = ""  # the best other mix, what it would have given and cost
    budget: int | None = None  # accelerators that the model may hold by its spec and its pool: what both are told of
    shares: str = ""  # hash of the AcceleratorPool's shares that both are told under; empty without any
    demand_milli: int | None = None  # requests per 1000 s, with headroom, that both are told for
    limit: int | None = None  # accelerators of that budget that others left to it when both were told
    pool: str = ""  # what the pool gives the model and why; empty where it has the pool for itself
    held_back: Mapping[str, str] = field(default_factory=dict)  # tier -> inputs of the earlier revision it goes on with
    levels: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # nested tier -> level -> part of its share
    tier_prices: Mapping[str, float] = field(default_factory=dict)  # tier -> worth of one more reference request (Λ)
    factors: Mapping[str, float] = field(default_factory=dict)  # tier -> factor on its card's rates, where it is not 1
    part: PoolPart | None = None  # of the AcceleratorPool that the model names


@dataclass(frozen=True, slots=True)
class PoolDecision:
    """Decisions of all models of one pool, in the order of the observation."""

    resource: str
    decisions: tuple[Decision, ...] = field(default=())
    prices: Mapping[str, float] = field(default_factory=dict)  # the plan's, of one more accelerator: quality x req/s
    planned: bool = False  # a program was asked: somebody lacked something
    followed: bool = False  # its plan was worth more than what the models would do by themselves
    plan: AdoptedPlan | None = None  # that was weighed, followed or not; None: no program was asked
    last_plan: LastPlan | None = None  # of a large pool: what the next plan is to be compared with
    left_free: bool = False  # what is free stays free: the plan gains too little with it
    unsolved: bool = False  # the solver stopped too far from the best plan: what runs was kept, or a greedy choice made
