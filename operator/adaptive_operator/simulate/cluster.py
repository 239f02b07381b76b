"""The simulated API server and StatefulSet controller: objects in, pods in the plant, raw objects out.

The operator's own parsers read what comes out, and its own steps are what goes in; nothing of a decision is known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adaptive_operator import names
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.observe.cluster import CHILD_KINDS, Snapshot
from adaptive_operator.plan.clock import format_time
from adaptive_operator.plan.metadata import API_VERSION
from adaptive_operator.plan.plan import ApplyObject, DeleteObject, Step, WriteStatus
from adaptive_operator.simulate.events import EPOCH
from adaptive_operator.simulate.plant import Plant, Pod
from adaptive_operator.simulate.pod_status import pod_status, running_status
from adaptive_operator.simulate.scrapes import NAMESPACE, router_pod

Raw = dict[str, Any]


class ConflictError(RuntimeError):
    """409: the object is not what was read. In a simulation nobody else writes, so this is a defect."""


@dataclass(slots=True)
class Cluster:
    """One namespace with one AdaptiveModel; those of a pool are read together (`merge`)."""

    plant: Plant
    model: str
    spec: AdaptiveModelSpec
    status: Raw = field(default_factory=dict)
    writes: int = 0
    _objects: dict[tuple[str, str], Raw] = field(default_factory=dict)
    _serial: int = 0

    def take(self, step: Step) -> None:
        """Carry out one step of a plan."""
        match step:
            case ApplyObject():
                self._apply(step)
            case DeleteObject():
                self._delete(step)
            case WriteStatus():
                self.status = json.loads(json.dumps(step.status["status"]))
            case _:
                return  # Events change nothing
        self.writes += 1

    def table(self) -> str | None:
        """The text of the routing table."""
        found = self._objects.get(("ConfigMap", names.routing_table_name(self.model)))
        return None if found is None else str(found["data"][names.TABLE_KEY])

    def run_controllers(self) -> None:
        """StatefulSets delete the pods that are too many, then make those that are missing."""
        for manifest in self._of_kind("StatefulSet"):
            name, replicas = manifest["metadata"]["name"], int(manifest["spec"]["replicas"])
            own = {pod.ordinal: pod for pod in self.plant.pods.values() if pod.owner == name}
            for ordinal, pod in own.items():
                if ordinal >= replicas:
                    self.plant.terminate(pod, _grace_of(manifest))
        for manifest in self._of_kind("StatefulSet"):
            name = manifest["metadata"]["name"]
            taken = {pod.ordinal for pod in self.plant.pods.values() if pod.owner == name}
            for ordinal in sorted(set(range(int(manifest["spec"]["replicas"]))) - taken):
                self.plant.create(manifest["metadata"]["labels"][names.LABEL_TIER], f"{name}-{ordinal}", name, ordinal)

    def snapshot(self) -> Snapshot:
        """What the operator would read."""
        children = {kind: tuple(self._of_kind(kind)) for kind in CHILD_KINDS}
        pods = [self._raw_pod(pod) for pod in self.plant.pods.values()]
        if self._of_kind("Deployment"):
            pods.append(self._raw_router())
        return Snapshot((self._raw_model(),), tuple(pods), tuple(self._of_kind("StatefulSet")), children)

    def _apply(self, step: ApplyObject) -> None:
        manifest: Raw = json.loads(json.dumps(step.manifest))
        key = (manifest["kind"], manifest["metadata"]["name"])
        present = self._objects.get(key)
        if (present["metadata"]["resourceVersion"] if present else None) != step.resource_version:
            raise ConflictError(f"{key[0]} {key[1]}")
        self._serial += 1
        manifest["metadata"]["uid"] = present["metadata"]["uid"] if present else f"uid-{self._serial}"
        manifest["metadata"]["resourceVersion"] = str(self._serial)
        self._objects[key] = manifest

    def _delete(self, step: DeleteObject) -> None:
        present = self._objects.get((step.kind, step.name))
        if present is None or present["metadata"]["uid"] != step.uid:
            raise ConflictError(f"{step.kind} {step.name}")
        del self._objects[step.kind, step.name]

    def _of_kind(self, wanted: str) -> list[Raw]:
        return [manifest for (kind, _), manifest in sorted(self._objects.items()) if kind == wanted]

    def _raw_model(self) -> Raw:
        metadata = {
            "name": self.model,
            "namespace": NAMESPACE,
            "uid": f"uid-of-{self.model}",
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": format_time(EPOCH),
        }
        spec = self.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {
            "apiVersion": API_VERSION,
            "kind": names.KIND,
            "metadata": metadata,
            "spec": spec,
            "status": self.status,
        }

    def _raw_pod(self, pod: Pod) -> Raw:
        manifest = self._objects.get(("StatefulSet", pod.owner))
        template = manifest["spec"]["template"] if manifest else _bare_template(pod, self.spec)
        metadata: Raw = {
            "name": pod.name,
            "namespace": NAMESPACE,
            "uid": pod.uid,
            "labels": {**template["metadata"]["labels"], names.LABEL_MODEL: self.model},
            "ownerReferences": [{"kind": "StatefulSet", "name": pod.owner, "controller": True}] if manifest else [],
            "creationTimestamp": format_time(EPOCH + pod.created_at),
        }
        if pod.terminating_at is not None:
            metadata["deletionTimestamp"] = format_time(EPOCH + pod.terminating_at)
        status = pod_status(pod, self.plant.events.now)
        return {"kind": "Pod", "metadata": metadata, "spec": template["spec"], "status": status}

    def _raw_router(self) -> Raw:
        labels = {names.LABEL_MODEL: self.model, names.LABEL_COMPONENT: names.COMPONENT_ROUTER}
        metadata = {
            "name": router_pod(self.model),
            "namespace": NAMESPACE,
            "uid": f"uid-of-router-of-{self.model}",
            "labels": labels,
        }
        return {"kind": "Pod", "metadata": metadata, "spec": {}, "status": running_status(0.0)}


def merge(snapshots: Sequence[Snapshot], pools: Sequence[Raw] = ()) -> Snapshot:
    """All models of a pool as the operator would read them in one pass; `pools`: the AcceleratorPool, if any."""
    return Snapshot(
        tuple(raw for one in snapshots for raw in one.models),
        tuple(raw for one in snapshots for raw in one.pods),
        tuple(raw for one in snapshots for raw in one.stateful_sets),
        {kind: tuple(raw for one in snapshots for raw in one.children[kind]) for kind in CHILD_KINDS},
        pools,
    )


def _grace_of(manifest: Mapping[str, Any]) -> float:
    return float(manifest["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30))


def _bare_template(pod: Pod, spec: AdaptiveModelSpec) -> Raw:
    """Of a pod whose StatefulSet is gone: it still holds its accelerators."""
    labels = {names.LABEL_COMPONENT: names.COMPONENT_ENGINE, names.LABEL_TIER: pod.tier}
    labels |= {names.LABEL_POOL: spec.accelerators.pool} if spec.accelerators.pool else {}
    limits = {spec.accelerators.resource: pod.accelerators}
    return {"metadata": {"labels": labels}, "spec": {"containers": [{"resources": {"limits": limits}}]}}
