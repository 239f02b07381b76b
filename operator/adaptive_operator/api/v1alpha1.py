"""`AdaptiveModel`, version v1alpha1, as pydantic models: the single source of the CRD (see `crd.py`).

Conventions: camelCase on the wire, no floats, units in the names, lists are maps by key, no defaults inside list items
(they would show as drift in GitOps tools); what the API server checks is written here as constraints and CEL rules.
Knows nothing of clusters, decisions or clients.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from adaptive_operator.api.accelerators import Accelerators
from adaptive_operator.api.base import CEL, Api, rule, told
from adaptive_operator.api.model_source import ModelSpec
from adaptive_operator.api.objectives import Quality, Slo
from adaptive_operator.api.routing import Routing
from adaptive_operator.api.scaling import Scaling
from adaptive_operator.api.status import AdaptiveModelStatus
from adaptive_operator.api.tiers import Tier


class Mode(StrEnum):
    """What the operator may do with this model."""

    ACTIVE = "Active"
    DRY_RUN = "DryRun"
    PAUSED = "Paused"


_NO_TIER = "self.tiers.size() == 0"  # said by the list itself: what follows from it would only mislead


def _tier_list(schema: JsonDict) -> None:
    told(
        "minItems",
        rule(
            "self.size() > 0",
            "spec.tiers is empty, but a model needs at least one tier; give one with tiers[].name, recipe and replica",
        ),
    )(schema)
    schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class AdaptiveModelSpec(Api):
    """One logical model behind one endpoint, in several quality tiers."""

    mode: Mode = Field(
        default=Mode.ACTIVE,
        description="Active: decide and act. DryRun: decide and report, change nothing."
        " Paused: keep everything as it is.",
    )
    model: ModelSpec
    accelerators: Accelerators = Accelerators()
    slo: Slo = Slo()
    quality: Quality = Quality()
    tiers: Annotated[
        tuple[Tier, ...],
        Field(
            min_length=1,
            max_length=16,
            description="The tiers, at least one, best quality first until cards say otherwise.",
            json_schema_extra=_tier_list,
        ),
    ]
    routing: Routing = Routing()
    scaling: Scaling = Scaling()

    model_config = ConfigDict(
        json_schema_extra={
            CEL: [
                rule(
                    f"{_NO_TIER} || !has(self.routing) || !has(self.routing.warmTier)"
                    " || self.tiers.exists(t, t.name == self.routing.warmTier)",
                    "routing.warmTier must be the name of one of spec.tiers; correct it,"
                    " or leave it out to use the cheapest tier that reaches the floor",
                ),
                rule(
                    "!has(self.accelerators) || !has(self.accelerators.budget)"
                    " || self.tiers.all(t, t.replica.accelerators <= self.accelerators.budget)",
                    "tiers[].replica.accelerators must not be greater than accelerators.budget,"
                    " else the tier can never start;"
                    " raise the budget or use a smaller replica",
                ),
                rule(
                    f"{_NO_TIER} || !self.tiers.all(t, has(t.replicas) && has(t.replicas.max) && t.replicas.max == 0)",
                    "at least one of tiers[].replicas.max must be greater than 0, else nothing can serve;"
                    " raise one, or leave it out",
                ),
                rule(
                    "!has(self.routing) || !has(self.routing.warmTier) || !self.tiers.exists(t, t.name =="
                    " self.routing.warmTier && has(t.replicas) && has(t.replicas.max) && t.replicas.max == 0)",
                    "routing.warmTier names a tier whose replicas.max is 0; raise its max or choose another tier",
                ),
                rule(
                    "!has(self.accelerators) || !has(self.accelerators.budget) || self.tiers.map(t, has(t.replicas)"
                    " && has(t.replicas.min) ? t.replicas.min * t.replica.accelerators : 0).sum()"
                    " <= self.accelerators.budget",
                    "tiers[].replicas.min of all tiers together need more than accelerators.budget;"
                    " lower a min or raise the budget",
                ),
                rule(
                    f"{_NO_TIER} || !has(self.quality) || !has(self.quality.floorPermille)"
                    " || !self.tiers.all(t, has(t.card) && (has(t.card.qualityPermille)"
                    " ? t.card.qualityPermille < self.quality.floorPermille : has(t.card.levels)"
                    " && t.card.levels.all(c, c.qualityPermille < self.quality.floorPermille)))",
                    "quality.floorPermille is above tiers[].card.qualityPermille of every tier, so nothing could serve;"
                    " lower the floor or add a better tier",
                ),
                rule(
                    "self.tiers.all(a, !has(a.card) || !has(a.card.referencePromptTokens) || self.tiers.all(b,"
                    " !has(b.card) || !has(b.card.referencePromptTokens)"
                    " || (a.card.referencePromptTokens == b.card.referencePromptTokens"
                    " && has(a.card.referenceOutputTokens) && has(b.card.referenceOutputTokens)"
                    " && a.card.referenceOutputTokens == b.card.referenceOutputTokens)))",
                    "tiers[].card must describe the same reference request in every tier, else capacities cannot be"
                    " compared; use equal referencePromptTokens and referenceOutputTokens",
                ),
                rule(
                    "!has(self.scaling) || !has(self.scaling.idleShrink)"
                    " || has(self.scaling.idleShrink.pricePerAcceleratorHourMilli)"
                    " || (has(self.accelerators) && has(self.accelerators.pool))",
                    "scaling.idleShrink needs a price to weigh quality against; set its pricePerAcceleratorHourMilli,"
                    " or name accelerators.pool, whose price then counts",
                ),
                rule(
                    "!has(self.scaling) || !has(self.scaling.startDeadlineSeconds) || self.tiers.all(t, !has(t.card) ||"
                    " !has(t.card.loadSeconds) || t.card.loadSeconds < self.scaling.startDeadlineSeconds)",
                    "scaling.startDeadlineSeconds must be longer than tiers[].card.loadSeconds, else the tier never"
                    " becomes ready in time; raise the deadline",
                ),
            ]
        }
    )


class AdaptiveModel(Api):
    """The custom resource as read from the API server."""

    api_version: str = "adaptivellm.dev/v1alpha1"
    kind: str = "AdaptiveModel"
    metadata: dict[str, Any]
    spec: AdaptiveModelSpec
    status: AdaptiveModelStatus | None = None
