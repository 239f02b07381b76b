"""Soak: one nested engine under random load for minutes: `make soak`, or `python -m benchmarks.soak --minutes 3`.

Most of the load is refused, on purpose. `--pressure` lets it wait instead, before a KV cache of one longest request, so
that running requests are preempted; the run fails if none was.

Clients send prompts and outputs of random lengths on all routes at random levels, priorities and deadlines, with drafts
and without, change levels in the middle, cancel, disconnect in the middle of streams, and ask for what is refused. In
the end the engine must be as it was: nothing running, no KV block held, memory bounded, every request ended, greedy
answers unchanged, and it must have worked: completions on each route and at each level, drafts, changes of levels,
cancels, disconnects and deadlines (soak_verdict.py). Exits 1 with the reasons if not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.engine_process import read_metrics, run_engine
from benchmarks.server_process import ServerProcess
from benchmarks.soak_verdict import (
    CANCELLED,
    COMPLETED,
    DEADLINE_PASSED,
    DISCONNECTED,
    UNDRAFTED,
    SoakRecord,
    find_faults,
)
from inference_pods.protocol import (
    ENGINE_DRAFT_TOKENS,
    ENGINE_KV_BLOCKS_USED,
    ENGINE_PREEMPTIONS,
    ENGINE_RUNNING,
    ENGINE_WAITING,
    HEADER_DEADLINE_MS,
    HEADER_LEVEL,
    HEADER_PRIORITY,
    HEADER_REQUEST_ID,
    HEADER_SPECULATE,
    ROUTE_CHAT_COMPLETIONS,
    ROUTE_COMPLETIONS,
    ROUTE_GENERATE,
    ROUTE_GENERATE_STREAM,
    ROUTE_REQUEST_LEVEL,
)

OUTPUT = Path("out/bench")
# A small KV cache. Admission foresees how long sequences get, so this load hardly preempts (measured: twice a minute).
FLAGS = (
    "--precision", "nested", "--levels", "int8,int4", "--depths", "30,28", "--permutation-seed", "7",
    "--max-batch-size", "8", "--max-waiting", "6", "--max-total-tokens", "512", "--kv-cache-tokens", "1536",
    "--draft-level", "int4",
)  # fmt: skip
# A KV cache that holds no more than one longest request, and room to wait: lengths that admission did not foresee now
# take blocks from others. The last of two equal flags counts.
PRESSURE_FLAGS = (*FLAGS, "--max-waiting", "64", "--kv-cache-tokens", "512")
LEVELS = ("int8", "int4", "int8-d28", "int4-d28")
ROUTES = (ROUTE_GENERATE, ROUTE_GENERATE_STREAM, ROUTE_COMPLETIONS, ROUTE_CHAT_COMPLETIONS)
_STREAMED = " streamed"
# Each way to ask: OpenAI's routes stream when the body says so.
WAYS = (*ROUTES, ROUTE_COMPLETIONS + _STREAMED, ROUTE_CHAT_COMPLETIONS + _STREAMED)
CLIENTS = 16
REQUEST_SECONDS = 180.0  # a request that takes longer hangs
_WORDS = ("the", "engine", "keeps", "serving", "while", "clients", "come", "and", "go", "or", "ask", "for", "more")


@dataclass(frozen=True, slots=True)
class LevelChange:
    """Another level for a request that waits or runs, if it still does then."""

    after_seconds: float
    level: str


@dataclass(frozen=True, slots=True)
class Plan:
    """One request, and what its client does with it."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    leave_after_frames: int | None  # of a stream; None: stays
    leave_after_seconds: float | None
    refused_status: int | None  # the refusal that this request must get
    change: LevelChange | None = None

    @property
    def is_openai(self) -> bool:
        return self.path.startswith("/v1/")

    @property
    def streams(self) -> bool:
        return self.path == ROUTE_GENERATE_STREAM or bool(self.body.get("stream"))

    @property
    def way(self) -> str:
        """One of WAYS."""
        return self.path + (_STREAMED if self.is_openai and self.streams else "")


