"""Labels, annotations and object names of a model's children. Pure and deterministic; knows no API client."""

from __future__ import annotations

import hashlib
from typing import Final

GROUP: Final = "adaptivellm.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "adaptivemodels"
KIND: Final = "AdaptiveModel"
POOL_PLURAL: Final = "acceleratorpools"
POOL_KIND: Final = "AcceleratorPool"
FIELD_MANAGER: Final = "adaptive-operator"

LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_MODEL: Final = "adaptivellm.dev/model"
LABEL_TIER: Final = "adaptivellm.dev/tier"
LABEL_REVISION: Final = "adaptivellm.dev/revision"
LABEL_POOL: Final = "adaptivellm.dev/pool"
MANAGED_BY: Final = "adaptive-llm"
COMPONENT_ENGINE: Final = "engine"
COMPONENT_ROUTER: Final = "router"
COMPONENT_ROUTING: Final = "routing"

ANNOTATION_EPOCH: Final = "adaptivellm.dev/epoch"
ANNOTATION_TIER_INPUTS: Final = "adaptivellm.dev/tier-inputs"
ANNOTATION_DRAINING: Final = "adaptivellm.dev/draining"
ANNOTATION_LEVELS: Final = "adaptivellm.dev/levels"
ANNOTATION_MANIFEST: Final = "adaptivellm.dev/manifest"

ENGINE_PORT: Final = 8000
ROUTER_PORT: Final = 8080
TABLE_KEY: Final = "table.json"

_MODEL_PREFIX = 24
_TIER_PREFIX = 16


def short_hash(*parts: str) -> str:
    """Eight hex digits of sha256 over the parts, joined by NUL so that ("a", "bc") and ("ab", "c") differ."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def tier_revision(model: str, tier: str, inputs: str, image: str) -> str:
    """Revision of a tier: a hash of the model, its tier's inputs and the engine image pinned for it."""
    return short_hash(model, tier, inputs, image)


def stateful_set_name(model: str, tier: str, revision: str) -> str:
    """Name of the StatefulSet of one (tier, revision): at most 50 characters, so that pod labels fit in 63."""
    return f"{model[:_MODEL_PREFIX]}-{tier[:_TIER_PREFIX]}-{revision}"


def tier_service_name(model: str, tier: str) -> str:
    """Name of the headless Service over all revisions of a tier. The hash keeps ("a", "b-c") and ("a-b", "c") apart."""
    return f"{model[:_MODEL_PREFIX]}-{tier[:_TIER_PREFIX]}-{short_hash(f'{model}/{tier}')}"


def router_name(model: str) -> str:
    """Name of the router's Deployment, ServiceAccount, Role and RoleBinding."""
    return f"{model}-router"


def routing_table_name(model: str) -> str:
    """Name of the ConfigMap that holds the routing table."""
    return f"{model}-routing"


def endpoint_service_name(model: str) -> str:
    """Name of the Service that users call: the model's own name."""
    return model
