"""What the HTTP benchmark found, as markdown: throughput against the peer, then latency, memory and start. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.idle import IdleCheck
from benchmarks.paired import paired_ratio
from benchmarks.report import describe, judge, render_speed

MUST = {"int8": 1.2, "int4": 1.2}  # least ratio of tokens per second; what has none is only reported
_THROUGHPUT = (
    "| ours / peer | ours tok/s | peer tok/s | ratio | pairs | lower 90 % | must | |\n|---|---|---|---|---|---|---|---|"
)
_SERVERS = (
    "| server | TTFT median / p95 ms | TPOT median / p95 ms | peak RSS MiB | healthy s | first token s (best) |\n"
    "|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """One start of one server. `ttft_seconds`, `tpot_seconds`: one per request of the load, in any order."""

    tokens_per_second: float
    ttft_seconds: Sequence[float]
    tpot_seconds: Sequence[float]
    first_token_seconds: float  # since the process start; the request was sent when it was healthy
    healthy_seconds: float  # since the process start
    peak_rss_bytes: int


@dataclass(slots=True)
class HttpResults:
    """Figures of all rounds by tier or peer's format, in the order of the rounds, and the idle gate's findings."""

    servers: dict[str, list[ServerFigures]] = field(default_factory=dict)
    gates: list[IdleCheck] = field(default_factory=list)

    def add(self, name: str, figures: ServerFigures) -> None:
        self.servers.setdefault(name, []).append(figures)

    def speeds(self, name: str) -> list[float]:
        return [figures.tokens_per_second for figures in self.servers[name]]


def quantile(values: Iterable[float], q: float) -> float:
    """Nearest-rank quantile of at least one value: one that was measured, never one in between."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def render_http_report(conditions: Mapping[str, object], results: HttpResults, pairs: Mapping[str, str]) -> str:
    """`pairs`: our tiers, and the peer's format that each is compared with."""
    rows = [_throughput_row(results, ours, peer) for ours, peer in pairs.items()]
    servers = [_server_row(name, results.servers[name]) for name in (*pairs, *dict.fromkeys(pairs.values()))]
    return "\n".join([describe(conditions, results.gates), "", _THROUGHPUT, *rows, "", _SERVERS, *servers])


def _throughput_row(results: HttpResults, ours: str, peer: str) -> str:
    ratio = paired_ratio(results.speeds(ours), results.speeds(peer))
    target = MUST.get(ours)
    must = "" if target is None else f"{target:.1f}x"
    return (
        f"| {ours} / {peer} | {render_speed(results.speeds(ours))} | {render_speed(results.speeds(peer))} "
        f"| {ratio.median:.2f}x | {ratio.lowest:.2f}..{ratio.highest:.2f} | {ratio.lower_bound:.2f} "
        f"| {must} | {judge(ratio, target)} |"
    )


def _server_row(name: str, rounds: Sequence[ServerFigures]) -> str:
    """Latencies over the requests of all rounds; memory is the highest of the rounds."""
    ttft = [seconds for figures in rounds for seconds in figures.ttft_seconds]
    tpot = [seconds for figures in rounds for seconds in figures.tpot_seconds]
    first = [figures.first_token_seconds for figures in rounds]
    healthy = statistics.median(figures.healthy_seconds for figures in rounds)
    rss = max(figures.peak_rss_bytes for figures in rounds) / 2**20
    return (
        f"| {name} | {quantile(ttft, 0.5) * 1000:.0f} / {quantile(ttft, 0.95) * 1000:.0f} "
        f"| {quantile(tpot, 0.5) * 1000:.1f} / {quantile(tpot, 0.95) * 1000:.1f} | {rss:.0f} "
        f"| {healthy:.2f} | {statistics.median(first):.2f} ({min(first):.2f}) |"
    )
