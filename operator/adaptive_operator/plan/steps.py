"""The swap choreography: how many replicas each StatefulSet gets *now*, and which pods drain.

Level-based: every pass looks at what exists and takes the next steps; nothing is remembered but what the cluster
holds, so a restart at any step goes on. Make-before-break where the grant has room, break-before-make one replica at a
time where not. Deliberately knows no manifests and no reasons for the wanted replicas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import StrEnum

from adaptive_operator.decide.decision import Decision
from adaptive_operator.levels import Level, levels_of
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.observe.observation import ModelObservation, PodObservation, PodPhase, StatefulSetObservation
from adaptive_operator.plan.draining import DrainRules, may_remove, serves_nothing
from adaptive_operator.plan.revisions import TierRevision
from adaptive_operator.plan.victims import Shortage, choose_victims
from adaptive_operator.reasons import Reason


class SwapStep(StrEnum):
    """Where a swap stands (`status.swap.step`)."""

    STARTING = "Starting"  # new replicas are being made ready
    DRAINING = "Draining"  # old replicas get no new requests
    RELEASING = "Releasing"  # old replicas end, their accelerators come free
    ROLLING_BACK = "RollingBack"  # back to what ran before


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """One (tier, revision): what is asked for, what exists and what is wanted."""

    name: str
    tier: str
    accelerators: int  # per replica
    asked: int  # spec.replicas as observed
    wanted: int  # 0 for a revision that is not the present one
    current: TierRevision | None  # None: an older revision, or a tier that left the spec
    observed: StatefulSetObservation | None  # None: not made yet
    pods: Mapping[int, PodObservation]  # by ordinal
    fenced: bool = False  # written under a higher epoch: not ours to change
    retained: bool = False  # what the tier goes back to if its present revision does not start
    rate: float = 0.0  # requests/s of a replica by the tier's card, or what is written on it; 0 where nobody says

    @property
    def surplus(self) -> int:
        """Replicas beyond what is wanted."""
        return 0 if self.fenced else max(self.asked - self.wanted, 0)

    @property
    def deficit(self) -> int:
        """Replicas that are wanted and not asked for."""
        return 0 if self.fenced else max(self.wanted - self.asked, 0)

    @property
    def stamps(self) -> Mapping[str, float]:
        """Drain stamps as written, by pod uid."""
        return self.observed.draining if self.observed is not None else {}

    @property
    def leaving_accelerators(self) -> int:
        """Accelerators of pods that are no longer asked for and still exist."""
        return self.accelerators * sum(1 for ordinal in self.pods if ordinal >= self.asked)


@dataclass(frozen=True, slots=True)
class SetStep:
    """What one StatefulSet should say after this pass."""

    group: ReplicaSet
    replicas: int
    draining: Mapping[str, float] = field(default_factory=dict)
    delete: bool = False

    @property
    def takes_away(self) -> bool:
        """Whether a replica that may serve goes, or gets no new request from now on."""
        return self.without_loss != self

    @property
    def without_loss(self) -> SetStep:
        """The same step as far as it takes no replica away that may serve; what drains already goes on draining."""
        group, replicas = self.group, max(self.replicas, self.group.asked)
        while replicas > self.replicas and serves_nothing(group.pods.get(replicas - 1)):
            replicas -= 1
        idle = {pod.uid for pod in group.pods.values() if serves_nothing(pod)}
        draining = {uid: at for uid, at in self.draining.items() if uid in group.stamps or uid in idle}
        return replace(self, replicas=replicas, draining=draining)


@dataclass(frozen=True, slots=True)
class Choreography:
    """The next steps of all StatefulSets of a model."""

    steps: tuple[SetStep, ...]
    step: SwapStep

    @property
    def draining(self) -> frozenset[str]:
        """Uids of all pods that must get no new request."""
        return frozenset(uid for item in self.steps for uid in item.draining)


def plan_choreography(
    model: ModelObservation,
    decision: Decision,
    revisions: Mapping[str, TierRevision],
    written_draining: Set[str],
    rules: DrainRules,
    epoch: int,
    *,
    holds: bool = False,
) -> Choreography:
    """The next steps towards `decision.replicas`, never above `decision.accelerators_granted`.

    `holds`: nothing that may serve goes now. The routing table then goes on naming it.
    """
    groups = group_replicas(model, decision, revisions, epoch)
    raised, free = _raise_replicas(groups, decision.accelerators_granted - held_accelerators(model))
    victims = _plan_victims(groups, raised, free, _orphaned_accelerators(model))
    steps = tuple(
        _plan_set(group, raised[group.name], victims.get(group.name, 0), model, written_draining, rules)
        for group in groups
    )
    if holds:
        steps = tuple(step.without_loss for step in steps)
        victims = {step.group.name: len(step.draining) for step in steps}
    return Choreography(steps, _name_step(groups, steps, victims, decision))


def keep_choreography(
    model: ModelObservation, decision: Decision, revisions: Mapping[str, TierRevision], epoch: int
) -> Choreography:
    """Everything stays as it is: for Paused, DryRun, and while a name is taken."""
    groups = group_replicas(model, decision, revisions, epoch)
    steps = tuple(SetStep(group, group.asked, _kept_stamps(group)) for group in groups)
    return Choreography(steps, _name_step(groups, steps, {}, decision))


def group_replicas(
    model: ModelObservation, decision: Decision, revisions: Mapping[str, TierRevision], epoch: int
) -> tuple[ReplicaSet, ...]:
    """All (tier, revision) of a model: the present ones in the spec's order, then the others by name."""
    proven = decision.memory.proven
    observed = {item.name: item for item in model.stateful_sets}
    groups = [
        _group(
            model, revision.name, tier, revision.accelerators, decision.replicas.get(tier, 0), revision, observed, epoch
        )
        for tier, revision in revisions.items()
    ]
    rates = {tier.name: _rate(levels_of(tier)) * decision.factors.get(tier.name, 1.0) for tier in model.spec.tiers}
    present = {group.name for group in groups}
    others = [item for item in sorted(model.stateful_sets, key=lambda item: item.name) if item.name not in present]
    for item in others:
        group = _group(model, item.name, item.tier, item.accelerators, 0, None, observed, epoch)
        instead = item.tier in revisions and revisions[item.tier].inputs != item.tier_inputs
        groups.append(replace(group, retained=instead and proven.get(item.tier) == item.tier_inputs))
    return tuple(replace(group, rate=rates.get(group.tier, _written_rate(group.observed))) for group in groups)


