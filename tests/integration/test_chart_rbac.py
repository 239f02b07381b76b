"""The chart on a real API server: its objects are valid, its roles are enough for the operator and hold nothing more,
and its pods are admitted under Pod Security `restricted`.

Rights are asked for with SubjectAccessReviews; what only a real write shows (the escalation check on Roles) is written
as the operator's account. Every test works in namespaces of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config, utils
from kubernetes.client.exceptions import ApiException

CHART = Path(__file__).parents[2] / "helm" / "adaptive-llm"
Manifest = dict[str, Any]

# group/resource[/subresource] -> verbs, where models live
USED_WITH_MODELS: dict[str, str] = {
    "adaptivellm.dev/adaptivemodels": "get list watch",
    "adaptivellm.dev/adaptivemodels/status": "patch",
    "apps/statefulsets": "get list create patch delete",
    "apps/deployments": "get list create patch delete",
    "/services": "get list create patch delete",
    "/serviceaccounts": "get list create patch delete",
    "/configmaps": "get list watch create patch delete",
    "policy/poddisruptionbudgets": "get list create patch delete",
    "rbac.authorization.k8s.io/roles": "get list create patch delete",
    "rbac.authorization.k8s.io/rolebindings": "get list create patch delete",
    "discovery.k8s.io/endpointslices": "get list watch",
    "/pods": "get list watch delete",
    "/events": "create patch",
}
# in addition with `scope: cluster`
USED_CLUSTER_WIDE: dict[str, str] = {
    "apiextensions.k8s.io/customresourcedefinitions": "list watch",
    "/namespaces": "list watch",
    "/nodes": "list",
    "adaptivellm.dev/acceleratorpools": "get list watch",
    "adaptivellm.dev/acceleratorpools/status": "patch",
}
# in the release's namespace; update and get by name only
USED_AT_HOME: dict[str, str] = {"coordination.k8s.io/leases": "get update create"}
LEASE = "adaptive-llm-operator"

REFUSED: dict[str, str] = {
    "*/*": "*",
    "/secrets": "get list watch create update patch delete",
    "/nodes": "get watch create update patch delete",
    "/nodes/status": "get update patch",
    "/nodes/proxy": "get create",
    "/pods": "create update patch deletecollection",
    "/pods/exec": "create get",
    "/pods/attach": "create",
    "/pods/portforward": "create",
    "/pods/log": "get",
    "/pods/eviction": "create",
    "/pods/ephemeralcontainers": "patch",
    "/serviceaccounts": "impersonate watch update deletecollection",
    "/serviceaccounts/token": "create",
    "/users": "impersonate",
    "/groups": "impersonate",
    "/namespaces": "create update patch delete",
    "/persistentvolumes": "get create delete",
    "/persistentvolumeclaims": "get create delete",
    "/events": "delete list",
    "/configmaps": "update deletecollection",
    "/services/proxy": "get create",
    "adaptivellm.dev/adaptivemodels": "create update patch delete deletecollection",
    "adaptivellm.dev/adaptivemodels/status": "update",
    "adaptivellm.dev/adaptivemodels/finalizers": "update patch",
    "adaptivellm.dev/acceleratorpools": "create update patch delete deletecollection",
    "adaptivellm.dev/acceleratorpools/status": "update",
    "apps/statefulsets": "update watch deletecollection",
    "apps/deployments": "update watch deletecollection",
    "apps/deployments/scale": "update patch",
    "apps/daemonsets": "create get",
    "batch/jobs": "create get",
    "rbac.authorization.k8s.io/roles": "escalate bind update",
    "rbac.authorization.k8s.io/clusterroles": "get create patch escalate bind",
    "rbac.authorization.k8s.io/clusterrolebindings": "get create patch",
    "apiextensions.k8s.io/customresourcedefinitions": "create update patch delete",
    "admissionregistration.k8s.io/validatingwebhookconfigurations": "create patch",
    "certificates.k8s.io/certificatesigningrequests/approval": "update",
    "authentication.k8s.io/tokenreviews": "create",
}


def _pairs(table: dict[str, str]) -> list[tuple[str, str]]:
    return [(resource, verb) for resource, verbs in table.items() for verb in verbs.split()]


@dataclass(frozen=True, slots=True)
class Installation:
    """The chart's objects as rendered, and where they were applied."""

    manifests: tuple[Manifest, ...]
    release: str
    home: str  # namespace of the release
    models: str  # a namespace with models
    elsewhere: str  # a namespace that only `scope: cluster` reaches

    @property
    def user(self) -> str:
        """The operator's account as the API server sees it."""
        return f"system:serviceaccount:{self.home}:{self.release}-operator"


