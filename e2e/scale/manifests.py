"""The objects of a scale run: emulated models of one shape, and nodes that have room for them. Pure."""

from __future__ import annotations

import copy
import math
from typing import Any

from e2e.scale.settings import ScaleSettings

Manifest = dict[str, Any]

RESOURCE = "nvidia.com/gpu"
MODELS_PER_NAMESPACE = 10
SPARE_REPLICAS = 4  # that each tier may grow by
_UNITS = {"full": 2, "int4": 1}
_HEADROOM = 1.3  # accelerators on the nodes against those that are needed at first
_SMALL = {"replica": {"cpu": "100m", "memory": "256Mi"}}
_LOAD_SHARE = 0.6  # of what the full tier's replicas carry

_FULL: Manifest = {
    "name": "full",
    "recipe": {"precision": "bf16"},
    "engine": "emulated",
    "curve": {
        "stepMicroseconds": 28400,
        "decodeMicrosecondsPerSequence": 350,
        "prefillMicrosecondsPerToken": 107,
        "maxSequences": 16,
    },
    "card": {"qualityPermille": 1000, "capacityMilliRequestsPerSecond": 5000, "loadSeconds": 20},
}
_INT4: Manifest = {
    "name": "int4",
    "recipe": {"precision": "int4"},
    "engine": "emulated",
    "curve": {
        "stepMicroseconds": 16000,
        "decodeMicrosecondsPerSequence": 350,
        "prefillMicrosecondsPerToken": 107,
        "maxSequences": 16,
    },
    "card": {"qualityPermille": 930, "capacityMilliRequestsPerSecond": 8000, "loadSeconds": 10},
}


def model_name(index: int) -> str:
    """Of equal length, so that no model's name begins another one's."""
    return f"m-{index:04d}"


def model_namespace(index: int) -> str:
    return f"team-{index // MODELS_PER_NAMESPACE:03d}"


def model_of(child: str) -> str:
    """The model that an object belongs to, by its name: `m-0012-router` is of `m-0012`; empty: of none."""
    prefix, _, rest = child.partition("-")
    number = rest.split("-", 1)[0]
    return f"m-{number}" if prefix == "m" and len(number) == 4 and number.isdigit() else ""


def full_replicas(settings: ScaleSettings) -> int:
    """Replicas of the full tier: what a router and one int4 replica leave of a model's pods."""
    return settings.pods_per_model - 2


def base_load(settings: ScaleSettings) -> float:
    """Requests per second of one model at first."""
    return _LOAD_SHARE * full_replicas(settings) * _FULL["card"]["capacityMilliRequestsPerSecond"] / 1000


def stepped_load(settings: ScaleSettings) -> float:
    """Requests per second after the step: more than all replicas of the start carry, so that one has to be added."""
    carried = full_replicas(settings) * _FULL["card"]["capacityMilliRequestsPerSecond"] / 1000
    return carried + 1.5 * _INT4["card"]["capacityMilliRequestsPerSecond"] / 1000


def build_namespaces(settings: ScaleSettings) -> list[Manifest]:
    names = dict.fromkeys(model_namespace(i) for i in range(settings.models))
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]


def build_model(index: int, settings: ScaleSettings) -> Manifest:
    """One model, its replicas pinned from below so that every model has the same number of pods."""
    counts = {"full": full_replicas(settings), "int4": 1}
    tiers = [
        {
            **copy.deepcopy(tier),
            "replica": {"accelerators": _UNITS[tier["name"]], **_SMALL["replica"]},
            "replicas": {"min": counts[tier["name"]], "max": counts[tier["name"]] + SPARE_REPLICAS},
        }
        for tier in (_FULL, _INT4)
    ]
    return {
        "apiVersion": "adaptivellm.dev/v1alpha1",
        "kind": "AdaptiveModel",
        "metadata": {"name": model_name(index), "namespace": model_namespace(index)},
        "spec": {
            "model": {"source": "file:///not/read"},
            "accelerators": {"resource": RESOURCE},
            "slo": {"ttftMilliseconds": 2000, "tpotMilliseconds": 60, "attainmentPercent": 95},
            "quality": {"floorPermille": 900},
            "tiers": tiers,
        },
    }


def build_change(round_number: int) -> list[Manifest]:
    """A JSON patch that asks for one more int4 replica than the round before."""
    return [{"op": "replace", "path": "/spec/tiers/1/replicas/min", "value": 1 + round_number}]


def build_nodes(settings: ScaleSettings) -> list[Manifest]:
    """Nodes with room for all pods and with spare accelerators."""
    needed = settings.models * (full_replicas(settings) * _UNITS["full"] + _UNITS["int4"])
    accelerators = math.ceil(needed * _HEADROOM / settings.nodes)
    room = {"cpu": "256", "memory": "4Ti", "pods": str(2 * math.ceil(settings.pods / settings.nodes) + 10)}
    status = {"capacity": {**room, RESOURCE: str(accelerators)}, "allocatable": {**room, RESOURCE: str(accelerators)}}
    return [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{i:03d}"}, "status": status}
        for i in range(settings.nodes)
    ]
