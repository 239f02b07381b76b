"""Pages of lists: the same objects as in the text, without their managedFields."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.observe.declared import stands_apart
from adaptive_operator.observe.inventory import find_rooms, parse_node
from adaptive_operator.observe.observation import NodeRoom
from adaptive_operator.observe.pods import parse_pod, parse_router_pod
from adaptive_operator.pages import parse_page, parse_page_of_pods
from stand_ins.raw_objects import NOT_READY, READY, RESOURCE, build_node, build_pod

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
METADATA = st.fixed_dictionaries(
    {"name": st.text(), "managedFields": JSON},
    optional={
        "generateName": st.text(),
        "namespace": st.text(),
        "uid": st.text(),
        "resourceVersion": st.text(),
        "generation": st.integers(),
        "creationTimestamp": st.text() | st.none(),
        "deletionTimestamp": st.text(),
        "deletionGracePeriodSeconds": st.integers(),
        "labels": st.dictionaries(st.text(), st.text()) | st.none(),
        "annotations": st.dictionaries(st.text(), st.text()),
        "ownerReferences": st.lists(JSON, max_size=2),
        "finalizers": st.lists(st.text(), max_size=2),
    },
)
ITEMS = st.lists(
    st.fixed_dictionaries({"metadata": METADATA}, optional={"spec": JSON, "status": JSON, "data": JSON, "odd": JSON}),
    max_size=3,
)


def without_managed(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "metadata": {k: v for k, v in item["metadata"].items() if k != "managedFields"}}


@given(ITEMS)
def test_a_page_has_everything_of_its_objects_but_the_managed_fields(items: list[dict[str, Any]]) -> None:
    page = {"kind": "PodList", "metadata": {"resourceVersion": "7", "continue": "x"}, "items": items}
    parsed = parse_page(json.dumps(page).encode())
    assert parsed == {**page, "items": [without_managed(item) for item in items]}


@pytest.mark.parametrize("text", ['{"items": null, "metadata": {}}', '{"metadata": null}', "{}"])
def test_an_empty_page_is_a_page(text: str) -> None:
    assert not parse_page(text.encode()).get("items")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<html>", "Invalid JSON"),
        ("", "Invalid JSON"),
        ("[]", "should be an object"),
        ('{"items": {}}', "items: Input should be a valid array"),
        ('{"items": [5]}', "items.0: Input should be an object"),
        ('{"items": [{"metadata": "x"}]}', "items.0.metadata: Input should be an object"),
    ],
)
def test_what_is_no_list_of_objects_says_where(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_page(text.encode())


PODS = {
    "ready": build_pod(conditions=READY),
    "loading": build_pod(conditions=NOT_READY, containers=[{"started": False, "restartCount": 1, "state": {}}]),
    "stuck": build_pod(containers=[{"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}]),
    "not scheduled": build_pod(conditions={"PodScheduled": {"status": "False", "message": "0/1"}}, phase="Pending"),
    "on its way out of a lost node": build_pod(
        conditions={"DisruptionTarget": {"status": "True", "reason": "DeletionByTaintManager"}}, deleted=True
    ),
    "of a router": build_pod(component="router", conditions=READY),
}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_of_a_page_is_seen_as_the_whole_pod_is(name: str) -> None:
    whole = copy.deepcopy(PODS[name])
    whole["spec"] |= {
        "nodeName": "n1",
        "nodeSelector": {"pool": "gone"},
        "volumes": [{"name": "weights"}],
        "initContainers": [{"name": "fetch"}],
    }
    whole["spec"]["containers"][0]["env"] = [{"name": "A", "value": "b"}]
    (read,) = parse_page_of_pods(json.dumps({"items": [whole]}).encode())["items"]
    assert len(json.dumps(read)) < len(json.dumps(whole))
    assert parse_pod(read, RESOURCE) == parse_pod(whole, RESOURCE)
    assert parse_router_pod(read) == parse_router_pod(whole)
    nodes = [parse_node(build_node("n1", {RESOURCE: "8"}, closed=True), {})]
    assert (
        find_rooms(nodes, [read], RESOURCE)
        == find_rooms(nodes, [whole], RESOURCE)
        == [NodeRoom("n1", 2, 0, is_open=False)]
    )
    assert stands_apart(read, {})


@pytest.mark.parametrize("spec", [None, {}, {"containers": None}, {"containers": [{}]}])
def test_a_pod_that_says_little_of_its_spec_is_read_all_the_same(spec: Any) -> None:
    (pod,) = parse_page_of_pods(json.dumps({"items": [{"metadata": {"name": "p"}, "spec": spec}]}).encode())["items"]
    assert pod == {"metadata": {"name": "p"}, "spec": spec}
