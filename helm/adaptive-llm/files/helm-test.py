"""What `helm test` runs in the cluster, with the operator's image: proves that the operator makes progress.

Environment: HEALTH_URL (asked until it answers 200, for about a minute); MODEL_URL, if set, is a model's endpoint that
has to complete one request. Exit status 1 with one line that names the address and the cause.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request

TRIES = int(os.environ.get("TRIES", "30"))
PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "2"))
# Bypasses any proxy of the environment: both addresses are Services of this cluster.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str, body: dict[str, object] | None = None, timeout_seconds: float = 5) -> bytes:
    """Body of the answer to GET, or to POST when there is a JSON body; raises OSError unless the status is 2xx."""
    data = json.dumps(body).encode() if body is not None else None
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 - rendered by the chart, http:// only
    with OPENER.open(request, timeout=timeout_seconds) as response:
        return bytes(response.read())


def wait_for_health(url: str) -> None:
    """Ask until the answer is 200; exits with the last cause when the tries are used up."""
    for attempt in range(1, TRIES + 1):
        try:
            ask(url)
        except OSError as error:
            cause = error
        else:
            sys.stdout.write(f"ok: {url} answered 200\n")
            return
        if attempt < TRIES:
            time.sleep(PAUSE_SECONDS)
    sys.exit(f"failed: {url}: {cause}; look at the operator's log")


def complete_request(url: str) -> None:
    """One short request; says how much text came, never which."""
    body = {"inputs": "The capital of France is", "parameters": {"max_new_tokens": 4}}
    try:
        text = json.loads(ask(url, body, timeout_seconds=120))["generated_text"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"failed: {url}: {type(error).__name__}: {error}; look at the model's conditions and its router's log")
    sys.stdout.write(f"ok: {url} answered with {len(text)} characters\n")


wait_for_health(os.environ["HEALTH_URL"])
if os.environ.get("MODEL_URL"):
    complete_request(os.environ["MODEL_URL"])
