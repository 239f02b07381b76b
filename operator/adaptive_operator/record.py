"""One decision as a line of JSON: what was seen, the settings, the pool's plan, and what was decided.

Enough to decide it again: exactly with the plan that is told, and up to its gap with one that is solved anew.

Left out is what `decide/` does not read: manifests, other children, the routing table and most of the status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pydantic import TypeAdapter, ValidationError

from adaptive_operator.api.status import AdaptiveModelStatus
from adaptive_operator.decide.adopted import AdoptedPlan
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.observation import ModelObservation, PoolObservation
from adaptive_operator.reasons import ConditionType

# Raised when a record that was written before would not be read, or not be told in the same words, or an operator of
# before would not read one of now.
FORMAT: Final = 7
# Reasons that have another name since a format: what is read in an earlier one gets the name of now.
_RENAMED: Final = {2: {"FloorLimited": "QualityFloorInfeasible"}}


class RecordError(ValueError):
    """A line is not a record that this version can read; the text names the field."""


class UnknownFormatError(RecordError):
    """A record of a version that writes it in another way; the text says which formats this one reads."""


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One pass over one pool."""

    format: int  # as written; names are those of this version
    observation: PoolObservation
    settings: DecideSettings
    decisions: tuple[Decision, ...]
    plan: AdoptedPlan | None = None  # None: no program was asked, or the format is before 3


@dataclass(frozen=True, slots=True)
class _Head:
    """What every format has."""

    format: int


_ADAPTER: Final = TypeAdapter(DecisionRecord)
_HEAD: Final = TypeAdapter(_Head)


def build_record(
    observation: PoolObservation,
    settings: DecideSettings,
    decisions: Sequence[Decision],
    plan: AdoptedPlan | None = None,
) -> DecisionRecord:
    """A record of one pass, without what the decision does not depend on."""
    models = tuple(_without_manifests(model) for model in observation.models)
    return DecisionRecord(FORMAT, replace(observation, models=models), settings, tuple(decisions), plan)


def encode_record(record: DecisionRecord) -> str:
    """One line, without the line's end. Fields of the spec have the names that users write."""
    return _ADAPTER.dump_json(record, by_alias=True).decode()


def decode_record(line: str) -> DecisionRecord:
    """The inverse of `encode_record`; those of earlier formats get the names of this one. Raises RecordError."""
    try:
        written = _HEAD.validate_json(line).format
        if not 1 <= written <= FORMAT:
            raise UnknownFormatError(
                f"format is {written}, this version reads 1 to {FORMAT}: replay it with the version that wrote it"
            )
        return _ADAPTER.validate_json(_renamed(line, written))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"])
        raise RecordError(f"{field}: {first['msg']}" if field else first["msg"]) from error


def _renamed(line: str, written: int) -> str:
    """The line with the names of now. Names stand in quotes of their own: a message that has one keeps its words."""
    for since, names in _RENAMED.items():
        for old, new in names.items() if written < since else ():
            line = line.replace(f'"{old}"', f'"{new}"')
    return line


def _without_manifests(model: ModelObservation) -> ModelObservation:
    sets = tuple(replace(item, manifest={}) for item in model.stateful_sets)
    return replace(model, stateful_sets=sets, children=(), status=_told_last(model.status), routing_table=None)


def _told_last(status: AdaptiveModelStatus | None) -> AdaptiveModelStatus | None:
    """What a decision reads of the status: the last one, and what was said to limit the model."""
    if status is None:
        return None
    limits = tuple(item for item in status.conditions if item.type == ConditionType.CAPACITY_LIMITED)
    return AdaptiveModelStatus(last_decision=status.last_decision, conditions=limits)
