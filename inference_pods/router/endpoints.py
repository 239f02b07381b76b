"""Who is ready: the engine replicas of all tiers and the number of routers, read from EndpointSlices.

Pure parsing of the API server's JSON. Deliberately does not know how slices arrive, nor which replica is loaded or
failing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from inference_pods.protocol import COMPONENT_ENGINE, COMPONENT_ROUTER, LABEL_COMPONENT, LABEL_TIER


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine pod that accepts requests. `uid` is the pod's, so that a restarted address is a new replica.

    `stateful_set`: what made it, and with it its siblings of the same revision; "" = not known.
    """

    uid: str
    tier: str
    base_url: str
    stateful_set: str = ""


@dataclass(frozen=True, slots=True)
class EndpointSet:
    """All ready replicas by tier (terminating ones left out), and how many routers share them (at least this one).

    `starting`: tiers with a replica that has an address and is not ready yet.
    """

    replicas: Mapping[str, tuple[Replica, ...]]
    routers: int = 1
    starting: frozenset[str] = frozenset()

    def of_tier(self, tier: str) -> tuple[Replica, ...]:
        return self.replicas.get(tier, ())

    @property
    def total(self) -> int:
        return sum(len(replicas) for replicas in self.replicas.values())


NO_ENDPOINTS = EndpointSet(replicas={})


class SliceError(ValueError):
    """An object that is not an EndpointSlice of ours; the message names the field."""


def _or_empty(value: list[Any] | None) -> list[Any]:
    return value or []


class _Document(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


class _Metadata(_Document):
    name: str
    labels: dict[str, str] | None = None


class _Conditions(_Document):
    # Absent means unknown, which consumers of the API shall read as ready and not terminating.
    ready: bool | None = None
    terminating: bool | None = None


class _TargetRef(_Document):
    uid: str = ""
    name: str = ""

    @property
    def stateful_set(self) -> str:
        """A StatefulSet calls its pods after itself and a number: `assistant-int8-5d41402a-0`."""
        owner, _, ordinal = self.name.rpartition("-")
        return owner if ordinal.isascii() and ordinal.isdigit() else ""


class _Endpoint(_Document):
    addresses: list[str]
    conditions: _Conditions = _Conditions()
    target_ref: _TargetRef | None = None

    def is_ready(self) -> bool:
        return self.conditions.ready is not False and not self.conditions.terminating and bool(self.addresses)

    def is_starting(self) -> bool:
        return self.conditions.ready is False and not self.conditions.terminating


class _Port(_Document):
    name: str | None = None
    port: int | None = None


class _Slice(_Document):
    metadata: _Metadata
    address_type: str = "IPv4"
    endpoints: Annotated[list[_Endpoint] | None, AfterValidator(_or_empty)] = None
    ports: Annotated[list[_Port] | None, AfterValidator(_or_empty)] = None

    def label(self, name: str) -> str:
        return (self.metadata.labels or {}).get(name, "")

    def ready_endpoints(self) -> list[_Endpoint]:
        return [endpoint for endpoint in self.endpoints or [] if endpoint.is_ready()]

    def port_number(self) -> int | None:
        numbers = {port.name: port.port for port in self.ports or []}
        return numbers.get("http") or next(iter(numbers.values()), None)


def parse_endpoints(slices: Iterable[Mapping[str, Any]]) -> EndpointSet:
    """Build the ready set from all EndpointSlice objects of a model.

    A pod may be in two slices for a moment (while the controller moves it): it counts once. Raises SliceError.
    """
    replicas: dict[str, dict[str, Replica]] = {}
    routers: set[str] = set()
    starting: set[str] = set()
    for raw in slices:
        parsed = _parse_slice(raw)
        if parsed.label(LABEL_COMPONENT) == COMPONENT_ROUTER:
            routers.update(endpoint.addresses[0] for endpoint in parsed.ready_endpoints())
        elif parsed.label(LABEL_COMPONENT) == COMPONENT_ENGINE and parsed.label(LABEL_TIER):
            tier = parsed.label(LABEL_TIER)
            replicas.setdefault(tier, {}).update({replica.uid: replica for replica in _replicas(parsed, tier)})
            if any(endpoint.is_starting() for endpoint in parsed.endpoints or []):
                starting.add(tier)
    by_tier = {tier: tuple(members[uid] for uid in sorted(members)) for tier, members in replicas.items() if members}
    return EndpointSet(by_tier, max(len(routers), 1), frozenset(starting))


def _parse_slice(raw: Mapping[str, Any]) -> _Slice:
    try:
        return _Slice.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise SliceError(f"EndpointSlice {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None


def _replicas(parsed: _Slice, tier: str) -> Iterable[Replica]:
    port = parsed.port_number()
    if port is None:
        return
    for endpoint in parsed.ready_endpoints():
        host = endpoint.addresses[0]
        base_url = f"http://[{host}]:{port}" if parsed.address_type == "IPv6" else f"http://{host}:{port}"
        pod = endpoint.target_ref or _TargetRef()
        yield Replica(pod.uid or base_url, tier, base_url, pod.stateful_set)
