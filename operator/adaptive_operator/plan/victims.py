"""Which surplus replicas drain when room is short: an order of preference. Whether it is short, `steps.py` decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from adaptive_operator.observe.observation import PodObservation, PodPhase


class Surplus(Protocol):
    """What has to be known of a (tier, revision) to choose among its replicas."""

    @property
    def name(self) -> str: ...
    @property
    def tier(self) -> str: ...
    @property
    def accelerators(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def asked(self) -> int: ...
    @property
    def surplus(self) -> int: ...
    @property
    def pods(self) -> Mapping[int, PodObservation]: ...
    @property
    def stamps(self) -> Mapping[str, float]: ...


@dataclass(frozen=True, slots=True)
class Shortage:
    """Accelerators that have to come free, and for which tier (None: for none, the grant shrank)."""

    accelerators: int
    tier: str | None
    may_take_last: bool  # the model's last ready replica may go, if nothing else makes room


def choose_victims(groups: tuple[Surplus, ...], taken: Mapping[str, int], shortage: Shortage) -> dict[str, int]:
    """Surplus replicas to drain, by StatefulSet, on top of those taken already: no more than the shortage needs."""
    victims = dict(taken)
    missing = shortage.accelerators
    while missing > 0:
        candidates = [group for group in groups if victims.get(group.name, 0) < group.surplus]
        if not shortage.may_take_last:
            candidates = [group for group in candidates if not _takes_last(groups, victims, group)]
        if not candidates:
            break
        chosen = min(candidates, key=lambda group: _preference(groups, victims, group, missing, shortage.tier))
        victims[chosen.name] = victims.get(chosen.name, 0) + 1
        missing -= chosen.accelerators
    return victims


def _preference(
    groups: tuple[Surplus, ...], victims: Mapping[str, int], group: Surplus, missing: int, tier: str | None
) -> tuple[bool, bool, bool, bool, int, float, str]:
    """Smallest first: not the last ready one, one that drains already, the same tier, the closest fit, the least rate.

    Until the replica that comes is ready, what stays serves alone.
    """
    return (
        _takes_last(groups, victims, group),
        not _is_stamped(group, victims.get(group.name, 0)),
        group.tier != tier,
        group.accelerators < missing,
        abs(group.accelerators - missing),
        group.rate,
        group.name,
    )


def _takes_last(groups: tuple[Surplus, ...], victims: Mapping[str, int], group: Surplus) -> bool:
    """Whether one more victim of this group would leave the model without a ready replica."""
    after = {**victims, group.name: victims.get(group.name, 0) + 1}
    return _count_ready(groups, after) == 0 and _count_ready(groups, victims) > 0


def _count_ready(groups: tuple[Surplus, ...], victims: Mapping[str, int]) -> int:
    return sum(
        1
        for group in groups
        for ordinal, pod in group.pods.items()
        if pod.phase is PodPhase.READY and ordinal < group.asked - victims.get(group.name, 0)
    )


def _is_stamped(group: Surplus, victims: int) -> bool:
    pod = group.pods.get(group.asked - 1 - victims)
    return pod is not None and pod.uid in group.stamps
