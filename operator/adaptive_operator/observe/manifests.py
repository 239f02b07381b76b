"""Parts of raw manifests that several parsers need. Pure; tolerant: what a stranger left out is empty, not an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from adaptive_operator.names import ANNOTATION_EPOCH, KIND, LABEL_MODEL

Raw = Mapping[str, Any]

# What a JSON text that anyone may have written can raise: nested too deeply, a number too large.
UNREADABLE: Final = (ValueError, OverflowError, RecursionError)

_EPOCH_DIGITS = 10
_FACTORS: Final = {"k": 10**3, "M": 10**6, "G": 10**9}


def metadata_of(raw: Raw) -> Raw:
    """`metadata`."""
    return raw.get("metadata") or {}


def labels_of(raw: Raw) -> Mapping[str, str]:
    """`metadata.labels`."""
    return metadata_of(raw).get("labels") or {}


def annotations_of(raw: Raw) -> Mapping[str, str]:
    """`metadata.annotations`."""
    return metadata_of(raw).get("annotations") or {}


def model_key(raw: Raw) -> tuple[str, str]:
    """Namespace and name of the model that a child's label names."""
    return metadata_of(raw).get("namespace", ""), labels_of(raw).get(LABEL_MODEL, "")


def owner_uid(raw: Raw) -> str | None:
    """Uid of the AdaptiveModel that owns the object, or None."""
    references = metadata_of(raw).get("ownerReferences") or []
    return next((str(r["uid"]) for r in references if r.get("kind") == KIND and r.get("controller")), None)


def epoch_of(raw: Raw) -> int:
    """The epoch that was stamped; 0 when there is none or it was edited into something else.

    More than ten digits are something else: no Lease counts that far.
    """
    text = annotations_of(raw).get(ANNOTATION_EPOCH, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _EPOCH_DIGITS else 0


def parse_time(text: str | None) -> float | None:
    """Seconds since the epoch of an RFC 3339 time, or None."""
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except ValueError:
        return None


def count_accelerators(pod_spec: Raw, resource: str) -> int:
    """Units of an extended resource that one pod of this spec holds."""
    containers = pod_spec.get("containers") or []
    return sum(parse_quantity(((c.get("resources") or {}).get("limits") or {}).get(resource)) for c in containers)


def template_of(stateful_set: Raw) -> Raw:
    """The pod spec that a StatefulSet makes pods from."""
    return ((stateful_set.get("spec") or {}).get("template") or {}).get("spec") or {}


def count_of_replica(stateful_set: Raw, pods: Iterable[Raw], resource: str) -> int:
    """Units that one replica holds; `pods` are the StatefulSet's own.

    Where the template's limit was edited away, the pods that it made before go on holding theirs.
    """
    made = (count_accelerators(pod.get("spec") or {}, resource) for pod in pods)
    return count_accelerators(template_of(stateful_set), resource) or max(made, default=0)


def find_extended(pod_spec: Raw) -> set[str]:
    """Extended resources that one pod of this spec holds."""
    containers = pod_spec.get("containers") or []
    limits = [((c.get("resources") or {}).get("limits") or {}) for c in containers]
    return {name for found in limits for name in found if "/" in name and parse_quantity(found[name]) > 0}


def parse_quantity(value: Any) -> int:
    """Whole units of an extended resource; 0 for what is none. The API server writes 1000 of them as 1k."""
    text = str(value or 0)
    factor = _FACTORS.get(text[-1:], 1)
    try:
        return int(Decimal(text if factor == 1 else text[:-1]) * factor)
    except (InvalidOperation, ValueError, OverflowError):
        return 0


def without_managed_fields(raw: Raw) -> dict[str, Any]:
    """The object without its managedFields, which are larger than the rest."""
    metadata = {k: v for k, v in metadata_of(raw).items() if k != "managedFields"}
    return {**raw, "metadata": metadata}
