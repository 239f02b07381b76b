"""The command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from inference_pods.router.settings import parse_arguments


def test_the_command_line_of_the_pod_is_understood():
    arguments = "--model assistant --namespace demo --table-configmap assistant-routing"
    arguments += " --table-path /etc/adaptive/table.json --host 0.0.0.0 --port 8080 --drain-seconds 30"
    settings = parse_arguments(arguments.split())
    assert settings.model == "assistant"
    assert settings.namespace == "demo"
    assert settings.table_configmap == "assistant-routing"
    assert settings.table_path == Path("/etc/adaptive/table.json")
    assert (settings.port, settings.drain_seconds) == (8080, 30.0)
    assert settings.static_endpoints == {}


def test_static_endpoints_are_grouped_by_tier():
    arguments = ["--model", "m"]
    for pair in ("full=127.0.0.1:1", "full=127.0.0.1:2", "int4=h:3"):
        arguments += ["--static-endpoint", pair]
    assert parse_arguments(arguments).static_endpoints == {"full": ["127.0.0.1:1", "127.0.0.1:2"], "int4": ["h:3"]}


@pytest.mark.parametrize(
    "arguments",
    [["--port", "70000"], ["--drain-seconds", "-1"], ["--drain-seconds", "nan"], ["--static-endpoint", "full:1"]],
)
def test_values_out_of_range_are_refused(arguments):
    with pytest.raises(ValidationError):
        parse_arguments(["--model", "m", *arguments])
