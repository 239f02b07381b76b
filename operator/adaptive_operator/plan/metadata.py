"""What all children have in common: labels, owner, epoch, and the test whether an existing child has to be written
again.

Only fields that we own are rendered; what the API server or somebody else adds is left alone and does not count as
drift.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from adaptive_operator import names
from adaptive_operator.observe.observation import ModelObservation

API_VERSION = f"{names.GROUP}/{names.VERSION}"
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGT", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGT", start=1)},
}


def model_labels(model: str, component: str) -> dict[str, str]:
    """Labels of every child of a model."""
    return {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_COMPONENT: component,
        names.LABEL_MODEL: model,
    }


def owner_reference(model: ModelObservation) -> dict[str, Any]:
    """The model owns its children, so deleting it deletes them.

    `blockOwnerDeletion` stays false: true would need the right to update the model's finalizers, and foreground
    deletion of the model must never hang on a child.
    """
    return {
        "apiVersion": API_VERSION,
        "kind": names.KIND,
        "name": model.name,
        "uid": model.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def build_child(
    model: ModelObservation,
    api_version: str,
    kind: str,
    name: str,
    labels: Mapping[str, str],
    body: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A child's manifest without the stamps that `stamp_manifest` adds."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": model.namespace,
        "labels": dict(labels),
        "annotations": dict(annotations or {}),
        "ownerReferences": [owner_reference(model)],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}


def stamp_manifest(manifest: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """The manifest with its own hash and the writer's epoch.

    The hash leaves the epoch out: a new leader changes nothing.
    """
    metadata = manifest["metadata"]
    stamps = {names.ANNOTATION_MANIFEST: manifest_hash(manifest), names.ANNOTATION_EPOCH: str(epoch)}
    return {**manifest, "metadata": {**metadata, "annotations": {**metadata["annotations"], **stamps}}}


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """Twelve hex digits over the canonical JSON of an unstamped manifest."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_current(stamped: Mapping[str, Any], observed: Mapping[str, Any]) -> bool:
    """Whether the child as read carries all that we want, under our hash and epoch.

    The hash finds what we no longer want (a field that an older operator set); the comparison finds edits by hand.
    """
    return _is_part_of(stamped, observed)


def _is_part_of(wanted: Any, seen: Any) -> bool:
    if wanted == seen:  # most parts are, and to find that out at once is a quarter of a quiet pass
        return True
    if isinstance(wanted, Mapping):
        return (isinstance(seen, Mapping) or not wanted) and all(
            _is_part_of(value, seen.get(key)) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return _is_list_part_of(wanted, seen)
    return isinstance(wanted, str) and isinstance(seen, str) and _same_quantity(wanted, seen)


def _is_list_part_of(wanted: list[Any], seen: Any) -> bool:
    if not wanted:
        return not seen or isinstance(seen, list)
    if not isinstance(seen, list):
        return False
    if all(isinstance(item, Mapping) for item in wanted):  # lists of objects may hold items that others added
        return all(item in seen or any(_is_part_of(item, other) for other in seen) for item in wanted)
    return False


def _same_quantity(left: str, right: str) -> bool:
    """The API server rewrites quantities: 1000m comes back as 1, 1024Mi as 1Gi."""
    first, second = _QUANTITY.fullmatch(left), _QUANTITY.fullmatch(right)
    if first is None or second is None:
        return False
    return Decimal(first[1]) * _FACTORS[first[2] or ""] == Decimal(second[1]) * _FACTORS[second[2] or ""]
