"""What the chart puts into the operator's environment is what the operator reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptive_operator.settings import PREFIX, OperatorSettings

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]

# Settings that the chart does not offer, and why.
NOT_OFFERED = {
    # fixed by the manifests around them
    "health_port",
    "metrics_port",
    "listen_address",
    "lease_namespace",
    "identity",
    # limits of single calls: nobody has a reason to change them yet
    "prometheus_request_seconds",
    "prometheus_read_seconds",
    "nudge_debounce_seconds",
    "model_timeout_seconds",
    "pass_timeout_seconds",
    "api_timeout_seconds",
}
# Its default names a place that the chart mounts and that nothing else has.
ONLY_IN_A_POD = {"decision_log"}


def _environment(manifests: list[Manifest]) -> dict[str, str]:
    (deployment,) = [m for m in manifests if m["kind"] == "Deployment"]
    items = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    return {item["name"]: item["value"] for item in items if item["name"].startswith(PREFIX)}


def _load(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> OperatorSettings:
    for name in OperatorSettings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return OperatorSettings()  # type: ignore[call-arg]


def test_every_setting_is_offered_or_left_out_on_purpose(render: Render, everything_on: dict[str, Any]) -> None:
    offered = {name.removeprefix(PREFIX).lower() for name in _environment(render(everything_on))}
    assert offered == set(OperatorSettings.model_fields) - NOT_OFFERED


def test_the_charts_defaults_are_the_operators(render: Render, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _load(_environment(render()), monkeypatch)
    for name, field in OperatorSettings.model_fields.items():
        if not field.is_required() and name not in ONLY_IN_A_POD:
            assert getattr(settings, name) == field.get_default(call_default_factory=True), name


def test_the_decision_log_is_kept_in_a_volume_of_the_pod_unless_it_is_turned_off(render: Render) -> None:
    (deployment,) = [m for m in render() if m["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    (mount,) = [m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "decisions"]
    assert Path(_environment(render())["ADAPTIVE_DECISION_LOG"]).parent == Path(mount["mountPath"])
    (volume,) = [v for v in spec["volumes"] if v["name"] == "decisions"]
    assert volume["emptyDir"]["sizeLimit"] == "32Mi"
    off = render({"operator": {"decisionLog": {"enabled": False}}})
    assert "ADAPTIVE_DECISION_LOG" not in _environment(off)


def test_every_value_reaches_the_operator(
    render: Render, everything_on: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        **everything_on,
        "planner": {
            "periodSeconds": 5,
            "staleAfterScrapes": 3,
            "holdAfterStaleSeconds": 60,
            "quarantineSeconds": 30,
            "utilisationPercent": 85,
        },
        "router": {"cpu": 1, "memory": "1Gi", "drainSeconds": 90},
    }
    settings = _load(_environment(render(values)), monkeypatch)
    assert settings.planner_period_seconds == 5
    assert settings.stale_after_scrapes == 3
    assert settings.hold_after_stale_seconds == 60
    assert settings.quarantine_seconds == 30
    assert settings.utilisation == 0.85
    assert (settings.router_cpu, settings.router_memory, settings.router_drain_seconds) == ("1", "1Gi", 90)
    assert settings.engine_node_selector == {"gpu": "a100"}
    assert settings.accelerator_toleration is False
    assert settings.engine_max_waiting == 100_000
    assert settings.accelerator_budgets == {"nvidia.com/gpu": 8, "amd.com/gpu": 0}
    assert settings.image_pull_secrets == ("registry-login",)
    assert settings.image_pull_policy == "Always"
    assert settings.priority_class == "models"
    assert str(settings.prometheus_token_file) == "/var/run/adaptive-llm/prometheus/token"


def test_the_scope_reaches_the_operator(
    render: Render, namespaced: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _load(_environment(render(namespaced)), monkeypatch).namespaces == ("team-a", "team-b")


@pytest.mark.parametrize(
    ("values", "expected"),
    [({}, True), ({"accelerators": {"discover": False}}, False), (None, False)],
    ids=["by default", "turned off", "some namespaces only"],
)
def test_the_operator_counts_accelerators_only_where_it_may_see_nodes(
    render: Render,
    namespaced: dict[str, Any],
    values: dict[str, Any] | None,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = _load(_environment(render(namespaced if values is None else values)), monkeypatch)
    assert settings.discover_accelerators is expected


def test_a_token_for_prometheus_is_mounted_by_reference(render: Render, everything_on: dict[str, Any]) -> None:
    (deployment,) = [m for m in render(everything_on) if m["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    (volume,) = [v for v in spec["volumes"] if "secret" in v]
    assert volume["secret"] == {"secretName": "prometheus-login", "items": [{"key": "token", "path": "token"}]}
    (mount,) = [m for m in spec["containers"][0]["volumeMounts"] if m["name"] == volume["name"]]
    token_file = _environment(render(everything_on))["ADAPTIVE_PROMETHEUS_TOKEN_FILE"]
    assert token_file == f"{mount['mountPath']}/token"
    assert mount["readOnly"] is True
