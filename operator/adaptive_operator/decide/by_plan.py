"""A budget that is not divided by fair shares, shared as one program over its models says, where that is worth more.

The program says how many accelerators each model should have; within them the model's own rules choose and damp. A
model gives to another one what only its quality depends on (`giving.py`); what carries its own requests never, unless
the other one counts more (`yielding.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from adaptive_operator.decide.by_need import Division, acts, need_of
from adaptive_operator.decide.candidates import best_plan, is_enumerable
from adaptive_operator.decide.changes import find_changed, remember
from adaptive_operator.decide.giving import give
from adaptive_operator.decide.growth import grow
from adaptive_operator.decide.lack import growth_demand, has_lasted, lacks_capacity
from adaptive_operator.decide.optimize.problem import UNSERVED, Problem
from adaptive_operator.decide.optimize.solve import PoolPlan, SolveSettings, solve_greedily
from adaptive_operator.decide.placing import has_room, room_by_size
from adaptive_operator.decide.planned import build_problem, is_plannable, planned_demand, planned_mixes, propose_mix
from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.restoring import restore
from adaptive_operator.decide.rules import propose
from adaptive_operator.decide.situation import Mix, Situation, as_mix, as_plan, plan_space
from adaptive_operator.decide.wording import accelerators_text, mix_text, rate_text, read_fingerprint
from adaptive_operator.decide.yielding import yield_load
from adaptive_operator.observe.observation import LastPlan, Planning, PoolObservation
from adaptive_operator.reasons import Reason

# A plan is followed when it is worth this much more than what the models would do by themselves (share of the demand;
# a request not served counts as ten). Less is not worth that accelerators go from one model to another.
_LEAST_GAIN: Final = 0.01
# What was left free is handed out when that gains so many times what a plan may miss: near the limit a pool would offer
# it in one pass and keep it in the next, and nobody would come to agree on it.
_LEFT_FREE_AGAIN: Final = 3.0

Solver = Callable[[Problem, Collection[str] | None], PoolPlan]  # a program, keys of what changed (None: all)


@dataclass(frozen=True, slots=True)
class Planned:
    """What the program said of the models that it planned."""

    problem: Problem
    plan: PoolPlan
    mixes: Mapping[str, dict[str, int]]  # replicas by tier, by model key
    last: LastPlan | None = None  # what the next plan is to be compared with
    followed: bool = False
    left_free: bool = False  # what is free stays free: to hand it out would gain less than `slack`
    weights: Mapping[str, float] = field(init=False, repr=False, compare=False)  # how many times each counts, by key
    is_weighted: bool = field(init=False, repr=False, compare=False)  # does any model not count once?

    def __post_init__(self) -> None:
        """Gather the weights once: every model asks for all of them."""
        weights = _weights_of(self.problem)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "is_weighted", any(weight != 1 for weight in weights.values()))

    @property
    def is_trusted(self) -> bool:
        """Is the plan near enough to its bound? Not where the solver was cut off, or was not asked."""
        return self.plan.gap <= SolveSettings().accepted_gap

    @property
    def slack(self) -> float:
        """What one plan is worth more than another by chance: the gap it was solved up to (requests/s x weight)."""
        missed = self.plan.gap if self.is_trusted else 0.0
        return max(SolveSettings().gap, missed) * self.problem.weighted_demand


def plan_pool(
    situations: Sequence[Situation],
    pool: PoolObservation,
    base: Division,
    solver: Solver,
    weights: Mapping[str, float],
) -> tuple[Division, Planned | None]:
    """The division to carry out: the plan's where it is worth more than `base`, and what was planned.

    `weights`: how many times each model counts, by key.
    None: no plan could be worth it. So it is where a model has the pool for itself, or nobody lacks anything.
    """
    if len(situations) < 2 or pool.planning is Planning.BY_NEED:
        return base, None
    models = [s for s in situations if is_plannable(s, base.limits[s.model.key])]
    planned_keys = {s.model.key for s in models}
    others = [s for s in situations if s.model.key not in planned_keys]
    left = pool.budget - sum(_kept(s, base.proposals[s.model.key]) for s in others)
    if len(models) < 2 or not _may_gain(models, base, left, weights):
        return base, None
    room = room_by_size(models, others, pool.nodes)
    problem = build_problem(models, pool.resource, left, pool.prices, weights, room)
    planned = _solved(models, problem, pool, base, solver)
    return _carry_out(models, others, planned, base, _LEFT_FREE_AGAIN if pool.left_free else 1.0)


def _solved(
    models: Sequence[Situation], problem: Problem, pool: PoolObservation, base: Division, solver: Solver
) -> Planned:
    changed = find_changed(problem, pool.last_plan, pool.budget)
    plan = solve_greedily(problem) if pool.planning is Planning.GREEDY else solver(problem, changed)
    mixes = planned_mixes(models, problem, plan)
    followed = _is_worth_it(models, base, mixes, _weights_of(problem))
    # Nobody goes to a plan that is not followed: compared with it, every model would count as changed for ever.
    stands = plan if followed else replace(plan, counts=problem.present)
    last = remember(problem, stands, changed, pool.last_plan, pool.budget, SolveSettings())
    return Planned(problem, plan, mixes, last, followed)


def describe_plan(situation: Situation, planned: Planned | None, by_need: Division) -> str:
    """What the program weighed for a model: its share, what it would have by need, and an accelerator's worth."""
    key = situation.model.key
    if planned is None or key not in planned.mixes:
        return ""
    if not planned.followed and not planned.left_free:
        return "shared by need: the pool's plan would not serve enough more to be followed"
    mix, alone = planned.mixes[key], by_need.proposals[key].replicas
    share, other = situation.cost(mix), situation.cost(alone)
    price = max(planned.plan.prices.values(), default=0.0)
    kept = ""
    if planned.left_free and share > situation.cost(situation.wanted):
        kept = (
            f" What runs is kept: the plan gains less with what is free than it may miss ({rate_text(planned.slack)})."
        )
    return (
        f"the pool's plan is {mix_text(mix)}, {accelerators_text(share)}; by need it would be {other}.{kept}"
        f" At {rate_text(planned_demand(situation))}; one more accelerator of the pool would be worth"
        f" {rate_text(price)} at full quality, where a refused request counts ten{_weight_text(planned, key)}"
    )


