"""How many accelerators are held: by pods that exist, and by replicas that are asked for and do not exist yet.

Pure arithmetic over observations. A Terminating pod holds until it is gone, so that a budget is never exceeded.
"""

from __future__ import annotations

from collections.abc import Collection

from adaptive_operator.observe.observation import ModelObservation, StatefulSetObservation


def held_replicas(model: ModelObservation, stateful_set: StatefulSetObservation) -> int:
    """Replicas of one StatefulSet that exist or may appear at any moment.

    Example: spec.replicas 1 with pods 0 (Ready) and 1 (Terminating) holds 2.
    """
    return count_held(stateful_set.replicas, {p.ordinal for p in model.pods if p.stateful_set == stateful_set.name})


def count_held(replicas: int, existing: Collection[int]) -> int:
    """Replicas asked for, and pods beyond them by ordinal. Counted, not enumerated: anyone may ask for 2^31."""
    return replicas + sum(ordinal >= replicas for ordinal in existing)


def held_accelerators(model: ModelObservation) -> int:
    """Accelerators that one model holds, orphaned pods (their StatefulSet is gone) included."""
    of_sets = sum(held_replicas(model, item) * item.accelerators for item in model.stateful_sets)
    names = {item.name for item in model.stateful_sets}
    return of_sets + sum(pod.accelerators for pod in model.pods if pod.stateful_set not in names)