def _written_rate(observed: StatefulSetObservation | None) -> float:
    """The same of a tier that left the spec, as it is written on the StatefulSet."""
    return _rate(observed.levels or ()) if observed is not None else 0.0


def _rate(levels: Sequence[Level]) -> float:
    """What a replica serves by its card, at its fastest level (requests/s)."""
    return max((level.requests_per_second or 0.0 for level in levels), default=0.0)


def _group(
    model: ModelObservation,
    name: str,
    tier: str,
    accelerators: int,
    wanted: int,
    current: TierRevision | None,
    observed: Mapping[str, StatefulSetObservation],
    epoch: int,
) -> ReplicaSet:
    item = observed.get(name)
    return ReplicaSet(
        name=name,
        tier=tier,
        accelerators=accelerators,
        asked=item.replicas if item is not None else 0,
        wanted=wanted,
        current=current,
        observed=item,
        pods={pod.ordinal: pod for pod in model.pods if pod.stateful_set == name},
        fenced=item is not None and item.epoch > epoch,
    )


def _raise_replicas(groups: tuple[ReplicaSet, ...], free: int) -> tuple[dict[str, int], int]:
    """Make before break: close deficits as far as `free` accelerators go, cheapest replica first.

    A replica whose predecessor of the same ordinal is still Terminating costs nothing more: it only appears afterwards.
    """
    raised = {group.name: group.asked for group in groups}
    for group in sorted(groups, key=lambda group: group.accelerators):
        for ordinal in range(group.asked, group.asked + group.deficit):
            cost = 0 if ordinal in group.pods else group.accelerators
            if free < cost or free < 0:
                break
            free -= cost
            raised[group.name] = ordinal + 1
    return raised, free


