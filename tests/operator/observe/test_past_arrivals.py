"""Earlier periods are asked for seldom, beside the passes, and what is known stays known."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from adaptive_operator.observe.past_arrivals import ASK_SECONDS, PastArrivals
from adaptive_operator.observe.prometheus import Answer, Answers, Failed, Rows
from adaptive_operator.observe.queries import ModelScope, Query, Windows
from adaptive_operator.observe.season import Past, read_season

DAY = 86_400.0
NOW = 100 * DAY
MODEL = ("demo", "assistant")
MODELS = [ModelScope(*MODEL, 300)]


class Slow:
    """Answers with the number of the read, when `gate` is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[tuple[Query, ...]] = []
        self.fails = False

    async def read(self, queries: Sequence[Query]) -> Answers:
        self.asked.append(tuple(queries))
        answer: Answer = (
            Failed("timed out") if self.fails else Rows({}, series={MODEL: ((0.0, float(len(self.asked))),)})
        )
        await self.gate.wait()
        return dict.fromkeys(queries, answer)


def build() -> tuple[Slow, PastArrivals]:
    slow = Slow()
    return slow, PastArrivals(slow, Windows(15.0), DAY)


def number(past: Past | None) -> float | None:
    """Of the read that the answers are from."""
    if past is None:
        return None
    answer = past.answers[0]
    assert isinstance(answer, Rows)
    return answer.series[MODEL][0][1]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_pass_does_not_wait_and_the_next_one_has_the_answer() -> None:
    slow, past = build()
    assert past.recall("gpu", MODELS, NOW, 60.0) is None
    await settle()
    assert number(past.recall("gpu", MODELS, NOW + 15.0, 60.0)) == 1
    assert [query.periods_back for query in slow.asked[0]] == [1, 2]


async def test_each_pool_asks_once_in_five_minutes_whatever_comes_back() -> None:
    slow, past = build()
    slow.fails = True
    for second in range(0, 600, 5):
        for pool in ("gpu", "cpu"):
            past.recall(pool, MODELS, NOW + second, 60.0)
        await settle()
    assert len(slow.asked) == 4


async def test_a_read_that_takes_long_is_not_joined_by_another() -> None:
    slow, past = build()
    slow.gate.clear()
    for turn in range(4):
        assert past.recall("gpu", MODELS, NOW + turn * ASK_SECONDS, 60.0) is None
        await settle()
    assert len(slow.asked) == 1
    slow.gate.set()
    await settle()
    assert number(past.recall("gpu", MODELS, NOW + 4 * ASK_SECONDS, 60.0)) == 1


async def test_what_is_known_stays_known_while_prometheus_does_not_answer() -> None:
    slow, past = build()
    past.recall("gpu", MODELS, NOW, 60.0)
    await settle()
    slow.fails = True
    past.recall("gpu", MODELS, NOW + ASK_SECONDS, 60.0)
    await settle()
    assert len(slow.asked) == 2
    assert number(past.recall("gpu", MODELS, NOW + ASK_SECONDS + 15.0, 60.0)) == 1


async def test_a_pool_that_is_gone_is_forgotten_with_the_answer_that_is_on_its_way() -> None:
    slow, past = build()
    slow.gate.clear()
    past.recall("gpu", MODELS, NOW, 60.0)
    await settle()
    past.keep(["other"])
    slow.gate.set()
    await settle()
    slow.gate.clear()
    assert past.recall("gpu", MODELS, NOW + 15.0, 60.0) is None


async def test_a_pool_without_models_asks_nothing() -> None:
    slow, past = build()
    assert past.recall("gpu", [], NOW, 0.0) is None
    await settle()
    assert slow.asked == []


class Remembering:
    """A Prometheus with samples for ever: every bin that is asked for is there."""

    async def read(self, queries: Sequence[Query]) -> Answers:
        answers: dict[Query, Answer] = {}
        for query in queries:
            span, end = query.expression.rsplit(")[", 1)[1].split(":60000ms] @ ")
            bins = int(span.removesuffix("ms")) // 60_000
            ends = (float(end) - 60.0 * late for late in range(bins))
            answers[query] = Rows({}, series={MODEL: tuple((at, 1.0) for at in ends)})
        return answers


async def test_one_answer_has_all_bins_that_are_used_until_the_next_one() -> None:
    past = PastArrivals(Remembering(), Windows(15.0), DAY)
    for horizon in (0.0, 75.0, 615.0, 1e9):
        past.keep([])
        past.recall("gpu", MODELS, NOW + 7.0, horizon)
        await settle()
        for second in (7.0, 60.0, 61.0, 299.0):
            now = NOW + second
            known = past.recall("gpu", MODELS, now, horizon)
            assert known is not None
            season = read_season(known, MODEL, now, horizon, Windows(15.0), lambda _: True)
            assert season is not None
            assert all(value == 1.0 for bins in season.periods for value in bins)
