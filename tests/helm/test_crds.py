"""The chart carries the generated definitions unchanged and with an upgrade path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "crds"
COPY = ROOT / "helm" / "adaptive-llm" / "files" / "crds"
Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


def _rendered(manifests: list[Manifest]) -> dict[str, Manifest]:
    found = {m["metadata"]["name"]: m for m in manifests if m["kind"] == "CustomResourceDefinition"}
    assert "adaptivemodels.adaptivellm.dev" in found
    return found


@pytest.mark.no_helm
def test_the_charts_copy_equals_the_generated_definitions() -> None:
    source = {path.name: path.read_text() for path in SOURCE.glob("*.yaml")}
    assert source, "no definitions in crds/"
    assert {path.name: path.read_text() for path in COPY.glob("*.yaml")} == source, "run `make crds`"


def test_rendering_changes_no_word_of_the_schema(render: Render) -> None:
    rendered = _rendered(render())
    for path in SOURCE.glob("*.yaml"):
        source = yaml.safe_load(path.read_text())
        assert rendered[source["metadata"]["name"]]["spec"] == source["spec"]


def test_definitions_are_kept_on_uninstall_by_default(render: Render) -> None:
    for crd in _rendered(render()).values():
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_keep_can_be_turned_off(render: Render) -> None:
    for crd in _rendered(render({"crds": {"keep": False}})).values():
        assert "helm.sh/resource-policy" not in crd["metadata"].get("annotations", {})


def test_definitions_can_be_left_to_others(render: Render) -> None:
    manifests = render({"crds": {"enabled": False}})
    assert manifests
    assert "CustomResourceDefinition" not in {manifest["kind"] for manifest in manifests}


def test_definitions_are_templates_so_that_an_upgrade_reaches_them(render: Render) -> None:
    assert _rendered(render())
    assert not (COPY.parents[1] / "crds").exists(), "Helm never upgrades what lies in the chart's crds/ folder"
