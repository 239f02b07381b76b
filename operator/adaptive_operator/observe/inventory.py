"""How many accelerators the nodes advertise: the budget of a resource for which the operator has none.

Nodes are asked for only when a model needs it, and not at every pass. Knows neither models' demands nor decisions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from adaptive_operator.api.accelerators import Accelerators
from adaptive_operator.kube import KubeClient, KubeError
from adaptive_operator.names import LABEL_POOL
from adaptive_operator.observe.manifests import Raw, count_accelerators, labels_of, metadata_of, parse_quantity
from adaptive_operator.observe.observation import NodeRoom
from adaptive_operator.observe.pods import has_ended

_LOG = logging.getLogger(__name__)
_CACHE_SECONDS: Final = 10.0  # a nudge per pod event must not list all nodes each time
_REMEMBERED_SECONDS: Final = 120.0
_DEFAULT_RESOURCE: Final = str(Accelerators.model_fields["resource"].default)


@dataclass(frozen=True, slots=True)
class Node:
    """What counts of a node."""

    name: str
    takes_engines: bool  # Ready, schedulable, and with the labels that engine pods ask for
    allocatable: Mapping[str, int]  # extended resources
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """The nodes with certain labels, as far as they have a resource. Without labels: those of no other group."""

    resource: str
    labels: tuple[tuple[str, str], ...] = ()  # sorted

    @classmethod
    def of(cls, resource: str, selector: Mapping[str, str]) -> NodeGroup:
        """The group of a node selector."""
        return cls(resource, tuple(sorted(selector.items())))

    def has(self, node: Node) -> bool:
        """Does the node carry all labels?"""
        return all(node.labels.get(key) == value for key, value in self.labels)


@dataclass(frozen=True, slots=True)
class Advertised:
    """Accelerators by resource, or why nobody knows them."""

    by_resource: Mapping[str, int] = field(default_factory=dict)  # on nodes that no pool selects
    trouble: str | None = None  # the nodes were asked, and this came back: nothing is counted then
    by_group: Mapping[NodeGroup, int] = field(default_factory=dict)  # on nodes that pools select
    engine_labels: Mapping[str, str] = field(default_factory=dict)  # that engine pods ask nodes for, in a pool or not
    # Nodes of each group, by name; with a trouble those that were read last, for a while.
    rooms: Mapping[NodeGroup, tuple[NodeRoom, ...]] = field(default_factory=dict)

    def count(self, group: NodeGroup) -> int | None:
        """Accelerators of a group; None: not known."""
        return self.by_group.get(group) if group.labels else self.by_resource.get(group.resource)


@dataclass(slots=True)
class NodeInventory:
    """Reads nodes, at most every few seconds. `is_allowed` False: never, the operator has no right to see them.

    `remembered_seconds`: for so long nodes that cannot be read again still have the room that they had.
    """

    kube: KubeClient
    is_allowed: bool = True
    selector: Mapping[str, str] = field(default_factory=dict)  # labels of the nodes that engine pods may run on
    monotonic: Callable[[], float] = time.monotonic
    remembered_seconds: float = _REMEMBERED_SECONDS
    _nodes: Sequence[Node] = ()
    _read_at: float | None = None
    _said: dict[str, int] = field(default_factory=dict)
    _warned: tuple[str, bool] | None = None  # of which trouble, and whether the nodes were remembered

    async def read(
        self, resources: Iterable[str], pods: Sequence[Raw], pools: Mapping[str, NodeGroup] | None = None
    ) -> Advertised:
        """What is advertised of these resources, and in the groups of the pools (by name); never raises KubeError."""
        groups = pools or {}
        wanted = sorted(set(resources) | {group.resource for group in groups.values()})
        if not wanted or not self.is_allowed:
            return Advertised(engine_labels=self.selector)
        try:
            nodes = await self._read_nodes()
        except KubeError as error:
            return Advertised(
                trouble=str(error), engine_labels=self.selector, rooms=self._recall(error, pods, wanted, groups)
            )
        advertised = count_groups(nodes, pods, wanted, groups)
        self._warned = None
        self._say(advertised.by_resource)
        return replace(advertised, engine_labels=self.selector)

    def _recall(
        self, error: KubeError, pods: Sequence[Raw], resources: Iterable[str], pools: Mapping[str, NodeGroup]
    ) -> Mapping[NodeGroup, tuple[NodeRoom, ...]]:
        """Room on the nodes as they were read last, with the pods of now; none after a while, or before the first read.

        Else one pass in which they cannot be read would start what no node holds.
        """
        known = self._read_at is not None and self.monotonic() - self._read_at <= self.remembered_seconds
        if self._warned != (str(error), known):
            _LOG.warning("nodes cannot be read error=%s room=%s", error, "as read last" if known else "not known")
            self._warned = (str(error), known)
        return count_groups(self._nodes, pods, resources, pools).rooms if known else {}

    async def _read_nodes(self) -> Sequence[Node]:
        now = self.monotonic()
        if self._read_at is None or now - self._read_at >= _CACHE_SECONDS:
            self._nodes = [parse_node(raw, self.selector) for raw in await self.kube.list("Node", None)]
            self._read_at = now
        return self._nodes

    def _say(self, counts: Mapping[str, int]) -> None:
        for resource, count in counts.items():
            if self._said.get(resource) != count:
                _LOG.info("budget resource=%s accelerators=%s source=nodes", resource, count)
        self._said = dict(counts)


def find_counted(models: Iterable[Raw], budgets: Mapping[str, int]) -> set[str]:
    """Resources of models without a pool whose nodes matter: the operator names no budget, or replicas take several.

    A replica's accelerators have to be on one node, whoever says how many there are in all.
    """
    wanted: set[str] = set()
    for raw in models:
        spec = raw.get("spec") or {}
        accelerators = spec.get("accelerators") or {}
        if isinstance(accelerators, Mapping) and not accelerators.get("pool"):
            resource = str(accelerators.get("resource") or _DEFAULT_RESOURCE)
            if resource not in budgets or _takes_several(spec):
                wanted.add(resource)
    return wanted


def _takes_several(spec: Raw) -> bool:
    """Does a replica of any tier take more than one accelerator? Of a spec that may be of any form."""
    tiers = spec.get("tiers")
    replicas = [tier.get("replica") for tier in tiers if isinstance(tier, Mapping)] if isinstance(tiers, list) else []
    counts = [replica.get("accelerators") for replica in replicas if isinstance(replica, Mapping)]
    return any(isinstance(count, int) and count > 1 for count in counts)


def parse_node(raw: Raw, selector: Mapping[str, str]) -> Node:
    """One node; `selector` are the labels that engine pods ask for."""
    status = raw.get("status") or {}
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or [])
    closed = bool((raw.get("spec") or {}).get("unschedulable"))
    fits = all(labels_of(raw).get(key) == value for key, value in selector.items())
    extended = {k: parse_quantity(v) for k, v in (status.get("allocatable") or {}).items() if "/" in k}
    return Node(str(metadata_of(raw).get("name", "")), ready and not closed and fits, extended, labels_of(raw))


def count_groups(
    nodes: Sequence[Node], pods: Sequence[Raw], resources: Iterable[str], pools: Mapping[str, NodeGroup]
) -> Advertised:
    """Each node counts for one group of its resource: the one that names most of its labels."""
    groups = set(pools.values())
    by_resource: dict[str, int] = {}
    by_group: dict[NodeGroup, int] = {}
    rooms: dict[NodeGroup, tuple[NodeRoom, ...]] = {}
    for resource in resources:
        rest = NodeGroup(resource)
        of_resource = sorted((g for g in groups if g.resource == resource), key=lambda g: (-len(g.labels), g.labels))
        homes = {node.name: next((g for g in of_resource if g.has(node)), rest) for node in nodes}
        for group in {rest, *of_resource}:
            members = [node for node in nodes if homes[node.name] == group]
            own, others = _split_pods(pods, group, pools)
            rooms[group] = tuple(find_rooms(members, own, resource, others))
            count = sum(room.capacity for room in rooms[group])
            if group.labels:
                by_group[group] = count
            else:
                by_resource[resource] = count
    return Advertised(by_resource, by_group=by_group, rooms=rooms)


def find_rooms(nodes: Iterable[Node], pods: Iterable[Raw], resource: str, others: Iterable[Raw] = ()) -> list[NodeRoom]:
    """By name, what each node advertises, and never less than the models' pods hold there.

    So a node that is cordoned, not Ready or whose device plugin restarts takes nothing new, but forces no replica out.
    Example: 4 on a Ready node, 4 on a cordoned one where pods hold 3: 4 and 3, together 7.
    `others` are pods that count elsewhere: what they hold on these nodes is not there for `pods`.
    """
    held, foreign = _held_by_node(pods, resource), _held_by_node(others, resource)
    usable = {node.name: node.allocatable.get(resource, 0) for node in nodes if node.takes_engines}
    capacities = {
        name: max(usable.get(name, 0) - foreign.get(name, 0), held.get(name, 0)) for name in usable.keys() | held.keys()
    }
    return [
        NodeRoom(name, most, most - held.get(name, 0), name in usable)
        for name, most in sorted(capacities.items())
        if most > 0
    ]


def _held_by_node(pods: Iterable[Raw], resource: str) -> dict[str, int]:
    held: dict[str, int] = {}
    for pod in pods:
        spec = pod.get("spec") or {}
        if spec.get("nodeName") and not has_ended(pod):
            held[spec["nodeName"]] = held.get(spec["nodeName"], 0) + count_accelerators(spec, resource)
    return held


def _split_pods(pods: Iterable[Raw], group: NodeGroup, pools: Mapping[str, NodeGroup]) -> tuple[list[Raw], list[Raw]]:
    """Pods that hold from a group, and all others."""
    rest = NodeGroup(group.resource)
    own: list[Raw] = []
    others: list[Raw] = []
    for pod in pods:
        home = pools.get(labels_of(pod).get(LABEL_POOL, ""), rest)
        (own if home == group else others).append(pod)
    return own, others
