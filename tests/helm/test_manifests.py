"""What the chart renders: names, pods, security, network, monitoring."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "helm" / "adaptive-llm"
Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


def _one(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    found = [m for m in manifests if m["kind"] == kind and name in m["metadata"]["name"]]
    assert len(found) == 1, [m["metadata"]["name"] for m in found]
    return found[0]


def _pod_specs(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for manifest in manifests:
        if manifest["kind"] == "Pod":
            yield manifest["metadata"]["name"], manifest["spec"]
        elif "template" in manifest.get("spec", {}):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


def _operator(manifests: list[Manifest]) -> Manifest:
    container: Manifest = _one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return container


def _environment(manifests: list[Manifest]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in _operator(manifests)["env"] if "value" in item}


def test_every_pod_passes_pod_security_restricted(render: Render, variant: dict[str, Any]) -> None:
    specs = list(_pod_specs(render(variant)))
    assert len(specs) == 2
    for name, spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert all("hostPath" not in volume for volume in spec.get("volumes", [])), name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert all("hostPort" not in port for port in container.get("ports", [])), name


def test_every_container_says_what_it_needs(render: Render, variant: dict[str, Any]) -> None:
    for name, spec in _pod_specs(render(variant)):
        for container in spec["containers"]:
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name


def test_the_names_agree_with_the_contract(render: Render) -> None:
    manifests = render()
    deployment = _one(manifests, "Deployment")
    assert deployment["metadata"]["name"] == "adaptive-llm-operator"
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert deployment["spec"]["replicas"] == 1
    ports = {port["name"]: port["containerPort"] for port in _operator(manifests)["ports"]}
    assert ports == {"health": 8080, "metrics": 9090}
    assert _one(manifests, "ServiceAccount")["metadata"]["name"] == "adaptive-llm-operator"


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_the_probes_ask_for_progress(render: Render, probe: str) -> None:
    assert _operator(render())[probe]["httpGet"] == {"path": "/healthz", "port": "health"}


def test_selectors_find_the_operator_and_not_the_test_pod(render: Render, variant: dict[str, Any]) -> None:
    manifests = render(variant)
    deployment = _one(manifests, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    test_labels = _one(manifests, "Pod")["metadata"]["labels"]
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [m["spec"]["selector"] for m in manifests if m["kind"] == "Service"]
    selectors += [m["spec"]["selector"]["matchLabels"] for m in manifests if m["kind"] == "PodDisruptionBudget"]
    selectors += [m["spec"]["podSelector"]["matchLabels"] for m in manifests if m["kind"] == "NetworkPolicy"]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= test_labels.items()


def test_all_namespaced_objects_lie_in_the_release_or_a_watched_namespace(
    render: Render, variant: dict[str, Any]
) -> None:
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    allowed = {"adaptive-system", *variant.get("namespaces", [])}
    for manifest in render(variant):
        if manifest["kind"] not in cluster_wide:
            assert manifest["metadata"]["namespace"] in allowed, manifest["metadata"]["name"]


def test_no_object_is_rendered_twice(render: Render, variant: dict[str, Any]) -> None:
    names = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in render(variant)]
    assert len(names) == len(set(names))


def test_a_namespace_listed_twice_is_rendered_once(render: Render) -> None:
    manifests = render({"scope": "namespaces", "namespaces": ["team-a", "team-a"]})
    assert len([m for m in manifests if m["metadata"].get("namespace") == "team-a"]) == 2


def test_a_digest_wins_over_a_tag(render: Render, everything_on: dict[str, Any]) -> None:
    engine = _environment(render(everything_on))["ADAPTIVE_ENGINE_IMAGE"]
    assert engine == "localhost/adaptive-llm-engine@sha256:" + "a" * 64


def test_budgets_reach_the_operator_as_json(render: Render, everything_on: dict[str, Any]) -> None:
    budgets = json.loads(_environment(render(everything_on))["ADAPTIVE_ACCELERATOR_BUDGETS"])
    assert budgets == {"nvidia.com/gpu": 8, "amd.com/gpu": 0}


def test_a_large_budget_keeps_its_digits(render: Render) -> None:
    manifests = render({"accelerators": {"budgets": {"nvidia.com/gpu": 100000}}})
    assert json.loads(_environment(manifests)["ADAPTIVE_ACCELERATOR_BUDGETS"]) == {"nvidia.com/gpu": 100000}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(
            {}, {"prometheus.io/scrape": "true", "prometheus.io/port": "9090", "prometheus.io/path": "/metrics"}
        ),
        pytest.param({"prometheus": {"annotations": False}}, {}),
    ],
    ids=["on by default", "off by choice"],
)
def test_scrape_annotations_of_the_operator(render: Render, values: dict[str, Any], expected: dict[str, str]) -> None:
    annotations = _one(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert {key: value for key, value in annotations.items() if key.startswith("prometheus.io/")} == expected


def test_pod_monitors_cover_operator_routers_and_engines(render: Render, everything_on: dict[str, Any]) -> None:
    manifests = render(everything_on)
    operator, models = _one(manifests, "PodMonitor", "operator"), _one(manifests, "PodMonitor", "models")
    assert operator["spec"]["podMetricsEndpoints"][0]["port"] == "metrics"
    assert models["spec"]["namespaceSelector"] == {"any": True}
    assert models["spec"]["selector"]["matchExpressions"][0]["values"] == ["engine", "router"]
    assert models["spec"]["podMetricsEndpoints"] == [{"port": "http", "path": "/metrics", "interval": "15s"}]
    assert models["metadata"]["labels"]["release"] == "prometheus"


def test_pod_monitors_stay_in_the_watched_namespaces(render: Render, namespaced: dict[str, Any]) -> None:
    models = _one(render({**namespaced, "podMonitor": {"enabled": True}}), "PodMonitor", "models")
    assert models["spec"]["namespaceSelector"] == {"matchNames": ["team-a", "team-b"]}


def test_the_disruption_budget_never_blocks_a_node_drain(render: Render, everything_on: dict[str, Any]) -> None:
    spec = _one(render(everything_on), "PodDisruptionBudget")["spec"]
    assert spec["maxUnavailable"] == 1
    assert "minAvailable" not in spec


def test_the_network_policy_opens_the_two_ports_only(render: Render) -> None:
    spec = _one(render(), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    assert [rule["ports"] for rule in spec["ingress"]] == [[{"port": "health"}], [{"port": "metrics"}]]


def test_the_network_policy_limits_who_reads_metrics(render: Render, everything_on: dict[str, Any]) -> None:
    spec = _one(render(everything_on), "NetworkPolicy")["spec"]
    assert spec["ingress"][1]["from"] == everything_on["networkPolicy"]["metricsFrom"]
    assert spec["egress"] == everything_on["networkPolicy"]["egress"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]


def test_pull_secrets_are_mounted_by_reference(render: Render, everything_on: dict[str, Any]) -> None:
    for name, spec in _pod_specs(render(everything_on)):
        assert spec["imagePullSecrets"] == [{"name": "registry-login"}], name


def test_the_notes_name_the_commands_that_prove_the_installation(
    notes: Callable[[Mapping[str, Any]], str], variant: dict[str, Any]
) -> None:
    text = notes(variant)
    for part in ("kubectl wait", "rollout status deployment/", "helm test adaptive-llm", "kubectl get am"):
        assert part in text
    assert max(len(line) for line in text.splitlines()) <= 140


@pytest.mark.parametrize(
    ("values", "shared", "own_budget"),
    [
        ({}, True, False),
        ({"accelerators": {"discover": False}}, True, True),
        ({"scope": "namespaces", "namespaces": ["a"]}, True, True),
        ({"accelerators": {"budgets": {"nvidia.com/gpu": 4}}}, False, False),
    ],
)
def test_the_notes_ask_for_budgets_only_where_nodes_cannot_be_read(
    notes: Callable[[Mapping[str, Any]], str], values: dict[str, Any], shared: bool, own_budget: bool
) -> None:
    text = notes(values)
    assert ("what the nodes advertise" in text) is shared
    assert ("spec.accelerators.budget" in text) is own_budget


def test_the_notes_warn_when_uninstalling_deletes_models(notes: Callable[[Mapping[str, Any]], str]) -> None:
    assert "deletes every AdaptiveModel" in notes({"crds": {"keep": False}})
    assert "deletes every AdaptiveModel" not in notes({})


@pytest.mark.no_helm
def test_the_scrape_snippet_sets_the_labels_that_the_queries_need() -> None:
    (job,) = yaml.safe_load((CHART / "files" / "scrape-config.yaml").read_text())
    targets = {rule.get("target_label") for rule in job["relabel_configs"]}
    assert {"namespace", "pod", "__metrics_path__"} <= targets
    assert "honor_labels" not in job


@pytest.mark.no_helm
def test_the_scrape_snippet_makes_one_target_per_pod_and_address_family() -> None:
    (job,) = yaml.safe_load((CHART / "files" / "scrape-config.yaml").read_text())
    rules = [rule for rule in job["relabel_configs"] if rule.get("target_label") == "__address__"]
    addresses = {"10.244.0.2;9090": "10.244.0.2:9090", "fd00::1:2;9090": "[fd00::1:2]:9090", "10.244.0.2;": None}
    for joined, expected in addresses.items():
        matches = [(re.fullmatch(rule["regex"], joined), rule["replacement"]) for rule in rules]
        found = [match.expand(re.sub(r"\$(\d)", r"\\\1", template)) for match, template in matches if match]
        assert found == ([expected] if expected else [])
    # Prometheus' regular expressions (RE2) know neither back-references nor look-around.
    assert not [rule for rule in job["relabel_configs"] if re.search(r"\\\d|\(\?[=!<]", str(rule.get("regex", "")))]
