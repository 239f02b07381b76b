"""Pages of lists as the API server sends them, parsed without their managedFields.

Those are more than half of a pod's text, and nothing here reads them: never made into objects, a page is parsed four
times as fast. Everything else stays plain JSON, also what this version does not know.
"""

from __future__ import annotations

from typing import Any, Final, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict


@with_config(ConfigDict(extra="ignore"))
class _Metadata(TypedDict, total=False):
    """ObjectMeta; a field that is not named here is left out."""

    name: Any
    generateName: Any
    namespace: Any
    uid: Any
    resourceVersion: Any
    generation: Any
    creationTimestamp: Any
    deletionTimestamp: Any
    deletionGracePeriodSeconds: Any
    labels: Any
    annotations: Any
    ownerReferences: Any
    finalizers: Any


@with_config(ConfigDict(extra="allow"))
class _Item(TypedDict, total=False):
    metadata: _Metadata


@with_config(ConfigDict(extra="allow"))
class _ListMetadata(TypedDict, total=False):
    pass


@with_config(ConfigDict(extra="allow"))
class _Page(TypedDict, total=False):
    metadata: _ListMetadata | None
    items: list[_Item] | None


_PAGES: Final = TypeAdapter(_Page)


def parse_page(text: bytes) -> dict[str, Any]:
    """`{"metadata": {"continue": …}, "items": […]}`. Raises ValueError when the text is no list of objects."""
    try:
        return cast("dict[str, Any]", _PAGES.validate_json(text))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error
