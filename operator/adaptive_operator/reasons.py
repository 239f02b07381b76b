"""Every reason the operator can give, once: the same string in condition, Event, metric label, log and test name.

Knows names only. Which reason applies is decided in `decide/` and `plan/`.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a decision is what it is (`status.lastDecision.reason`, Event reason, metric label)."""

    # Steady state
    STEADY = "Steady"  # what runs is what is wanted
    STARTING_UP = "StartingUp"  # first replicas of a new model are being made
    # Shed: towards a cheaper tier
    SHED_TO_CHEAPER_TIER = "ShedToCheaperTier"  # weights only: the load passed the better tiers' capacity
    ADDED_REPLICA = "AddedReplica"  # the budget had room for one more replica
    SWAPPED_TO_CHEAPER_TIER = "SwappedToCheaperTier"  # replicas exchanged, because the budget is used up
    GAVE_TO_OTHERS = "GaveToOthers"  # smaller replicas, because other models of the pool would refuse requests
    # Restore: towards a better tier
    RESTORED_WEIGHT = "RestoredWeight"  # weights only
    RESTORED_TIER = "RestoredTier"  # replicas exchanged or added for quality
    REMOVED_REPLICA = "RemovedReplica"  # nothing of the served quality depends on it
    SPEC_CHANGED = "SpecChanged"  # a tier was edited, added or removed
    # Hold: something better is known, but not done now
    HELD_FOR_MISSING_METRICS = "HeldForMissingMetrics"
    HELD_FOR_STALE_METRICS = "HeldForStaleMetrics"
    HELD_BY_DWELL = "HeldByDwell"
    HELD_BY_HOLD_WINDOW = "HeldByHoldWindow"
    HELD_FOR_AGREEMENT = "HeldForAgreement"
    HELD_AFTER_RESTART = "HeldAfterRestart"
    HELD_WHILE_SWAPPING = "HeldWhileSwapping"
    HELD_BY_SURVIVOR_CHECK = "HeldBySurvivorCheck"
    # Limits
    CAPACITY_LIMITED = "CapacityLimited"  # demand passes what the budget can carry, even on the cheapest tiers
    BUDGET_SHARED = "BudgetShared"  # another model holds accelerators that this one wants
    BUDGET_EXCEEDED = "BudgetExceeded"  # more is held than the budget, e.g. after it was lowered
    QUALITY_FLOOR_INFEASIBLE = "QualityFloorInfeasible"  # the floor cannot be kept, or the load not at it
    NO_TIER_CARD = "NoTierCard"  # capacity unknown: replicas stay at their minimum
    CARD_STALE = "CardStale"  # replicas carry far less than their tier's card says, for long
    POOL_NOT_SOLVED = "PoolNotSolved"  # the pool's program has no trustworthy plan: a fallback divides the pool
    # Swap
    SWAP_ROLLED_BACK = "SwapRolledBack"  # the new replicas did not become ready before the deadline
    # Modes
    PAUSED = "Paused"
    DRY_RUN = "DryRun"


class ShareReason(StrEnum):
    """Why a model has what it has of an AcceleratorPool (`status.models[].reason`)."""

    SATISFIED = "Satisfied"  # all that it wants, within its fair share
    BORROWING = "Borrowing"  # more than its fair share, because others do not want theirs now
    RESERVED = "Reserved"  # wants more than its reservation, and others are owed the rest
    MINIMUM = "Minimum"  # has its minimum, or what fits of it, and wants more: others are owed the rest
    WEIGHTED = "Weighted"  # wants more than its weight gives
    PLANNED = "Planned"  # wants more than the pool's plan gives it; only where the plan divides the pool
    POOL_TOO_SMALL = "PoolTooSmall"  # wants more than the whole pool can give
    OWN_LIMITS = "OwnLimits"  # wants more than its own budget, tiers or floor allow
    UNMANAGED = "Unmanaged"  # its mode is not Active, or nothing can be decided for it: it keeps what it holds


class PoolReason(StrEnum):
    """Why an AcceleratorPool is ready or not (condition `Ready`)."""

    SHARING = "Sharing"  # its models are planned within its budget
    OVER_BUDGET = "OverBudget"  # more is held than there is, e.g. after nodes were lost: nothing is started
    RESERVATIONS_REDUCED = "ReservationsReduced"  # more is reserved than there is
    BUDGET_UNKNOWN = "BudgetUnknown"  # it names no budget, and the nodes could not be counted
    NO_ACCELERATORS = "NoAccelerators"  # none of its nodes advertises any
    NODES_TAKEN = "NodesTaken"  # another pool without a budget has the same nodes
    INVALID_SPEC = "InvalidSpec"  # the stored object does not parse


class ConditionType(StrEnum):
    """The condition types of an AdaptiveModel."""

    READY = "Ready"
    TIERS_READY = "TiersReady"
    METRICS_AVAILABLE = "MetricsAvailable"
    MODEL_LOADED = "ModelLoaded"
    CAPACITY_LIMITED = "CapacityLimited"
    DEGRADED = "Degraded"


class ConditionReason(StrEnum):
    """Why a condition is what it is, where it does not follow from a decision's `Reason`."""

    # Ready
    FIRST_SEEN = "FirstSeen"
    SERVING = "Serving"
    NO_READY_REPLICA = "NoReadyReplica"
    ROUTER_NOT_READY = "RouterNotReady"
    ENDPOINT_MISSING = "EndpointMissing"  # the Service was deleted while the operator may not make it again
    NAME_TAKEN = "NameTaken"  # an object of that name exists and belongs to somebody else
    # TiersReady
    REPLICAS_READY = "ReplicasReady"
    REPLICAS_NOT_READY = "ReplicasNotReady"
    SWAPPING = "Swapping"
    # MetricsAvailable
    SAMPLES_FRESH = "SamplesFresh"
    SAMPLES_STALE = "SamplesStale"
    SAMPLES_UNKNOWN = "SamplesUnknown"
    # ModelLoaded: the first five come from the engine's termination message
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_CORRUPT = "ModelCorrupt"
    MODEL_UNSUPPORTED = "ModelUnsupported"
    OUT_OF_MEMORY = "OutOfMemory"
    ENGINE_FAILED = "EngineFailed"
    LOADED = "Loaded"
    LOADING = "Loading"
    # CapacityLimited
    WITHIN_BUDGET = "WithinBudget"
    # Degraded
    AS_WANTED = "AsWanted"
    NEWER_EPOCH = "NewerEpoch"  # a child was written under a higher lease epoch: another operator acts
