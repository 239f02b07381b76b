"""Decide for all models of one pool: a proposal for each within the budget, then records, weights and grants.

Who may have how much is for `contention.py` (an AcceleratorPool divided by weight), `by_need.py` and `by_plan.py` (one
that the plan divides, and models that name none) to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.adopted import as_adopted
from adaptive_operator.decide.budget import Claim, grants
from adaptive_operator.decide.by_need import Division, acts, divide_by_need
from adaptive_operator.decide.by_plan import Planned, Solver, describe_plan, plan_pool
from adaptive_operator.decide.claims import build_claim
from adaptive_operator.decide.contention import describe_part, hold_contest
from adaptive_operator.decide.decision import Decision, Finding, PoolDecision
from adaptive_operator.decide.explanation import explain, recall_explanation
from adaptive_operator.decide.fairness import Party, hash_shares
from adaptive_operator.decide.hold import after_quiet
from adaptive_operator.decide.lack import capacity
from adaptive_operator.decide.optimize.solve import solve
from adaptive_operator.decide.placing import find_without_room, with_room
from adaptive_operator.decide.planned_shares import describe_planned_part, find_weights
from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.restoring import wished_mix
from adaptive_operator.decide.revisions import held_back_revisions, proven_revisions
from adaptive_operator.decide.rules import find_limits, propose
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.decide.situation import Situation, TierState, build_situation
from adaptive_operator.decide.standing import let_stand
from adaptive_operator.decide.surge import find_without_surge, swap_rooms, with_surge
from adaptive_operator.decide.swaps import new_swap, surge_accelerators, with_time
from adaptive_operator.decide.weights import Weights, plan_weights
from adaptive_operator.decide.wording import budget_field, inputs_text, mix_text, rate_text
from adaptive_operator.observe.observation import Planning, PodPhase, PolicyMemory, PoolObservation, SwapRecord
from adaptive_operator.reasons import Reason

_NAMED_AT_MOST = 6
_HOLDS = (
    Reason.HELD_BY_DWELL,
    Reason.HELD_BY_HOLD_WINDOW,
    Reason.HELD_FOR_AGREEMENT,
    Reason.HELD_AFTER_RESTART,
    Reason.HELD_BY_SURVIVOR_CHECK,
)
_ADDING = (Reason.ADDED_REPLICA, Reason.SWAPPED_TO_CHEAPER_TIER)
_DRY_RUN_PLAN = (
    "a dry run is decided by need, with what it holds and what is free: the pool's plan counts Active models only, and"
    " may give it more or less once it is one"
)
_DRY_RUN_SHARE = "a dry run is decided with what it holds and what is free: its share counts once its mode is Active"


def decide_pool(observation: PoolObservation, settings: DecideSettings, solver: Solver = solve) -> PoolDecision:
    """What every model of a pool should run. Pure: the same observation gives the same decision.

    `solver`: who solves the pool's program; another process may, with the same answer.
    """
    situations = [
        build_situation(model, observation.now, observation.acting_since, observation.budget, settings)
        for model in observation.models
    ]
    if observation.name:
        situations = with_surge(situations, observation.surge)
    situations = with_room(situations, observation)
    if observation.has_plan:
        return _decide_plan(situations, observation, solver)
    return _decide_shares(situations, observation)


def _decide_plan(situations: Sequence[Situation], observation: PoolObservation, solver: Solver) -> PoolDecision:
    """For models that name no AcceleratorPool, or one that the plan divides."""
    claims, weights = [build_claim(situation) for situation in situations], find_weights(observation)
    by_need = divide_by_need(situations, claims, observation.budget)
    division, planned = plan_pool(situations, observation, by_need, solver, weights)
    limits, division = division.limits, _within_surge(situations, division)
    placed = _within_room(situations, division.proposals, division.owned)
    proposals = [_with_doubt(placed[s.model.key], observation, planned) for s in situations]
    rooms = swap_rooms(situations, proposals) if observation.name else ()
    granted = grants(claims, _wishes(situations, proposals, claims), observation.budget, observation.surge, rooms)
    notes = {key: f"weight {weight}" for key, weight in weights.items() if weight != 1}
    targets = _costs(situations, proposals)
    who, shares = _who_text(observation, situations, targets, notes), _shares_hash(observation)
    moves = _moves(situations, proposals)
    decisions = []
    for situation, proposal in zip(situations, proposals, strict=True):
        key, explained = situation.model.key, _told(situation, proposal, limits, who, moves)
        decision = _decision(situation, explained, granted[key], limits[key], shares)
        part = describe_planned_part(situation, explained, weights[key]) if observation.name else None
        told = describe_plan(situation, planned, by_need) or (part.message if part is not None else "")
        told = _DRY_RUN_PLAN if _is_beside_others(situation, observation) else told
        decisions.append(replace(decision, part=part, pool=told))
    return _with_plan(PoolDecision(observation.resource, tuple(decisions)), planned)


def _with_plan(decision: PoolDecision, planned: Planned | None) -> PoolDecision:
    """The decision with the plan that it was made with, if a program was asked."""
    if planned is None:
        return decision
    return replace(
        decision,
        prices=dict(planned.plan.prices),
        planned=True,
        followed=planned.followed,
        left_free=planned.left_free,
        plan=as_adopted(planned.problem, planned.plan),
        last_plan=planned.last,
        unsolved=not planned.is_trusted,
    )


def _within_surge(situations: Sequence[Situation], division: Division) -> Division:
    """Swaps that begin now share what surge is left: who has none of it plans without, within what he was to have."""
    acting = {s.model.key: s for s in situations if acts(s)}
    proposals = dict(division.proposals)
    for key in find_without_surge(acting, proposals):
        most = max(division.owned[key], acting[key].cost(proposals[key].replicas))
        proposals[key] = propose(replace(acting[key], surge=0), most)
    return replace(division, proposals=proposals)


def _within_room(
    situations: Sequence[Situation], asked: Mapping[str, Proposal], owned: Mapping[str, int]
) -> dict[str, Proposal]:
    """Replicas that start now share what is free on nodes: who has none of it plans without, in what he was to have."""
    without = find_without_room({s.model.key: s for s in situations if acts(s)}, asked)
    anew = {key: propose(s, max(owned.get(key, 0), s.cost(asked[key].replicas))) for key, s in without.items()}
    return {**asked, **anew}


def _shares_hash(observation: PoolObservation) -> str:
    """Of what an AcceleratorPool says of who gets what; empty where it says nothing, or there is none."""
    return hash_shares(observation.shares, observation.division) if observation.name else ""


def _with_doubt(proposal: Proposal, observation: PoolObservation, planned: Planned | None) -> Proposal:
    """Say it where the pool's program was not solved: what was decided may be less than what is possible."""
    how = _stand_in(observation, planned)
    if how is None:
        return proposal
    told = (
        f"the pool's program was not solved, {how}: other divisions of the pool may serve more; see the operator's log"
    )
    return replace(proposal, findings=(*proposal.findings, Finding(Reason.POOL_NOT_SOLVED, told)))


