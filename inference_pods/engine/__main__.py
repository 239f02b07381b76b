"""`python -m inference_pods.engine`. Obeys SIGTERM from its first moment.

As the first process of a container a program without a handler ignores SIGTERM, and importing takes seconds on a
quarter of a core: a pod deleted meanwhile would hold its accelerators for the whole grace period. So the handler comes
first, and the imports are `serve.py`'s.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time


def main() -> int:
    """Exit code of the engine. Until it serves there is nothing to finish: a stop signal ends it at once."""
    started = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: os._exit(0))
    from inference_pods.engine.serve import run

    return run(started)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)  # the loading or engine thread may still be inside a native call; nothing is left to save
