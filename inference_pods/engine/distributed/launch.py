"""Starts the processes of ranks 1 and up, ends them with this one, and tells when one of them is lost. No torch.

A rank is told what to do in one line on its standard input, which stays open: its end means that rank 0 is gone,
however it went. Ranks ignore SIGTERM, so that a signal to the whole group still lets rank 0 drain.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from inference_pods.engine.errors import LoadReason
from inference_pods.kernels.decoder import DecoderLimits
from inference_pods.kernels.formats import GROUP, Precision
from inference_pods.kernels.levels import Level
from inference_pods.kernels.step_plans import Backend

logger = logging.getLogger(__name__)

WORKER_COMMAND = (sys.executable, "-m", "inference_pods.engine.distributed.worker")
RANK_LOST, EXIT_RANK_LOST = "RankLost", 7
_MOST_WORDS = 4096  # bytes: what fits a pipe at once, and what the kubelet keeps of a termination message
_PACKAGE_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class RankSpec:
    """Everything that a rank is told.

    `port`: the rendezvous on the loopback interface. `words_to`: the file descriptor for why it cannot go on.
    """

    rank: int
    ranks: int
    port: int
    device: str
    model_source: str
    permutation_seed: int
    precision: Precision
    limits: DecoderLimits
    levels: tuple[Level, ...]
    backend: Backend = Backend.EAGER
    span: int = GROUP
    words_to: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> RankSpec:
        document = json.loads(line)
        limits, precision = DecoderLimits(**document.pop("limits")), Precision(document.pop("precision"))
        levels = tuple(
            Level(level["name"], Precision(level["precision"]), tuple(level["skipped_layers"]))
            for level in document.pop("levels")
        )
        backend = Backend(document.pop("backend"))
        return RankSpec(**document, precision=precision, limits=limits, levels=levels, backend=backend)


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a replica of several ranks cannot go on; its process ends with `exit_code`."""

    reason: str
    message: str
    exit_code: int = EXIT_RANK_LOST

    def explain(self, is_loading: bool) -> Loss:
        """The same in the operator's words: a reason to load (LoadReason) counts against the tier, RANK_LOST doesn't.

        So a rank that is killed while loading has failed to load, and one that later lacks memory for a step has not.
        """
        if not is_loading:
            return Loss(RANK_LOST, self.message)
        reason = LoadReason.ENGINE_FAILED if self.reason == RANK_LOST else self.reason
        return replace(self, reason=str(reason))


def describe_exit(rank: int, code: int, words: str = "") -> Loss:
    """What a rank's exit code (negative: a signal) and its last words mean for the replica."""
    for reason in LoadReason:
        if code == reason.exit_code:
            message = f"rank {rank}: {words}" if words else f"rank {rank} could not load its part; the log says why"
            return Loss(reason.value, message, code)
    if code == -signal.SIGKILL:
        cause = "was killed; if the memory limit did it, raise replica.memory"
    elif code < 0:
        cause = f"was ended by {signal.Signals(-code).name}"
    elif words:
        cause = f"failed with {words} (exit code {code})"
    else:
        cause = f"ended with exit code {code}; its own message says why"
    return Loss(RANK_LOST, f"rank {rank} {cause}. A replica cannot go on without one of its ranks: it ends")


def listen_for_ranks() -> socket.socket:
    """A listening socket on a free loopback port: bound before anyone is told of it, so that nobody can take it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


def _read_words(source: int) -> str:
    """What a rank that has ended wrote; not waited for, because its children may still hold the other end."""
    with os.fdopen(source, "rb", buffering=0) as words:
        os.set_blocking(source, False)
        return (words.read(_MOST_WORDS) or b"").decode(errors="replace")


class RankProcesses:
    """The processes of the other ranks. `on_lost` is called once, in a thread of its own, unless `close` came first."""

    def __init__(
        self, specs: Sequence[RankSpec], on_lost: Callable[[Loss], None], command: Sequence[str] = WORKER_COMMAND
    ) -> None:
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._loss: Loss | None = None
        self._settled = threading.Event()  # lost or closed: nothing further is reported
        self._processes: list[subprocess.Popen[str]] = []
        try:
            for spec in specs:
                self._start(spec, command)
        except OSError:
            self.close(0.0)
            raise

    @property
    def process_ids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def _start(self, spec: RankSpec, command: Sequence[str]) -> None:
        paths = [str(_PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        words_from, words_to = os.pipe()
        try:
            process = subprocess.Popen(
                list(command), stdin=subprocess.PIPE, text=True, env=environment, pass_fds=(words_to,)
            )
        except OSError:
            os.close(words_from)
            raise
        finally:
            os.close(words_to)
        self._processes.append(process)
        watch = partial(self._watch, spec.rank, process, words_from)
        threading.Thread(target=watch, name=f"rank-{spec.rank}", daemon=True).start()
        with suppress(BrokenPipeError):  # it died at once; its watcher says so
            self._tell(process, replace(spec, words_to=words_to).to_json())

    @staticmethod
    def _tell(process: subprocess.Popen[str], line: str) -> None:
        if process.stdin is not None:
            process.stdin.write(line + "\n")
            process.stdin.flush()

    def _watch(self, rank: int, process: subprocess.Popen[str], words_from: int) -> None:
        code = process.wait()
        self.report(describe_exit(rank, code, _read_words(words_from)))

    def report(self, loss: Loss) -> None:
        """Says that the replica cannot go on; only the first loss counts, the others follow from it."""
        with self._lock:
            if self._settled.is_set():
                return
            self._loss = loss
            self._settled.set()
        threading.Thread(target=self._on_lost, args=(loss,), name="rank-lost", daemon=True).start()

    def wait_for_loss(self, seconds: float) -> Loss | None:
        """The loss that is reported within `seconds`, if one is: the cause behind a failed collective."""
        self._settled.wait(seconds)
        return self._loss

    def close(self, seconds: float = 5.0) -> None:
        """Ends all ranks: by the end of their input, and by SIGKILL whichever is still there after `seconds`."""
        with self._lock:
            self._settled.set()
        for process in self._processes:
            if process.stdin is not None:
                with suppress(BrokenPipeError):
                    process.stdin.close()
        for process in self._processes:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