def _stand_in(observation: PoolObservation, planned: Planned | None) -> str | None:
    """What divides the pool in place of a solved program; None where it was solved, or not needed."""
    if observation.planning is Planning.BY_NEED:  # only a solver that failed in this pass leads to it
        cause = "took too long" if observation.solver_was_late else "failed"
        return f"the solver {cause} and what is free is shared by need"
    if observation.planning is Planning.GREEDY and len(observation.models) > 1:
        return "a greedy choice stands in"  # whether it has to choose in this pass or not: what runs is its choice
    return None if planned is None or planned.is_trusted else "the solver stopped early"


def _decide_shares(situations: Sequence[Situation], observation: PoolObservation) -> PoolDecision:
    """For an AcceleratorPool whose reservations and weights decide: each decision tells its part."""
    claims = sorted((build_claim(situation) for situation in situations), key=lambda claim: claim.key)
    contest = hold_contest(situations, claims, observation)
    placed = _within_room(situations, contest.proposals, {})
    proposals = [placed[s.model.key] for s in situations]
    targets = _costs(situations, proposals)
    reserved = {key: min(contest.parties[key].reservation, cost) for key, cost in targets.items()}
    wishes = [reserved, *_wishes(situations, proposals, claims)]
    granted = grants(claims, wishes, observation.budget, observation.surge, swap_rooms(situations, proposals))
    notes = {key: _party_note(party) for key, party in contest.parties.items()}
    who, shares = _who_text(observation, situations, targets, notes), _shares_hash(observation)
    moves = _moves(situations, proposals)
    decisions = []
    for situation, proposal in zip(situations, proposals, strict=True):
        explained = _told(situation, proposal, contest.limits, who, moves)
        part = describe_part(situation, explained, contest)
        key = situation.model.key
        decision = _decision(situation, explained, granted[key], contest.limits[key], shares)
        told = f"{part.message}; {_DRY_RUN_SHARE}" if _is_beside_others(situation, observation) else part.message
        decisions.append(replace(decision, part=part, pool=told))
    return PoolDecision(observation.resource, tuple(decisions))


