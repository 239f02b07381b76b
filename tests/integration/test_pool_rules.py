"""The AcceleratorPool's CRD on a real API server: refusals with field and remedy, defaults, a status that shrinks."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import NotFoundException

from adaptive_operator.api.pool import AcceleratorPoolSpec, AcceleratorPoolStatus
from adaptive_operator.names import GROUP, PLURAL, POOL_PLURAL, VERSION
from tests.integration.conftest import ROOT
from tests.integration.test_crd_rules import _rules, refusal_of

Spec = dict[str, Any]


@pytest.fixture
def name(api: client.ApiClient, pool_crd: dict[str, Any]) -> Iterator[str]:
    """Of a pool of the test's own."""
    found = f"pool-{uuid.uuid4().hex[:10]}"
    yield found
    with contextlib.suppress(NotFoundException):  # it was refused
        client.CustomObjectsApi(api).delete_cluster_custom_object(GROUP, VERSION, POOL_PLURAL, found)


@pytest.fixture
def create(api: client.ApiClient, name: str) -> Callable[..., dict[str, Any]]:
    def do(spec: Spec, called: str | None = None) -> dict[str, Any]:
        kind = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "AcceleratorPool", "metadata": {"name": called or name}}
        return client.CustomObjectsApi(api).create_cluster_custom_object(
            GROUP, VERSION, POOL_PLURAL, {**kind, "spec": spec}, field_validation="Strict"
        )

    return do


def share(model: str = "", namespace: str = "team-a", **more: Any) -> dict[str, Any]:
    return {"namespace": namespace, **({"model": model} if model else {}), **(more or {"weight": 1})}


RULES: dict[str, tuple[Spec, str]] = {
    "more reserved than there is": (
        {"budget": 4, "shares": [share("a", reservation=3), share("b", reservation=2)]},
        r"shares\[\].reservation of all shares together must not be greater than budget.*raise the budget",
    ),
    "a reservation that the plan would not keep": (
        {"budget": 4, "division": "Planned", "shares": [share("a", weight=2), share("b", reservation=1)]},
        r"shares\[\].reservation cannot be kept with division Planned.*set division: Weighted, or leave the res",
    ),
    "a share that says nothing": (
        {"shares": [{"namespace": "team-a"}]},
        r"shares\[\] must give a reservation or a weight.*set one",
    ),
    "a resource that is no resource": (
        {"resource": "gpu"},
        r"resource must be an extended resource as nodes advertise it; use its name with the domain",
    ),
    "a label's value that is none": (
        {"nodeSelector": {"gpu": "a 100"}},
        r"values of nodeSelector must be those of labels; use letters",
    ),
    "a share of no namespace's name": (
        {"shares": [share(namespace="Team A")]},
        r"shares\[\].namespace must be the name of a namespace; correct it",
    ),
    "a share of no model's name": (
        {"shares": [share("7b.chat")]},
        r"shares\[\].model must be the name of an AdaptiveModel; correct it",
    ),
}
CONSTRAINTS: dict[str, tuple[Spec, str]] = {
    "two shares of one model": (
        {"shares": [share("a"), share("a", weight=2)]},
        r'spec.shares\[1\]: Duplicate value: .*"model":"a"',
    ),
    "two shares of one namespace": ({"shares": [share(), share(weight=2)]}, r"spec.shares\[1\]: Duplicate value"),
    "a share of no namespace": ({"shares": [{"weight": 1}]}, r"spec.shares\[0\].namespace: Required value"),
    "a weight of nothing": ({"shares": [share(weight=0)]}, r"weight.*greater than or equal to 1"),
    "a negative budget": ({"budget": -1}, r"spec.budget.*greater than or equal to 0"),
    "a division that there is not": ({"division": "ByNeed"}, r'spec.division: Unsupported value: "ByNeed"'),
    "a misspelt field": ({"surge": 1}, r'unknown field "spec.surge"'),
}


@pytest.mark.parametrize("case", [*RULES, *CONSTRAINTS])
def test_a_pool_is_refused_with_field_and_remedy(create, case):
    spec, message = (RULES | CONSTRAINTS)[case]
    assert re.search(message, refusal_of(lambda: create(spec)))


def test_a_name_that_pods_could_not_carry_is_refused(create):
    assert "metadata.name becomes a label of pods: use at most 63" in refusal_of(lambda: create({}, "a" * 64))


