"""The chart's roles hold what the operator uses and nothing that would let it do more."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from adaptive_operator.kube import PATHS
from adaptive_operator.observe.observation import ModelObservation
from adaptive_operator.plan.children import CHILD_KINDS
from adaptive_operator.plan.router import build_role

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


def _roles(manifests: list[Manifest]) -> list[Manifest]:
    return [m for m in manifests if m["kind"] in {"Role", "ClusterRole"}]


def _operator_rules(manifests: list[Manifest]) -> list[Manifest]:
    """Rules of the roles that are bound to the operator's account."""
    bound = {m["roleRef"]["name"] for m in manifests if m["kind"] in {"RoleBinding", "ClusterRoleBinding"}}
    return [rule for role in _roles(manifests) if role["metadata"]["name"] in bound for rule in role["rules"]]


def test_no_rule_has_a_wildcard_or_touches_secrets(render: Render, variant: dict[str, Any]) -> None:
    for role in _roles(render(variant)):
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"], role["metadata"]["name"]
            assert not [r for r in rule["resources"] if "secret" in r or r.startswith(("nodes/", "pods/"))]


def _node_verbs(manifests: list[Manifest]) -> list[str]:
    return [verb for rule in _operator_rules(manifests) if "nodes" in rule["resources"] for verb in rule["verbs"]]


def test_nodes_are_listed_to_count_accelerators_and_only_then(render: Render, namespaced: dict[str, Any]) -> None:
    assert _node_verbs(render()) == ["list"]
    assert _node_verbs(render({"accelerators": {"discover": False}})) == []
    assert _node_verbs(render(namespaced)) == []


def test_no_rule_lets_the_operator_raise_its_own_rights(render: Render, variant: dict[str, Any]) -> None:
    for rule in _operator_rules(render(variant)):
        assert not {"escalate", "bind", "impersonate", "deletecollection"} & set(rule["verbs"])
        assert not {"clusterroles", "clusterrolebindings"} & set(rule["resources"])


def test_the_operator_never_writes_a_specification(render: Render, variant: dict[str, Any]) -> None:
    for rule in _operator_rules(render(variant)):
        if {"adaptivemodels", "acceleratorpools"} & set(rule["resources"]):
            assert set(rule["verbs"]) == {"get", "list", "watch"}


def test_pools_are_read_and_their_status_is_written_in_cluster_scope_only(
    render: Render, namespaced: dict[str, Any]
) -> None:
    found = {(r, v) for _, r, v in _rights(_operator_rules(render())) if r.startswith("acceleratorpools")}
    read = {("acceleratorpools", verb) for verb in ("get", "list", "watch")}
    assert found == read | {("acceleratorpools/status", "patch")}
    assert not [r for _, r, _ in _rights(_operator_rules(render(namespaced))) if r.startswith("acceleratorpools")]


def _rights(rules: list[Manifest]) -> set[tuple[str, str, str]]:
    return {
        (g, r, verb) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for verb in rule["verbs"]
    }


def _group_and_plural(kind: str) -> tuple[str, str]:
    prefix, plural = PATHS[kind]
    return ("" if prefix == "/api/v1" else prefix.split("/")[2], plural)


def test_the_operator_may_write_exactly_the_kinds_of_a_models_children(
    render: Render, namespaced: dict[str, Any]
) -> None:
    local = next(r for r in _roles(render(namespaced)) if r["metadata"].get("namespace") == "team-a")
    rights = _rights(local["rules"])
    for verb in ("get", "list", "create", "patch", "delete"):
        missing = {_group_and_plural(kind) for kind in CHILD_KINDS} - {(g, r) for g, r, v in rights if v == verb}
        assert missing == set(), verb
    deleted = {_group_and_plural(kind) for kind in (*CHILD_KINDS, "Pod")}  # pods: those of a lost node
    assert {(g, r) for g, r, v in rights if v == "delete"} == deleted


def test_the_operator_holds_all_that_its_routers_role_grants(render: Render, namespaced: dict[str, Any]) -> None:
    model = SimpleNamespace(name="assistant", namespace="team-a", uid="1")
    granted = _rights(build_role(cast("ModelObservation", model))["rules"])
    local = next(r for r in _roles(render(namespaced)) if r["metadata"].get("namespace") == "team-a")
    assert granted
    assert granted <= _rights(local["rules"])


def test_cluster_scope_binds_one_cluster_role(render: Render) -> None:
    bindings = [m for m in render() if m["kind"] == "ClusterRoleBinding"]
    assert [m["metadata"]["name"] for m in bindings] == ["adaptive-llm-operator"]
    assert bindings[0]["subjects"] == [
        {"kind": "ServiceAccount", "name": "adaptive-llm-operator", "namespace": "adaptive-system"}
    ]


def test_namespace_scope_binds_nothing_cluster_wide(render: Render, namespaced: dict[str, Any]) -> None:
    manifests = render(namespaced)
    assert not [m for m in manifests if m["kind"] == "ClusterRoleBinding"]
    bindings = {m["metadata"]["namespace"] for m in manifests if m["kind"] == "RoleBinding"}
    assert bindings == {"adaptive-system", "team-a", "team-b"}


def test_both_scopes_grant_the_same_where_models_live(render: Render, namespaced: dict[str, Any]) -> None:
    (cluster,) = [r for r in _roles(render()) if r["metadata"]["name"] == "adaptive-llm-operator"]
    local = [r for r in _roles(render(namespaced)) if r["metadata"].get("namespace") == "team-a"]
    assert [rule for rule in cluster["rules"] if rule in local[0]["rules"]] == local[0]["rules"]


def test_the_lease_is_named(render: Render) -> None:
    (role,) = [r for r in _roles(render()) if r["metadata"]["name"].endswith("-lease")]
    for rule in role["rules"]:
        assert rule["resources"] == ["leases"]
        assert rule["verbs"] == ["create"] or rule["resourceNames"] == ["adaptive-llm-operator"]


def test_an_existing_account_is_bound_and_not_made(render: Render) -> None:
    manifests = render({"serviceAccount": {"create": False, "name": "existing"}})
    assert not [m for m in manifests if m["kind"] == "ServiceAccount"]
    subjects = [s["name"] for m in manifests if "subjects" in m for s in m["subjects"]]
    assert subjects == ["existing", "existing"]


@pytest.mark.parametrize(
    ("role", "verbs"),
    [
        pytest.param("models-view", {"get", "list", "watch"}),
        pytest.param("models-edit", {"create", "update", "patch", "delete"}),
    ],
    ids=["viewers read", "editors write"],
)
def test_default_roles_learn_about_models(render: Render, role: str, verbs: set[str]) -> None:
    (found,) = [r for r in _roles(render()) if r["metadata"]["name"].endswith(role)]
    assert {verb for rule in found["rules"] for verb in rule["verbs"]} == verbs
    assert {group for rule in found["rules"] for group in rule["apiGroups"]} == {"adaptivellm.dev"}
