"""One model as the rules see it: tiers with bounds and counts, demand, the swap in flight and what failed in it.

Everything is derived from the observation; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from adaptive_operator.api.tiers import Tier
from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.cards import CURVE, TierCard, card_of, horizon_seconds, warm_tier
from adaptive_operator.decide.correction import basis_of, correct_cards, corrected
from adaptive_operator.decide.demand import Demand, Trust, read_demand
from adaptive_operator.decide.forecast import Forecast, forecast
from adaptive_operator.decide.frontier import frontier
from adaptive_operator.decide.revisions import held_back_revisions, sets_in_force
from adaptive_operator.decide.room import Room
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.decide.spaces import Plan, PlanSpace, PlanTier
from adaptive_operator.levels import Level
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.observe.observation import (
    ModelObservation,
    PodObservation,
    PodPhase,
    PolicyMemory,
    StatefulSetObservation,
    SwapRecord,
)

Mix = Mapping[str, int]
UNBOUNDED = 1 << 20
_POINT_PERMILLE = 10
_LEAST_WORTH = (
    1e-3  # of a point for 1,000 requests, in thousandths: quality that is worth nothing, without dividing by 0
)


class Moves(StrEnum):
    """Which plans a space holds, seen from what is wanted."""

    ANY = "Any"
    ADDITIONS = "Additions"  # nothing is given up
    KEEP_LOADING = "KeepLoading"  # nothing of a tier whose replicas are not all ready is given up
    REMOVALS = "Removals"  # nothing is started


@dataclass(frozen=True, slots=True)
class TierState:
    """One tier of the spec: what is known of it, what is allowed, what is wanted and what is there."""

    name: str
    accelerators: int
    card: TierCard | None
    low: int  # bounds to plan with; a tier that is left out keeps what works of it and starts nothing
    high: int
    least: int  # bounds by the spec
    most: int
    wanted: int  # by the last decision
    existing: int  # replicas that StatefulSets ask for, over all revisions
    ready: int  # pods that serve, over all revisions
    current: int  # replicas that are asked for of the revision in force
    current_pods: tuple[PodObservation, ...]  # of the revision in force, Terminating ones too

    @property
    def stale(self) -> int:
        """Replicas of other revisions, which the wanted ones replace."""
        return self.existing - self.current

    @property
    def current_ready(self) -> int:
        """Pods of the revision in force that serve."""
        return sum(pod.phase is PodPhase.READY for pod in self.current_pods)

    @property
    def quality_permille(self) -> int:
        """Quality by the card; 0 without one."""
        return self.card.quality_permille if self.card else 0


@dataclass(frozen=True, slots=True)
class Situation:
    """The input of every rule. `tiers` are in the order of the spec."""

    now: float
    acting_since: float
    pool_budget: int
    model: ModelObservation
    settings: DecideSettings
    memory: PolicyMemory  # as observed, expired quarantines and those of an older spec removed
    tiers: tuple[TierState, ...]
    warm: str | None
    demand: Demand
    swap: SwapRecord | None  # in flight
    swap_ended: SwapRecord | None  # reached its target in this pass
    removed: Mix  # tiers that left the spec since the last decision, with the replicas they were wanted with
    spec_changed: bool
    held_back: Mapping[str, str]  # tiers whose edit did not start -> inputs of the earlier revision they go on with
    expected: Forecast | None = None  # of the demand until a replica started now could serve; None: no history
    surge: int = 0  # accelerators beyond the budget that a swap of this model may count on
    room: Room | None = None  # on the nodes; None: no question, or not known
    # What `plan_space` found: the rules ask for the same few spaces dozens of times a pass.
    _spaces: dict[tuple[int, Moves], PlanSpace] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def wanted(self) -> dict[str, int]:
        """Replicas by tier that the last decision wanted."""
        return {tier.name: tier.wanted for tier in self.tiers}

    @property
    def existing(self) -> dict[str, int]:
        """Replicas by tier that StatefulSets ask for."""
        return {tier.name: tier.existing for tier in self.tiers}

    @property
    def budget(self) -> int:
        """Accelerators that this model may hold by its own spec and the pool."""
        own = self.model.spec.accelerators.budget
        return self.pool_budget if own is None else min(own, self.pool_budget)

    @property
    def held(self) -> int:
        """Accelerators that this model holds, Pending and Terminating pods included."""
        return held_accelerators(self.model)

    @property
    def hold_seconds(self) -> int:
        """The hold window from now on: the longer one of `model.hold_seconds` is gone where an edit has ended it."""
        return replace(self.model, memory=self.memory).hold_seconds

    @property
    def floor_permille(self) -> float:
        """The quality floor to plan with: at most the best tier's quality. The routers keep to the spec's."""
        known = [tier.card.quality_permille for tier in self.tiers if tier.card and tier.most > 0]
        return float(min([self.model.spec.quality.floor_permille, max(known, default=0)]))

    @property
    def best_within_reach(self) -> TierState | None:
        """The best tier with a card that runs, or has room in the budget beside the least that each tier keeps."""
        least = minimum_mix(self, self.budget)
        spare = self.budget - self.cost(least)
        known = [t for t in self.tiers if t.card and t.most > 0]
        able = [t for t in known if t.ready or least[t.name] or t.accelerators <= spare]
        return max(able, key=lambda tier: tier.quality_permille, default=None)

    @property
    def has_cards(self) -> bool:
        """Is there any tier that decisions can be made about?"""
        return any(tier.card is not None for tier in self.tiers)

    def cost(self, mix: Mix) -> int:
        """Accelerators that a mix holds."""
        return sum(tier.accelerators * mix.get(tier.name, 0) for tier in self.tiers)

    def tier(self, name: str) -> TierState | None:
        """A tier of the spec by name."""
        return next((tier for tier in self.tiers if tier.name == name), None)


def build_situation(
    model: ModelObservation, now: float, acting_since: float, budget: int, settings: DecideSettings
) -> Situation:
    """Gather what the rules need of one model."""
    spec_changed = model.memory.generation is not None and model.memory.generation != model.generation
    memory = _current_memory(model.memory, now, spec_changed)
    held_back = held_back_revisions(replace(model, memory=memory))
    left_out = frozenset(memory.quarantined_until) - frozenset(held_back)
    in_force = sets_in_force(model, held_back)
    warm = warm_tier(model.spec, settings, left_out)
    wanted = wanted_of(model)
    earlier = {tier: _levels_of(in_force[tier]) for tier in held_back}
    demand = read_demand(model.metrics, settings)
    declared = {tier.name: _card_of(model, tier, settings, earlier.get(tier.name)) for tier in model.spec.tiers}
    bases = {
        tier.name: basis_of(model, tier, card, held_back.get(tier.name))
        for tier in model.spec.tiers
        if (card := declared[tier.name]) is not None
    }
    memory = replace(memory, corrections=correct_cards(model, bases, now, settings, demand.trust is Trust.FULL))
    cards = {name: card and corrected(card, memory.corrections.get(name)) for name, card in declared.items()}
    tiers = tuple(
        _tier_state(model, tier, wanted, warm, left_out, in_force[tier.name], cards[tier.name])
        for tier in model.spec.tiers
    )
    running = model.swap if model.swap is not None and not _has_ended(model, model.swap, in_force) else None
    return Situation(
        now=now,
        acting_since=acting_since,
        pool_budget=budget,
        model=model,
        settings=settings,
        memory=memory,
        tiers=tiers,
        warm=warm,
        demand=demand,
        swap=running,
        swap_ended=model.swap if running is None else None,
        removed=_removed(model, wanted),
        spec_changed=spec_changed,
        held_back=held_back,
        expected=_expected(model, tiers, now, settings),
    )


def _card_of(
    model: ModelObservation, tier: Tier, settings: DecideSettings, earlier: tuple[Level, ...] | None
) -> TierCard | None:
    """Its card and where that is from: of an earlier revision nobody tells any more."""
    card = card_of(tier, settings, earlier)
    is_curve = card is not None and earlier is None and tier.name in model.rates_from_curves
    return replace(card, source=CURVE) if card is not None and is_curve else card


def _expected(
    model: ModelObservation, tiers: tuple[TierState, ...], now: float, settings: DecideSettings
) -> Forecast | None:
    """The forecast at the slowest tier's load time and one planner period."""
    if model.metrics.history is None:
        return None
    horizon = horizon_seconds(model.spec, (tier.card for tier in tiers), settings)
    return forecast(model.metrics.history, now, horizon, season=model.metrics.season)