def _is_beside_others(situation: Situation, observation: PoolObservation) -> bool:
    """Is it a dry run that others share the accelerators with? They are divided as if it only kept what it holds."""
    return situation.model.spec.mode is Mode.DRY_RUN and len(observation.models) > 1


def _costs(situations: Sequence[Situation], proposals: Sequence[Proposal]) -> dict[str, int]:
    """Accelerators of what is proposed, by model that acts."""
    return {s.model.key: s.cost(p.replicas) for s, p in zip(situations, proposals, strict=True) if acts(s)}


def _party_note(party: Party) -> str:
    """`reserved 2, weight 3`; empty where nothing is said."""
    parts = [f"reserved {party.reservation}"] if party.reservation else []
    return ", ".join([*parts, *([f"weight {party.weight}"] if party.weight != 1 else [])])


def _wishes(
    situations: Sequence[Situation], proposals: Sequence[Proposal], claims: Sequence[Claim]
) -> list[dict[str, int]]:
    """Grants beyond what is held: minimums, targets, old and new side by side, room to exchange a revision."""
    pairs = [(s, p) for s, p in zip(situations, proposals, strict=True) if s.model.spec.mode is Mode.ACTIVE]
    minimums = {claim.key: claim.minimum for claim in claims}
    targets = {s.model.key: s.cost(p.replicas) for s, p in pairs}
    both = {s.model.key: surge_accelerators(s, p.replicas) for s, p in pairs}
    largest = {s.model.key: s.held + max(t.accelerators for t in s.tiers) for s, _ in pairs}
    least = {key: min(minimums[key], target) for key, target in targets.items()}
    return [least, targets, both, largest]


def _decision(situation: Situation, proposal: Proposal, granted: int, limit: int, shares: str = "") -> Decision:
    """The proposal as a decision, with weights, memory and the swap record."""
    weights = plan_weights(situation, proposal.replicas)
    proposal = _with_shift(situation, proposal, weights)
    changed = _changes(situation, proposal)
    swap = _swap(situation, proposal, changed)
    memory = _memory(situation, proposal, weights, changed)
    why = recall_explanation(situation, proposal.reason, proposal.replicas, limit, shares)
    if why is None:
        why = explain(situation, proposal.replicas, limit)
    return Decision(
        key=situation.model.key,
        reason=proposal.reason,
        message=proposal.message,
        inputs=inputs_text(situation, capacity(situation, situation.wanted)),
        replicas=dict(proposal.replicas),
        weights=weights.shares,
        levels=weights.levels,
        tier_prices=weights.prices,
        factors={tier.name: tier.card.factor for tier in situation.tiers if tier.card and tier.card.factor != 1},
        memory=memory,
        swap=swap,
        accelerators_granted=granted,
        findings=proposal.findings,
        binding=why.binding,
        alternative=why.alternative,
        budget=situation.budget,
        shares=shares,
        demand_milli=why.demand_milli,
        limit=why.limit,
        held_back=held_back_revisions(replace(situation.model, memory=memory)),
    )


