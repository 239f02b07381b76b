"""EndpointSlices as the API server sends them, read into the ready set."""

from __future__ import annotations

import pytest

from inference_pods.router.endpoints import Replica, SliceError, parse_endpoints


def endpoint(address="10.0.0.1", uid="u1", **conditions):
    return {"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod", "uid": uid}}


def build_slice(*endpoints, name="s1", component="engine", tier="full", port=8000, **fields):
    labels = {"app.kubernetes.io/component": component, "adaptivellm.dev/model": "assistant"}
    if tier:
        labels["adaptivellm.dev/tier"] = tier
    return {
        "metadata": {"name": name, "labels": labels},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": port}],
    } | fields


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        ({"ready": True}, True),
        ({}, True),
        ({"ready": None}, True),
        ({"ready": False}, False),
        ({"ready": True, "serving": True, "terminating": True}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
    ],
)
def test_ready_and_not_terminating_is_what_counts(conditions, ready):
    found = parse_endpoints([build_slice(endpoint(**conditions))])
    assert found.of_tier("full") == ((Replica("u1", "full", "http://10.0.0.1:8000"),) if ready else ())


@pytest.mark.parametrize(
    ("conditions", "starting"),
    [
        ({"ready": True}, set()),
        ({}, set()),
        ({"ready": False}, {"full"}),
        ({"ready": False, "serving": False, "terminating": False}, {"full"}),
        ({"ready": False, "serving": True, "terminating": True}, set()),
    ],
)
def test_a_replica_that_is_not_ready_and_does_not_end_is_starting(conditions, starting):
    router = build_slice(endpoint("10.0.1.1", "r1", ready=False), name="s2", component="router", tier=None)
    assert parse_endpoints([build_slice(endpoint(**conditions)), router]).starting == starting


@pytest.mark.parametrize(
    ("pod", "stateful_set"),
    [("m-full-1b8eba35-0", "m-full-1b8eba35"), ("m-full-1b8eba35-12", "m-full-1b8eba35"), ("m-full-x", ""), ("", "")],
)
def test_a_replica_is_known_by_the_stateful_set_that_its_name_tells(pod, stateful_set):
    named = endpoint() | {"targetRef": {"kind": "Pod", "uid": "u1", "name": pod}}
    assert parse_endpoints([build_slice(named)]).of_tier("full")[0].stateful_set == stateful_set


def test_tiers_and_routers_are_told_apart():
    found = parse_endpoints(
        [
            build_slice(endpoint("10.0.0.1", "u1"), endpoint("10.0.0.2", "u2")),
            build_slice(endpoint("10.0.0.3", "u3"), name="s2", tier="int4", port=9000),
            build_slice(
                endpoint("10.0.1.1", "r1"), endpoint("10.0.1.2", "r2"), name="s3", component="router", tier=None
            ),
        ]
    )
    assert [replica.uid for replica in found.of_tier("full")] == ["u1", "u2"]
    assert found.of_tier("int4")[0].base_url == "http://10.0.0.3:9000"
    assert (found.total, found.routers) == (3, 2)


def test_a_pod_in_two_slices_counts_once():
    found = parse_endpoints([build_slice(endpoint()), build_slice(endpoint(), name="s2")])
    assert found.total == 1


def test_a_pod_that_came_back_at_the_same_address_is_another_replica():
    before, after = (parse_endpoints([build_slice(endpoint(uid=uid))]) for uid in ("u1", "u2"))
    assert before != after


def test_an_ipv6_address_gets_its_brackets():
    found = parse_endpoints([build_slice(endpoint("fd00::1"), addressType="IPv6")])
    assert found.of_tier("full")[0].base_url == "http://[fd00::1]:8000"


@pytest.mark.parametrize("fields", [{"endpoints": None}, {"ports": None}, {"ports": []}, {"endpoints": []}])
def test_an_empty_slice_is_no_replica(fields):
    found = parse_endpoints([build_slice(endpoint()) | fields])
    assert (found.total, found.routers) == (0, 1)


def test_what_is_no_slice_is_refused_by_name():
    with pytest.raises(SliceError, match="metadata"):
        parse_endpoints([{"endpoints": []}])