def with_warm(situation: Situation, warm: str | None) -> Situation:
    """The same situation with another warm tier (None: none), and the minimums that go with it."""
    if warm == situation.warm:
        return situation  # with the spaces that it remembers
    leasts = {tier.name: _bounds(tier, tier.name == warm)[0] for tier in situation.model.spec.tiers}
    tiers = tuple(
        replace(tier, least=leasts[tier.name], low=min(leasts[tier.name], tier.high)) for tier in situation.tiers
    )
    return replace(situation, warm=warm, tiers=tiers)


def plan_space(situation: Situation, limit: int, moves: Moves = Moves.ANY) -> PlanSpace:
    """Plans over the tiers with a card, within `limit` accelerators; the others' replicas are paid for first."""
    space = situation._spaces.get((limit, moves))
    if space is None:
        space = situation._spaces[limit, moves] = _build_space(situation, limit, moves)
    return space


def _build_space(situation: Situation, limit: int, moves: Moves) -> PlanSpace:
    fixed = sum(t.accelerators * fixed_replicas(situation, t) for t in situation.tiers if t.card is None)
    tiers = [
        PlanTier(
            name=tier.name,
            accelerators=tier.accelerators,
            rate=tier.card.requests_per_second * situation.settings.utilisation,
            quality_permille=tier.card.quality_permille,
            low=max(tier.low, min(tier.wanted, tier.high)) if _is_kept(tier, moves) else tier.low,
            high=min(tier.high, tier.wanted) if moves is Moves.REMOVALS else tier.high,
            present=tier.wanted,
            shed=_shed_steps(tier.card, situation.settings),
        )
        for tier in situation.tiers
        if tier.card is not None and tier.high > 0
    ]
    if moves is Moves.REMOVALS:
        tiers = [replace(tier, low=min(tier.low, tier.high)) for tier in tiers]
    tiers.sort(key=lambda t: (-t.quality_permille, t.accelerators / t.rate))
    affordable = _affordable(tuple(tiers), limit - fixed)
    price, room = accelerator_price(situation.model), room_within(situation, limit)
    return PlanSpace(affordable, situation.floor_permille, max(0, limit - fixed), price, room)


