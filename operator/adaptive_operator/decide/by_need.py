"""A budget that no AcceleratorPool divides, shared by need: who came first keeps what he has, but for minimums.

What is free is split by need when all want more. Where one program over all models knows better, see `by_plan.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.budget import Claim, free_accelerators, shares, split
from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.rules import propose
from adaptive_operator.decide.situation import Situation


@dataclass(frozen=True, slots=True)
class Division:
    """Who may have how much, by model key, and a proposal for each; all proposals together fit the budget.

    `owned`: what each model has or is owed, `free`: what nobody holds or is owed (accelerators).
    """

    limits: Mapping[str, int]
    proposals: Mapping[str, Proposal]
    owned: Mapping[str, int] = field(default_factory=dict)
    free: int = 0


def divide_by_need(situations: Sequence[Situation], claims: Sequence[Claim], budget: int) -> Division:
    """A proposal per model, with the limit it was made in."""
    share = shares(claims, budget)
    limits = {key: item.limit for key, item in share.items()}
    proposals = {s.model.key: propose(s, limits[s.model.key]) for s in situations}
    owned = {key: item.own for key, item in share.items()}
    free = free_accelerators(claims, owned, budget)
    needs = {s.model.key: need_of(s, proposals[s.model.key], owned) for s in situations}
    if sum(needs.values()) <= free:
        return Division(limits, proposals, owned, free)
    given = split(needs, free)
    for s in situations:
        key = s.model.key
        limit = owned[key] + given[key] if needs[key] else limits[key]
        if limit != limits[key]:
            limits[key], proposals[key] = limit, propose(s, limit)
    return _hand_out_rest(situations, Division(limits, proposals, owned, free))


def need_of(situation: Situation, proposal: Proposal, owned: Mapping[str, int]) -> int:
    """Accelerators that a proposal takes of what is free."""
    return max(0, situation.cost(proposal.replicas) - owned[situation.model.key]) if acts(situation) else 0


def acts(situation: Situation) -> bool:
    """Are decisions about this model carried out?"""
    return situation.model.spec.mode is Mode.ACTIVE


def _hand_out_rest(situations: Sequence[Situation], division: Division) -> Division:
    """Whole replicas leave a rest after the split: offered to one model after the other, in order of their keys."""
    limits, proposals, owned = dict(division.limits), dict(division.proposals), division.owned
    rest = division.free - sum(need_of(s, proposals[s.model.key], owned) for s in situations)
    for situation in situations:
        key = situation.model.key
        used = need_of(situation, proposals[key], owned)
        limit = min(situation.budget, owned[key] + used + max(0, rest))
        if limit > limits[key]:
            proposals[key] = propose(situation, limit)
            limits[key] = limit
            rest -= need_of(situation, proposals[key], owned) - used
    return Division(limits, proposals, owned, division.free)
