"""Small scenarios: an 8B-like model in three tiers of one accelerator each, and what a run says in short."""

from __future__ import annotations

from typing import Any

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.observe.observation import PodObservation
from adaptive_operator.observe.pods import parse_pod
from adaptive_operator.simulate.curve import Lengths, StepCurve, saturation
from adaptive_operator.simulate.events import EventQueue
from adaptive_operator.simulate.failing_loads import FailingLoads
from adaptive_operator.simulate.plant import Plant, Pod
from adaptive_operator.simulate.pod_status import pod_status
from adaptive_operator.simulate.requests import Outcome
from adaptive_operator.simulate.run import RunResult
from adaptive_operator.simulate.scenario import Scenario, build_scenario
from tests.operator.simulate.queues import make_curve

# name, precision, quality in permille, requests/s of a replica, accelerators
TIERS = (("full", "bf16", 1000, 4.0, 1), ("int8", "int8", 990, 6.4, 1), ("int4", "int4", 850, 10.0, 1))


def make_spec(tiers: tuple[tuple[str, str, int, float, int], ...] = TIERS, **more: Any) -> AdaptiveModelSpec:
    """A spec with windows short enough for tests; `load_seconds` of every tier."""
    load = more.pop("load_seconds", 20)
    document: dict[str, Any] = {
        "model": {"source": "file:///models/8b"},
        "slo": {"ttftMilliseconds": 1000, "tpotMilliseconds": 35, "attainmentPercent": 99},
        "quality": {"floorPermille": 900},
        "tiers": [
            {
                "name": name,
                "recipe": {"precision": precision},
                "replica": {"accelerators": accelerators, "cpu": "1", "memory": "16Gi"},
                "card": {
                    "qualityPermille": quality,
                    "capacityMilliRequestsPerSecond": round(rate * 1000),
                    "referencePromptTokens": 1155,
                    "referenceOutputTokens": 211,
                    "loadSeconds": load,
                },
            }
            for name, precision, quality, rate, accelerators in tiers
        ],
        "scaling": {"dwellSeconds": 60, "holdSeconds": 60, "drainDeadlineSeconds": 30},
    }
    return AdaptiveModelSpec.model_validate({**document, **more})


def curves_of(spec: AdaptiveModelSpec) -> dict[str, StepCurve]:
    """8B-like curves of the tiers, each saturated at its card's rate / 0.85."""
    most = saturation(make_curve(), Lengths(1155, 211))
    rates = {tier.name: tier.card.capacity_milli_requests_per_second / 1000 for tier in spec.tiers}
    return {name: make_curve().scaled(rate / 0.85 / most, rate / 0.85 / most) for name, rate in rates.items()}


def make_scenario(budget: int = 4, **more: Any) -> Scenario:
    spec = make_spec(**more)
    return build_scenario("assistant", spec, budget, curves_of(spec))


def make_plant(*failing: FailingLoads) -> Plant:
    """An empty plant of four accelerators."""
    return Plant(EventQueue(), make_scenario(budget=4), failing_loads=failing)


def seen_pod(plant: Plant, pod: Pod) -> PodObservation:
    """What the operator's own parser makes of the pod now."""
    raw = {"metadata": {"name": pod.name, "uid": pod.uid}, "spec": {}, "status": pod_status(pod, plant.events.now)}
    return parse_pod(raw, "nvidia.com/gpu")


def served(result: RunResult, since: float = 0.0) -> float:
    """Part of the requests from `since` on that were answered to the end."""
    late = [request for request in result.requests if request.arrival >= since]
    return sum(request.outcome is Outcome.FINISHED for request in late) / len(late)


def quality(result: RunResult, since: float = 0.0) -> float:
    """Mean quality of what was answered, 0..1."""
    done = [r for r in result.requests if r.arrival >= since and r.outcome is Outcome.FINISHED]
    return sum(request.quality for request in done) / len(done)


def mixes(result: RunResult) -> list[dict[str, int]]:
    return [dict(change.replicas) for change in result.changes]
