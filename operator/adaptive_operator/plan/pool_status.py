"""The status of an AcceleratorPool: what it has, who holds it, and why each model has what it has. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from adaptive_operator.api.pool import AcceleratorPoolStatus, MemberStatus
from adaptive_operator.api.status import Condition
from adaptive_operator.decide.decision import PoolPart
from adaptive_operator.decide.fairness import build_parties
from adaptive_operator.observe.observation import PoolShare
from adaptive_operator.plan.clock import format_time
from adaptive_operator.plan.conditions import Truth
from adaptive_operator.plan.text import trim
from adaptive_operator.reasons import ConditionType, PoolReason, ShareReason

_MOST_MEMBERS: Final = 1000
_MOST_NAMED: Final = 5
_NOT_DECIDED: Final = "nothing can be decided for it now, so it keeps what it holds; see its conditions"


@dataclass(frozen=True, slots=True)
class Member:
    """One model of the pool."""

    namespace: str
    name: str
    held: int  # accelerators, Pending and Terminating pods included
    part: PoolPart | None = None  # None: nothing was decided for it

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """All that the status is built from. Amounts in accelerators."""

    generation: int
    resource: str
    budget: int | None  # None: not known, see `trouble`
    surge: int
    held: int  # also by models that were deleted
    shares: tuple[PoolShare, ...]
    price_milli: int | None  # of an accelerator and hour
    members: Sequence[Member]
    now: float
    trouble: tuple[PoolReason, str] | None = None
    written: AcceleratorPoolStatus | None = None
    named: int | None = None  # budget of the spec: there may be fewer


def build_pool_status(facts: PoolFacts) -> AcceleratorPoolStatus:
    """The whole status; times move with changes only."""
    members = sorted(facts.members, key=lambda member: (member.namespace, member.name))
    return AcceleratorPoolStatus(
        observed_generation=facts.generation,
        conditions=(_ready(facts),),
        budget=facts.budget,
        held=facts.held,
        held_summary=f"{facts.held}/{facts.budget}" if facts.budget is not None else str(facts.held),
        cost_per_hour_milli=None if facts.price_milli is None else facts.held * facts.price_milli,
        models_total=len(members),
        models=tuple(_member(member, facts.shares) for member in members[:_MOST_MEMBERS]),
    )


def dump_pool_status(status: AcceleratorPoolStatus) -> dict[str, Any]:
    """As it goes over the wire. What is unset or empty is left out, so that server-side apply removes it."""
    document: Mapping[str, Any] = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {key: value for key, value in document.items() if value != []}


def is_told_already(status: AcceleratorPoolStatus, written: AcceleratorPoolStatus | None) -> bool:
    """Whether nothing would be told by writing it again."""
    return written is not None and dump_pool_status(status) == dump_pool_status(written)


def _ready(facts: PoolFacts) -> Condition:
    truth, reason, message = _judge(facts)
    before = next(
        (c for c in (facts.written.conditions if facts.written else ()) if c.type == ConditionType.READY), None
    )
    unchanged = before is not None and before.status == truth
    return Condition(
        type=ConditionType.READY.value,
        status=truth.value,
        reason=reason.value,
        message=trim(message, 2048),
        last_transition_time=before.last_transition_time if before and unchanged else format_time(facts.now),
        observed_generation=facts.generation,
    )


def _judge(facts: PoolFacts) -> tuple[Truth, PoolReason, str]:
    if facts.trouble is not None:
        return Truth.FALSE, *facts.trouble
    budget = facts.budget or 0
    if facts.held > budget + facts.surge:
        words = (
            f"{facts.held} {facts.resource} are held, and there are {budget}: nothing is started until some are free"
        )
        return Truth.FALSE, PoolReason.OVER_BUDGET, words
    reserved = sum(share.reservation for share in facts.shares)
    if reserved > budget:
        words = f"{reserved} {facts.resource} are reserved, and there are {budget}: reservations are kept in proportion"
        remedy = "lower shares[].reservation, or add nodes"
        return Truth.FALSE, PoolReason.RESERVATIONS_REDUCED, f"{words}; {remedy}"
    surge = f" (and {facts.surge} more while replicas are exchanged)" if facts.surge else ""
    told = [f"its models share {budget} {facts.resource}{surge}", *_less_than_named(facts), *_shares_of_nobody(facts)]
    return Truth.TRUE, PoolReason.SHARING, "; ".join(told)


def _less_than_named(facts: PoolFacts) -> Iterator[str]:
    if facts.named is not None and facts.budget is not None and facts.budget < facts.named:
        yield (
            f"budget is {facts.named}, and its nodes advertise no more that no other pool takes: add nodes,"
            f" correct nodeSelector, or lower budget to {facts.budget}"
        )


def _shares_of_nobody(facts: PoolFacts) -> Iterator[str]:
    """A wrong name would go unseen: a share that nobody has promises nothing to those that it was meant for."""
    there = {(member.namespace, name) for member in facts.members for name in (member.name, "")}
    missing = [share for share in facts.shares if (share.namespace, share.model) not in there]
    if missing:
        named = ", ".join(_share_text(share) for share in missing[:_MOST_NAMED])
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        yield f"nobody has the shares of {named}{more}: correct them, or create a model that names this pool"


def _share_text(share: PoolShare) -> str:
    return f"{share.namespace}/{share.model}" if share.model else f"namespace {share.namespace}"


def _member(member: Member, shares: tuple[PoolShare, ...]) -> MemberStatus:
    part = member.part or _undecided(member, shares)
    return MemberStatus(
        namespace=member.namespace,
        name=member.name,
        accelerators=member.held,
        granted=part.granted,
        reservation=part.reservation,
        weight=part.weight,
        reason=part.reason.value,
        message=trim(part.message, 512),
    )


def _undecided(member: Member, shares: tuple[PoolShare, ...]) -> PoolPart:
    (party,) = build_parties(shares, [member.key])
    return PoolPart(member.held, party.reservation, party.weight, ShareReason.UNMANAGED, _NOT_DECIDED)
