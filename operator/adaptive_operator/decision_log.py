"""The decision log: a file of records, one line each time that what is decided for a pool changes."""

from __future__ import annotations

import logging
import logging.handlers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from adaptive_operator.decide.adopted import AdoptedPlan
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.observation import PolicyMemory, PoolObservation
from adaptive_operator.record import build_record, encode_record

_LOG = logging.getLogger(__name__)
_Told = tuple[tuple[object, ...], Mapping[str, Mapping[str, int]] | None]  # decisions, and replicas by the plan
_FILES: Final = 2  # the one that is written and the one before it


@dataclass(slots=True)
class DecisionLog:
    """Writes records to `path`, and starts a new file when one has `most_bytes`. A full disk never stops a pass."""

    path: Path
    most_bytes: int
    _handler: logging.handlers.RotatingFileHandler | None = None
    _written: dict[str, _Told] = field(default_factory=dict)  # last written by pool

    def note(
        self,
        observation: PoolObservation,
        settings: DecideSettings,
        decisions: Sequence[Decision],
        plan: AdoptedPlan | None = None,
    ) -> None:
        """Write a record if the decisions, or the plan's replicas, differ from those written last.

        A pass that needs no plan changes none.
        """
        before = self._written.get(_pool_key(observation))
        counts = plan.counts if plan is not None else before[1] if before is not None else None
        told = (tuple(_outline(decision) for decision in decisions), counts)
        if before == told:
            return
        try:
            self._write(encode_record(build_record(observation, settings, decisions, plan)))
        except (OSError, ValueError) as error:
            _LOG.warning("decision log %s could not be written: %s", self.path, error)
            return
        self._written[_pool_key(observation)] = told

    def close(self) -> None:
        """End the file that is open."""
        if self._handler is not None:
            self._handler.close()
            self._handler = None

    def _write(self, line: str) -> None:
        if len(line) > self.most_bytes:
            raise ValueError(
                f"a record of {len(line)} bytes does not fit into files of {self.most_bytes}: raise the limit"
            )
        if self._handler is None:
            self._handler = _RaisingHandler(
                self.path, maxBytes=self.most_bytes, backupCount=_FILES - 1, encoding="utf-8", delay=True
            )
        self._handler.emit(logging.LogRecord(__name__, logging.INFO, "", 0, line, None, None))


class _RaisingHandler(logging.handlers.RotatingFileHandler):
    """Lets the caller know what went wrong, which the standard one prints."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 the base class names it
        raise


def _pool_key(observation: PoolObservation) -> str:
    return observation.name or observation.resource


def _outline(decision: Decision) -> object:
    """What makes a decision another one; its numbers move with each pass."""
    return (
        decision.key,
        decision.reason,
        tuple(sorted(decision.replicas.items())),
        tuple(sorted(decision.weights.items())),
        decision.swap.id if decision.swap else None,
        tuple(finding.reason for finding in decision.findings),
        tuple(sorted(decision.held_back)),
        decision.accelerators_granted,
        _outline_memory(decision.memory),
    )


def _outline_memory(memory: PolicyMemory) -> object:
    """What later decisions stand on and moves in steps. Stamps, and counts of agreement, move by themselves."""
    corrections = tuple(sorted((tier, item.factor_permille) for tier, item in memory.corrections.items()))
    starts = (tuple(sorted(memory.quarantined_until)), tuple(sorted(memory.failed_starts.items())))
    return memory.hold_seconds, corrections, starts
