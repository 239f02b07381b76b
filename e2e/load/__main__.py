"""`python -m e2e.load --url http://… --steps 0.5x30,1x30`: open-loop load on one endpoint, then the account.

Exit status 0 iff every request was answered in full.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

import aiohttp

from e2e.load.accounting import account, account_by_tier, errors, latency, served_quality_permille, tier_of
from e2e.load.arrivals import MAX_REQUESTS, Pattern, Step, draw_arrivals, parse_steps
from e2e.load.client import StreamClient
from e2e.load.open_loop import OpenLoop
from e2e.load.record import RequestRecord


def main() -> int:
    """Run and report."""
    arguments = _parser().parse_args()
    records = asyncio.run(_run(arguments))
    print(describe(records))
    return 0 if account(records).failed == 0 else 1


async def _run(arguments: argparse.Namespace) -> list[RequestRecord]:
    start = time.monotonic()

    def now() -> float:
        return time.monotonic() - start

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        client = StreamClient(session, arguments.url, now, arguments.timeout_seconds)
        loop = OpenLoop(client, now, arguments.output_tokens, arguments.max_in_flight, arguments.tier)
        arrivals = draw_arrivals(arguments.steps, arguments.pattern, arguments.seed, arguments.max_requests)
        await loop.run(arrivals, asyncio.Event())
        return loop.records


def describe(records: list[RequestRecord]) -> str:
    """The account as text: totals, tiers, latency, errors."""
    total = account(records)
    lines = [f"sent {total.sent} = ok {total.ok} + failed {total.failed}"]
    for tier, part in account_by_tier(records).items():
        seen = latency(r for r in records if tier_of(r) == tier)
        lines.append(
            f"  {tier:8} sent {part.sent} = ok {part.ok} + failed {part.failed}"
            f"   TTFT p50 {_seconds(seen.ttft_p50_seconds)} p95 {_seconds(seen.ttft_p95_seconds)}"
            f"   TPOT p50 {_seconds(seen.tpot_p50_seconds)} p95 {_seconds(seen.tpot_p95_seconds)}"
        )
    quality = served_quality_permille(records)
    lines.append(f"served quality {'unknown' if quality is None else f'{quality / 10:.1f} %'}")
    lines.extend(f"  {count} x {text}" for text, count in errors(records))
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _steps(text: str) -> tuple[Step, ...]:
    try:
        return parse_steps(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.load", description=__doc__)
    parser.add_argument("--url", required=True, help="base URL of the endpoint")
    parser.add_argument("--steps", type=_steps, default=_steps("0.5x30"), help="RATExSECONDS, comma-separated")
    parser.add_argument("--pattern", type=Pattern, choices=list(Pattern), default=Pattern.POISSON)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tier", default="", help="pin with x-tier")
    parser.add_argument("--output-tokens", type=int, default=24)
    parser.add_argument("--timeout-seconds", type=float, default=120.0)
    parser.add_argument("--max-in-flight", type=int, default=500)
    parser.add_argument("--max-requests", type=int, default=MAX_REQUESTS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