@dataclass(slots=True)
class Tally:
    """What became of the requests; `completed`: by level. The other counts: see SoakRecord."""

    started: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    completed: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    ways: Counter[str] = field(default_factory=Counter)
    level_changes: int = 0
    undrafted: int = 0

    def end(self, plan: Plan, outcome: str, expected: bool) -> None:
        self.outcomes[outcome] += 1
        if outcome == COMPLETED:
            self.ways[plan.way] += 1
        if outcome == COMPLETED and plan.change is None:  # else it is partly another level's
            self.completed[plan.headers[HEADER_LEVEL]] += 1
            self.undrafted += HEADER_SPECULATE in plan.headers and plan.headers[HEADER_LEVEL] == LEVELS[0]
        if not expected:
            self.failures.append(outcome)


def draw_plan(draw: random.Random) -> Plan:
    way = draw.choice(WAYS)
    headers = draw_headers(draw)
    tokens, refused = draw.choice((1, 2, 8, 32, 64, 150)), None
    if draw.random() < 0.04:
        tokens, refused = 100_000, 422
    elif draw.random() < 0.04:
        headers[HEADER_LEVEL], refused = "int2", 400
    change = None
    if draw.random() < 0.15:
        headers[HEADER_REQUEST_ID] = f"soak-{draw.getrandbits(64):x}"
        change = LevelChange(draw.uniform(0.0, 0.5), draw.choice(LEVELS))
    path, streams = way.removesuffix(_STREAMED), way == ROUTE_GENERATE_STREAM or way.endswith(_STREAMED)
    leaves = refused is None and draw.random() < 0.3
    return Plan(
        path,
        draw_body(draw, path, tokens, streams),
        headers,
        draw.randint(0, 20) if leaves and streams else None,
        draw.uniform(0.0, 2.0) if leaves and not streams else None,
        refused,
        change,
    )


def draw_headers(draw: random.Random) -> dict[str, str]:
    headers = {HEADER_LEVEL: draw.choice(LEVELS)}
    if draw.random() < 0.3:
        headers[HEADER_PRIORITY] = str(draw.randint(-2, 2))
    if draw.random() < 0.1:
        headers[HEADER_DEADLINE_MS] = str(draw.randint(1, 3000))
    if draw.random() < 0.3:
        headers[HEADER_SPECULATE] = "off"
    return headers


def draw_body(draw: random.Random, path: str, tokens: int, streams: bool) -> dict[str, Any]:
    """A body of the route's family; half are greedy, which is what drafts are for."""
    prompt = " ".join(draw.choices(_WORDS, k=draw.choice((1, 5, 40, 200))))
    sampling: dict[str, Any] = {"temperature": 0.8, "top_p": 0.9, "seed": draw.randrange(1000)}
    greedy = draw.random() < 0.5
    stop = {"stop": [draw.choice(_WORDS)]} if draw.random() < 0.2 else {}
    if path in (ROUTE_GENERATE, ROUTE_GENERATE_STREAM):
        chosen = {} if greedy else {"do_sample": True, **sampling}
        return {"inputs": prompt, "parameters": {"max_new_tokens": tokens, "ignore_eos": True, **chosen, **stop}}
    asked = {"prompt": prompt} if path == ROUTE_COMPLETIONS else {"messages": [{"role": "user", "content": prompt}]}
    chosen = {"temperature": 0.0} if greedy else sampling
    return {**asked, "max_tokens": tokens, "ignore_eos": True, "stream": streams, **chosen, **stop}