def test_the_resource_cannot_be_changed_later(api, create, name):
    create({})
    custom = client.CustomObjectsApi(api)
    message = refusal_of(
        lambda: custom.patch_cluster_custom_object(
            GROUP, VERSION, POOL_PLURAL, name, {"spec": {"resource": "amd.com/gpu"}}
        )
    )
    assert re.search(r"resource cannot be changed.*delete the pool and create another one", message)


def test_every_rule_of_the_crd_is_tried_here(pool_crd):
    messages = {item["message"] for item in _rules(pool_crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])}
    tried = [pattern for _, pattern in RULES.values()]
    tried += ["metadata.name becomes a label", "resource cannot be changed"]
    assert [m for m in messages if not any(re.search(pattern, m) for pattern in tried)] == []


def test_an_empty_pool_is_accepted_and_gets_the_defaults(create):
    spec = create({})["spec"]
    assert spec == {"resource": "nvidia.com/gpu", "surgeAccelerators": 0, "division": "Weighted"}
    assert AcceleratorPoolSpec.model_validate(spec) == AcceleratorPoolSpec()


def test_a_full_pool_is_accepted_and_a_namespaces_share_is_for_all_its_models(create):
    shares = [share("a", reservation=2), share(weight=3), share("a", namespace="team-b")]
    spec = {"budget": 4, "nodeSelector": {"gpu.example/model": "a100"}, "shares": shares, "surgeAccelerators": 1}
    written = create({**spec, "pricePerAcceleratorHourMilli": 2500})["spec"]
    assert [item["model"] for item in written["shares"]] == ["a", "", "a"]
    defaults = {"resource": "nvidia.com/gpu", "division": "Weighted"}
    assert written | {"shares": shares} == {**spec, **defaults, "pricePerAcceleratorHourMilli": 2500}


def test_a_pool_that_the_plan_divides_has_weights_and_reservations_of_nothing(create):
    shares = [share("a", weight=2), share("b", reservation=0, weight=1)]
    written = create({"budget": 4, "division": "Planned", "shares": shares})["spec"]
    assert (written["division"], written["shares"]) == ("Planned", shares)


def test_a_pool_with_reservations_cannot_become_one_that_the_plan_divides(api, create, name):
    create({"budget": 4, "shares": [share("a", reservation=2)]})
    custom = client.CustomObjectsApi(api)
    message = refusal_of(
        lambda: custom.patch_cluster_custom_object(GROUP, VERSION, POOL_PLURAL, name, {"spec": {"division": "Planned"}})
    )
    assert re.search(r"set division: Weighted, or leave the reservation out", message)


@pytest.mark.usefixtures("crd", "pool_crd")
@pytest.mark.parametrize("example", ["pool.yaml", "planned-pool.yaml"])
def test_the_example_is_what_the_api_server_accepts(api, namespace, example):
    found = list(yaml.safe_load_all((ROOT / "examples" / example).read_text(encoding="utf-8")))
    custom, strict = client.CustomObjectsApi(api), {"dry_run": "All", "field_validation": "Strict"}
    (pool,) = [item for item in found if item["kind"] == "AcceleratorPool"]
    custom.create_cluster_custom_object(GROUP, VERSION, POOL_PLURAL, pool, **strict)
    models = [item for item in found if item["kind"] == "AdaptiveModel"]
    assert {model["spec"]["accelerators"]["pool"] for model in models} == {pool["metadata"]["name"]}
    for model in models:
        model["metadata"]["namespace"] = namespace
        custom.create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, model, **strict)


def test_a_status_is_kept_and_shrinks_when_models_go(api, create, name):
    uid = create({})["metadata"]["uid"]
    model = {"namespace": "demo", "name": "a", "accelerators": 1, "granted": 1, "reservation": 0, "weight": 1}
    models = [model | {"reason": "Satisfied", "message": "m"}]

    def apply(status: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": name, "uid": uid}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "AcceleratorPool", "metadata": metadata, "status": status}
        return client.CustomObjectsApi(api).patch_cluster_custom_object_status(
            GROUP,
            VERSION,
            POOL_PLURAL,
            name,
            json.loads(json.dumps(body)),
            field_manager="adaptive-operator",
            force=True,
            _content_type="application/apply-patch+yaml",
        )["status"]

    assert apply({"held": 1, "models": models})["models"] == models
    after = apply({"held": 0})
    assert after == {"held": 0}
    assert AcceleratorPoolStatus.model_validate(after).models == ()