def room_within(situation: Situation, limit: int) -> Room | None:
    """Room on the nodes, with what may be started within `limit` accelerators before anything drains.

    None also where others had to give first: nobody knows yet where that would be, and they owe it all the same.
    """
    room = situation.room
    more = limit - situation.cost(situation.wanted)
    if room is None or more > room.spare:
        return None
    return replace(room, spare=max(room.spare, more + situation.surge))


def accelerator_price(model: ModelObservation) -> float:
    """Permille x requests/s that an accelerator has to add, by `scaling.idleShrink`; 0 where it weighs nothing.

    Example: 2.50 an hour, a point (10 permille) for 1,000 requests is worth 0.50: 5 points for 1,000 requests an hour,
    so 50 permille at 0.278 requests/s.
    """
    asked = model.spec.scaling.idle_shrink
    if asked is None:
        return 0.0
    price = asked.price_per_accelerator_hour_milli
    price = model.pool_price_milli if price is None else price
    if not price:
        return 0.0
    return _POINT_PERMILLE * (price / max(asked.worth_per_quality_point_milli, _LEAST_WORTH)) * 1000 / 3600


def _shed_steps(card: TierCard, settings: DecideSettings) -> tuple[tuple[float, float], ...]:
    """What lower levels add to a replica's derated rate; nothing for a plain tier."""
    if len(card.levels) < 2:
        return ()
    return tuple((step.rate * settings.utilisation, step.quality_permille) for step in frontier(card.levels)[1:])


