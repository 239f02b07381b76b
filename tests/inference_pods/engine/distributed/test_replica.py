"""A replica of two ranks as a pod runs it: the engine's own process on the real model."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from inference_pods.kernels.decoder import Chunk
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]
PROMPT = "Once upon a time, in a village by the river, there lived a miller who"
NEW_TOKENS = 16


class Replica:
    """The engine's process; its log is read as it comes."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        self.lines += self.process.stderr

    def wait_for(self, text, seconds=90):
        """The first line with `text`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if line := next((line for line in list(self.lines) if text in line), None):
                return line
            assert self.process.poll() is None, "".join(self.lines)
            time.sleep(0.02)
        raise AssertionError("".join(self.lines))

    def port(self):
        return int(re.search(r"127\.0\.0\.1:(\d+)", self.wait_for("listening on"))[1])

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port()}{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read() or "null")

    def rank_1(self):
        """Process id of the other rank."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        (process_id,) = {int(child) for file in children for child in file.read_text().split()}
        return process_id


@contextmanager
def started_replica(model_source):
    command = [sys.executable, "-m", "inference_pods.engine", "--model-source", model_source, "--precision", "int8"]
    command += ["--host", "127.0.0.1", "--port", "0", "--device", "cpu", "--tensor-parallel", "2", "--threads", "2"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[4], stderr=subprocess.PIPE, text=True) as process:
        replica = Replica(process)
        try:
            replica.wait_for("ready after")
            yield replica
        finally:
            process.kill()


def greedy_on_one_rank(runner, tokenizer, prompt, count):
    ids = tokenizer.encode(prompt)
    table = list(range((len(ids) + count) // BLOCK_TOKENS + 1))
    tokens = [runner.step([Chunk(ids, 0, table, 1)])[0].best]
    while len(tokens) < count:
        tokens.append(runner.step([Chunk([tokens[-1]], len(ids) + len(tokens) - 1, table, 1)])[0].best)
    return tokens


def generate(replica):
    """Token ids of a greedy answer."""
    parameters = {"max_new_tokens": NEW_TOKENS, "details": True, "decoder_input_details": False}
    answer = replica.call("/generate", {"inputs": PROMPT, "parameters": parameters})
    return [token["id"] for token in answer["details"]["tokens"]]


def is_running(process_id):
    try:
        return "Z" not in Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def wait_until_gone(process_id, seconds):
    deadline = time.monotonic() + seconds
    while is_running(process_id) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(process_id)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_two_ranks_serve_the_real_model_drain_on_sigterm_and_leave_nothing_behind(
    model_source, model_path, load_runner, tokenizer
):
    expected = greedy_on_one_rank(load_runner(Precision.INT8, kv=Precision.FP32), tokenizer, PROMPT, NEW_TOKENS)
    assert tokenizer.eos_id not in expected
    with started_replica(model_source) as replica:
        info = replica.call("/info")
        assert (info["tensor_parallel"], info["kernels"]) == (2, "torch, 2 ranks")
        assert generate(replica) == expected

        rank_1, answers = replica.rank_1(), []
        client = threading.Thread(target=lambda: answers.append(generate(replica)))
        client.start()
        time.sleep(0.1)
        assert not answers
        replica.process.send_signal(signal.SIGTERM)
        os.kill(rank_1, signal.SIGTERM)  # what a signal to the whole group does
        client.join(60)
        assert answers == [expected]
        assert replica.process.wait(30) == 0
        assert wait_until_gone(rank_1, 5)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_killed_rank_ends_the_replica_within_seconds_and_says_why(model_source, model_path):
    with started_replica(model_source) as replica:
        os.kill(replica.rank_1(), signal.SIGKILL)
        assert replica.process.wait(10) == 7
        failure = json.loads(next(line for line in replica.lines if line.startswith("{")))
        assert failure["reason"] == "RankLost"
        assert "rank 1 was killed" in failure["message"]
