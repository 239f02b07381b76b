"""The Services of a model: the endpoint that users call, and one headless Service per tier for the routers."""

from __future__ import annotations

from typing import Any

from adaptive_operator import names
from adaptive_operator.observe.observation import ModelObservation
from adaptive_operator.plan.metadata import build_child, model_labels


def build_endpoint_service(model: ModelObservation) -> dict[str, Any]:
    """Service NAME, port 80, in front of the routers."""
    labels = model_labels(model.name, names.COMPONENT_ROUTER)
    spec = {
        "type": "ClusterIP",
        "selector": {names.LABEL_MODEL: model.name, names.LABEL_COMPONENT: names.COMPONENT_ROUTER},
        "ports": [{"name": "http", "port": 80, "targetPort": names.ROUTER_PORT, "protocol": "TCP"}],
    }
    return build_child(model, "v1", "Service", names.endpoint_service_name(model.name), labels, {"spec": spec})


def build_tier_service(model: ModelObservation, tier: str) -> dict[str, Any]:
    """Headless Service over all revisions of a tier; its EndpointSlices inherit the labels that routers watch.

    publishNotReadyAddresses stays unset, which means false: the API server drops a false, so the Service would never
    equal what was applied and each pass would write it again.
    """
    labels = {**model_labels(model.name, names.COMPONENT_ENGINE), names.LABEL_TIER: tier}
    selector = {
        names.LABEL_MODEL: model.name,
        names.LABEL_COMPONENT: names.COMPONENT_ENGINE,
        names.LABEL_TIER: tier,
    }
    spec = {
        "clusterIP": "None",
        "selector": selector,
        "ports": [{"name": "http", "port": names.ENGINE_PORT, "targetPort": names.ENGINE_PORT, "protocol": "TCP"}],
    }
    return build_child(model, "v1", "Service", names.tier_service_name(model.name, tier), labels, {"spec": spec})