def _render(release: str, home: str, values: Manifest) -> tuple[Manifest, ...]:
    helm = os.environ.get("HELM") or shutil.which("helm")
    assert helm, "helm is not on the PATH: run these tests with `python -m e2e.cluster exec -- …`, or install helm"
    done = subprocess.run(
        [helm, "template", release, str(CHART), "--namespace", home, "--values", "-"],
        input=yaml.safe_dump({"fullnameOverride": release, **values}),
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return tuple(m for m in yaml.safe_load_all(done.stdout) if m)


def _in_namespaces(api: client.ApiClient, run: Callable[[list[str]], Iterator[Installation]]) -> Iterator[Installation]:
    """Three fresh namespaces under Pod Security `restricted`, removed again afterwards."""
    core = client.CoreV1Api(api)
    names = [f"chart-{kind}-{uuid.uuid4().hex[:8]}" for kind in ("home", "models", "other")]
    for name in names:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        core.create_namespace({"metadata": {"name": name, "labels": labels}})
    try:
        yield from run(names)
    finally:
        for name in names:
            core.delete_namespace(name)


def _install(api: client.ApiClient, names: list[str], values: Manifest) -> Iterator[Installation]:
    """Apply accounts, roles and bindings; nothing that would start a pod."""
    home, models, elsewhere = names
    release = f"rbac-{uuid.uuid4().hex[:8]}"
    manifests = _render(release, home, values)
    installed = [m for m in manifests if m["kind"] == "ServiceAccount" or m["kind"].endswith(("Role", "RoleBinding"))]
    try:
        for manifest in installed:
            utils.create_from_dict(api, manifest)
        yield Installation(manifests, release, home, models, elsewhere)
    finally:
        _remove_cluster_wide(api, installed)


def _remove_cluster_wide(api: client.ApiClient, installed: list[Manifest]) -> None:
    rbac = client.RbacAuthorizationV1Api(api)
    remove = {"ClusterRole": rbac.delete_cluster_role, "ClusterRoleBinding": rbac.delete_cluster_role_binding}
    for manifest in installed:
        if manifest["kind"] in remove:
            remove[manifest["kind"]](manifest["metadata"]["name"])


@pytest.fixture(scope="module")
def cluster_wide(api: client.ApiClient) -> Iterator[Installation]:
    """The chart with its defaults."""
    yield from _in_namespaces(api, lambda names: _install(api, names, {}))


@pytest.fixture(scope="module")
def namespaced(api: client.ApiClient) -> Iterator[Installation]:
    """The chart limited to one namespace."""
    yield from _in_namespaces(
        api, lambda names: _install(api, names, {"scope": "namespaces", "namespaces": [names[1]]})
    )


def _may(
    api: client.ApiClient, user: str, pair: tuple[str, str], namespace: str | None, name: str | None = None
) -> bool:
    """Whether the account may do this; `namespace` None: in all namespaces."""
    resource, verb = pair
    group, plural, *subresource = resource.split("/")
    home = user.split(":")[2]
    attributes = client.V1ResourceAttributes(
        group=group, resource=plural, subresource="".join(subresource), verb=verb, namespace=namespace, name=name
    )
    spec = client.V1SubjectAccessReviewSpec(
        user=user,
        groups=["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{home}"],
        resource_attributes=attributes,
    )
    review = client.V1SubjectAccessReview(spec=spec)
    answer = client.AuthorizationV1Api(api).create_subject_access_review(review)
    return bool(answer.status.allowed)


def _as_operator(installation: Installation, call: Callable[[client.ApiClient], object]) -> object:
    """Call the API server as the operator's account."""
    with config.new_client_from_config(context=os.environ["ADAPTIVE_TEST_CONTEXT"]) as impersonating:
        impersonating.set_default_header("Impersonate-User", installation.user)
        return call(impersonating)


@pytest.mark.parametrize("pair", _pairs(USED_WITH_MODELS | USED_CLUSTER_WIDE), ids="-".join)
def test_cluster_scope_is_enough_everywhere(
    api: client.ApiClient, cluster_wide: Installation, pair: tuple[str, str]
) -> None:
    assert _may(api, cluster_wide.user, pair, None)


@pytest.mark.parametrize("pair", _pairs(USED_WITH_MODELS), ids="-".join)
def test_namespace_scope_is_enough_there_and_nothing_elsewhere(
    api: client.ApiClient, namespaced: Installation, pair: tuple[str, str]
) -> None:
    assert _may(api, namespaced.user, pair, namespaced.models)
    for namespace in (namespaced.elsewhere, namespaced.home, None):
        assert not _may(api, namespaced.user, pair, namespace), f"allowed in {namespace or 'all namespaces'}"


@pytest.mark.parametrize("pair", _pairs(REFUSED), ids="-".join)
def test_what_the_operator_never_does_is_refused(
    api: client.ApiClient, cluster_wide: Installation, namespaced: Installation, pair: tuple[str, str]
) -> None:
    for installation in (cluster_wide, namespaced):
        for namespace in (installation.home, installation.models, None):
            assert not _may(api, installation.user, pair, namespace), f"allowed in {namespace or 'all namespaces'}"


@pytest.mark.parametrize("pair", _pairs(USED_AT_HOME), ids="-".join)
def test_the_lease_is_reached_in_the_releases_namespace_only(
    api: client.ApiClient, cluster_wide: Installation, namespaced: Installation, pair: tuple[str, str]
) -> None:
    for installation in (cluster_wide, namespaced):
        assert _may(api, installation.user, pair, installation.home, LEASE)
        assert not _may(api, installation.user, pair, installation.models, LEASE)
        if pair[1] != "create":
            assert not _may(api, installation.user, pair, installation.home, "kube-scheduler")


@pytest.mark.parametrize("pair", _pairs(USED_CLUSTER_WIDE), ids="-".join)
def test_namespace_scope_sees_nothing_cluster_wide(
    api: client.ApiClient, namespaced: Installation, pair: tuple[str, str]
) -> None:
    assert not _may(api, namespaced.user, pair, None)


def _granted(installation: Installation, namespace: str) -> set[tuple[str, str]]:
    """All that the API server says the account may do in a namespace, without what everybody may."""

    def review(api: client.ApiClient) -> Any:
        body = client.V1SelfSubjectRulesReview(spec=client.V1SelfSubjectRulesReviewSpec(namespace=namespace))
        return client.AuthorizationV1Api(api).create_self_subject_rules_review(body)

    rules = _as_operator(installation, review).status.resource_rules  # type: ignore[attr-defined]
    return {
        (f"{group}/{resource}", verb)
        for rule in rules
        for group in rule.api_groups
        for resource in rule.resources
        for verb in rule.verbs
        if group not in {"authorization.k8s.io", "authentication.k8s.io"}
    }


def test_the_account_holds_exactly_what_is_used(cluster_wide: Installation, namespaced: Installation) -> None:
    with_models, everywhere, at_home = map(set, map(_pairs, (USED_WITH_MODELS, USED_CLUSTER_WIDE, USED_AT_HOME)))
    assert _granted(cluster_wide, cluster_wide.models) == with_models | everywhere
    assert _granted(cluster_wide, cluster_wide.home) == with_models | everywhere | at_home
    assert _granted(namespaced, namespaced.models) == with_models
    assert _granted(namespaced, namespaced.home) == at_home
    assert _granted(namespaced, namespaced.elsewhere) == set()


def _router_role(installation: Installation, extra: list[Manifest] | None = None) -> Manifest:
    """The Role of a model's routers (contract between operator and router)."""
    endpoints = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
    table = {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["assistant-routing"],
        "verbs": ["get", "list", "watch"],
    }
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": f"assistant-{uuid.uuid4().hex[:8]}", "namespace": installation.models},
        "rules": [endpoints, table, *(extra or [])],
    }


