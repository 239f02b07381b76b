"""What of a document a structural schema refuses, in the API server's words and with a remedy each. Pure.

Knows no field of any kind. CEL rules that stand in the place of a keyword (`told` in `api/base.py`) are checked here;
those over several fields are in `rules.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from adaptive_operator.api.base import CEL

Schema = Mapping[str, Any]

_MOST_SHOWN: Final = 60  # characters of a value
_PATTERN_RULE: Final = re.compile(r"self\.matches\(r?'(.*)'\)")
_SIZE_RULE: Final = re.compile(r"self\.size\(\) <= (\d+)")
_NOT_EMPTY: Final = "self.size() > 0"
_OF_TYPE: Final = {
    "integer": "give a whole number, without quotes",
    "number": "give a number",
    "string": "give a text, in quotes where it looks like something else",
    "array": "give a list",
}


def without_nulls(value: Any) -> Any:
    """The value without fields that are null: the API server drops them, so that defaults apply."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def find_faults(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """Field, cause and remedy of each fault, in the order of the document; `path` is where the value stands."""
    kind = schema.get("type", "")
    if not _is_of(value, kind):
        hint = _OF_TYPE.get(kind) or f"give its fields: {', '.join(schema.get('properties', ())) or '{}'}"
        yield f"{path or 'the document'}: Invalid value: {_show(value)}: must be of type {kind}; {hint}"
        return
    found = [*_own_faults(value, schema, path)]
    yield from found or _broken_rules(value, schema, path)
    if isinstance(value, dict):
        yield from _field_faults(value, schema, path)
    if isinstance(value, list):
        of_each = schema.get("prefixItems") or [schema["items"]] * len(value)
        for index, (item, kind_of_item) in enumerate(zip(value, of_each, strict=False)):
            yield from find_faults(item, kind_of_item, f"{path}[{index}]")


def suggest(name: str, known: Collection[str]) -> str:
    """The remedy for a name that is none of the known ones."""
    close = get_close_matches(name, known, n=1, cutoff=0.7)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def _is_of(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if kind == "number":
        return isinstance(value, int | float) or (isinstance(value, str) and _is_number(value))
    types: Mapping[str, type] = {"string": str, "array": list, "object": dict}
    return kind not in types or isinstance(value, types[kind])


def _is_number(text: str) -> bool:
    """YAML 1.1 reads 1e3 as a text."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _own_faults(value: Any, schema: Schema, path: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: Unsupported value: {_show(value)}: supported values: {', '.join(map(_show, schema['enum']))}"
    if isinstance(value, int | float):
        yield from _range_faults(value, schema, path)
    elif isinstance(value, str):
        yield from _length_faults(value, schema, path)
    elif isinstance(value, list):
        yield from _list_faults(value, schema, path)
    elif isinstance(value, dict):
        yield from _map_faults(value, schema, path)


def _range_faults(value: float, schema: Schema, path: str) -> Iterator[str]:
    least, most, above = (schema.get(key) for key in ("minimum", "maximum", "exclusiveMinimum"))
    where = f"{path}: Invalid value: {_show(value)}: should be"
    if least is not None and value < least:
        yield f"{where} greater than or equal to {least}; raise it"
    if above is not None and not value > above:
        yield f"{where} greater than {above}; raise it"
    if most is not None and value > most:
        yield f"{where} less than or equal to {most}; lower it"


def _length_faults(value: str, schema: Schema, path: str) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0):
        yield f"{path}: Invalid value: {_show(value)}: should be at least {schema['minLength']} chars long; fill it in"
    if len(value) > schema.get("maxLength", len(value)):
        yield f"{path}: Too long: may not be more than {schema['maxLength']} bytes; shorten it"


def _list_faults(value: list[Any], schema: Schema, path: str) -> Iterator[str]:
    if len(value) < schema.get("minItems", 0):
        yield f"{path}: Invalid value: {len(value)}: should have at least {schema['minItems']} items; add one"
    if len(value) > schema.get("maxItems", len(value)):
        yield f"{path}: Too many: {len(value)}: must have at most {schema['maxItems']} items; remove some"
    yield from _duplicates(value, schema, path)


def _duplicates(value: list[Any], schema: Schema, path: str) -> Iterator[str]:
    names = schema.get("x-kubernetes-list-map-keys", ())
    fields = schema.get("items", {}).get("properties", {})
    seen: list[dict[str, Any]] = []
    for index, item in enumerate(value):
        if not names or not isinstance(item, dict):
            continue
        key = {name: item.get(name, fields[name].get("default")) for name in names}
        if key in seen:
            text = json.dumps(key, separators=(",", ":"), default=str)
            yield f"{path}[{index}]: Duplicate value: {text}; give each {' and '.join(names)} once"
        seen.append(key)


def _map_faults(value: dict[Any, Any], schema: Schema, path: str) -> Iterator[str]:
    if len(value) > schema.get("maxProperties", len(value)):
        yield f"{path}: Too many: {len(value)}: must have at most {schema['maxProperties']} items; remove some"
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{_join(path, name)}: Required value; set it"


def _field_faults(value: dict[Any, Any], schema: Schema, path: str) -> Iterator[str]:
    fields, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name, item in value.items():
        field = fields.get(name, others or None)
        if field is not None:
            yield from find_faults(item, field, _join(path, name))
        elif fields:  # without any, whatever is there is not checked
            yield f'unknown field "{_join(path, name)}"; {suggest(str(name), fields)}'


def _broken_rules(value: Any, schema: Schema, path: str) -> Iterator[str]:
    for item in schema.get(CEL, ()):
        if not _holds(item["rule"], value):
            yield f"{path}: Invalid value: {_show(value)}: {item['message']}"


def _holds(rule: str, value: Any) -> bool:
    """Does a rule of one of these three forms hold? Others are not looked at."""
    if (pattern := _PATTERN_RULE.fullmatch(rule)) is not None:
        # The API server's $ is the end of the text, Python's also a line break before it.
        return re.search(pattern[1].replace("$", r"\Z"), value) is not None
    if (size := _SIZE_RULE.fullmatch(rule)) is not None:
        return len(value) <= int(size[1])
    return rule != _NOT_EMPTY or bool(value)


def _join(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
