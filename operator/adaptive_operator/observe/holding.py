"""How many accelerators are held: by pods that exist, and by replicas that are asked for and do not exist yet.

Pure arithmetic over observations (design.md §8, invariant I4). A Terminating pod holds until it is gone.
"""

from __future__ import annotations

from adaptive_operator.observe.observation import ModelObservation, StatefulSetObservation


def held_replicas(model: ModelObservation, stateful_set: StatefulSetObservation) -> int:
    """Replicas of one StatefulSet that exist or may appear at any moment.

    Example: spec.replicas 1 with pods 0 (Ready) and 1 (Terminating) holds 2.
    """
    existing = {pod.ordinal for pod in model.pods if pod.stateful_set == stateful_set.name}
    return stateful_set.replicas + sum(ordinal >= stateful_set.replicas for ordinal in existing)


def held_accelerators(model: ModelObservation) -> int:
    """Accelerators that one model holds, orphaned pods (their StatefulSet is gone) included."""
    of_sets = sum(held_replicas(model, item) * item.accelerators for item in model.stateful_sets)
    names = {item.name for item in model.stateful_sets}
    return of_sets + sum(pod.accelerators for pod in model.pods if pod.stateful_set not in names)
