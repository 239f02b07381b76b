"""A rank above 0: loads its part of the model and follows rank 0's steps until told to stop or rank 0 is gone.

`python -m inference_pods.engine.distributed.worker`, its RankSpec as one line of JSON on standard input.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from inference_pods.engine.distributed.launch import RankSpec
from inference_pods.engine.errors import LoadError
from inference_pods.engine.memory import refuse_memory

if TYPE_CHECKING:
    from inference_pods.engine.distributed.group import Group
    from inference_pods.kernels.torch_decoder import TorchDecoder

logger = logging.getLogger(__name__)

_MOST_CHARACTERS = 300  # of an error that nobody foresaw: what matters comes first


def _end_with_rank_0() -> None:
    """Nothing is written after the spec: reading on returns when rank 0's end of the pipe is closed."""
    sys.stdin.read()
    os._exit(0)


def _load(spec: RankSpec) -> tuple[Group, TorchDecoder]:
    """Joins the others and reads this rank's part; the file and its metadata are gone afterwards.

    Raises:
        LoadError: the part cannot be loaded.
    """
    # torch and numpy take seconds: rank 0's end must be noticed meanwhile
    from inference_pods.engine.checkpoint import load_weights, open_model, read_shape
    from inference_pods.engine.distributed.group import Group
    from inference_pods.engine.distributed.runner import build_rank, rank_device
    from inference_pods.engine.source import resolve_source

    file = open_model(resolve_source(spec.model_source))
    shape = read_shape(file)
    group = Group(spec.rank, spec.ranks, spec.port, rank_device(spec), None)
    decoder = build_rank(spec, shape, group)
    load_weights(file, shape, decoder, spec.permutation_seed)
    file.close()
    return group, decoder


def follow(spec: RankSpec) -> None:
    """Takes every step that rank 0 takes.

    Raises:
        LoadError: this rank's part cannot be loaded.
        RuntimeError: the group fell apart.
    """
    from inference_pods.engine.distributed.wire import Command, decode_chunks

    group, decoder = _load(spec)
    group.total([decoder.weight_bytes, decoder.kv_bytes])
    logger.info("rank %d of %d holds %d bytes of weights", spec.rank, spec.ranks, decoder.weight_bytes)
    while True:
        command, payload = group.receive()
        if command is Command.STOP:
            return
        if command is Command.WARM:
            decoder.warm()
        else:
            decoder.step(decode_chunks(payload))


def _follow_or_explain(spec: RankSpec) -> int:
    """Exit code of a rank, which rank 0 hears with what was said to it."""
    try:
        follow(spec)
    except LoadError as error:
        return _report(error, spec.words_to)
    except MemoryError as error:
        return _report(refuse_memory(error), spec.words_to)
    except Exception as error:
        logger.exception("the rank ends")
        _tell_rank_0(_describe_error(error), spec.words_to)
        return 1
    return 0


def _describe_error(error: Exception) -> str:
    """Type and message in one bounded line. A rank knows token numbers only, so no prompt can be in it."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 1] + "…"


def _report(error: LoadError, words_to: int | None) -> int:
    """Says why the rank cannot load, on stderr and to rank 0; returns the exit code."""
    sys.stderr.write(json.dumps({"reason": error.reason.value, "message": error.message}) + "\n")
    _tell_rank_0(error.message, words_to)
    return error.reason.exit_code


def _tell_rank_0(words: str, words_to: int | None) -> None:
    if words_to is not None:
        with suppress(OSError):  # rank 0 is gone
            os.write(words_to, words.encode())


def main() -> int:
    """Exit code of the rank."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.readline()
    if not line:
        return 0
    threading.Thread(target=_end_with_rank_0, name="rank-0-watch", daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        return _follow_or_explain(RankSpec.from_json(line))
    except Exception:
        logger.exception("the rank ends")
        return 1


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)  # a collective's threads may still wait for peers; nothing is left to save
