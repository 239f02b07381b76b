"""When a replica that goes away may really go: its stamp, the written routing table, and the work that is left in it.

The stamp `<uid>=<unix seconds>` stands in an annotation of the StatefulSet, so that a restarted operator goes on where
the last one stopped. A pod is removed only when the routing table *as written* already names it: no router sends it
anything new.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from adaptive_operator.observe.observation import ModelMetrics, PodObservation, PodPhase, Sample


@dataclass(frozen=True, slots=True)
class DrainRules:
    """What a drain is measured against."""

    now: float  # Unix seconds
    deadline_seconds: float  # in-flight requests may take so long
    settle_seconds: float  # until routers follow a new table


def format_draining(stamps: Mapping[str, float]) -> str:
    """The annotation's text, sorted, whole seconds: `uid-a=1700000000,uid-b=1700000042`."""
    return ",".join(f"{uid}={int(start)}" for uid, start in sorted(stamps.items()))


def parse_draining(text: str | None) -> dict[str, float]:
    """Stamps by pod uid. What cannot be read is left out: that pod is stamped again and drains a little longer."""
    stamps: dict[str, float] = {}
    for part in (text or "").split(","):
        uid, separator, start = part.strip().partition("=")
        if uid and separator and start.isascii() and start.isdecimal():
            stamps[uid] = float(start)
    return stamps


def serves_nothing(pod: PodObservation | None) -> bool:
    """Whether removing this replica takes nothing away: it is absent, never got ready, is down, or is going already."""
    if pod is None or pod.phase in (PodPhase.PENDING, PodPhase.FAILED, PodPhase.TERMINATING):
        return True
    return pod.phase is PodPhase.STARTING and not pod.started


def may_remove(
    pod: PodObservation | None,
    stamps: Mapping[str, float],
    written_draining: Set[str],
    metrics: ModelMetrics,
    rules: DrainRules,
) -> bool:
    """Whether a replica that drains may be removed now."""
    if pod is None or pod.phase is PodPhase.TERMINATING:
        return True
    if pod.uid not in stamps or pod.uid not in written_draining:
        return False
    if serves_nothing(pod) or rules.now >= stamps[pod.uid] + rules.deadline_seconds:
        return True
    return _is_idle(pod, stamps[pod.uid], metrics, rules)


def _is_idle(pod: PodObservation, start: float, metrics: ModelMetrics, rules: DrainRules) -> bool:
    """A zero that was scraped after the routers let go of the pod. Unknown is never zero."""
    work = metrics.pod_work.get(pod.name)
    if not isinstance(work, Sample) or work.value > 0:
        return False
    return rules.now - work.age_seconds >= start + rules.settle_seconds
