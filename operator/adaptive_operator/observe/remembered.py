"""What the status remembers for the next decision: the policy's memory and the swap in flight. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from adaptive_operator.api.status import AdaptiveModelStatus, CorrectionStatus, MemoryStatus, SwapStatus
from adaptive_operator.observe.manifests import parse_time
from adaptive_operator.observe.observation import Correction, PolicyMemory, SwapRecord


def recall_memory(status: AdaptiveModelStatus | None) -> PolicyMemory:
    """The policy's memory; empty for a model that was never decided on."""
    memory = (status.memory if status is not None else None) or MemoryStatus()
    return PolicyMemory(
        last_change_at=parse_time(memory.last_change_at),
        last_add_at=parse_time(memory.last_add_at),
        last_restore_at=parse_time(memory.last_restore_at),
        agreed_plan=memory.agreed_plan,
        agreed_count=memory.agreed_count,
        quarantined_until=_times(memory.quarantined_until),
        quarantine_causes=dict(memory.quarantine_causes),
        agreed_at=parse_time(memory.agreed_at),
        wanted=dict(memory.wanted),
        proven=dict(memory.proven),
        failed_starts=dict(memory.failed_starts),
        planned_demand_milli=memory.planned_demand_milli,
        generation=memory.generation,
        hold_seconds=memory.hold_seconds,
        hold_changed_at=parse_time(memory.hold_changed_at),
        corrections=_corrections(memory.corrections),
    )


def recall_swap(status: AdaptiveModelStatus | None) -> SwapRecord | None:
    """The swap in flight. One without readable times counts as due: it is rolled back rather than waited for."""
    swap: SwapStatus | None = status.swap if status is not None else None
    if swap is None:
        return None
    return SwapRecord(
        id=swap.id,
        reason=swap.reason,
        origin=dict(swap.from_),
        target=dict(swap.to),
        step=swap.step,
        started_at=parse_time(swap.started_at) or 0.0,
        deadline=parse_time(swap.deadline) or 0.0,
        epoch=swap.epoch,
        predicted_gain_permille=swap.predicted_gain_permille,
        predicted_gain_of=swap.predicted_gain_of,
        predicted_dip_permille=swap.predicted_dip_permille,
    )


def _corrections(written: Mapping[str, CorrectionStatus]) -> dict[str, Correction]:
    return {
        tier: Correction(item.card_milli, item.factor_permille, moved_at, item.inputs, item.probes, item.failed_probes)
        for tier, item in written.items()
        if (moved_at := parse_time(item.moved_at)) is not None
    }


def _times(texts: Mapping[str, str]) -> dict[str, float]:
    return {key: seconds for key, text in texts.items() if (seconds := parse_time(text)) is not None}
