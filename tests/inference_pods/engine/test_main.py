"""The process as the kubelet sees it: exit codes, termination message, readiness, drain on SIGTERM."""

import asyncio
import json
import re
import signal
import sys

import pytest

from inference_pods.engine.settings import parse_settings

pytestmark = pytest.mark.timeout(240)


async def start(*arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "inference_pods.engine", "--host", "127.0.0.1", "--port", "0", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


def write_broken(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\x03\x00\x00\x00 and then nothing that makes sense")
    return f"file://{tmp_path}/broken.gguf"


def write_truncated(tmp_path, model_path):
    with model_path.open("rb") as whole:
        (tmp_path / "cut.gguf").write_bytes(whole.read(10_000_000))
    return f"file://{tmp_path}/cut.gguf"


@pytest.mark.parametrize(
    ("make_source", "code", "reason"),
    [
        (lambda tmp, _: "package://absent_package/model.gguf", 3, "ModelNotFound"),
        (lambda tmp, _: write_broken(tmp), 4, "ModelCorrupt"),
        (write_truncated, 4, "ModelCorrupt"),
        (lambda tmp, _: "hf://owner/name", 5, "ModelUnsupported"),
    ],
    ids=["absent", "broken", "truncated", "unknown scheme"],
)
async def test_a_model_that_cannot_be_served_ends_the_process_with_its_reason(
    tmp_path, model_path, make_source, code, reason
):
    process = await start("--model-source", make_source(tmp_path, model_path))
    _, errors = await process.communicate()
    assert process.returncode == code
    report = json.loads(errors.decode().strip().splitlines()[-1])
    assert report["reason"] == reason
    assert report["message"]


async def read_until(process, pattern):
    async for line in process.stderr:
        if found := re.search(pattern, line.decode()):
            return found
    raise AssertionError(f"the process ended before {pattern!r}")


async def test_sigterm_finishes_running_streams_refuses_new_ones_and_exits_zero(http, model_source, model_path):
    process = await start("--model-source", model_source, "--precision", "int4", "--max-batch-size", "2")
    try:
        port = (await read_until(process, r"listening on 127\.0\.0\.1:(\d+)")).group(1)
        await read_until(process, "ready after")
        url = f"http://127.0.0.1:{port}"
        async with http.get(url + "/health") as response:
            assert response.status == 200
        body = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 150, "ignore_eos": True}}
        async with http.post(url + "/generate_stream", json=body) as stream:
            await stream.content.readline()
            process.send_signal(signal.SIGTERM)
            await read_until(process, "stopping: 1 requests")
            async with http.get(url + "/health") as response:
                assert response.status == 503
            async with http.post(url + "/generate", json=body) as response:
                assert response.status == 503
            frames = (await stream.read()).decode().strip().split("\n\n")
        assert json.loads(frames[-1].removeprefix("data: "))["details"]["generated_tokens"] == 150
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "int3"], "int3"),
        (["--max-batch-size", "0"], "minimum of 1"),
        (["--max-batch-size", "100", "--max-step-tokens", "64"], "--max-step-tokens"),
        (["--kv-cache-tokens", "100"], "--kv-cache-tokens"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(capsys, arguments, words):
    with pytest.raises(SystemExit):
        parse_settings(["--model-source", "file:///m.gguf", *arguments])
    assert words in capsys.readouterr().err
