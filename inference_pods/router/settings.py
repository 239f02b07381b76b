"""The router's settings: one typed, commented field per knob, read from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65_535)]


class RouterSettings(BaseModel):
    """All knobs. Those without an argument on the command line are for tests and embedding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1)]  # name of the AdaptiveModel, as in the routing table
    namespace: str = "default"  # where its EndpointSlices and ConfigMap live
    table_configmap: str = ""  # name of the ConfigMap with the routing table; "" = do not watch one
    table_path: Path | None = None  # its mounted copy, for a cold start without API server
    static_endpoints: dict[str, list[str]] = {}  # tier -> "host:port"; not empty = no Kubernetes at all
    host: str = "0.0.0.0"  # noqa: S104 - a pod's only network is the cluster's
    port: Port = 8080
    drain_seconds: Seconds = 30.0  # longest time that streams get to finish after SIGTERM; below the pod's grace period
    listener_grace_seconds: Seconds = 3.0  # accept requests this long after SIGTERM: kube-proxy hears of it late
    connect_seconds: Seconds = 2.0  # a pod network either connects at once or the pod is gone
    first_byte_seconds: Seconds = 600.0  # a long answer that is not streamed is silent until its end
    idle_seconds: Seconds = 60.0  # longest silence inside a stream, of the engine or of a client that does not read
    max_body_bytes: Annotated[int, Field(ge=1)] = 2 << 20  # as TGI's
    rebalance_seconds: Annotated[float, Field(gt=0, le=0.5)] = 0.5  # period of loop F

    @field_validator("static_endpoints", mode="before")
    @classmethod
    def parse_pairs(cls, value: object) -> object:
        """Accept a list of "tier=host:port", as on the command line."""
        if not isinstance(value, list):
            return value
        by_tier: dict[str, list[str]] = {}
        for pair in value:
            tier, separator, address = str(pair).partition("=")
            if not (tier and separator and address.rpartition(":")[2].isdigit()):
                raise ValueError(f"{pair!r} is not of the form TIER=HOST:PORT")
            by_tier.setdefault(tier, []).append(address)
        return by_tier


def parse_arguments(arguments: Sequence[str] | None = None) -> RouterSettings:
    """Read the command line. Raises pydantic.ValidationError for values out of range."""
    parser = argparse.ArgumentParser(prog="python -m inference_pods.router", description="Router of one AdaptiveModel.")
    parser.add_argument("--model", required=True, help="name of the AdaptiveModel")
    parser.add_argument("--namespace", help="its namespace")
    parser.add_argument("--table-configmap", help="ConfigMap with the routing table, watched")
    parser.add_argument("--table-path", type=Path, help="the mounted copy of the routing table")
    parser.add_argument(
        "--static-endpoint", dest="static_endpoints", action="append", metavar="TIER=HOST:PORT",
        help="an engine's address; repeatable; replaces Kubernetes altogether (for development and benchmarks)",
    )  # fmt: skip
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on")
    parser.add_argument("--drain-seconds", type=float, help="time for streams to finish after SIGTERM")
    parser.add_argument("--listener-grace-seconds", type=float, help="time for which a stopping router still accepts")
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    return RouterSettings(**given)