def _weight_text(planned: Planned, key: str) -> str:
    """Empty where every model counts once."""
    if not planned.is_weighted:
        return ""
    return f", and all counts times a model's weight, here {planned.weights[key]:g}"


def _weights_of(problem: Problem) -> dict[str, float]:
    return {model.key: model.weight for model in problem.models}


def _may_gain(models: Sequence[Situation], base: Division, left: int, weights: Mapping[str, float]) -> bool:
    """Would it be worth something if each model had everything to itself? No plan is worth more than that."""
    alone: dict[str, Mix] = {}
    for s in models:
        space, proposed = plan_space(s, min(s.budget, left)), base.proposals[s.model.key].replicas
        best = best_plan(space, planned_demand(s), s.settings.exact_plans)
        alone[s.model.key] = proposed if best is None else as_mix(s, space, best)
    return _is_worth_it(models, base, alone, weights)


def _is_worth_it(
    models: Sequence[Situation], base: Division, mixes: Mapping[str, Mix], weights: Mapping[str, float]
) -> bool:
    gain = sum(
        weights[s.model.key] * _gain(s, base.proposals[s.model.key].replicas, mixes[s.model.key]) for s in models
    )
    return gain > _LEAST_GAIN * sum(weights[s.model.key] * planned_demand(s) for s in models)


def _gain(situation: Situation, mix: Mix, other: Mix) -> float:
    """What another mix is worth more than `mix`."""
    return _worth(situation, other) - _worth(situation, mix)


def _kept(situation: Situation, proposal: Proposal) -> int:
    """Accelerators of a model that is not planned: what its rules propose; all that it holds where nothing is done."""
    proposed = situation.cost(proposal.replicas)
    return proposed if acts(situation) else max(situation.held, situation.cost(situation.wanted))


def _worth(situation: Situation, mix: Mix) -> float:
    """Quality served less what is refused, as the program counts it but for the weight."""
    demand, space = planned_demand(situation), plan_space(situation, situation.budget)
    filled = space.fill(as_plan(space, mix), demand)
    return filled.quality_permille / 1000 * (demand - filled.unserved) - UNSERVED * filled.unserved


@dataclass(slots=True)
class _Handout:
    """What each model may have, what it proposes within that, and what is free for those that come after it.

    `base`: what was proposed by need, which stands for who may have as much.
    """

    base: Division
    limits: dict[str, int]
    proposals: dict[str, Proposal]
    free: int


