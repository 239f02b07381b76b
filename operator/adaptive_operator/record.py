"""One decision as a line of JSON: what was seen, the settings, and what was decided. Enough to decide it again.

Left out is what `decide/` does not read: manifests, other children, the routing table and most of the status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pydantic import TypeAdapter, ValidationError

from adaptive_operator.api.status import AdaptiveModelStatus
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.observation import ModelObservation, PoolObservation

FORMAT: Final = 1


class RecordError(ValueError):
    """A line is not a record that this version can read; the text names the field."""


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One pass over one pool."""

    format: int
    observation: PoolObservation
    settings: DecideSettings
    decisions: tuple[Decision, ...]


_ADAPTER: Final = TypeAdapter(DecisionRecord)


def build_record(
    observation: PoolObservation, settings: DecideSettings, decisions: Sequence[Decision]
) -> DecisionRecord:
    """A record of one pass, without what the decision does not depend on."""
    models = tuple(_without_manifests(model) for model in observation.models)
    return DecisionRecord(FORMAT, replace(observation, models=models), settings, tuple(decisions))


def encode_record(record: DecisionRecord) -> str:
    """One line, without the line's end. Fields of the spec have the names that users write."""
    return _ADAPTER.dump_json(record, by_alias=True).decode()


def decode_record(line: str) -> DecisionRecord:
    """The inverse of `encode_record`. Raises RecordError."""
    try:
        record = _ADAPTER.validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "the line"
        raise RecordError(f"{where}: {first['msg']}") from error
    if record.format != FORMAT:
        raise RecordError(f"format is {record.format}, this version reads {FORMAT}: use the operator that wrote it")
    return record


def _without_manifests(model: ModelObservation) -> ModelObservation:
    sets = tuple(replace(item, manifest={}) for item in model.stateful_sets)
    status = AdaptiveModelStatus(last_decision=model.status.last_decision) if model.status is not None else None
    return replace(model, stateful_sets=sets, children=(), status=status, routing_table=None)
