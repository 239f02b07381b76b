"""A Prometheus that cannot be reached."""

from __future__ import annotations

from collections.abc import Sequence

from adaptive_operator.observe.prometheus import Answers, Failed
from adaptive_operator.observe.queries import Query


class NoPrometheus:
    """Each query fails."""

    async def read(self, queries: Sequence[Query]) -> Answers:
        """The answers, none of which is one."""
        return dict.fromkeys(queries, Failed("no connection to Prometheus"))