def _carry_out(
    models: Sequence[Situation], others: Sequence[Situation], planned: Planned, base: Division, slacks: float
) -> tuple[Division, Planned]:
    """Those whose load is not carried first, then the rest; while one of them waits for room, the rest only gives.

    A plan that is not followed is carried out only where it keeps what runs: near rest it is worth following in one
    pass and not in the next, and by need everybody would ask for what is free. `slacks`: what is free is handed out
    where that gains more than so many times what the plan may miss.
    """
    owned, weights = base.owned, planned.weights
    free = base.free - sum(need_of(s, base.proposals[s.model.key], owned) for s in others)
    out = _Handout(base, dict(base.limits), dict(base.proposals), free)
    needs = {s.model.key: max(0, s.cost(planned.mixes[s.model.key]) - owned[s.model.key]) for s in models}
    lacking = sorted((s for s in models if lacks_capacity(s)), key=lambda s: -weights[s.model.key])
    if lacking and not planned.followed:
        return base, planned
    waits = _serve_lacking(lacking, planned, owned, needs, out)
    # What may be chance or a short burst is no reason to take something from others.
    sure = [s for s in lacking if _is_sure(s, out.proposals[s.model.key])]
    lacking_keys = {s.model.key for s in lacking}
    rest = [s for s in models if s.model.key not in lacking_keys]
    gain = _gain_of_free(rest, planned, needs, out.free)
    planned = replace(planned, left_free=not waits and gain <= slacks * planned.slack)
    if not planned.followed and not planned.left_free:
        return base, planned
    if waits:
        _take_from_all(lacking, rest, planned, owned, needs, sure, out)
    else:
        for s in rest:
            _hand_to(s, planned, owned, 0 if planned.left_free else needs[s.model.key], out.free, out)
    if waits or planned.left_free:
        # What is left free is there for nobody: else all would be told so, and not, as it moves.
        return Division(out.limits, out.proposals, owned, base.free), planned
    return _widened(models, out.limits, out.proposals, base, out.free), planned


def _serve_lacking(
    lacking: Sequence[Situation], planned: Planned, owned: Mapping[str, int], needs: Mapping[str, int], out: _Handout
) -> bool:
    """Give what is free to those whose load is not carried, in this order; does any of them wait for more?"""
    for s in lacking:
        key = s.model.key
        given = min(needs[key], out.free)
        out.limits[key] = owned[key] + given
        out.proposals[key] = _within(s, planned.mixes[key], out.limits[key], out.limits[key], out.base)
        out.free -= _reserved(s, planned.mixes[key], out, given, owned)
    return sum(needs[s.model.key] for s in lacking) > sum(out.limits[s.model.key] - owned[s.model.key] for s in lacking)


def _reserved(situation: Situation, mix: Mix, out: _Handout, given: int, owned: Mapping[str, int]) -> int:
    """What of the accelerators that a model is given is for nobody else: not what no node puts together for it."""
    proposal = out.proposals[situation.model.key]
    waits = proposal.reason is Reason.HELD_FOR_AGREEMENT or has_room(situation, mix, out.limits[situation.model.key])
    return given if waits else min(given, need_of(situation, proposal, owned))


def _take_from_all(
    lacking: Sequence[Situation],
    rest: Sequence[Situation],
    planned: Planned,
    owned: Mapping[str, int],
    needs: Mapping[str, int],
    sure: Sequence[Situation],
    out: _Handout,
) -> None:
    """While somebody waits: no additions, quality for what is surely refused, a load's own for who counts more."""
    weights = planned.weights
    sure_refused = [(weights[s.model.key], _refused_less(s, planned.mixes[s.model.key])) for s in sure]
    refused = sum(weight * less for weight, less in sure_refused)
    for s in lacking:
        key = s.model.key
        if s.swap is None:
            out.proposals[key] = _yielding(s, planned, out.limits[key], sure_refused, out.proposals[key])
    for s in rest:
        key = s.model.key
        _hand_to(s, planned, owned, needs[key], 0, out)
        if refused > 0 and dict(out.proposals[key].replicas) == s.wanted:
            own = out.proposals[key]
            given = _giving(s, planned.mixes[key], out.limits[key], refused / weights[key], own)
            # One of the two at a time: plans agree on one mix.
            out.proposals[key] = _yielding(s, planned, out.limits[key], sure_refused, own) if given is own else given


def _hand_to(
    situation: Situation, planned: Planned, owned: Mapping[str, int], need: int, free: int, out: _Handout
) -> None:
    """Offer a model its share of what is free."""
    key = situation.model.key
    out.limits[key], out.proposals[key] = _offer(situation, planned.mixes[key], need, free, out.base)
    out.free -= need_of(situation, out.proposals[key], owned)


def _gain_of_free(models: Sequence[Situation], planned: Planned, needs: Mapping[str, int], free: int) -> float:
    """What the plan gains over what runs where it gives models more of what is free (as `Planned.slack`)."""
    gained, weights = 0.0, planned.weights
    for s in models:
        mix, need = planned.mixes[s.model.key], needs[s.model.key]
        if 0 < need <= free:
            gained += weights[s.model.key] * _gain(s, s.wanted, mix)
            free -= need
    return gained


