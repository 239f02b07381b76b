"""Objects of a manifest as the API server would take them: what it would refuse is refused here, in its words.

Null fields are dropped and defaults apply, as there. Knows files and YAML, and nothing of what is simulated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from adaptive_operator.api.base import CEL
from adaptive_operator.api.crd import MODEL, POOL, Kind, build_schema
from adaptive_operator.api.pool import AcceleratorPoolSpec
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.plan.metadata import API_VERSION
from adaptive_operator.simulate.rules import broken_model_rules, broken_pool_rules
from adaptive_operator.simulate.structure import Schema, find_faults, without_nulls

_MOST_TOLD: Final = 5
_MOST_DEPTH: Final = 100  # no field of ours lies so deep, and all that read a document do so by recursion
_MOST_SHOWN: Final = 60  # characters of a value
_ANY_OBJECT: Final[Schema] = {"type": "object"}
_KINDS: Final[Mapping[str, Kind]] = {kind.kind: kind for kind in (MODEL, POOL)}
_Spec = TypeVar("_Spec", bound=BaseModel)


class ManifestError(ValueError):
    """The file or object is none that the API server takes; each line names field, cause and remedy."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, as kubectl does: the last one would silently win. Names the lines of faults."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The fields of one object, before merges add others. Raises ManifestError."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ManifestError(f'line {key.start_mark.line + 1}: "{key.value}" is there twice; remove one')
            seen.add(str(key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value of its type. Raises ManifestError for a scalar that has none, such as a date in a 13th month.

        What is wrong inside of lists and objects is told of their scalars.
        """
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, ValueError) as error:
            if not isinstance(node, yaml.ScalarNode):
                raise
            seen = node.value if len(node.value) <= _MOST_SHOWN else f"{node.value[:_MOST_SHOWN]}…"
            told = str(error).partition(";")[0]  # without the advice that Python gives to programmers
            cause = f": {told}" if isinstance(error, ValueError) else ""
            told = f'line {node.start_mark.line + 1}: "{seen}" cannot be read{cause}'
            raise ManifestError(f"{told}; correct it, or put it in quotes if it is a text") from None


def read_yaml(path: Path) -> list[Any]:
    """The documents of a file, at least one. Raises ManifestError; OSError when it cannot be read."""
    try:
        # Derived from SafeLoader, which makes nothing but plain values.
        documents = list(yaml.load_all(path.read_text(encoding="utf-8-sig"), _Loader)) or [None]
        depth = _depth(documents, {})
    except RecursionError:
        depth = math.inf
    except yaml.YAMLError as error:
        told = " ".join(str(error).split()).replace('"<unicode string>", ', "")
        raise ManifestError(f"not YAML: {told}; correct it there") from None
    except UnicodeDecodeError:
        raise ManifestError("not a text; give a YAML file in UTF-8") from None
    if depth > _MOST_DEPTH:
        raise ManifestError("nested too deeply, or an alias stands inside of what it names; write it out")
    return documents


def read_objects(path: Path) -> list[Any]:
    """The documents of a manifest; those of a List, as `kubectl get -o yaml` writes it, one by one. Raises as above."""
    found: list[Any] = []
    for document in read_yaml(path):
        is_list = isinstance(document, dict) and document.get("kind") == "List"
        items = document.get("items") or [] if is_list else None
        found += items if isinstance(items, list) else [document]
    return found


def _depth(value: Any, known: dict[int, float]) -> float:
    """Levels of objects and lists; without end where one stands inside of itself. `known`: by identity, each once."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not items:
        return 0
    if id(value) not in known:
        known[id(value)] = math.inf  # whoever meets it again on the way down is inside of it
        known[id(value)] = 1 + max(_depth(item, known) for item in items)
    return known[id(value)]


def parse_model(raw: Mapping[str, Any]) -> AdaptiveModelSpec:
    """The spec of an AdaptiveModel. Raises ManifestError."""
    return _parse(MODEL, raw, AdaptiveModelSpec, broken_model_rules)


def parse_pool(raw: Mapping[str, Any]) -> AcceleratorPoolSpec:
    """The spec of an AcceleratorPool. Raises ManifestError."""
    return _parse(POOL, raw, AcceleratorPoolSpec, broken_pool_rules)


def name_of(raw: Mapping[str, Any]) -> str:
    """`metadata.name`; empty: it has none."""
    metadata = raw.get("metadata")
    return str((metadata.get("name") if isinstance(metadata, dict) else None) or "")


def describe_errors(error: ValidationError, path: str = "") -> Iterator[str]:
    """What pydantic found that no schema says: field and the check's own words."""
    for item in error.errors():
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in item["loc"])
        field = f"{path}{''.join(steps)}".lstrip(".")
        words = item["msg"].removeprefix("Value error, ").replace("Input should", "it should")
        yield f"{field}: {words}" if field else words


def refuse(faults: Iterator[str], where: str = "") -> None:
    """Raises ManifestError with the first few faults, a line each; nothing without any."""
    found = list(faults)
    lines = [f"{where}{fault}" for fault in found[:_MOST_TOLD]]
    if len(found) > _MOST_TOLD:
        lines.append(f"{where}and {len(found) - _MOST_TOLD} more")
    if lines:
        raise ManifestError("\n".join(lines))


def _parse(kind: Kind, raw: Mapping[str, Any], spec: type[_Spec], rules: Callable[[_Spec], Iterator[str]]) -> _Spec:
    where = f"{kind.kind} {name_of(raw)}: " if name_of(raw) else f"{kind.kind}: "
    document = without_nulls(dict(raw))
    refuse(_document_faults(kind, document), where)
    try:
        parsed = spec.model_validate(document["spec"])
    except ValidationError as error:
        refuse(describe_errors(error, "spec"), where)
        raise
    refuse(rules(parsed), where)
    return parsed


def _document_faults(kind: Kind, document: Mapping[str, Any]) -> Iterator[str]:
    version = document.get("apiVersion", API_VERSION)
    if version != API_VERSION:
        yield f"apiVersion: there is no {kind.kind} in {version}; use {API_VERSION}"
    yield from find_faults(document, _schema_of(kind.kind))
    metadata = document.get("metadata")
    if isinstance(metadata, dict) and "name" in metadata:
        yield from find_faults(metadata["name"], {"type": "string", **_name_rules(kind)}, "metadata.name")


@cache
def _schema_of(kind: str) -> Schema:
    """The schema without what is not the manifest's: metadata have fields of Kubernetes', the status is ignored.

    Built once: it takes longer than all else that is done with a document.
    """
    schema = build_schema(_KINDS[kind])
    properties = {**schema["properties"], "metadata": _ANY_OBJECT, "status": {}}
    return {"type": "object", "required": schema["required"], "properties": properties}


def _name_rules(kind: Kind) -> Schema:
    """The rules of names, as those of the name itself."""
    rules = [{**item, "rule": str(item["rule"]).replace("self.metadata.name", "self")} for item in kind.name_rules]
    return {CEL: rules}
