"""An engine without weights as the settings build it, over HTTP with the maintained clients, and as a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import openai
import pytest
from huggingface_hub import AsyncInferenceClient

from inference_pods.engine.emulated.startup import build_emulated_engine
from inference_pods.engine.emulated.vocabulary import SENTENCE
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.metrics import EngineMetrics
from inference_pods.engine.server import start_server
from inference_pods.engine.service import Limits, Phase, Service
from inference_pods.engine.settings import parse_settings

ARGUMENTS = ("--model-source", "file:///nowhere.gguf", "--served-model-name", "smol", "--tier", "fast")
CURVE = ("--emulate", "500,10,1")
NESTED = ("--precision", "nested", "--levels", "int8,int4", "--depths", "30,28", "--emulate", "500,10,1")


@contextlib.asynccontextmanager
async def serving(*arguments: str):
    """URL of an engine built from these arguments."""
    settings = parse_settings([*ARGUMENTS, *arguments])
    limits = Limits(
        settings.max_total_tokens, settings.max_batch_size, settings.max_waiting, settings.write_timeout_seconds
    )
    service = Service(limits, EngineMetrics("smol", "fast", settings.kv_blocks), "smol")
    engine = build_emulated_engine(settings, service.deliver, service.observe)
    service.attach(engine)
    engine.loop.start()
    await service.prove()
    service.phase = Phase.READY
    server, port = await start_server(service, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.cleanup()
        await asyncio.to_thread(engine.loop.stop)


async def test_the_hub_client_generates_whole_and_streamed():
    async with serving(*CURVE) as url, AsyncInferenceClient(url) as client:
        whole = await client.text_generation("Hello", max_new_tokens=5, details=True, return_full_text=False)
        assert whole.generated_text == "".join(SENTENCE[:5])
        assert whole.details.finish_reason == "length"
        stream = await client.text_generation("Hello", max_new_tokens=5, stream=True)
        assert "".join([text async for text in stream]) == whole.generated_text


async def test_the_openai_client_chats_whole_and_streamed_and_stops_at_a_word():
    async with serving(*CURVE) as url, openai.AsyncOpenAI(base_url=url + "/v1", api_key="none") as client:
        ask = {"model": "smol", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
        whole = await client.chat.completions.create(**ask)
        assert whole.choices[0].message.content == "".join(SENTENCE[:9])
        assert whole.usage.completion_tokens == 9
        stream = await client.chat.completions.create(**ask, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "".join(SENTENCE[:9])
        stopped = await client.chat.completions.create(**ask, stop=[" filler"])
        assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == (" This text is", "stop")


async def test_info_says_that_it_is_emulated_and_with_which_curve(http):
    async with serving(*CURVE) as url, http.get(url + "/info") as response:
        said = await response.json()
    assert (said["engine"], said["model_device_type"], said["weight_bytes"]) == ("emulated", "emulated", 0)
    assert said["curves"] == {
        "fp32": {"step_microseconds": 500, "decode_microseconds_per_sequence": 10, "prefill_microseconds_per_token": 1}
    }


async def test_the_levels_of_a_nested_tier_are_served_on_request(http):
    async with serving(*NESTED, "--emulate", "int4-d28=300,10,1") as url:
        async with http.get(url + "/info") as response:
            said = await response.json()
        assert set(said["levels"]) == {"int8", "int8-d28", "int4", "int4-d28"}
        assert {name: curve["step_microseconds"] for name, curve in said["curves"].items()} == {
            "int8": 500, "int8-d28": 500, "int4": 500, "int4-d28": 300,
        }  # fmt: skip
        body = {"inputs": "Hello", "parameters": {"max_new_tokens": 2}}
        async with http.post(url + "/generate", json=body, headers={"x-level": "int4-d28"}) as response:
            assert (response.status, response.headers["x-level-served"]) == (200, "int4-d28")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*CURVE, *CURVE), "--emulate: 2 curves without a level"),
        ((*CURVE, "--emulate", "int4=300,10,1"), "--emulate: there is no level int4, only fp32"),
        ((*NESTED, "--draft-level", "int4"), "--draft-level"),
        ((*CURVE, "--precision", "int4", "--levels", "int8,int4"), "change --levels, --depths or --skip-order"),
        ((*NESTED, "--skip-order", "17"), "depth 28 is not possible: 1 of 30 layers may be left out"),
    ],
)
def test_settings_that_contradict_each_other_end_with_the_flag_to_change(arguments, words):
    settings = parse_settings([*ARGUMENTS, *arguments])
    with pytest.raises(LoadError, match=words) as caught:
        build_emulated_engine(settings, lambda _events: None, lambda _result, _seconds: None)
    assert caught.value.reason is LoadReason.UNSUPPORTED


def test_a_curve_that_cannot_be_read_ends_with_its_form(capsys):
    with pytest.raises(SystemExit):
        parse_settings([*ARGUMENTS, "--emulate", "fast"])
    assert "[LEVEL=]STEP,DECODE,PREFILL" in capsys.readouterr().err


@contextlib.contextmanager
def process(*arguments: str):
    """The engine as a container starts it; its port is in its log."""
    command = [sys.executable, "-m", "inference_pods.engine", *ARGUMENTS, "--host", "127.0.0.1", "--port", "0"]
    root = Path(__file__).parents[4]
    with subprocess.Popen(
        [*command, *arguments], cwd=root, env=dict(os.environ), stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            line = next(line for line in started.stderr if "listening on" in line)
            yield started, f"http://127.0.0.1:{line.split('listening on 127.0.0.1:')[1].split(',')[0]}"
        finally:
            started.kill()


def test_the_process_serves_in_its_own_time_without_torch_and_obeys_a_stop_signal():
    with process("--emulate", "20000,0,0") as (engine, url):
        assert any("ready after" in line for line in engine.stderr)
        started = time.monotonic()
        body = json.dumps({"inputs": "Hello", "parameters": {"max_new_tokens": 10}}).encode()
        asked = urllib.request.Request(url + "/generate", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert json.load(answer)["generated_text"] == "".join(SENTENCE[:10])
        assert time.monotonic() - started >= 0.195, "ten steps of 20 ms, the first at most 5 ms early"
        assert "torch" not in Path(f"/proc/{engine.pid}/maps").read_text()
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(timeout=20) == 0


def test_a_load_that_only_seems_to_take_long_is_ended_by_a_stop_signal():
    with process(*CURVE, "--emulate-load-seconds", "600") as (engine, url):
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(url + "/health", timeout=20)
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(timeout=20) == 0


def ask_for_stream(url: str, tokens: int):
    body = json.dumps({"inputs": "Hello", "parameters": {"max_new_tokens": tokens}}).encode()
    asked = urllib.request.Request(url + "/generate_stream", body, {"Content-Type": "application/json"})
    return urllib.request.urlopen(asked, timeout=30)


def read_frames(stream) -> list[dict]:
    return [json.loads(line.removeprefix(b"data: ")) for line in stream if line.startswith(b"data: ")]


def test_a_stream_that_runs_at_the_stop_signal_is_finished_within_the_drain():
    with process("--emulate", "50000,0,0", "--drain-seconds", "20") as (engine, url):
        assert any("ready after" in line for line in engine.stderr)
        with ask_for_stream(url, 10) as stream:
            stream.readline()
            engine.send_signal(signal.SIGTERM)
            assert read_frames(stream)[-1]["generated_text"] == "".join(SENTENCE[:10])
        assert engine.wait(timeout=5) == 0


def test_a_stream_that_is_too_long_for_the_drain_ends_with_an_error_and_the_process_right_after():
    """Ten minutes are left of it."""
    with process("--emulate", "500000,0,0", "--drain-seconds", "0.5") as (engine, url):
        assert any("ready after" in line for line in engine.stderr)
        with ask_for_stream(url, 1200) as stream:
            stream.readline()
            engine.send_signal(signal.SIGTERM)
            assert read_frames(stream)[-1]["error_type"] == "unhealthy"
        assert engine.wait(timeout=5) == 0


def test_a_client_that_reads_nothing_does_not_hold_the_process_beyond_the_drain():
    with process("--emulate", "1,0,0", "--drain-seconds", "0.2", "--max-total-tokens", "1000000",
                 "--kv-cache-tokens", "1000000") as (engine, url):  # fmt: skip
        assert any("ready after" in line for line in engine.stderr)
        with ask_for_stream(url, 900_000) as stream:
            stream.readline()
            time.sleep(0.5)  # the buffers on the way fill up
            engine.send_signal(signal.SIGTERM)
            assert engine.wait(timeout=5) == 0