class Soak:
    def __init__(self, engine: ServerProcess, session: aiohttp.ClientSession) -> None:
        self._engine, self._session = engine, session
        self.tally = Tally()
        self.rss_bytes: list[int] = []

    async def run(self, seconds: float, seed: int) -> None:
        stop_at = time.monotonic() + seconds
        sampler = asyncio.create_task(self._sample())
        await asyncio.gather(*(self._client(random.Random(seed + index), stop_at) for index in range(CLIENTS)))
        sampler.cancel()

    async def _sample(self) -> None:
        while True:
            self.rss_bytes.append(self._engine.rss_bytes())
            if len(self.rss_bytes) % 60 == 0:
                print(f"{len(self.rss_bytes)} s: {self.rss_bytes[-1] / 2**20:.0f} MiB, {dict(self.tally.outcomes)}")
            await asyncio.sleep(1.0)

    async def _client(self, draw: random.Random, stop_at: float) -> None:
        while time.monotonic() < stop_at and self._engine.process.poll() is None:
            plan = draw_plan(draw)
            self.tally.started += 1
            (outcome, expected), _ = await asyncio.gather(self._send_in_time(plan), self._change_level(plan))
            self.tally.end(plan, outcome, expected)
            await asyncio.sleep(draw.choice((0.0, 0.0, 0.1, 0.5)))

    async def _change_level(self, plan: Plan) -> None:
        """Changes the level of the plan's request, if it has a change; one that has ended already has no level."""
        if plan.change is None:
            return
        await asyncio.sleep(plan.change.after_seconds)
        path = ROUTE_REQUEST_LEVEL.format(request_id=plan.headers[HEADER_REQUEST_ID])
        try:
            async with self._session.put(self._engine.base + path, json={"level": plan.change.level}) as response:
                if response.status == 200:
                    self.tally.level_changes += 1
                elif response.status != 404:
                    self.tally.failures.append(f"PUT of a level: status {response.status}")
        except aiohttp.ClientError as error:
            self.tally.failures.append(f"PUT of a level: {type(error).__name__}")

    async def _send_in_time(self, plan: Plan) -> tuple[str, bool]:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._send(plan)
        except TimeoutError:
            return f"{plan.path} did not end within {REQUEST_SECONDS:.0f} s", False
        except aiohttp.ClientError as error:
            return f"{plan.path}: {type(error).__name__}", False

    async def _send(self, plan: Plan) -> tuple[str, bool]:
        """What became of the request, and whether that was right."""
        request = self._session.post(self._engine.base + plan.path, json=plan.body, headers=plan.headers)
        if plan.leave_after_seconds is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(plan.leave_after_seconds), request as response:
                    return judge_status(plan, response.status, await response.json())
            return CANCELLED, True
        async with request as response:
            if not plan.streams or response.status != 200:
                return judge_status(plan, response.status, await response.json())
            return await self._read_stream(plan, response)

    async def _read_stream(self, plan: Plan, response: aiohttp.ClientResponse) -> tuple[str, bool]:
        frames, last = 0, None
        async for line in response.content:
            if not line.startswith(b"data:"):
                continue
            if frames == plan.leave_after_frames:
                response.close()
                return DISCONNECTED, True
            frames += 1
            if line[5:].strip() == b"[DONE]":
                break
            last = json.loads(line[5:])
        return judge_last_frame(plan, last)


def judge_last_frame(plan: Plan, frame: dict[str, Any] | None) -> tuple[str, bool]:
    """The outcome of a stream by the last frame that is no end mark, and whether it was right."""
    if frame is not None and "error" in frame:
        return judge_status(plan, _status_of(frame), frame)
    if frame is not None and _is_complete(frame):
        return judge_status(plan, 200, frame)
    return "a stream ended without its last frame", False


def _is_complete(body: dict[str, Any]) -> bool:
    """Whether a whole answer or the last frame of a stream says that the text is complete, in either family."""
    if "choices" in body:
        return bool(body["choices"]) and body["choices"][0]["finish_reason"] is not None
    return body.get("generated_text") is not None


def _status_of(frame: dict[str, Any]) -> int:
    """The status that an error frame stands for: streams have answered 200 before."""
    kind = frame["error"]["code"] if isinstance(frame["error"], dict) else frame["error_type"]
    known = {"validation": 422, "overloaded": 429, "generation": 424, "unhealthy": 503, "deadline_exceeded": 504}
    return known.get(kind, 500)