def _changes(situation: Situation, proposal: Proposal) -> bool:
    return proposal.begins_swap or dict(proposal.replicas) != situation.wanted or bool(situation.removed)


def _swap(situation: Situation, proposal: Proposal, changed: bool) -> SwapRecord | None:
    """The record to keep. Only an acting model has one."""
    if not acts(situation):
        return None
    if changed:
        return new_swap(situation, proposal.reason, proposal.replicas, proposal.prediction)
    return with_time(situation, situation.swap) if situation.swap is not None else None


def _memory(situation: Situation, proposal: Proposal, weights: Weights, changed: bool) -> PolicyMemory:
    """What the next pass has to know. Stamps in whole seconds, as status keeps them."""
    planned = None if weights.planned_demand is None else round(weights.planned_demand * 1000)
    generation = situation.model.generation
    if situation.model.spec.mode is Mode.DRY_RUN:  # nothing was done, so nothing but the agreement is remembered
        seen = situation.memory if changed else proposal.memory
        return replace(seen, planned_demand_milli=planned, generation=generation)
    now = float(int(situation.now))
    ended, settings = situation.swap_ended, situation.settings
    held = after_quiet(proposal.memory, now, situation.model.spec.scaling.hold_seconds, settings.quiet_holds)
    added = ended is not None and ended.reason in _ADDING
    return replace(
        held,
        wanted={tier: n for tier, n in proposal.replicas.items() if n > 0},
        proven=proven_revisions(replace(situation.model, memory=proposal.memory)),
        failed_starts=_failed_starts(situation, proposal),
        planned_demand_milli=planned,
        generation=generation,
        last_change_at=now if changed or ended else proposal.memory.last_change_at,
        last_add_at=now if added else proposal.memory.last_add_at,
    )


def _failed_starts(situation: Situation, proposal: Proposal) -> dict[str, int]:
    """Failed starts in a row, of tiers of which none has worked since.

    A replica that served all along proves no start: without that, a tier that grows was tried every quarter of an hour.
    """
    recovered = {
        tier.name
        for tier in situation.tiers
        if 0 < tier.wanted <= tier.current_ready
        and tier.name not in proposal.memory.quarantined_until
        and _has_started(situation, tier)
    }
    return {tier: n for tier, n in proposal.memory.failed_starts.items() if tier not in recovered}


def _has_started(situation: Situation, tier: TierState) -> bool:
    """Has a replica of it become ready in the swap that is in flight, or that ended in this pass?"""
    swap = situation.swap or situation.swap_ended
    if swap is None:
        return False
    return any(
        pod.phase is PodPhase.READY and (pod.ready_since or pod.created_at) >= swap.started_at
        for pod in tier.current_pods
    )


def _with_shift(situation: Situation, proposal: Proposal, weights: Weights) -> Proposal:
    """Name a move of the weights where the replicas stay; a hold is said again in the next pass."""
    quiet = proposal.reason is Reason.STEADY or proposal.reason in _HOLDS
    if not quiet or weights.shift == 0 or weights.planned_demand is None:
        return proposal
    demand = rate_text(weights.planned_demand)
    if weights.shift < 0:
        return replace(proposal, reason=Reason.SHED_TO_CHEAPER_TIER, message=f"demand {demand}: weights {weights.text}")
    return replace(
        proposal, reason=Reason.RESTORED_WEIGHT, message=f"demand no more than {demand}: weights {weights.text}"
    )


def _moves(situations: Sequence[Situation], proposals: Sequence[Proposal]) -> bool:
    """Does any model exchange replicas, or begin to?"""
    return any(s.swap is not None or _changes(s, p) for s, p in zip(situations, proposals, strict=True) if acts(s))


