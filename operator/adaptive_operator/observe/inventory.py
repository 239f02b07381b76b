"""How many accelerators the nodes advertise: the budget of a resource for which the operator has none.

Nodes are asked for only when a model needs it, and not at every pass. Knows neither models' demands nor decisions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from adaptive_operator.api.v1alpha1 import Accelerators
from adaptive_operator.kube import KubeClient, KubeError
from adaptive_operator.observe.manifests import Raw, count_accelerators, labels_of, metadata_of, parse_quantity
from adaptive_operator.observe.pods import has_ended

_LOG = logging.getLogger(__name__)
_CACHE_SECONDS: Final = 10.0  # a nudge per pod event must not list all nodes each time
_DEFAULT_RESOURCE: Final = str(Accelerators.model_fields["resource"].default)


@dataclass(frozen=True, slots=True)
class Node:
    """What counts of a node."""

    name: str
    takes_engines: bool  # Ready, schedulable, and with the labels that engine pods ask for
    allocatable: Mapping[str, int]  # extended resources


@dataclass(frozen=True, slots=True)
class Advertised:
    """Accelerators by resource, or why nobody knows them."""

    by_resource: Mapping[str, int] = field(default_factory=dict)
    trouble: str | None = None  # the nodes were asked, and this came back


@dataclass(slots=True)
class NodeInventory:
    """Reads nodes, at most every few seconds. `is_allowed` False: never, the operator has no right to see them."""

    kube: KubeClient
    is_allowed: bool = True
    selector: Mapping[str, str] = field(default_factory=dict)  # labels of the nodes that engine pods may run on
    monotonic: Callable[[], float] = time.monotonic
    _nodes: Sequence[Node] = ()
    _read_at: float | None = None
    _said: dict[str, int] = field(default_factory=dict)

    async def read(self, resources: Iterable[str], pods: Sequence[Raw]) -> Advertised:
        """What is advertised of these resources; never raises KubeError."""
        wanted = sorted(set(resources))
        if not wanted or not self.is_allowed:
            return Advertised()
        try:
            nodes = await self._read_nodes()
        except KubeError as error:
            return Advertised(trouble=str(error))
        counts = {resource: count_advertised(nodes, pods, resource) for resource in wanted}
        self._say(counts)
        return Advertised(counts)

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


def find_unnamed(models: Iterable[Raw], budgets: Mapping[str, int]) -> set[str]:
    """Resources that models ask for and for which the operator names no budget."""
    wanted: set[str] = set()
    for raw in models:
        accelerators = (raw.get("spec") or {}).get("accelerators") or {}
        if isinstance(accelerators, Mapping):
            wanted.add(str(accelerators.get("resource") or _DEFAULT_RESOURCE))
    return wanted - set(budgets)


def parse_node(raw: Raw, selector: Mapping[str, str]) -> Node:
    """One node; `selector` are the labels that engine pods ask for."""
    status = raw.get("status") or {}
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or [])
    closed = bool((raw.get("spec") or {}).get("unschedulable"))
    fits = all(labels_of(raw).get(key) == value for key, value in selector.items())
    extended = {k: parse_quantity(v) for k, v in (status.get("allocatable") or {}).items() if "/" in k}
    return Node(str(metadata_of(raw).get("name", "")), ready and not closed and fits, extended)


def count_advertised(nodes: Iterable[Node], pods: Iterable[Raw], resource: str) -> int:
    """What nodes advertise, and never less of a node than the models' pods hold there.

    So a node that is cordoned, not Ready or whose device plugin restarts takes nothing new, but forces no replica out.
    Example: 4 on a Ready node, 4 on a cordoned one where pods hold 3: 7.
    """
    held: dict[str, int] = {}
    for pod in pods:
        spec = pod.get("spec") or {}
        if spec.get("nodeName") and not has_ended(pod):
            held[spec["nodeName"]] = held.get(spec["nodeName"], 0) + count_accelerators(spec, resource)
    usable = {node.name: node.allocatable.get(resource, 0) for node in nodes if node.takes_engines}
    return sum(max(usable.get(name, 0), held.get(name, 0)) for name in usable.keys() | held.keys())
