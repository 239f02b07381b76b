"""How requests reach the tiers of an `AdaptiveModel`.

Part of the single source of the CRD (see `v1alpha1.py` for its conventions).
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from adaptive_operator.api.base import Api


class RequestSizes(StrEnum):
    """What the size of a request does to where it goes."""

    PRICED = "Priced"
    IGNORED = "Ignored"


class Routing(Api):
    """How requests reach the tiers."""

    warm_tier: str | None = Field(
        default=None,
        max_length=32,
        description="Tier that always keeps a replica, so that load can be shed in seconds. Unset: the cheapest that"
        " reaches the quality floor. One below it may be named: it serves nobody alone, and beside better ones no more"
        " than keeps the mean at the floor.",
    )
    max_queue_seconds: int = Field(
        default=10,
        ge=0,
        le=3600,
        description="Longest wait in the router before 429. It carries requests over the exchange of a replica. With"
        " more load than can be served for long, all that is answered has waited so long: choose well below"
        " slo.ttftMilliseconds where late answers are worth nothing.",
    )
    router_replicas: int = Field(default=1, ge=1, le=64, description="Replicas of the router.")
    request_sizes: RequestSizes = Field(
        default=RequestSizes.PRICED,
        description="Priced: while better tiers are scarce, requests that are smaller than usual go to them first and"
        " larger ones to cheaper tiers: more requests get a good answer, and fewer a late one."
        " Ignored: every request has the same chance.",
    )
