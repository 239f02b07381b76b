"""`python -m inference_pods.router`: the composition root. Settings in, a served router out."""

from __future__ import annotations

import logging
import sys

import prometheus_client
import uvloop
from pydantic import ValidationError

from inference_pods.router.app import RouterApp
from inference_pods.router.server import BackgroundTask, serve
from inference_pods.router.settings import RouterSettings, parse_arguments
from inference_pods.router.sources import build_sources


async def run(settings: RouterSettings) -> None:
    app = RouterApp(settings)
    sources: list[BackgroundTask] = build_sources(settings)
    await serve(app, sources)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        settings = parse_arguments()
    except ValidationError as error:
        for item in error.errors():
            sys.stderr.write(f"router: --{str(item['loc'][0]).replace('_', '-')}: {item['msg']}\n")
        return 2
    # A creation time per counter would double the series.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    uvloop.run(run(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
