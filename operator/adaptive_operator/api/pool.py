"""`AcceleratorPool`, version v1alpha1, as pydantic models: accelerators that several AdaptiveModels share.

Part of the single source of the CRDs (see `v1alpha1.py` for its conventions).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from adaptive_operator.api.base import CEL, DNS_LABEL, DNS_NAME, RESOURCE, Api, match, rule, told
from adaptive_operator.api.status import Condition

_LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
_MODEL_NAME = rf"^$|{DNS_LABEL}"
LabelValue = Annotated[
    str,
    Field(
        max_length=63,
        pattern=_LABEL_VALUE,
        json_schema_extra=told(
            "pattern",
            match(
                _LABEL_VALUE,
                "values of nodeSelector must be those of labels; use letters, digits and - _ . only, e.g. a100",
            ),
        ),
        description="Value of the label.",
    ),
]
_MOST_ACCELERATORS = 100_000


class PoolDivision(StrEnum):
    """How the accelerators of a pool are divided among its models."""

    WEIGHTED = "Weighted"
    PLANNED = "Planned"

    def is_by_plan(self, pool: str) -> bool:
        """Does one program divide the accelerators of this pool? Always where it is none by name (empty)."""
        return not pool or self is PoolDivision.PLANNED


class Share(Api):
    """What one model, or all models of a namespace together, may count on."""

    namespace: str = Field(
        max_length=63,
        pattern=DNS_NAME,
        json_schema_extra=told(
            "pattern", match(DNS_NAME, "shares[].namespace must be the name of a namespace; correct it, e.g. team-a")
        ),
        description="Namespace of the models.",
    )
    model: str = Field(
        default="",
        max_length=40,
        pattern=_MODEL_NAME,
        json_schema_extra=told(
            "pattern",
            match(
                _MODEL_NAME,
                "shares[].model must be the name of an AdaptiveModel; correct it, or leave it out for all models of the"
                " namespace, e.g. assistant",
            ),
        ),
        description="Name of one AdaptiveModel there. Empty: all models of the namespace that have no share of their"
        " own, together.",
    )
    reservation: int | None = Field(
        default=None,
        ge=0,
        le=_MOST_ACCELERATORS,
        description="Accelerators that are theirs whenever they want them. While they do not, others may use them."
        " Only with division Weighted. Unset: none.",
    )
    weight: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Part of the pool relative to the other shares while more is wanted than there is. With division"
        " Planned: how many times each model that the share is for counts in the plan. A model without a share has 1."
        " Unset: 1.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    "has(self.reservation) || has(self.weight)",
                    "shares[] must give a reservation or a weight, else it says nothing; set one, or leave the share"
                    " out",
                ),
            ]
        }
    )


class AcceleratorPoolSpec(Api):
    """Accelerators of one resource, and how they are shared."""

    resource: str = Field(
        default="nvidia.com/gpu",
        max_length=128,
        pattern=RESOURCE,
        description="Extended resource.",
        json_schema_extra=told(
            "pattern",
            match(
                RESOURCE,
                "resource must be an extended resource as nodes advertise it; use its name with the domain, e.g."
                " nvidia.com/gpu",
            ),
            rule(
                "self == oldSelf",
                "resource cannot be changed, because running replicas count against it; delete the pool and create"
                " another one",
            ),
        ),
    )
    node_selector: dict[str, LabelValue] = Field(
        default_factory=dict,
        max_length=16,
        description="Labels of the pool's nodes: only these count, and engine pods of the pool's models ask for them."
        " A change exchanges the replicas of all its models. Unset: all nodes.",
    )
    budget: int | None = Field(
        default=None,
        ge=0,
        le=_MOST_ACCELERATORS,
        description="Most accelerators that all models of the pool may hold together, Pending and Terminating pods"
        " included; never more than its Ready nodes advertise. Unset: what they advertise, less surgeAccelerators.",
    )
    surge_accelerators: int = Field(
        default=0,
        ge=0,
        le=_MOST_ACCELERATORS,
        description="Accelerators beyond the budget that are only used while a swap has old and new replicas side by"
        " side.",
    )
    price_per_accelerator_hour_milli: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000_000,
        description="Price of an accelerator for an hour, in thousandths of a currency unit; status.costPerHourMilli"
        " is what the pool's models hold at this price.",
    )
    division: PoolDivision = Field(
        default=PoolDivision.WEIGHTED,
        description="Weighted: each model may count on its reservation and its part by weight, and uses what others do"
        " not want. Planned: one plan for all models gives accelerators to where they serve most. The quality that a"
        " model serves and the requests that it refuses count as many times as its weight says; what carries a model's"
        " own load goes to a model of a larger weight only. Nobody is promised a part.",
    )
    shares: Annotated[
        tuple[Share, ...],
        Field(
            default=(),
            max_length=128,
            description="Who may count on how much. Reservations come first, then what models keep as their minimum,"
            " then the rest by weight. A model that no share names has no reservation and weight 1. With division"
            " Planned only weights count.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["namespace", "model"]},
        ),
    ]

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    "!has(self.budget) || !has(self.shares)"
                    " || self.shares.map(s, has(s.reservation) ? s.reservation : 0).sum() <= self.budget",
                    "shares[].reservation of all shares together must not be greater than budget, else they cannot be"
                    " kept; lower a reservation or raise the budget",
                ),
                rule(
                    "self.division != 'Planned' || !has(self.shares)"
                    " || self.shares.all(s, !has(s.reservation) || s.reservation == 0)",
                    "shares[].reservation cannot be kept with division Planned, because a reservation is a promise that"
                    " the pool's plan does not make; set division: Weighted, or leave the reservation out",
                ),
            ]
        }
    )


class MemberStatus(Api):
    """What one model has of the pool, and why."""

    namespace: str = Field(max_length=63)
    name: str = Field(max_length=63)
    accelerators: int = Field(ge=0, description="Accelerators that it holds, Pending and Terminating pods included.")
    granted: int = Field(ge=0, description="Accelerators of the replicas that were decided for it.")
    reservation: int = Field(ge=0, description="Its part of the reservation that names it or its namespace.")
    weight: int = Field(ge=1, description="Weight of the share that names it or its namespace.")
    reason: str = Field(max_length=64)
    message: str = Field(max_length=512)


class AcceleratorPoolStatus(Api):
    """What the pool has and who holds it."""

    observed_generation: int | None = None
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            default=(),
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ]
    budget: int | None = Field(default=None, ge=0, description="Accelerators that may be held now.")
    held: int | None = Field(
        default=None, ge=0, description="Accelerators that are held, also by models that were deleted and still end."
    )
    held_summary: str | None = Field(default=None, max_length=32, description="For the printer column: 3/4.")
    cost_per_hour_milli: int | None = Field(
        default=None, ge=0, description="held x pricePerAcceleratorHourMilli; empty without a price."
    )
    models_total: int | None = Field(default=None, ge=0, description="Models that name the pool.")
    models: Annotated[
        tuple[MemberStatus, ...],
        Field(
            default=(),
            max_length=1000,
            description="The pool's models, by namespace and name; the first thousand.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["namespace", "name"]},
        ),
    ]
