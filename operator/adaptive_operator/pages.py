"""Pages of lists as the API server sends them, parsed without their managedFields.

Those are more than half of a pod's text, and nothing here reads them: never made into objects, a page is parsed four
times as fast. Everything else stays plain JSON, also what this version does not know; but of a pod's spec, which is the
rest of its text and as long as its StatefulSet's, only what tells what it holds, and where.
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


@with_config(ConfigDict(extra="ignore"))
class _Container(TypedDict, total=False):
    """Of a pod, what it holds."""

    name: Any
    resources: Any


@with_config(ConfigDict(extra="ignore"))
class _PodSpec(TypedDict, total=False):
    containers: list[_Container] | None
    nodeName: Any
    nodeSelector: Any  # tells on which nodes it may be, once its pool is gone


@with_config(ConfigDict(extra="allow"))
class _Pod(TypedDict, total=False):
    metadata: _Metadata
    spec: _PodSpec | None


@with_config(ConfigDict(extra="allow"))
class _ListMetadata(TypedDict, total=False):
    pass


@with_config(ConfigDict(extra="allow"))
class _Page(TypedDict, total=False):
    metadata: _ListMetadata | None
    items: list[_Item] | None


@with_config(ConfigDict(extra="allow"))
class _PageOfPods(TypedDict, total=False):
    metadata: _ListMetadata | None
    items: list[_Pod] | None


_PAGES: Final = TypeAdapter(_Page)
_PAGES_OF_PODS: Final = TypeAdapter(_PageOfPods)


def parse_page(text: bytes) -> dict[str, Any]:
    """`{"metadata": {"continue": …}, "items": […]}`. Raises ValueError when the text is no list of objects."""
    return _parse(_PAGES, text)


def parse_page_of_pods(text: bytes) -> dict[str, Any]:
    """The same of pods, whose specs keep `containers` (name and resources) and `nodeName`. Raises ValueError."""
    return _parse(_PAGES_OF_PODS, text)


def _parse(pages: TypeAdapter[_Page] | TypeAdapter[_PageOfPods], text: bytes) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", pages.validate_json(text))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error
