"""What earlier periods had around this time of theirs: asked beside the passes, every five minutes for each pool.

No pass waits for it. The past does not change, so an answer serves until the bins are over that were asked for; until
there is one, and while Prometheus does not answer, there is no season.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from adaptive_operator.observe.last_answers import Reader
from adaptive_operator.observe.prometheus import Failed
from adaptive_operator.observe.queries import ModelScope, Query, Windows, build_past_queries
from adaptive_operator.observe.season import MOST_AHEAD_SECONDS, Past, bins_between, compared_seconds

_LOG = logging.getLogger(__name__)
ASK_SECONDS: Final = 300.0


@dataclass(slots=True)
class PastArrivals:
    """The past of all pools. `reader` is not the passes' own: a long answer must not delay theirs."""

    reader: Reader
    windows: Windows
    period_seconds: float
    _known: dict[str, Past] = field(default_factory=dict)  # by pool
    _asked: dict[str, float] = field(default_factory=dict)  # by pool: the five minutes that it was last asked in
    _reads: dict[str, asyncio.Task[None]] = field(default_factory=dict)  # by pool, under way or ended

    def recall(self, pool: str, models: Sequence[ModelScope], now: float, ahead_seconds: float) -> Past | None:
        """What is known of a pool; begins to ask when that is due. `ahead_seconds`: its longest horizon."""
        turn = math.floor(now / ASK_SECONDS) * ASK_SECONDS
        read = self._reads.get(pool)
        if models and self._asked.get(pool) != turn and (read is None or read.done()):
            self._asked[pool] = turn
            queries = self._build(models, turn, ahead_seconds)
            self._reads[pool] = asyncio.create_task(self._ask(pool, queries), name=f"past of {pool}")
        return self._known.get(pool)

    def keep(self, pools: Collection[str]) -> None:
        """Forget all other pools."""
        for remembered in (self._known, self._asked, self._reads):
            for pool in remembered.keys() - set(pools):
                del remembered[pool]

    def _build(self, models: Sequence[ModelScope], turn: float, ahead_seconds: float) -> tuple[Query, ...]:
        """For all bins that are used until the next turn."""
        ahead = min(ahead_seconds, MOST_AHEAD_SECONDS)
        step = self.windows.season_bin_seconds
        begin, _ = bins_between(turn, compared_seconds(self.windows), 0.0, step)
        _, end = bins_between(turn + ASK_SECONDS, 0.0, ahead, step)
        return build_past_queries(models, self.windows, begin, end, self.period_seconds)

    async def _ask(self, pool: str, queries: tuple[Query, ...]) -> None:
        answers = await self.reader.read(queries)
        past = tuple(answers[query] for query in queries)
        failed = next((answer for answer in past if isinstance(answer, Failed)), None)
        if failed is not None:
            _LOG.info("earlier periods of pool %s are not known: %s", pool, failed.cause)
            return
        if pool in self._asked:
            self._known[pool] = Past(past, self.period_seconds)