def _told(situation: Situation, proposal: Proposal, limits: Mapping[str, int], who: str, moves: bool) -> Proposal:
    """The proposal explained, in the words that were told last where they still are true or nearly so.

    While others exchange replicas (`moves`) something is free for a moment and gone in the next: what was told stands
    then as if nothing were, but for a model that itself waits for something within what is free.
    """
    key = situation.model.key
    limit = limits[key]
    own = max(situation.held, situation.cost(proposal.replicas))
    settled = min(limit, own) if moves and proposal.reason not in _HOLDS else limit

    def find_near(near: Situation) -> tuple[Finding, ...]:
        found = find_limits(near, proposal.replicas, settled)
        return _explained(near, replace(proposal, findings=found), {key: settled}, who).findings

    explained = _explained(situation, proposal, limits, who)
    return let_stand(situation, explained, lambda near: propose(near, limit), find_near)


def _explained(situation: Situation, proposal: Proposal, limits: Mapping[str, int], who: str) -> Proposal:
    """Findings about the shared budget, with who got what."""
    findings = [_named(finding, who) for finding in proposal.findings]
    limited = (Reason.BUDGET_SHARED, Reason.CAPACITY_LIMITED)
    if not any(finding.reason in limited for finding in findings):
        findings.extend(_shared(situation, proposal, limits[situation.model.key], who))
    if situation.held > situation.budget + situation.surge:
        findings.append(Finding(Reason.BUDGET_EXCEEDED, _exceeded_text(situation)))
    if situation.model.spec.mode is Mode.DRY_RUN:
        told = "spec.mode is DryRun: nothing was changed; set it to Active to have decisions carried out"
        findings.append(Finding(Reason.DRY_RUN, told))
    message = f"{proposal.message} ({who})" if who and proposal.reason in limited else proposal.message
    return replace(proposal, message=message, findings=tuple(findings))


def _exceeded_text(situation: Situation) -> str:
    held = f"{situation.held} accelerators are held, the budget is {situation.budget}"
    return f"{held}: nothing is started until enough of them came free; raise {budget_field(situation)} to keep all"


def _shared(situation: Situation, proposal: Proposal, limit: int, who: str) -> tuple[Finding, ...]:
    """Would more of the pool give this model a better mix? Then say who has it."""
    if limit >= situation.budget or not who or not acts(situation):
        return ()
    wish = wished_mix(situation, proposal.replicas)
    if wish is None or situation.cost(wish) <= limit:
        return ()
    named = mix_text(wished_mix(situation, proposal.replicas, in_words=True) or wish)
    told = f"{named} would serve better, but other models hold the rest: {who}; raise {budget_field(situation)}"
    return (Finding(Reason.BUDGET_SHARED, told),)


def _named(finding: Finding, who: str) -> Finding:
    if who and finding.reason in (Reason.BUDGET_SHARED, Reason.CAPACITY_LIMITED):
        return Finding(finding.reason, f"{finding.message} ({who})")
    return finding


def _who_text(
    observation: PoolObservation, situations: Sequence[Situation], targets: Mapping[str, int], notes: Mapping[str, str]
) -> str:
    """`demo/a 2, demo/b 2 (weight 3) of 4 nvidia.com/gpu`; empty when a model has the pool for itself.

    Many are not named: all that lack something would be told anew, and written, as often as one of those named changes.
    Who acts is named with what he is to have (`targets`), the others with what they hold, if anything.
    """
    if len(observation.models) < 2:
        return ""
    where = f" in pool {observation.name}" if observation.name else ""
    shared = f"of {observation.budget} {observation.resource}{where}"
    if len(observation.models) > _NAMED_AT_MOST:
        return f"{len(observation.models)} models have parts {shared}: kubectl get adaptivemodels -A shows them"
    keep = {s.model.key: s for s in situations if not acts(s) and s.held}
    got = {**targets, **{key: s.held for key, s in keep.items()}}
    modes = {key: f"mode {s.model.spec.mode}" for key, s in keep.items()}
    ranked = sorted(got.items(), key=lambda item: (-item[1], item[0]))
    shown = {key: f" ({note})" for key, note in {**notes, **modes}.items() if note}
    named = ", ".join(f"{key} {count}{shown.get(key, '')}" for key, count in ranked)
    return f"{named} {shared}"