def _plan_victims(
    groups: tuple[ReplicaSet, ...], raised: Mapping[str, int], free: int, orphaned: int
) -> dict[str, int]:
    """How many of each StatefulSet's highest ordinals have to drain now."""
    missing = [group for group in groups if group.deficit > 0 and raised[group.name] < group.wanted]
    ready = all(_is_ready(group, raised[group.name]) for group in groups)
    if ready and not missing:
        return {group.name: group.surplus for group in groups if group.surplus}
    idle = {group.name: _idle_surplus(group) for group in groups if group.surplus}
    leaving = sum(group.leaving_accelerators + group.accelerators * idle.get(group.name, 0) for group in groups)
    coming = free + leaving + orphaned
    if ready:
        first = min(missing, key=lambda group: group.accelerators)
        return choose_victims(groups, idle, Shortage(first.accelerators - coming, first.tier, may_take_last=True))
    return choose_victims(groups, idle, Shortage(-coming, None, may_take_last=False))


def _orphaned_accelerators(model: ModelObservation) -> int:
    """Accelerators of pods whose StatefulSet is gone: the garbage collector ends them."""
    names = {item.name for item in model.stateful_sets}
    return sum(pod.accelerators for pod in model.pods if pod.stateful_set not in names)


def _is_ready(group: ReplicaSet, replicas: int) -> bool:
    """Whether every wanted replica that was started so far is Ready.

    A pod that is no longer asked for does not count, even if this pass asks for it again: it may be ending already.
    """
    started = min(replicas, group.wanted)
    pods = (group.pods.get(ordinal) for ordinal in range(started))
    return started <= group.asked and all(pod is not None and pod.phase is PodPhase.READY for pod in pods)


def _idle_surplus(group: ReplicaSet) -> int:
    """Surplus replicas, from the highest ordinal down, that serve nothing: they go whatever else is going on."""
    count = 0
    while count < group.surplus and serves_nothing(group.pods.get(group.asked - 1 - count)):
        count += 1
    return count


def _plan_set(
    group: ReplicaSet,
    replicas: int,
    victims: int,
    model: ModelObservation,
    written_draining: Set[str],
    rules: DrainRules,
) -> SetStep:
    if group.fenced:
        return SetStep(group, group.asked, _kept_stamps(group))
    for ordinal in range(group.asked - 1, group.asked - 1 - victims, -1):
        if not may_remove(group.pods.get(ordinal), group.stamps, written_draining, model.metrics, rules):
            break
        replicas = ordinal
    over = group.observed is not None and group.current is None and group.asked == 0 and not group.pods
    return SetStep(group, replicas, _stamp_victims(group, victims, rules.now), over and not group.retained)


def _stamp_victims(group: ReplicaSet, victims: int, now: float) -> dict[str, float]:
    """Stamps of all pods from the lowest victim upwards; a pod that is wanted again loses its stamp."""
    lowest = group.asked - victims
    return {
        pod.uid: group.stamps.get(pod.uid, now)
        for ordinal, pod in group.pods.items()
        if ordinal >= lowest
        and (pod.uid in group.stamps or (ordinal < group.asked and pod.phase is not PodPhase.TERMINATING))
    }


def _kept_stamps(group: ReplicaSet) -> dict[str, float]:
    uids = {pod.uid for pod in group.pods.values()}
    return {uid: start for uid, start in group.stamps.items() if uid in uids}


def _name_step(
    groups: tuple[ReplicaSet, ...], steps: tuple[SetStep, ...], victims: Mapping[str, int], decision: Decision
) -> SwapStep:
    if decision.reason is Reason.SWAP_ROLLED_BACK or (decision.swap and decision.swap.step == SwapStep.ROLLING_BACK):
        return SwapStep.ROLLING_BACK
    if any(step.replicas < step.group.asked for step in steps) or any(group.leaving_accelerators for group in groups):
        return SwapStep.RELEASING
    return SwapStep.DRAINING if any(victims.values()) else SwapStep.STARTING
