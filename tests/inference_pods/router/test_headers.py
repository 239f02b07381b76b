"""Which header fields cross the router."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from multidict import CIMultiDict

from inference_pods.router.endpoints import Replica
from inference_pods.router.headers import request_headers, response_headers
from inference_pods.router.places import Placement, RouteReason
from inference_pods.router.table import Route, RouteKey


def placement(quality):
    return Placement(Route(RouteKey("int8"), quality, None, 1.0, 1.0, 0.0), Replica("u", "int8", ""), RouteReason.SHED)


def test_fields_that_belong_to_one_connection_stay_behind_also_those_that_it_names():
    incoming = CIMultiDict(
        {"Connection": "close, X-Private", "X-Private": "1", "Host": "h", "Content-Length": "3", "Accept": "a"}
    )
    incoming.add("X-Twice", "1")
    incoming.add("X-Twice", "2")
    outgoing = request_headers(incoming, "id-1", "")
    assert set(outgoing) == {"Accept", "X-Twice", "x-request-id"}
    assert outgoing.getall("X-Twice") == ["1", "2"]


def test_what_only_the_engine_decides_on_reaches_it():
    incoming = CIMultiDict({"x-speculate": "off", "x-priority": "3"})
    outgoing = request_headers(incoming, "id-1", "int8")
    assert (outgoing["x-speculate"], outgoing["x-priority"]) == ("off", "3")


@pytest.mark.parametrize(("quality", "shown"), [(990, "990"), (None, None)])
def test_the_answer_says_who_served_and_never_an_unknown_quality(quality, shown):
    upstream = SimpleNamespace(
        headers=CIMultiDict(
            {"Transfer-Encoding": "chunked", "Server": "s", "x-tier-served": "lie", "X-Total-Time": "5"}
        ),
        content_type="text/event-stream",
    )
    headers = response_headers("id-1", placement(quality), upstream)
    assert headers.getall("x-tier-served") == ["int8"]
    assert headers["x-route-reason"] == "Shed"
    assert headers.get("x-quality-served") == shown
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Cache-Control"] == "no-cache"
    assert headers["X-Total-Time"] == "5"
    assert not {"Transfer-Encoding", "Server"} & set(headers)