def _is_kept(tier: TierState, moves: Moves) -> bool:
    return moves is Moves.ADDITIONS or (moves is Moves.KEEP_LOADING and tier.ready < tier.wanted)


def as_mix(situation: Situation, space: PlanSpace, plan: Plan) -> dict[str, int]:
    """A plan as replicas by tier, those of tiers without a card included."""
    counts = {tier.name: n for tier, n in zip(space.tiers, plan, strict=True)}
    return {
        tier.name: counts.get(tier.name, 0) if tier.card is not None else fixed_replicas(situation, tier)
        for tier in situation.tiers
    }


def as_plan(space: PlanSpace, mix: Mix) -> Plan:
    """Replicas by tier as a plan of this space."""
    return tuple(mix.get(tier.name, 0) for tier in space.tiers)


def fixed_replicas(situation: Situation, tier: TierState) -> int:
    """Replicas of a tier without a card: its minimum, and 1 of the first tier when no tier has a card."""
    first = next((t.name for t in situation.tiers if t.high > 0), None)
    at_least = 1 if not situation.has_cards and tier.name == first else 0
    return min(tier.high, max(tier.low, at_least))


def minimum_mix(situation: Situation, limit: int) -> dict[str, int]:
    """The least that each tier keeps, the warm tier first, as far as `limit` accelerators carry it."""
    order = sorted(situation.tiers, key=lambda t: t.name != situation.warm)
    mix = dict.fromkeys((tier.name for tier in situation.tiers), 0)
    for tier in order:
        low = tier.low if tier.card is not None else fixed_replicas(situation, tier)
        mix[tier.name] = max(0, min(low, limit // tier.accelerators))
        limit -= mix[tier.name] * tier.accelerators
    return mix


def _affordable(tiers: tuple[PlanTier, ...], limit: int) -> tuple[PlanTier, ...]:
    """The same tiers, minimums lowered where not even they are affordable: cheapest replica last."""
    over = sum(tier.low * tier.accelerators for tier in tiers) - limit
    if over <= 0 and all(tier.low <= tier.high for tier in tiers):  # so it nearly always is, ten times a pass
        return tiers
    lows = {tier.name: tier.low for tier in tiers}
    for tier in sorted(tiers, key=lambda t: (-t.accelerators, t.name)):
        while over > 0 and lows[tier.name] > 0:
            drop = min(lows[tier.name], -(-over // tier.accelerators))
            lows[tier.name] -= drop
            over -= drop * tier.accelerators
    return tuple(replace(t, low=lows[t.name], high=max(lows[t.name], t.high)) for t in tiers)


def _tier_state(
    model: ModelObservation,
    tier: Tier,
    wanted: Mix,
    warm: str | None,
    left_out: frozenset[str],
    in_force: tuple[StatefulSetObservation, ...],
    card: TierCard | None,
) -> TierState:
    existing, ready = existing_replicas(model, tier.name), ready_replicas(model, tier.name)
    least, most = _bounds(tier, tier.name == warm)
    made = {item.name for item in in_force}
    left = tier.name in left_out
    return TierState(
        name=tier.name,
        accelerators=next((item.accelerators for item in in_force if item.accelerators), tier.replica.accelerators),
        card=card,
        low=min(least, ready) if left else least,
        high=min(most, ready) if left else most,
        least=least,
        most=most,
        wanted=wanted.get(tier.name, 0),
        existing=existing,
        ready=ready,
        current=sum(item.replicas for item in in_force),
        current_pods=tuple(pod for pod in model.pods if pod.stateful_set in made),
    )


def _levels_of(sets: tuple[StatefulSetObservation, ...]) -> tuple[Level, ...] | None:
    """What the replicas of one revision serve: the spec tells it of its own only, not of an earlier one."""
    return next((item.levels for item in sets if item.levels is not None), None)


def _bounds(tier: Tier, warm: bool) -> tuple[int, int]:
    """(min, max) replicas. The warm tier's minimum is 1 unless it is set to something else."""
    bounds = tier.replicas
    high = UNBOUNDED if bounds is None or bounds.max is None else bounds.max
    low = int(warm) if bounds is None or bounds.min is None else bounds.min
    return min(low, high), high


def existing_replicas(model: ModelObservation, tier: str) -> int:
    """Replicas of a tier that its StatefulSets ask for, over all revisions."""
    return sum(item.replicas for item in model.stateful_sets if item.tier == tier)


def ready_replicas(model: ModelObservation, tier: str) -> int:
    """Pods of a tier that serve, over all revisions."""
    return sum(pod.phase is PodPhase.READY for pod in model.pods if pod.tier == tier)


def wanted_of(model: ModelObservation) -> dict[str, int]:
    """The last decision's replicas. Only what exists counts where decisions have no effect (Paused, DryRun)."""
    if model.spec.mode is Mode.ACTIVE:
        if model.swap is not None:
            return dict(model.swap.target)
        if model.memory.wanted:
            return dict(model.memory.wanted)
    tiers = sorted({item.tier for item in model.stateful_sets})  # in an order that each process has
    return {tier: existing_replicas(model, tier) for tier in tiers}


def _removed(model: ModelObservation, wanted: Mix) -> dict[str, int]:
    names = {tier.name for tier in model.spec.tiers}
    return {tier: n for tier, n in wanted.items() if tier not in names and n > 0}


def _has_ended(
    model: ModelObservation, swap: SwapRecord, in_force: Mapping[str, tuple[StatefulSetObservation, ...]]
) -> bool:
    """Is what exists exactly the swap's target, of the revisions in force, and ready? Terminating pods still exist."""
    made = {item.name for sets in in_force.values() for item in sets}
    tiers = {*swap.target, *(pod.tier for pod in model.pods), *(item.tier for item in model.stateful_sets)}
    for tier in tiers:
        target = swap.target.get(tier, 0)
        pods = [pod for pod in model.pods if pod.tier == tier]
        ready = sum(pod.phase is PodPhase.READY and pod.stateful_set in made for pod in pods)
        if not existing_replicas(model, tier) == ready == len(pods) == target:
            return False
    return True


def _current_memory(memory: PolicyMemory, now: float, spec_changed: bool) -> PolicyMemory:
    """Without quarantines that are over, or that a spec edit may have healed."""
    left_out = {t: end for t, end in memory.quarantined_until.items() if end > now and not spec_changed}
    causes = {t: cause for t, cause in memory.quarantine_causes.items() if t in left_out}
    failed = {} if spec_changed else memory.failed_starts
    agreed = None if spec_changed else memory.agreed_plan
    hold = (None, None) if spec_changed else (memory.hold_seconds, memory.hold_changed_at)
    return replace(
        memory,
        hold_seconds=hold[0],
        hold_changed_at=hold[1],
        agreed_plan=agreed,
        agreed_count=memory.agreed_count if agreed is not None else 0,
        agreed_at=memory.agreed_at if agreed is not None else None,
        quarantined_until=left_out,
        quarantine_causes=causes,
        failed_starts=failed,
    )


def can_act_on_demand(situation: Situation) -> bool:
    """May replicas be added by what was measured?"""
    return situation.has_cards and situation.demand.trust is not Trust.NONE
