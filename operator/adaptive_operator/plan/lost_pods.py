"""Pods whose node went silent: their objects are removed, so that their place and accelerators can be used again.

Kubernetes marks such a pod for deletion and then waits for the node's word, for ever if the node is gone. A StatefulSet
makes no replacement meanwhile, and the pod counts against the budget. Deleting the object is what an administrator
would do by hand; a node that comes back ends the container it still has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from adaptive_operator.observe.observation import ModelObservation
from adaptive_operator.plan.plan import DeleteObject

# Beyond the pod's own time to end: a node that is merely slow has said so by then.
_PATIENCE_SECONDS: Final = 60.0


def plan_lost_pods(model: ModelObservation, now: float) -> Iterator[DeleteObject]:
    """Removal of pods that should have ended a minute ago and whose node does not answer. `now` in Unix seconds."""
    for pod in model.pods:
        if pod.lost_at is not None and now >= pod.lost_at + _PATIENCE_SECONDS:
            yield DeleteObject("Pod", pod.name, pod.uid, None, at_once=True)
