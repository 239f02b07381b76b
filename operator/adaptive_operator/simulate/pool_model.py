"""The AcceleratorPool of a manifest as it is simulated: its models share clock, accelerators and one namespace.

A simulation has one namespace. Shares for whole namespaces are kept as far as that can be said with one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptive_operator.api.pool import AcceleratorPoolSpec, Share
from adaptive_operator.names import POOL_KIND
from adaptive_operator.observe.inventory import Advertised, NodeGroup
from adaptive_operator.plan.metadata import API_VERSION
from adaptive_operator.simulate.manifest import ManifestError, name_of, parse_pool
from adaptive_operator.simulate.structure import suggest


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
    left_out: tuple[str, ...] = ()  # of its shares: who is no model of the manifest, and the remedy

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
    twice = next((name for name, _ in found if [other for other, _ in found].count(name) > 1), None)
    if twice is not None:
        raise PoolModelError(f"two AcceleratorPools are called {twice}; give each a name of its own")
    pools = dict(found)
    named = {member.pool for member in members}
    if pools:
        _check_named(pools, members)
    if not named & set(pools):
        return None
    if len(named) > 1:
        raise PoolModelError("all models must name the same accelerators.pool, or none: one pool is simulated")
    name = str(named.pop())
    spec = pools[name]
    accelerators = budget or spec.budget
    if accelerators is None:
        raise PoolModelError(f"AcceleratorPool {name} names no budget; set it, or give --budget")
    if accelerators == 0:
        raise PoolModelError(
            f"AcceleratorPool {name}: spec.budget is 0, which holds no replica; raise it, or give --budget"
        )
    reserved = sum(share.reservation or 0 for share in spec.shares)
    if reserved > accelerators:
        raise PoolModelError(
            f"{reserved} accelerators of pool {name} are reserved, it has {accelerators};"
            " lower the reservations, or raise --budget"
        )
    update = {"budget": accelerators, "shares": _in_one_namespace(spec.shares, members)}
    return PoolModel(name, spec.model_copy(update=update), tuple(_describe_left_out(name, spec.shares, members)))


def _check_named(pools: Collection[str], members: Sequence[Member]) -> None:
    """Raises PoolModelError for a name of none of these pools: a typing error would leave the pool out."""
    for member in members:
        if member.pool is not None and member.pool not in pools:
            raise PoolModelError(
                f"{member.name}: accelerators.pool is {member.pool}, which is no AcceleratorPool of the manifest;"
                f" {suggest(member.pool, pools)}"
            )


def _parse(raw: Mapping[str, Any]) -> tuple[str, AcceleratorPoolSpec]:
    try:
        spec = parse_pool(raw)
    except ManifestError as error:
        raise PoolModelError(str(error)) from None
    if not name_of(raw):
        raise PoolModelError(f"{POOL_KIND}: metadata.name: Required value; set it to what the models name")
    return name_of(raw), spec


def _describe_left_out(pool: str, shares: Sequence[Share], members: Sequence[Member]) -> Iterator[str]:
    """Told and not refused: in its cluster the pool may have other members."""
    models = [f"{member.namespace}/{member.name}" for member in members]
    for share in shares:
        namespaces = list(dict.fromkeys(member.namespace for member in members))
        who, known = (f"{share.namespace}/{share.model}", models) if share.model else (share.namespace, namespaces)
        if who not in known:
            kind = "model" if share.model else "namespace"
            hint = suggest(who, known)
            yield f"AcceleratorPool {pool}: the share of {kind} {who} is left out: no model is of it here; {hint}"


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
