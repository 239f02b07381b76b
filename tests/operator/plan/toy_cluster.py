"""A cluster for simulations: objects with resource versions, a StatefulSet controller, pods that load and end slowly.

It keeps everything; the operator under test keeps nothing between two passes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from adaptive_operator import names
from adaptive_operator.api.status import AdaptiveModelStatus
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.levels import parse_levels
from adaptive_operator.observe.observation import (
    ChildObservation,
    ModelObservation,
    PodObservation,
    PodPhase,
    Reading,
    Sample,
    StatefulSetObservation,
)
from adaptive_operator.plan.draining import parse_draining
from adaptive_operator.plan.plan import ApplyObject, DeleteObject, Step, WriteStatus
from tests.operator.plan.situations import METRICS, NOW, make_model

RESOURCE = "nvidia.com/gpu"


class ConflictError(Exception):
    """409: the object is not what was read."""


@dataclass
class ToyPod:
    name: str
    uid: str
    stateful_set: str
    ordinal: int
    tier: str
    revision: str
    accelerators: int
    age: int = 0  # controller rounds
    terminating: int = 0  # rounds since it was deleted
    busy: int = 0  # rounds until its last request ends


@dataclass
class ToyCluster:
    spec: AdaptiveModelSpec
    load_rounds: dict[str, int | None] = field(default_factory=dict)  # tier or revision -> till ready, None: never
    end_rounds: int = 1  # rounds that a pod is Terminating
    busy_rounds: int = 0  # rounds that a pod's last request takes
    now: float = NOW
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    pods: list[ToyPod] = field(default_factory=list)
    status: AdaptiveModelStatus | None = None
    serial: int = 0
    writes: int = 0
    removed_undrained: list[str] = field(default_factory=list)

    # --- API server -------------------------------------------------------------------------------------------------
    def take(self, step: Step) -> None:
        match step:
            case ApplyObject():
                self._apply(step)
            case DeleteObject():
                self._delete(step)
            case WriteStatus():
                self.status = AdaptiveModelStatus.model_validate(step.status["status"])
        self.writes += 1

    def _apply(self, step: ApplyObject) -> None:
        manifest = json.loads(json.dumps(step.manifest))
        key = (manifest["kind"], manifest["metadata"]["name"])
        present = self.objects.get(key)
        if (present["metadata"]["resourceVersion"] if present else None) != step.resource_version:
            raise ConflictError(key)
        if manifest["kind"] == "StatefulSet":
            self._check_drained(manifest)
        self.serial += 1
        manifest["metadata"]["uid"] = present["metadata"]["uid"] if present else f"uid-{self.serial}"
        manifest["metadata"]["resourceVersion"] = str(self.serial)
        self.objects[key] = manifest

    def _check_drained(self, manifest: Mapping[str, Any]) -> None:
        """Note the pods that a StatefulSet gives up before the written table keeps routers off them."""
        name, replicas, draining = manifest["metadata"]["name"], manifest["spec"]["replicas"], self.draining()
        for pod in self.pods:
            if pod.stateful_set == name and pod.ordinal >= replicas and not pod.terminating and pod.uid not in draining:
                self.removed_undrained.append(pod.uid)

    def _delete(self, step: DeleteObject) -> None:
        present = self.objects.get((step.kind, step.name))
        if present is None or present["metadata"]["uid"] != step.uid:
            raise ConflictError(step.name)
        del self.objects[step.kind, step.name]

    # --- controllers and kubelet ------------------------------------------------------------------------------------
    def run_controllers(self, seconds: float = 5.0) -> None:
        """One round: pods age and end, then StatefulSets delete and make pods."""
        self.now += seconds
        self._age_pods()
        for manifest in self._stateful_sets():
            self._reconcile(manifest)

    def _age_pods(self) -> None:
        draining = self.draining()
        for pod in self.pods:
            pod.age += 1
            pod.busy = max(pod.busy - 1, 0) if pod.uid in draining else self.busy_rounds
            pod.terminating += 1 if pod.terminating else 0
        self.pods = [pod for pod in self.pods if pod.terminating <= self.end_rounds]

    def _reconcile(self, manifest: Mapping[str, Any]) -> None:
        name, replicas = manifest["metadata"]["name"], manifest["spec"]["replicas"]
        own = {pod.ordinal: pod for pod in self.pods if pod.stateful_set == name}
        for ordinal, pod in own.items():
            if ordinal >= replicas and not pod.terminating:
                pod.terminating = 1
        for ordinal in range(replicas):
            if ordinal not in own:
                self._make_pod(manifest, ordinal)

    def _make_pod(self, manifest: Mapping[str, Any], ordinal: int) -> None:
        self.serial += 1
        name, labels = manifest["metadata"]["name"], manifest["metadata"]["labels"]
        pod = ToyPod(
            name=f"{name}-{ordinal}",
            uid=f"pod-{self.serial}",
            stateful_set=name,
            ordinal=ordinal,
            tier=labels[names.LABEL_TIER],
            revision=labels[names.LABEL_REVISION],
            accelerators=accelerators_of(manifest),
            busy=self.busy_rounds,
        )
        self.pods.append(pod)

    def is_ready(self, pod: ToyPod) -> bool:
        rounds = self.load_rounds.get(pod.revision, self.load_rounds.get(pod.tier, 1))
        return rounds is not None and pod.age >= rounds and not pod.terminating

    # --- what can be asked ------------------------------------------------------------------------------------------
    def _stateful_sets(self) -> list[dict[str, Any]]:
        return [item for (kind, _), item in sorted(self.objects.items()) if kind == "StatefulSet"]

    def held(self) -> int:
        """Accelerators of all pods that exist or may appear at any moment."""
        total = 0
        for manifest in self._stateful_sets():
            name = manifest["metadata"]["name"]
            ordinals = {pod.ordinal for pod in self.pods if pod.stateful_set == name}
            total += len(ordinals | set(range(manifest["spec"]["replicas"]))) * accelerators_of(manifest)
        sets = {manifest["metadata"]["name"] for manifest in self._stateful_sets()}
        return total + sum(pod.accelerators for pod in self.pods if pod.stateful_set not in sets)

    def table(self) -> dict[str, Any] | None:
        config_map = self.objects.get(("ConfigMap", "assistant-routing"))
        return json.loads(config_map["data"]["table.json"]) if config_map else None

    def draining(self) -> set[str]:
        table = self.table()
        return set(table["draining"]) if table else set()

    def routable(self) -> list[ToyPod]:
        """Pods that routers send requests to."""
        return [pod for pod in self.pods if self.is_ready(pod) and pod.uid not in self.draining()]

    def asked(self) -> dict[str, int]:
        asked: dict[str, int] = {}
        for manifest in self._stateful_sets():
            tier = manifest["metadata"]["labels"][names.LABEL_TIER]
            asked[tier] = asked.get(tier, 0) + manifest["spec"]["replicas"]
        return asked

    def is_at_rest(self) -> bool:
        """Whether time alone changes nothing any more."""
        complete = len(self.pods) == sum(self.asked().values())
        return complete and not self.draining() and all(self.is_ready(pod) for pod in self.pods)

    # --- what the operator sees -------------------------------------------------------------------------------------
    def observe(self) -> ModelObservation:
        config_map = self.objects.get(("ConfigMap", "assistant-routing"))
        work: dict[str, Reading] = {pod.name: Sample(float(pod.busy), 1.0) for pod in self.pods if self.is_ready(pod)}
        return make_model(
            self.spec,
            metrics=replace(METRICS, pod_work=work),
            stateful_sets=tuple(observe_stateful_set(item) for item in self._stateful_sets()),
            pods=tuple(self._observe_pod(pod) for pod in self.pods),
            children=tuple(self._observe_children()),
            status=self.status,
            routing_table=config_map["data"]["table.json"] if config_map else None,
            routers_ready=1 if ("Deployment", "assistant-router") in self.objects else 0,
        )

    def _observe_pod(self, pod: ToyPod) -> PodObservation:
        phase = PodPhase.READY if self.is_ready(pod) else PodPhase.STARTING
        return PodObservation(
            name=pod.name,
            uid=pod.uid,
            tier=pod.tier,
            revision=pod.revision,
            stateful_set=pod.stateful_set,
            ordinal=pod.ordinal,
            accelerators=pod.accelerators,
            phase=PodPhase.TERMINATING if pod.terminating else phase,
            created_at=self.now,
            started=phase is PodPhase.READY,
        )

    def _observe_children(self) -> Iterator[ChildObservation]:
        for (kind, name), manifest in sorted(self.objects.items()):
            if kind != "StatefulSet":
                metadata = manifest["metadata"]
                yield ChildObservation(
                    kind=kind,
                    name=name,
                    uid=metadata["uid"],
                    resource_version=metadata["resourceVersion"],
                    epoch=int(metadata["annotations"][names.ANNOTATION_EPOCH]),
                    owner_uid=metadata["ownerReferences"][0]["uid"],
                    labels=metadata["labels"],
                    manifest=copy.deepcopy(manifest),
                )


def accelerators_of(manifest: Mapping[str, Any]) -> int:
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    return int(container["resources"]["limits"][RESOURCE])


def observe_stateful_set(manifest: Mapping[str, Any]) -> StatefulSetObservation:
    metadata, annotations = manifest["metadata"], manifest["metadata"]["annotations"]
    return StatefulSetObservation(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        tier=metadata["labels"][names.LABEL_TIER],
        revision=metadata["labels"][names.LABEL_REVISION],
        tier_inputs=annotations[names.ANNOTATION_TIER_INPUTS],
        image=manifest["spec"]["template"]["spec"]["containers"][0]["image"],
        replicas=manifest["spec"]["replicas"],
        accelerators=accelerators_of(manifest),
        epoch=int(annotations[names.ANNOTATION_EPOCH]),
        draining=parse_draining(annotations.get(names.ANNOTATION_DRAINING)),
        levels=parse_levels(annotations.get(names.ANNOTATION_LEVELS)),
        manifest=copy.deepcopy(dict(manifest)),
    )
