"""The AcceleratorPool of a manifest as it is simulated: its models share clock, accelerators and one namespace.

A simulation has one namespace. Shares for whole namespaces are kept as far as that can be said with one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from adaptive_operator.api.pool import RESERVATION_WITH_PLAN, AcceleratorPoolSpec, PoolDivision, Share
from adaptive_operator.names import POOL_KIND
from adaptive_operator.observe.declared import DeclaredPool, parse_declared
from adaptive_operator.observe.inventory import Advertised, NodeGroup
from adaptive_operator.observe.models import describe_validation
from adaptive_operator.plan.metadata import API_VERSION


class PoolModelError(ValueError):
    """The pool cannot be simulated; the text names the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Member:
    """A model of the manifest, and the pool that it names."""

    name: str
    namespace: str
    pool: str | None


@dataclass(frozen=True, slots=True)
class PoolModel:
    """The pool. Of a share in `spec` only the model counts; none: all that no other share names."""

    name: str
    spec: AcceleratorPoolSpec

    def raw(self, namespace: str) -> dict[str, Any]:
        """The object as the operator would read it, of a simulation in this namespace."""
        shares = tuple(share.model_copy(update={"namespace": namespace}) for share in self.spec.shares)
        spec = self.spec.model_copy(update={"shares": shares})
        metadata = {"name": self.name, "uid": f"uid-of-{self.name}", "generation": 1, "resourceVersion": "1"}
        body = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {"apiVersion": API_VERSION, "kind": POOL_KIND, "metadata": metadata, "spec": body}

    def advertised(self, accelerators: int) -> Advertised:
        """What the pool's nodes have, when they have so many accelerators."""
        group = NodeGroup.of(self.spec.resource, self.spec.node_selector)
        if group.labels:
            return Advertised(by_group={group: accelerators})
        return Advertised(by_resource={self.spec.resource: accelerators})


def find_pool(documents: Sequence[Any], members: Sequence[Member], budget: int | None) -> PoolModel | None:
    """The pool that the models name, with `budget` in place of its own; None where the documents have none of it.

    Raises PoolModelError.
    """
    found = [_parse(doc) for doc in documents if isinstance(doc, dict) and doc.get("kind") == POOL_KIND]
    pools = {pool.name: pool for pool in found}
    named = {member.pool for member in members}
    if not named & set(pools):
        return None
    if len(named) > 1:
        raise PoolModelError("all models must name the same accelerators.pool, or none: one pool is simulated")
    pool = pools[str(named.pop())]
    accelerators = budget or pool.spec.budget
    if not accelerators:
        raise PoolModelError(f"AcceleratorPool {pool.name} names no budget; set it, or give --budget")
    reserved = sum(share.reservation or 0 for share in pool.spec.shares)
    if reserved and pool.spec.division is PoolDivision.PLANNED:
        raise PoolModelError(f"AcceleratorPool {pool.name}: {RESERVATION_WITH_PLAN}")
    if reserved > accelerators:
        raise PoolModelError(f"{reserved} accelerators of pool {pool.name} are reserved, it has {accelerators}")
    update = {"budget": accelerators, "shares": _in_one_namespace(pool.spec.shares, members)}
    return PoolModel(pool.name, pool.spec.model_copy(update=update))


def _parse(raw: Mapping[str, Any]) -> DeclaredPool:
    try:
        AcceleratorPoolSpec.model_validate(raw.get("spec") or {})
    except ValidationError as error:
        raise PoolModelError(f"AcceleratorPool: {describe_validation(error)}") from None
    return parse_declared(raw)


def _in_one_namespace(shares: Sequence[Share], members: Sequence[Member]) -> tuple[Share, ...]:
    """The shares that are for anybody here: by name for one model, for all others of the manifest if for several."""
    own = {(share.namespace, share.model) for share in shares if share.model}
    rest = [member for member in members if (member.namespace, member.name) not in own]
    kept = []
    for share in shares:
        if share.model:
            who = [m for m in members if (m.namespace, m.name) == (share.namespace, share.model)]
        else:
            who = [m for m in rest if m.namespace == share.namespace]
        if len(who) > 1 and len(who) < len(rest):
            raise PoolModelError(
                f"the share of namespace {share.namespace} is for several models, and there are models of other"
                " namespaces: give each model a share of its own"
            )
        if who:
            kept.append(share.model_copy(update={"model": who[0].name if len(who) == 1 else ""}))
    return tuple(kept)
