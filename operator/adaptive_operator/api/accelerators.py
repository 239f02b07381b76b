"""The accelerators that an `AdaptiveModel` may hold.

Part of the single source of the CRD (see `v1alpha1.py` for its conventions).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from adaptive_operator.api.base import CEL, DNS_NAME, RESOURCE, Api, match, rule, told


def _without_default(extra: Callable[[JsonDict], None]) -> Callable[[JsonDict], None]:
    """The API server fills nothing in: what a field is by itself depends on others."""

    def change(schema: JsonDict) -> None:
        extra(schema)
        del schema["default"]

    return change


class Accelerators(Api):
    """The accelerators this model may hold."""

    pool: (
        Annotated[
            str,
            Field(
                max_length=63,
                pattern=DNS_NAME,
                json_schema_extra=told(
                    "pattern",
                    match(
                        DNS_NAME,
                        "accelerators.pool must be the name of an AcceleratorPool; use lower-case letters, digits and"
                        " '-'",
                    ),
                ),
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="AcceleratorPool whose accelerators this model shares. Unset: the models of the resource that name"
        " no pool share one budget.",
    )
    # No default in the CRD: with a pool, the resource is the pool's.
    resource: str = Field(
        default="nvidia.com/gpu",
        max_length=128,
        pattern=RESOURCE,
        description="Extended resource. Models that name the same resource and no pool share one budget."
        " Unset: the pool's, without a pool nvidia.com/gpu.",
        json_schema_extra=_without_default(
            told(
                "pattern",
                match(
                    RESOURCE,
                    "accelerators.resource must be an extended resource as nodes advertise it; use its name with the"
                    " domain, e.g. nvidia.com/gpu",
                ),
            )
        ),
    )
    budget: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Most accelerators that this model may hold, Pending and Terminating pods included."
        " Unset: the budget of the pool, or the operator's for the resource.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    "has(self.pool) || has(oldSelf.pool) || (has(self.resource) ? self.resource : 'nvidia.com/gpu')"
                    " == (has(oldSelf.resource) ? oldSelf.resource : 'nvidia.com/gpu')",
                    "accelerators.resource cannot be changed, because running replicas count against its budget;"
                    " delete the model and create it anew",
                ),
            ]
        }
    )

    @property
    def names_resource(self) -> bool:
        """Did the user write the resource?"""
        return "resource" in self.model_fields_set