def _offer(situation: Situation, mix: Mix, need: int, free: int, base: Division) -> tuple[int, Proposal]:
    """What a model may have, with its proposal: its share of what is free, or more of that to go on agreeing on it.

    Plans of many models are solved up to a gap, so which of them is given the last free ones is chance, and another one
    in the next pass. Plans that have begun to agree may go on: else nobody's ever would. With what they cost, where
    that fits, and else with all that is free.
    """
    owned = base.owned[situation.model.key]
    share, most = owned + min(need, free), max(owned, min(situation.budget, owned + free))
    proposal = _within(situation, mix, share, most, base)
    if situation.memory.agreed_count == 0 or _goes_on(situation, proposal):
        return share, proposal
    for limit in (_cost_agreed_on(situation), most):
        if limit is not None and owned <= limit <= most:
            wider = _within(situation, mix, limit, most, base)
            if _goes_on(situation, wider):
                return limit, wider
    return share, proposal


def _cost_agreed_on(situation: Situation) -> int | None:
    """Accelerators of the mix that the last plans agreed on; None where it is none of the tiers of now."""
    agreed = read_fingerprint(situation.memory.agreed_plan or "")
    return None if agreed is None or not agreed.keys() <= situation.wanted.keys() else situation.cost(agreed)


def _goes_on(situation: Situation, proposal: Proposal) -> bool:
    """Is it about the plan that was last agreed on, or carries that out?"""
    is_same = proposal.memory.agreed_plan == situation.memory.agreed_plan
    return is_same or dict(proposal.replicas) != situation.wanted


def _widened(
    models: Sequence[Situation], limits: dict[str, int], proposals: dict[str, Proposal], base: Division, rest: int
) -> Division:
    """What nobody takes is there for each: what a model may have is told with it."""
    for s in models:
        key = s.model.key
        limits[key] = max(limits[key], min(s.budget, base.owned[key] + need_of(s, proposals[key], base.owned) + rest))
    return Division(limits, proposals, base.owned, base.free)


def _within(situation: Situation, mix: Mix, limit: int, most: int, base: Division) -> Proposal:
    """The model's own rules within its share: exact where its plans can be enumerated; else the program's own mix.

    `most`: its share with all that is free. Where that has room to start replicas before others drain, none has to be
    exchanged in time. What the rules say was asked for `base` already, where its limit is the same.
    """
    if situation.swap is not None:  # it goes on, at most further
        return propose(situation, limit)
    space = plan_space(situation, limit)
    if not is_enumerable(space, planned_demand(situation), situation.settings.exact_plans):
        return propose_mix(situation, mix, limit)
    has_time = most > limit and grow(situation, limit) is not None and grow(situation, most) is None
    if has_time:
        return propose(situation, limit, (restore,))
    key = situation.model.key
    return base.proposals[key] if limit == base.limits[key] else propose(situation, limit)


def _giving(situation: Situation, mix: Mix, limit: int, refused: float, else_: Proposal) -> Proposal:
    given = give(situation, mix, limit, refused)
    return else_ if given is None else replace(given, findings=else_.findings)


def _yielding(
    situation: Situation, planned: Planned, limit: int, sure: Sequence[tuple[float, float]], else_: Proposal
) -> Proposal:
    """As `_giving`, but of what carries the own load: for requests of models that count more, and only theirs.

    `sure`: weights of the models that surely lack something, each with what it lacks (requests/s).
    """
    if not planned.is_weighted or dict(else_.replicas) != situation.wanted:
        return else_
    key, own = situation.model.key, planned.weights[situation.model.key]
    refused = sum(weight * less for weight, less in sure if weight > own) / own
    if refused <= 0:
        return else_
    given = yield_load(situation, planned.mixes[key], limit, refused)
    return else_ if given is None else replace(given, findings=else_.findings)


def _is_sure(situation: Situation, proposal: Proposal) -> bool:
    """Is what is lacking neither chance nor a short burst? Where nothing is free, no plans can agree on it."""
    demand = growth_demand(situation)
    is_held = proposal.reason is Reason.HELD_FOR_AGREEMENT
    return not is_held and demand is not None and has_lasted(situation, situation.wanted, demand)


def _refused_less(situation: Situation, mix: Mix) -> float:
    """Requests/s that a mix serves of those that what is wanted does not."""
    demand, space = growth_demand(situation) or 0.0, plan_space(situation, situation.budget)
    now, then = (space.fill(as_plan(space, m), demand).unserved for m in (situation.wanted, mix))
    return max(0.0, now - then)
