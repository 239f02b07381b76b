"""The pure parts of installing: cards, the example, and what is said while waiting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.demo.install import describe_waiting, is_at, load_example, with_cards
from e2e.demo.preflight import missing
from e2e.demo.settings import DemoError, Settings, settings_from_environment
from e2e.demo.story import objective, reference, start_mix

Build = Callable[..., Any]


def test_the_demos_example_has_what_the_story_needs() -> None:
    others, model = load_example(Settings().example)
    assert [document["kind"] for document in others] == ["Namespace"]
    assert others[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert start_mix(model) == {"full": 1, "int4": 1}
    assert reference(model) == (16, 24)
    assert objective(model).ttft_seconds == 3
    assert (model["metadata"]["namespace"], model["metadata"]["name"]) == (Settings().namespace, Settings().model)


def test_calibrated_capacities_replace_the_declared_ones_and_nothing_else() -> None:
    _, model = load_example(Settings().example)
    changed = with_cards(model, {"full": 0.5, "int4": 0.4321}, mode="Paused")
    cards = {tier["name"]: tier["card"] for tier in changed["spec"]["tiers"]}
    assert [cards[name]["capacityMilliRequestsPerSecond"] for name in ("full", "int8", "int4")] == [500, 650, 432]
    assert cards["int4"]["qualityPermille"] == 780
    assert changed["spec"]["mode"] == "Paused"
    assert "mode" not in model["spec"]


def test_an_example_with_two_models_is_refused() -> None:
    with pytest.raises(DemoError, match="exactly one AdaptiveModel"):
        load_example(Settings().example.with_name("two-models.yaml"))


def test_a_mix_counts_only_when_ready_exact_and_settled(sample: Build) -> None:
    mix = {"full": 1, "int4": 1}
    assert is_at(sample(0, mix), mix)
    assert not is_at(sample(0, {**mix, "int8": 1}), mix)
    assert not is_at(sample(0, mix, {"full": 1, "int4": 2}), mix)
    assert not is_at(sample(0, mix, swap_step="Draining"), mix)
    assert not is_at(sample(0, mix, conditions={"Ready": "Unknown"}), mix)


def test_waiting_names_the_pod_and_the_schedulers_words(sample: Build) -> None:
    words = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    pending = {
        "metadata": {"name": "a-full-0"},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": words}]},
    }
    crashing = {
        "metadata": {"name": "a-int4-0"},
        "status": {
            "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}}]
        },
    }
    text = describe_waiting(sample(0, {"int4": 1}), [pending, crashing])
    assert f"a-full-0: {words}" in text
    assert "a-int4-0: CrashLoopBackOff back-off" in text


def test_missing_tools_are_named_with_their_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [text.split()[0] for text in missing(Settings(context="mine"))] == ["kubectl", "helm"]
    assert any("install the package iproute2" in text for text in missing(Settings()))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_CONTEXT", "mine")
    monkeypatch.setenv("DEMO_HELM_ARGS", "--set 'a=b c'")
    settings = settings_from_environment()
    assert (settings.kube_context, settings.is_own_cluster) == ("mine", False)
    assert settings.helm_arguments == ("--set", "a=b c")
    monkeypatch.setenv("DEMO_SEED", "x")
    with pytest.raises(DemoError, match="DEMO_SEED=x"):
        settings_from_environment()
