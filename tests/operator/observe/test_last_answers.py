"""Who waits for Prometheus, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from adaptive_operator.observe.last_answers import PATIENCE_SECONDS, REUSED_SECONDS, LastAnswers
from adaptive_operator.observe.prometheus import Answers, Failed, Rows
from adaptive_operator.observe.queries import ModelScope, Query, QueryName, Windows, build_queries

pytestmark = pytest.mark.usefixtures("skipped_waits")

QUERIES = build_queries([ModelScope("demo", "assistant", 300)], Windows(2.0))
WITH_A_NEIGHBOUR = build_queries([ModelScope("demo", name, 300) for name in ("assistant", "other")], Windows(2.0))
OTHER_HOLD = build_queries([ModelScope("demo", "assistant", 60)], Windows(2.0))


class Slow:
    """Answers with the number of the read, when `gate` is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0

    async def read(self, queries: Sequence[Query]) -> Answers:
        self.asked += 1
        number = float(self.asked)
        await self.gate.wait()
        return dict.fromkeys(queries, Rows({(): number}))


def number(answers: Answers) -> float:
    (value,) = {answer.values[()] for answer in answers.values() if isinstance(answer, Rows)}
    return value


def build(now: list[float] | None = None) -> tuple[Slow, LastAnswers]:
    slow = Slow()
    return slow, LastAnswers(slow, asyncio.Event(), monotonic=lambda: now[0] if now else 0.0)


async def test_a_pass_that_nobody_waits_for_waits_for_its_answers() -> None:
    slow, answers = build()
    await answers.read("gpu", QUERIES)
    slow.gate.clear()
    read = asyncio.create_task(answers.read("gpu", QUERIES))
    await asyncio.sleep(2 * PATIENCE_SECONDS)
    assert not read.done()
    slow.gate.set()
    assert number(await read) == 2


async def test_a_hurried_pass_takes_new_answers_that_come_in_time() -> None:
    _, answers = build()
    await answers.read("gpu", QUERIES)
    answers.hurry.set()
    assert number(await answers.read("gpu", QUERIES)) == 2


@pytest.mark.parametrize("queries", [QUERIES, WITH_A_NEIGHBOUR], ids=["the same models", "a model more"])
async def test_a_hurried_pass_goes_on_with_the_last_answers(queries: tuple[Query, ...]) -> None:
    slow, answers = build()
    await answers.read("gpu", QUERIES)
    slow.gate.clear()
    answers.hurry.set()
    assert number(await asyncio.wait_for(answers.read("gpu", queries), 3 * PATIENCE_SECONDS)) == 1


class Ages:
    """Answers every query with 5, at once or, when `gate` is closed, never; a read takes two seconds of the clock."""

    def __init__(self, now: list[float]) -> None:
        self.gate, self.now = asyncio.Event(), now
        self.gate.set()

    async def read(self, queries: Sequence[Query]) -> Answers:
        await self.gate.wait()
        self.now[0] += 2.0
        failed: Answers = {query: Failed("refused") for query in queries if query.name is QueryName.SERVED_QUALITY}
        return {**dict.fromkeys(queries, Rows({("demo", "assistant"): 5.0}, frozenset({("a", "b")}))), **failed}


async def test_the_last_answers_are_as_old_as_they_are_by_now() -> None:
    now = [100.0]
    reader = Ages(now)
    answers = LastAnswers(reader, asyncio.Event(), monotonic=lambda: now[0])
    before = await answers.read("gpu", QUERIES)
    now[0] += 18.0
    reader.gate.clear()
    answers.hurry.set()
    after = await answers.read("gpu", QUERIES)
    aged = {query.name: answer for query, answer in after.items() if answer != before[query]}
    assert aged.keys() == {QueryName.ROUTER_AGE, QueryName.POD_WORK_AGE}
    for answer in aged.values():
        assert isinstance(answer, Rows)
        assert (answer.values, answer.duplicates) == ({("demo", "assistant"): 25.0}, {("a", "b")})
    assert after.keys() == before.keys()


async def test_a_pass_that_waits_already_is_hurried_too_and_its_read_goes_on_for_the_next_one() -> None:
    slow, answers = build()
    await answers.read("gpu", QUERIES)
    slow.gate.clear()
    read = asyncio.create_task(answers.read("gpu", QUERIES))
    await asyncio.sleep(0.01)
    answers.hurry.set()
    assert number(await asyncio.wait_for(read, 3 * PATIENCE_SECONDS)) == 1
    answers.hurry.clear()
    following = asyncio.create_task(answers.read("gpu", QUERIES))
    await asyncio.sleep(0.01)
    slow.gate.set()
    assert number(await following) == 2
    assert slow.asked == 2


NOT_REUSED = {
    "there are none yet": (None, QUERIES, 0.0),
    "another hold window is asked for": (QUERIES, OTHER_HOLD, 0.0),
    "they are too old": (QUERIES, QUERIES, REUSED_SECONDS + 1),
}


@pytest.mark.parametrize("name", NOT_REUSED)
async def test_even_a_hurried_pass_waits_when(name: str) -> None:
    before, queries, later = NOT_REUSED[name]
    now = [100.0]
    slow, answers = build(now)
    if before is not None:
        await answers.read("gpu", before)
    now[0] += later
    slow.gate.clear()
    answers.hurry.set()
    read = asyncio.create_task(answers.read("gpu", queries))
    await asyncio.sleep(2 * PATIENCE_SECONDS)
    assert not read.done()
    slow.gate.set()
    assert number(await read) == slow.asked
