"""What a soak must show in the end. Pure: judges what the run has recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference_pods.protocol import (
    ENGINE_INTEGRITY_FAILURES,
    ENGINE_KV_BLOCKS_USED,
    ENGINE_PREEMPTIONS,
    ENGINE_RUNNING,
    ENGINE_VERIFICATIONS,
    ENGINE_WAITING,
)

WARM_SHARE = 0.25  # of the samples: buffers, plans and the KV cache fill in this time
_GROWTH, _SLACK_BYTES = 1.05, 8 * 2**20
COMPLETED, CANCELLED, DISCONNECTED, DEADLINE_PASSED = "completed", "cancelled", "disconnected", "deadline passed"
_MUST_HAPPEN = {
    CANCELLED: "no request was cancelled",
    DISCONNECTED: "no stream was left in the middle",
    DEADLINE_PASSED: "no deadline passed",
}
_ZERO_WHEN_IDLE = (ENGINE_RUNNING, ENGINE_WAITING, ENGINE_KV_BLOCKS_USED, ENGINE_INTEGRITY_FAILURES)


UNDRAFTED = " without drafts"  # behind the name of a level, of answers that nothing was drafted for


@dataclass(frozen=True, slots=True)
class SoakRecord:
    """`rss_bytes`: one sample per second. `idle_metrics`: read after the last request, or at the end of the patience
    for it. `outcomes`: requests by how they ended; `completed`: by level. `failures`: requests that did not end as they
    should, in words. `exit_code`: None while it runs. `ways`: completed requests by route and whether they streamed.
    `level_changes`: requests that changed their level while they waited or ran. `undrafted`: completed requests of the
    top level that were exempt from drafts.
    """

    rss_bytes: Sequence[int]
    idle_metrics: Mapping[str, float]
    started: int
    outcomes: Mapping[str, int]
    completed: Mapping[str, int]
    failures: Sequence[str]
    first_answers: Mapping[str, str]
    last_answers: Mapping[str, str]
    exit_code: int | None
    ways: Mapping[str, int]
    level_changes: int
    undrafted: int


def find_faults(
    record: SoakRecord, *, levels: Sequence[str], ways: Sequence[str], must_preempt: bool = False
) -> list[str]:
    """Everything that is wrong, one sentence each; empty means passed. `levels`, `ways`: those that the load asks for.
    `must_preempt`: a load that is meant to."""
    if record.exit_code is not None:
        return [f"the engine ended with exit code {record.exit_code}"]
    faults = [f"{name} is {record.idle_metrics.get(name)} when idle, not 0" for name in _ZERO_WHEN_IDLE
              if record.idle_metrics.get(name) != 0]  # fmt: skip
    faults += _judge_work(record, levels, ways)
    faults += [f"{len(record.failures)} requests failed, first: {record.failures[0]}"] if record.failures else []
    if must_preempt and not record.idle_metrics.get(ENGINE_PREEMPTIONS):
        faults.append("nothing was preempted: the load put no pressure on the KV cache")
    faults += [
        f"the greedy answer at level {level} changed" for level, answer in record.first_answers.items()
        if record.last_answers.get(level) != answer
    ]  # fmt: skip
    faults += [
        f"the greedy answer at level {level} is another one without drafts"
        for level, answer in record.first_answers.items()
        if record.first_answers.get(level + UNDRAFTED, answer) != answer
    ]
    return faults + _judge_memory(record.rss_bytes)


def _judge_work(record: SoakRecord, levels: Sequence[str], ways: Sequence[str]) -> list[str]:
    """An engine that refuses everything leaks nothing either: the run counts only if it did all that it is meant to."""
    ended = sum(record.outcomes.values())
    faults = []
    if record.started != ended or not record.started:
        faults.append(f"{record.started} requests were started, {ended} ended")
    faults += [f"nothing was completed at level {level}" for level in levels if not record.completed.get(level)]
    faults += [f"nothing was completed on {way}" for way in ways if not record.ways.get(way)]
    exercised = {
        "no request changed its level while it waited or ran": record.level_changes,
        "no draft was verified": record.idle_metrics.get(ENGINE_VERIFICATIONS),
        "nothing was completed at the top level without drafts": record.undrafted,
    }
    faults += [words for words, count in exercised.items() if not count]
    return faults + [words for outcome, words in _MUST_HAPPEN.items() if not record.outcomes.get(outcome)]


def _judge_memory(rss_bytes: Sequence[int]) -> list[str]:
    """Most memory in the last quarter against most in the warm-up."""
    warm = int(len(rss_bytes) * WARM_SHARE)
    if warm < 1:
        return ["the run was too short to judge memory"]
    before, after = max(rss_bytes[:warm]), max(rss_bytes[-warm:])
    if after <= before * _GROWTH + _SLACK_BYTES:
        return []
    return [f"resident memory grew from {before / 2**20:.0f} MiB in the warm-up to {after / 2**20:.0f} MiB"]
