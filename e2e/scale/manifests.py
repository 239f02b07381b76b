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
# With --program somebody always lacks something: quality at first, and after the step more than the own part carries.
_SCARCE_HEADROOM, _SCARCE_LOAD_SHARE = 0.9, 0.8
_SCARCE_STEP = 1.2  # of what an even part of the accelerators carries at most
_SCARCE_INT4 = 32  # most replicas of a model
# Settled within minutes; the engines of the exporter are never idle, so that each drain takes all of its time.
_SCARCE_SCALING = {"holdSeconds": 60, "dwellSeconds": 60, "drainDeadlineSeconds": 15}

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
    share = _SCARCE_LOAD_SHARE if settings.program else _LOAD_SHARE
    return share * full_replicas(settings) * _rate(_FULL)


def load_swing(settings: ScaleSettings) -> float:
    """How far loads are from the mean (a share of it): models of a program are unlike each other."""
    return 0.3 if settings.program else 0.0


def stepped_load(settings: ScaleSettings) -> float:
    """Requests per second after the step: more than all replicas of the start carry, so that one has to be added.

    With --program more than an even part of the accelerators carries, so that others have to give.
    """
    if settings.program:
        return _SCARCE_STEP * accelerators(settings) / settings.models / _UNITS["int4"] * _rate(_INT4)
    return full_replicas(settings) * _rate(_FULL) + 1.5 * _rate(_INT4)


def _rate(tier: Manifest) -> float:
    """Requests per second of a replica, by its card."""
    rate: float = tier["card"]["capacityMilliRequestsPerSecond"] / 1000
    return rate


def build_namespaces(settings: ScaleSettings) -> list[Manifest]:
    names = dict.fromkeys(model_namespace(i) for i in range(settings.models))
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]


def build_model(index: int, settings: ScaleSettings) -> Manifest:
    """One model, its replicas pinned from below so that every model has the same number of pods.

    With --program only the warm one is pinned: the operator has the choice.
    """
    bounds = _bounds(settings)
    tiers = [
        {
            **copy.deepcopy(tier),
            "replica": {"accelerators": _UNITS[tier["name"]], **_SMALL["replica"]},
            "replicas": bounds[tier["name"]],
        }
        for tier in (_FULL, _INT4)
    ]
    own = {"scaling": _SCARCE_SCALING} if settings.program else {}
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
            **own,
        },
    }


def _bounds(settings: ScaleSettings) -> dict[str, dict[str, int]]:
    """Least and most replicas, by tier."""
    full = full_replicas(settings)
    if settings.program:
        return {"full": {"min": 0, "max": full + SPARE_REPLICAS}, "int4": {"min": 1, "max": _SCARCE_INT4}}
    return {"full": {"min": full, "max": full + SPARE_REPLICAS}, "int4": {"min": 1, "max": 1 + SPARE_REPLICAS}}


def build_change(round_number: int) -> list[Manifest]:
    """A JSON patch that asks for one more int4 replica than the round before."""
    return [{"op": "replace", "path": "/spec/tiers/1/replicas/min", "value": 1 + round_number}]


def accelerators(settings: ScaleSettings) -> int:
    """Accelerators of all nodes: some to spare, or with --program too few for the best tiers of all models."""
    needed = settings.models * (full_replicas(settings) * _UNITS["full"] + _UNITS["int4"])
    headroom = _SCARCE_HEADROOM if settings.program else _HEADROOM
    return settings.nodes * math.ceil(needed * headroom / settings.nodes)


def build_nodes(settings: ScaleSettings) -> list[Manifest]:
    """Nodes with room for all pods, and the accelerators in equal parts."""
    own = str(accelerators(settings) // settings.nodes)
    room = {"cpu": "256", "memory": "4Ti", "pods": str(2 * math.ceil(settings.pods / settings.nodes) + 10)}
    status = {"capacity": {**room, RESOURCE: own}, "allocatable": {**room, RESOURCE: own}}
    return [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{i:03d}"}, "status": status}
        for i in range(settings.nodes)
    ]
