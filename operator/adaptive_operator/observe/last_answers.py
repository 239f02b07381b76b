"""Prometheus' answers for a pass that may be in a hurry: those of the last read, when the present one takes too long.

Knows who reads, how long a hurried pass waits, and which answers are ages; not what the others mean.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from adaptive_operator.observe.prometheus import Answer, Answers, Rows
from adaptive_operator.observe.queries import Query, QueryName

PATIENCE_SECONDS: Final = 0.3  # of a hurried pass: an answer usually takes a few milliseconds
REUSED_SECONDS: Final = 30.0  # older answers are not used again: two periods, or the load is another one by then
_AGES: Final = frozenset({QueryName.ROUTER_AGE, QueryName.POD_WORK_AGE})  # seconds, as they were when it was asked


class Reader(Protocol):
    """Who asks Prometheus; never raises, and ends within a time limit of its own."""

    def read(self, queries: Sequence[Query]) -> Awaitable[Answers]: ...


@dataclass(slots=True)
class LastAnswers:
    """The reads of all pools. `hurry` is set while somebody waits for what the pass has to say."""

    reader: Reader
    hurry: asyncio.Event
    monotonic: Callable[[], float] = time.monotonic
    _reads: dict[str, asyncio.Task[Answers]] = field(default_factory=dict)  # by pool, under way or ended
    _last: dict[str, tuple[float, Answers]] = field(default_factory=dict)  # by pool: when it was asked, and what came

    async def read(self, pool: str, queries: Sequence[Query]) -> Answers:
        """Answers to all queries; in a hurry those of the last read, with ages as of now, if they answer the same."""
        read = self._begin(pool, tuple(queries))
        hurried = asyncio.create_task(self.hurry.wait())
        try:
            await asyncio.wait({read, hurried}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurried.cancel()
        if not read.done():
            await asyncio.wait({read}, timeout=PATIENCE_SECONDS)
        last = None if read.done() else self._reusable(pool, queries)
        return await asyncio.shield(read) if last is None else last

    def _begin(self, pool: str, queries: tuple[Query, ...]) -> asyncio.Task[Answers]:
        """A new read, or the one under way that a hurried pass left behind: Prometheus is not asked twice at a time."""
        under_way = self._reads.get(pool)
        if under_way is None or under_way.done() or under_way.get_name() != _name_of(queries):
            self._reads[pool] = asyncio.create_task(self._ask(pool, queries), name=_name_of(queries))
        return self._reads[pool]

    async def _ask(self, pool: str, queries: tuple[Query, ...]) -> Answers:
        asked_at = self.monotonic()
        answers = await self.reader.read(queries)
        self._last[pool] = (asked_at, answers)
        return answers

    def _reusable(self, pool: str, queries: Sequence[Query]) -> Answers | None:
        asked_at, answers = self._last.get(pool, (0.0, {}))
        asked = {(query.name, query.hold_seconds) for query in answers}
        is_same = all((query.name, query.hold_seconds) in asked for query in queries)
        seconds = self.monotonic() - asked_at
        return _aged(answers, seconds) if is_same and seconds <= REUSED_SECONDS else None


def _aged(answers: Answers, seconds: float) -> Answers:
    """The same answers, `seconds` later."""
    return {query: _older(answer, seconds) if query.name in _AGES else answer for query, answer in answers.items()}


def _older(answer: Answer, seconds: float) -> Answer:
    if not isinstance(answer, Rows):
        return answer
    return replace(answer, values={key: age + seconds for key, age in answer.values.items()})


def _name_of(queries: tuple[Query, ...]) -> str:
    return f"prometheus {hash(queries)}"