def judge_status(plan: Plan, status: int, body: dict[str, Any]) -> tuple[str, bool]:
    """The outcome in a word, and whether it was right for this plan. A full queue may refuse any request."""
    if status == 429:
        return "overloaded", True
    if plan.refused_status is not None:
        return f"refused {status}", status == plan.refused_status
    if status == (504 if plan.is_openai else 424) and HEADER_DEADLINE_MS in plan.headers:
        return DEADLINE_PASSED, True
    if status == 200 and _is_complete(body):
        return COMPLETED, True
    return f"status {status}: {str(body.get('error'))[:200]}", False


async def ask_probes(engine: ServerProcess, session: aiohttp.ClientSession) -> dict[str, str]:
    """Greedy answers of an idle engine by level, those of the top level without drafts too."""
    asked = {level: {HEADER_LEVEL: level} for level in LEVELS}
    asked[LEVELS[0] + UNDRAFTED] = {HEADER_LEVEL: LEVELS[0], HEADER_SPECULATE: "off"}
    body = {"inputs": "The capital of France is", "parameters": {"max_new_tokens": 48, "ignore_eos": True}}
    answers = {}
    for level, headers in asked.items():
        async with session.post(engine.base + ROUTE_GENERATE, json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            answers[level] = (await response.json())["generated_text"]
    return answers


async def wait_until_quiet(engine: ServerProcess, patience_seconds: float = 30.0) -> dict[str, float]:
    """Metrics as soon as nothing runs and no block is held, else those at the end of the patience."""
    give_up = time.monotonic() + patience_seconds
    while True:
        metrics = await asyncio.to_thread(read_metrics, engine)
        busy = [metrics[name] for name in (ENGINE_RUNNING, ENGINE_WAITING, ENGINE_KV_BLOCKS_USED)]
        if not any(busy) or time.monotonic() > give_up:
            return metrics
        await asyncio.sleep(0.2)


async def soak(engine: ServerProcess, seconds: float, seed: int) -> tuple[SoakRecord, Tally]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        first = await ask_probes(engine, session)
        run = Soak(engine, session)
        await run.run(seconds, seed)
        exit_code = engine.process.poll()
        metrics = await wait_until_quiet(engine) if exit_code is None else {}
        last = await ask_probes(engine, session) if exit_code is None else {}
    tally = run.tally
    work = tally.started, tally.outcomes, tally.completed, tally.failures
    mix = tally.ways, tally.level_changes, tally.undrafted
    return SoakRecord(run.rss_bytes, metrics, *work, first, last, exit_code, *mix), tally


def render(record: SoakRecord, faults: list[str]) -> str:
    """JSON of a run and of what is wrong with it."""
    counted = {each.name: getattr(record, each.name) for each in fields(record)}  # asdict breaks a Counter's keys
    return json.dumps({"faults": faults, **counted}, indent=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Random load on one nested engine, then a check that nothing leaked.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pressure", action="store_true", help="let requests wait for a tiny KV cache: they preempt")
    options = parser.parse_args()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with run_engine(PRESSURE_FLAGS if options.pressure else FLAGS, OUTPUT / "soak-engine.log") as engine:
        record, tally = asyncio.run(soak(engine, options.minutes * 60, options.seed))
    faults = find_faults(record, levels=LEVELS, ways=WAYS, must_preempt=options.pressure)
    (OUTPUT / "soak.json").write_text(render(record, faults))
    print(f"{tally.started} requests: {dict(tally.outcomes)}")
    lowest, highest = min(record.rss_bytes) / 2**20, max(record.rss_bytes) / 2**20
    drafted = record.idle_metrics.get(ENGINE_DRAFT_TOKENS)
    print(f"completed {dict(tally.ways)}; {tally.level_changes} levels changed; {drafted} tokens drafted")
    print(f"preemptions: {record.idle_metrics.get(ENGINE_PREEMPTIONS)}, resident {lowest:.0f} to {highest:.0f} MiB")
    if faults:
        raise SystemExit("soak failed:\n" + "\n".join(f"- {fault}" for fault in faults))
    print("soak passed: nothing leaked, nothing hung, greedy answers unchanged")


if __name__ == "__main__":
    main()
