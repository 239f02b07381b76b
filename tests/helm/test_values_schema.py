"""values.yaml and its schema describe the same values; what is wrong is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "helm" / "adaptive-llm"
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a typo at the top": ({"promtheus": {"url": "http://p:9090"}}, "promtheus"),
    "a typo inside": ({"operator": {"replica": 1}}, "replica"),
    "a typo inside an image": ({"images": {"engine": {"repo": "x"}}}, "repo"),
    "a typo inside a toleration": ({"operator": {"tolerations": [{"kye": "a"}]}}, "kye"),
    "an unknown scope": ({"scope": "namespaced"}, "/scope"),
    "namespaces without their scope": ({"namespaces": ["team-a"]}, "/namespaces"),
    "their scope without namespaces": ({"scope": "namespaces"}, "/namespaces"),
    "a namespace that cannot exist": ({"scope": "namespaces", "namespaces": ["Team_A"]}, "/namespaces/0"),
    "credentials in the address of Prometheus": ({"prometheus": {"url": "http://u:p@prometheus"}}, "/prometheus/url"),
    "an address without a scheme": ({"prometheus": {"url": "prometheus:9090"}}, "/prometheus/url"),
    "a scrape interval of zero": ({"prometheus": {"scrapeIntervalSeconds": 0}}, "/prometheus/scrapeIntervalSeconds"),
    "a hold that begins before the next scrape": (
        {"planner": {"holdAfterStaleSeconds": 10}},
        "planner.holdAfterStaleSeconds is 10, less than prometheus.scrapeIntervalSeconds (15)",
    ),
    "a tag for a digest": ({"images": {"engine": {"digest": "latest"}}}, "/images/engine/digest"),
    "an empty tag": ({"images": {"engine": {"tag": ""}}}, "/images/engine/tag"),
    "a budget for no extended resource": ({"accelerators": {"budgets": {"gpu": 4}}}, "/accelerators/budgets"),
    "a negative budget": ({"accelerators": {"budgets": {"nvidia.com/gpu": -1}}}, "/accelerators/budgets"),
    "a fraction of an accelerator": ({"accelerators": {"budgets": {"nvidia.com/gpu": 0.5}}}, "/accelerators/budgets"),
    "an existing account without a name": ({"serviceAccount": {"create": False}}, "/serviceAccount/name"),
    "a word for a switch": ({"crds": {"keep": "yes please"}}, "/crds/keep"),
    "a secret that cannot exist": (
        {"prometheus": {"tokenSecret": {"name": "Bad_Name"}}},
        "/prometheus/tokenSecret/name",
    ),
    "a pull secret without a name": ({"images": {"pullSecrets": [""]}}, "/images/pullSecrets/0"),
    "a priority class of models that cannot exist": ({"modelPriorityClassName": "Foo_Bar"}, "/modelPriorityClassName"),
    "a priority class that cannot exist": (
        {"operator": {"priorityClassName": "Foo_Bar"}},
        "/operator/priorityClassName",
    ),
    "a name that ends with a dot": ({"serviceAccount": {"name": "operator."}}, "/serviceAccount/name"),
    "a label with a blank in its key": ({"engine": {"nodeSelector": {"bad key": "x"}}}, "/engine/nodeSelector"),
    "a label with two slashes": ({"operator": {"nodeSelector": {"a/b/c": "x"}}}, "/operator/nodeSelector"),
    "a label with a blank in its value": ({"operator": {"podLabels": {"a": "b c"}}}, "/operator/podLabels/a"),
    "an annotation with a blank in its key": ({"operator": {"podAnnotations": {"bad key": "x"}}}, "/operator/podAnno"),
    "a quantity that is none": (
        {"operator": {"resources": {"limits": {"memory": "lots"}}}},
        "/operator/resources/limits/memory",
    ),
}


@pytest.mark.parametrize(("values", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_value_is_refused_by_name(
    refusal: Callable[[Mapping[str, Any]], str], values: dict[str, Any], named: str
) -> None:
    assert named in refusal(values)


ACCEPTED: dict[str, dict[str, Any]] = {
    "names with dots, as Kubernetes takes them": {
        "prometheus": {"tokenSecret": {"name": "prometheus.token-1"}},
        "modelPriorityClassName": "models.low",
        "operator": {"priorityClassName": "system-cluster-critical"},
        "images": {"pullSecrets": ["registry.example-1"]},
    },
    "labels with and without a prefix": {
        "engine": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB_HBM3", "kubernetes.io/arch": "amd64"}},
        "operator": {"nodeSelector": {"zone": ""}, "podAnnotations": {"example.com/Note_1": "any words, with blanks"}},
    },
}


@pytest.mark.parametrize("values", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_kubernetes_takes_is_rendered(render: Callable[..., list[Any]], values: dict[str, Any]) -> None:
    assert render(values)


def test_lint_is_content(lint: Callable[[Mapping[str, Any]], str], variant: dict[str, Any]) -> None:
    assert "0 chart(s) failed" in lint(variant)


def _leaves(node: Any, path: str = "") -> Iterator[str]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}/{key}")
    else:
        yield path


def _declared(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of all values that the schema declares; objects with free keys count as one value."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rsplit("/", 1)[1]]
    if "properties" not in schema:
        yield path
        return
    for key, child in schema["properties"].items():
        yield from _declared(child, f"{path}/{key}")


def _closed(schema: Any, path: str = "") -> Iterator[str]:
    """Paths of objects that name their properties, but let others pass."""
    if isinstance(schema, dict):
        conditional = any(part in path for part in ("/if", "/then", "/else"))
        if "properties" in schema and schema.get("additionalProperties") is not False and not conditional:
            yield path
        for key, child in schema.items():
            yield from _closed(child, f"{path}/{key}")


@pytest.mark.no_helm
def test_every_object_of_the_schema_refuses_unknown_names() -> None:
    assert list(_closed(SCHEMA)) == []


@pytest.mark.no_helm
def test_values_and_schema_name_the_same_values() -> None:
    of_kubernetes = ("/operator/resources/", "/operator/affinity")
    declared = {path for path in _declared(SCHEMA) if path != "/global" and not path.startswith(of_kubernetes)}
    present = {path for path in _leaves(VALUES) if not path.startswith(of_kubernetes)}
    assert present == declared


@pytest.mark.no_helm
def test_the_values_are_few_enough_to_read() -> None:
    assert len(list(_leaves(VALUES))) < 150


@pytest.mark.no_helm
def test_every_section_of_the_values_is_explained() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    top = [number for number, line in enumerate(lines) if line[:1].isalpha()]
    unexplained = []
    for start, end in zip(top, [*top[1:], len(lines)], strict=True):
        has_comment = lines[start - 1].startswith("#") or any(
            line.strip().startswith("#") for line in lines[start + 1 : start + 2]
        )
        if not has_comment:
            unexplained.append(lines[start : min(end, start + 2)])
    assert unexplained == []
