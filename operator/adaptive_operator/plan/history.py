"""What the history in the status tells of the mixes of replicas that were acted on: what outlives the process."""

from __future__ import annotations

from adaptive_operator.api.status import AdaptiveModelStatus, DecisionStatus
from adaptive_operator.observe.manifests import parse_time
from adaptive_operator.plan.status import DRY_RUN_PREFIX
from adaptive_operator.plan.text import read_replicas
from adaptive_operator.reasons import Reason


def read_mixes(status: AdaptiveModelStatus | None) -> list[tuple[float, dict[str, int]]]:
    """Mixes with the times (Unix seconds) from which on they were wanted, in order.

    Only those since the model was last paused or in a dry run, and since the last entry that cannot be read.
    """
    mixes: list[tuple[float, dict[str, int]]] = []
    for entry in status.history if status is not None else ():
        at, replicas = parse_time(entry.time), read_replicas(entry.to)
        if at is None or replicas is None or not _was_acted_on(entry):
            mixes.clear()
        else:
            mixes.append((at, replicas))
    return mixes


def _was_acted_on(entry: DecisionStatus) -> bool:
    return entry.reason != Reason.PAUSED and not entry.message.startswith(DRY_RUN_PREFIX)
