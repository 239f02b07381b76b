"""The routing table: what the planner tells the routers, parsed and checked at the border.

Knows the JSON of the ConfigMap and the rule which of two tables is newer. Deliberately does not know where a table
comes from (watch or mounted file) nor which replicas are ready.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from inference_pods.protocol import TABLE_SCHEMA_VERSION

UNKNOWN_REPLICA_LIMIT: Final = 4  # requests in flight per replica while its capacity is not known
MAX_REPLICA_LIMIT: Final = 4096  # a declared capacity beyond this is a typing error, not a fact


class TableError(ValueError):
    """The text is not a routing table that this router may use; the message names the field and the cause."""


@dataclass(frozen=True, slots=True, order=True)
class RouteKey:
    """What a request can be sent to: a tier, and inside a nested tier one of its levels ("" = the tier itself)."""

    tier: str
    level: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """One servable form of the model.

    `load`: what a request costs of a replica, where one at the tier's top level costs 1. `quality_permille` and `mu`
    (reference requests/s of one replica at the objective) are None while no tier card is known. `weight` is the
    planner's baseline share: 0 closes the route for requests that did not ask for it by name. `price`: what a request
    of load 1 more would be worth to the tier; 0 while the tier is not scarce, and in tables of older operators.
    """

    key: RouteKey
    quality_permille: int | None
    mu: float | None
    load: float
    weight: float
    price: float

    @property
    def unit_rate(self) -> float:
        """Requests/s of load 1 that one replica carries; infinite while that is not known."""
        return math.inf if self.mu is None else self.mu * self.load


@dataclass(frozen=True, slots=True)
class ReferenceRequest:
    """The request that rates are counted in."""

    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """One generation of the planner's will. `routes` are ordered best quality first; `floor_permille` 0 = no floor."""

    epoch: int
    generation: int
    model: str
    floor_permille: int
    latency_seconds: float | None  # of one reference request that just meets the objective; None = not stated
    ttft_seconds: float | None  # the objective's part of it until the first token; None = not stated
    max_queue_seconds: float
    routes: tuple[Route, ...]
    draining: frozenset[str]
    revisions: Mapping[str, frozenset[str]]  # StatefulSet -> levels that its replicas have; not in it: not known
    reference: ReferenceRequest | None = None  # None: no card states it

    @property
    def version(self) -> tuple[int, int]:
        """Lexicographic: a new leader's first table beats every table of its predecessor."""
        return (self.epoch, self.generation)

    def is_newer_than(self, other: RoutingTable | None) -> bool:
        return other is None or self.version > other.version

    def tiers(self) -> tuple[str, ...]:
        """Tier names, best quality first, each once."""
        return tuple(dict.fromkeys(route.key.tier for route in self.routes))

    def levels(self, tier: str) -> tuple[str, ...]:
        """Levels of a tier, best quality first; none of a plain one."""
        return tuple(route.key.level for route in self.routes if route.key.tier == tier and route.key.level)

    def replica_limit(self, route: Route) -> int:
        """Requests that one replica may hold at once, by Little's law. Like all of a replica's limits it is in requests
        of load 1, so that it is the same for all levels that share the replica.

        Example: mu 0.8/s, TTFT 3 s, 24 tokens at 0.3 s: W = 3 + 24·0.3 = 10.2 s, so ceil(8.16) = 9 in flight.
        """
        if route.mu is None or self.latency_seconds is None:
            return UNKNOWN_REPLICA_LIMIT
        return min(max(math.ceil(route.unit_rate * self.latency_seconds - 1e-3), 1), MAX_REPLICA_LIMIT)

    def first_token_capacity(self, route: Route) -> float:
        """Requests that one replica can start within the TTFT objective, one after the other; infinite if unknown.

        Example: mu 2.24/s, TTFT 3 s: the seventh in its queue would just meet the objective, so 6.72.
        """
        if route.mu is None or self.ttft_seconds is None:
            return math.inf
        return route.unit_rate * self.ttft_seconds

    def decoding_capacity(self, route: Route) -> float:
        """Requests that one replica decodes at once at the TPOT objective (Little's law); infinite if unknown."""
        if route.mu is None or self.latency_seconds is None or self.ttft_seconds is None:
            return math.inf
        return route.unit_rate * (self.latency_seconds - self.ttft_seconds)


