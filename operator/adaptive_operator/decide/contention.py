"""The models of an AcceleratorPool within its budget: each may always plan with its fair share, and with what is idle.

Unlike models that name no pool (see `budget.py`), one that uses more than its share is shrunk when others want theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide import scarcity
from adaptive_operator.decide.budget import Claim, find_kept
from adaptive_operator.decide.decision import PoolPart
from adaptive_operator.decide.fairness import Party, Want, build_parties, divide
from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.rules import propose
from adaptive_operator.decide.situation import Situation
from adaptive_operator.decide.surge import find_without_surge
from adaptive_operator.decide.wording import accelerators_text
from adaptive_operator.observe.observation import PoolObservation
from adaptive_operator.reasons import Reason, ShareReason

_ROUNDS = 8  # of handing out what whole replicas leave; each round gives a model one replica at most


@dataclass(frozen=True, slots=True)
class Contest:
    """How the pool was divided in one pass. All maps are by model key."""

    limits: dict[str, int]  # accelerators that each model could plan with
    proposals: dict[str, Proposal]
    fair: Mapping[str, int]  # what each would have if all wanted all; without models that do not act
    parties: Mapping[str, Party]
    cut: frozenset[str]  # got less than they asked for


def hold_contest(situations: Sequence[Situation], claims: Sequence[Claim], pool: PoolObservation) -> Contest:
    """A proposal per model; together they cost no more than the budget."""
    acting = {s.model.key: s for s in situations if s.model.spec.mode is Mode.ACTIVE}
    claim_of = {claim.key: claim for claim in claims}
    kept = sum(max(claim.held, claim.wanted) for claim in claims if claim.key not in acting)
    budget = max(0, pool.budget - kept)
    parties, own = build_parties(pool.shares, acting), {key: claim_of[key] for key in acting}
    fair = _divide_all(parties, {key: replace(claim, kept=0) for key, claim in own.items()}, budget)
    own = _with_kept(own, budget)
    limits = _first_limits(parties, own, _divide_all(parties, own, budget), budget)
    asked = {key: propose(s, limits[key]) for key, s in acting.items()}
    without = find_without_surge(acting, asked)
    asked |= {key: propose(replace(acting[key], surge=0), limits[key]) for key in without}
    contest = Contest(limits, asked, fair, _by_member(parties), frozenset())
    costs = {key: s.cost(asked[key].replicas) for key, s in acting.items()}
    if sum(costs.values()) > budget:
        parts = divide(parties, {key: _want(own[key], costs[key]) for key in acting}, budget)
        contest = _cut(contest, acting, parts, costs, budget)
    return _with_watchers(contest, situations, claim_of, pool)


def describe_part(situation: Situation, proposal: Proposal, contest: Contest) -> PoolPart:
    """What a model got, and why."""
    key, granted = situation.model.key, situation.cost(proposal.replicas)
    party = contest.parties[key]
    reason = _reason_of(situation, proposal, contest, granted)
    together = f", shared by {len(party.members)} models of the namespace" if len(party.members) > 1 else ""
    reserved = f"reservation {party.reservation}, " if party.reservation else ""
    share = f"{accelerators_text(granted)} ({reserved}weight {party.weight}{together})"
    return PoolPart(granted, party.reservation, party.weight, reason, f"{share}: {_WHY[reason]}")


_WHY: Mapping[ShareReason, str] = {
    ShareReason.SATISFIED: "has all that it wants",
    ShareReason.BORROWING: "uses what others are owed and do not want now",
    ShareReason.RESERVED: "wants more than its reservation, and others are owed the rest",
    ShareReason.MINIMUM: "has its minimum, or what fits of it, and wants more: others are owed the rest",
    ShareReason.WEIGHTED: "wants more than its weight gives",
    ShareReason.UNMANAGED: "keeps what it has, because its mode is not Active",
    **scarcity.WHY,
}


def _reason_of(situation: Situation, proposal: Proposal, contest: Contest, granted: int) -> ShareReason:
    key = situation.model.key
    if key not in contest.fair:
        return ShareReason.UNMANAGED
    limited = {Reason.BUDGET_SHARED} & {proposal.reason, *(finding.reason for finding in proposal.findings)}
    if not limited and key not in contest.cut:
        lack = scarcity.find_lack(situation, proposal)
        if lack is not None:
            return lack
        return ShareReason.BORROWING if granted > contest.fair[key] else ShareReason.SATISFIED
    if 0 < granted <= contest.parties[key].reservation:
        return ShareReason.RESERVED
    least = situation.cost({tier.name: tier.low for tier in situation.tiers})
    return ShareReason.MINIMUM if 0 < granted <= least else ShareReason.WEIGHTED


def _want(claim: Claim, demand: int) -> Want:
    return Want(demand, claim.minimum, claim.held > 0, claim.first, min(claim.kept, demand))


def _with_kept(claims: Mapping[str, Claim], budget: int) -> dict[str, Claim]:
    """Claims with what models of unknown demand keep in this pass, others' share or not."""
    kept = find_kept(list(claims.values()), budget)
    return {key: replace(claim, kept=kept[key]) for key, claim in claims.items()}