@pytest.mark.parametrize("scope", ["cluster_wide", "namespaced"])
def test_the_operator_can_make_its_routers_role_and_bind_it(scope: str, request: pytest.FixtureRequest) -> None:
    installation: Installation = request.getfixturevalue(scope)
    role = _router_role(installation)
    name = role["metadata"]["name"]
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": installation.models},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": installation.models}],
    }
    _as_operator(installation, lambda api: _apply(api, "roles", role))
    _as_operator(installation, lambda api: _apply(api, "rolebindings", binding))


@pytest.mark.parametrize("scope", ["cluster_wide", "namespaced"])
def test_the_operator_cannot_hand_out_what_it_does_not_hold(scope: str, request: pytest.FixtureRequest) -> None:
    installation: Installation = request.getfixturevalue(scope)
    role = _router_role(installation, [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}])
    with pytest.raises(ApiException, match="attempting to grant RBAC permissions not currently held"):
        _as_operator(installation, lambda api: _apply(api, "roles", role))


def _apply(api: client.ApiClient, plural: str, manifest: Manifest, **query: str) -> None:
    """Server-side apply, as the operator writes; raises ApiException unless the answer is 2xx."""
    metadata = manifest["metadata"]
    place = f"namespaces/{metadata['namespace']}/" if "namespace" in metadata else ""
    answer = api.call_api(
        *api.param_serialize(
            "PATCH",
            f"/apis/{manifest['apiVersion']}/{place}{plural}/{metadata['name']}",
            query_params=list({"fieldManager": "adaptive-operator", "force": "true", **query}.items()),
            header_params={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"},
            body=manifest,
            auth_settings=["BearerToken"],
        )
    )
    body = answer.read()
    if not 200 <= answer.status < 300:
        raise ApiException(status=answer.status, reason=body.decode())


EVERYTHING_ON: Manifest = {
    "images": {"pullSecrets": ["login"], "engine": {"digest": "sha256:" + "a" * 64}},
    "accelerators": {"budgets": {"nvidia.com/gpu": 8}},
    "operator": {
        "replicas": 2,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
        "podAnnotations": {"team": "platform"},
        "podLabels": {"team": "platform"},
    },
    "podDisruptionBudget": {"enabled": True},
    "networkPolicy": {"egress": [{"ports": [{"port": 443}]}]},
    "test": {"model": {"name": "assistant"}},
}


@pytest.mark.parametrize("values", [{}, EVERYTHING_ON], ids=["defaults", "everything on"])
def test_the_api_server_knows_every_field_of_every_object(
    api: client.ApiClient, cluster_wide: Installation, values: Manifest
) -> None:
    manifests = _render(f"strict-{uuid.uuid4().hex[:8]}", cluster_wide.home, values)
    assert manifests
    for manifest in manifests:
        if manifest["kind"] == "CustomResourceDefinition":
            # It may be installed already; then its update has to be valid.
            _apply(api, "customresourcedefinitions", manifest, dryRun="All", fieldValidation="Strict")
        else:
            utils.create_from_dict(api, manifest, dry_run="All", field_validation="Strict")


def test_the_operators_pod_is_admitted_under_pod_security_restricted(
    api: client.ApiClient, cluster_wide: Installation
) -> None:
    (deployment,) = [m for m in cluster_wide.manifests if m["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "operator"}}
    client.CoreV1Api(api).create_namespaced_pod(cluster_wide.home, pod, dry_run="All", field_validation="Strict")


def test_the_test_pod_is_admitted_under_pod_security_restricted(
    api: client.ApiClient, cluster_wide: Installation
) -> None:
    (pod,) = [m for m in cluster_wide.manifests if m["kind"] == "Pod"]
    client.CoreV1Api(api).create_namespaced_pod(
        cluster_wide.home,
        {**pod, "spec": {**pod["spec"], "serviceAccountName": f"{cluster_wide.release}-operator"}},
        dry_run="All",
    )


def test_pod_security_is_really_enforced_here(api: client.ApiClient, cluster_wide: Installation) -> None:
    (pod,) = [m for m in cluster_wide.manifests if m["kind"] == "Pod"]
    spec = {**pod["spec"], "hostNetwork": True, "serviceAccountName": f"{cluster_wide.release}-operator"}
    with pytest.raises(ApiException, match="violates PodSecurity"):
        client.CoreV1Api(api).create_namespaced_pod(cluster_wide.home, {**pod, "spec": spec}, dry_run="All")