Permille = Annotated[int, Field(ge=0, le=1000)]
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Document(BaseModel):
    # Fields of later schema versions are ignored, so that an older router survives a newer operator.
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


class _SloDocument(_Document):
    ttft_milliseconds: Positive
    tpot_milliseconds: Positive


class _ReferenceDocument(_Document):
    prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    output_tokens: Annotated[int, Field(ge=1)]


class _RouteDocument(_Document):
    tier: Annotated[str, Field(min_length=1)]
    level: str = ""
    quality_permille: Permille | None = None
    mu: Positive | None = None
    load: Positive = 1.0
    weight: Finite
    price: Finite = 0.0

    def to_route(self) -> Route:
        key = RouteKey(self.tier, self.level)
        return Route(key, self.quality_permille, self.mu, self.load, self.weight, self.price)


class _RevisionDocument(_Document):
    stateful_set: Annotated[str, Field(min_length=1)]
    levels: Annotated[list[str], Field(min_length=1)]


class _TableDocument(_Document):
    schema_version: int
    generation: Annotated[int, Field(ge=0)]
    epoch: Annotated[int, Field(ge=0)]
    model: str
    floor_permille: Permille | None = None
    slo: _SloDocument | None = None
    reference: _ReferenceDocument | None = None
    max_queue_seconds: Finite = 60.0
    routes: Annotated[list[_RouteDocument], Field(min_length=1)]
    revisions: list[_RevisionDocument] = []
    draining: list[str] = []

    @model_validator(mode="after")
    def check_schema_and_keys(self) -> Self:
        if self.schema_version != TABLE_SCHEMA_VERSION:
            raise ValueError(
                f"schemaVersion {self.schema_version} is not {TABLE_SCHEMA_VERSION}: upgrade the router image"
            )
        keys = [(route.tier, route.level) for route in self.routes]
        if len(set(keys)) != len(keys):
            raise ValueError("routes: the same tier and level appear twice")
        return self


def parse_table(text: str | bytes, model: str) -> RoutingTable:
    """Parse the JSON of `table.json` for this model.

    Raises TableError: the caller keeps the table that it has.
    """
    try:
        document = _TableDocument.model_validate_json(text)
    except ValidationError as error:
        raise TableError(_describe(error)) from None
    if document.model != model:
        raise TableError(f"model: the table is for {document.model!r}, this router serves {model!r}")
    return RoutingTable(
        epoch=document.epoch,
        generation=document.generation,
        model=document.model,
        floor_permille=document.floor_permille or 0,
        latency_seconds=_reference_latency_seconds(document),
        ttft_seconds=document.slo.ttft_milliseconds / 1000 if document.slo else None,
        max_queue_seconds=document.max_queue_seconds,
        routes=tuple(route.to_route() for route in document.routes),
        draining=frozenset(document.draining),
        revisions={item.stateful_set: frozenset(item.levels) for item in document.revisions},
        reference=_reference_request(document.reference),
    )


def _reference_request(reference: _ReferenceDocument | None) -> ReferenceRequest | None:
    if reference is None or reference.prompt_tokens is None:
        return None
    return ReferenceRequest(reference.prompt_tokens, reference.output_tokens)


def _reference_latency_seconds(document: _TableDocument) -> float | None:
    if document.slo is None or document.reference is None:
        return None
    return (document.slo.ttft_milliseconds + document.reference.output_tokens * document.slo.tpot_milliseconds) / 1000


def _describe(error: ValidationError) -> str:
    problems: Iterable[str] = (
        f"{'.'.join(str(part) for part in item['loc']) or 'table'}: {item['msg']}" for item in error.errors()[:3]
    )
    return "; ".join(problems)