def _divide_all(parties: Sequence[Party], claims: Mapping[str, Claim], budget: int) -> dict[str, int]:
    """The division if all wanted all, beside what is kept."""
    return divide(parties, {key: _want(claim, claim.most) for key, claim in claims.items()}, budget)


def _by_member(parties: Sequence[Party]) -> dict[str, Party]:
    return {key: party for party in parties for key in party.members}


def _first_limits(
    parties: Sequence[Party], claims: Mapping[str, Claim], fair: Mapping[str, int], budget: int
) -> dict[str, int]:
    """The fair share, or what is had now and all that is idle: whichever is more.

    The fair share does not move with the load, so that plans within it can agree from pass to pass.
    """
    wants = {key: _want(claim, min(claim.most, max(claim.minimum, claim.wanted))) for key, claim in claims.items()}
    now = divide(parties, wants, budget)
    taken = {key: max(now[key], claim.held) for key, claim in claims.items()}
    idle = max(0, budget - sum(taken.values()))
    exceeded = sum(taken.values()) > budget
    return {
        key: min(claim.most, max(fair[key], (now if exceeded else taken)[key] + idle)) for key, claim in claims.items()
    }


def _cut(
    contest: Contest, acting: Mapping[str, Situation], parts: Mapping[str, int], costs: Mapping[str, int], budget: int
) -> Contest:
    """All keep to their parts; what whole replicas leave is offered to those that were cut, the poorest first."""
    cut = sorted(key for key in acting if costs[key] > parts[key])
    proposals = contest.proposals | {key: _settle(acting[key], parts[key], contest.proposals[key]) for key in cut}
    limits = contest.limits | {key: parts[key] for key in cut}
    for _ in range(_ROUNDS):
        got = {key: s.cost(proposals[key].replicas) for key, s in acting.items()}
        rest = budget - sum(got.values())
        for key in sorted(cut, key=lambda key: (got[key] / contest.parties[key].weight, key)):
            limit = got[key] + min(rest, max(tier.accelerators for tier in acting[key].tiers))
            if rest <= 0 or limit <= limits[key]:
                continue
            proposals[key] = _settle(acting[key], limit, contest.proposals[key])
            limits[key] = limit
            rest -= acting[key].cost(proposals[key].replicas) - got[key]
        if rest == budget - sum(got.values()):
            break
    return replace(contest, limits=limits, proposals=proposals, cut=frozenset(cut))


def _settle(situation: Situation, limit: int, asked: Proposal) -> Proposal:
    """What a model proposes for less than it asked for.

    Plans agreed on something better; that it has to be smaller does not make them begin to agree anew: models that
    improve at the same time would make each other wait for ever.
    """
    proposal = propose(situation, limit)
    if proposal.reason is not Reason.HELD_FOR_AGREEMENT or asked.reason is Reason.HELD_FOR_AGREEMENT:
        return proposal
    enough = situation.model.spec.scaling.plans_in_agreement
    return propose(replace(situation, memory=replace(proposal.memory, agreed_count=enough)), limit)


def _with_watchers(
    contest: Contest, situations: Sequence[Situation], claims: Mapping[str, Claim], pool: PoolObservation
) -> Contest:
    """Models that do not act: a dry run plans with what it holds and what the others leave."""
    watching = [s for s in situations if s.model.key not in contest.fair]
    used = sum(s.cost(contest.proposals[s.model.key].replicas) for s in situations if s.model.key in contest.fair)
    held = sum(s.held for s in watching)
    idle = max(0, pool.budget - used - held)
    limits = {s.model.key: min(claims[s.model.key].most, s.held + idle) for s in watching}
    proposals = {s.model.key: propose(s, limits[s.model.key]) for s in watching}
    return replace(
        contest,
        limits=contest.limits | limits,
        proposals=contest.proposals | proposals,
        parties=_by_member(build_parties(pool.shares, claims)),
    )
