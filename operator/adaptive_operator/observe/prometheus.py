"""Asks Prometheus, through prometheus-api-client, in a thread of its own and within a time limit.

Turns whatever comes back into rows or the cause of their absence; never raises. Knows neither what a query means nor
which values make sense: `readings.py` does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import requests
import urllib3
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from adaptive_operator.observe.queries import Query

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_CHUNK_BYTES: Final = 64 * 1024

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """The answer to one query: values by the query's labels, and the keys that came more than once.

    `series`: of a subquery, (Unix seconds, value) pairs in their order.
    """

    values: Mapping[Key, float]
    duplicates: frozenset[Key] = frozenset()
    series: Mapping[Key, tuple[tuple[float, float], ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer to one query. The cause is stable text: it goes into a condition."""

    cause: str


Answer = Rows | Failed
Answers = Mapping[Query, Answer]


class AnswerTooLargeError(requests.RequestException):
    """The body passed MAX_ANSWER_BYTES."""


class BoundedSession(requests.Session):
    """A session whose answers end: in time (`seconds`, the whole body included) and in size. No redirects."""

    def __init__(self, seconds: float, token_file: Path | None = None) -> None:
        super().__init__()
        self.max_redirects = 0
        self.headers["Accept-Encoding"] = "identity"
        self._seconds = seconds
        self._token_file = token_file

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send, and read the body bit by bit: a slow drip resets a socket's timeout for ever, but not this limit."""
        deadline = time.monotonic() + self._seconds
        if self._token_file is not None:
            # Read each time: projected tokens are renewed in place.
            request.headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
        kwargs |= {"stream": True, "timeout": self._seconds}
        response = super().send(request, **kwargs)
        body = bytearray()
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                response.close()
                raise AnswerTooLargeError(f"more than {MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > deadline:
                response.close()
                raise requests.ReadTimeout(f"longer than {self._seconds:g} s")
        response._content = bytes(body)
        return response


class PrometheusReader:
    """Reads a set of queries at a time. One thread: a Prometheus that hangs can hold one thread and no more."""

    def __init__(
        self, url: str, request_timeout_seconds: float, read_timeout_seconds: float, token_file: Path | None = None
    ) -> None:
        self._url = url.rstrip("/")
        self._read_timeout_seconds = read_timeout_seconds
        session = BoundedSession(request_timeout_seconds, token_file)
        # No retries: the next pass asks anew.
        self._connection = PrometheusConnect(url=self._url, session=session, retry=Retry(total=0), method="POST")
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prometheus")

    def close(self) -> None:
        """Drop the connection; a request in flight ends by its own time limit."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._connection.close()

    async def read(self, queries: Sequence[Query]) -> Answers:
        """Answers by query, within the time limit."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, self._ask_all, tuple(queries))
        try:
            return await asyncio.wait_for(future, self._read_timeout_seconds)
        except TimeoutError:
            failed = Failed(f"Prometheus at {self._url} did not answer within {self._read_timeout_seconds:g} s")
            return dict.fromkeys(queries, failed)

    def _ask_all(self, queries: Sequence[Query]) -> Answers:
        """Ask one after the other; when Prometheus is gone, the first failure answers for the rest."""
        answers: dict[Query, Answer] = {}
        gone: Failed | None = None
        for query in queries:
            if gone is None:
                answers[query], gone = self._ask(query)
            else:
                answers[query] = gone
        return answers

    def _ask(self, query: Query) -> tuple[Answer, Failed | None]:
        """The answer, and the failure to assume for all others when Prometheus itself is the cause."""
        try:
            return parse_rows(self._connection.custom_query(query.expression), query.labels), None
        except AnswerTooLargeError:
            return Failed(f"the answer is larger than {MAX_ANSWER_BYTES // 2**20} MiB"), None
        except PrometheusApiClientException as error:
            return Failed(f"Prometheus refused the query: {_shorten(str(error))}"), None
        except (requests.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            return Failed(f"unexpected answer from Prometheus: {type(error).__name__}"), None
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            failed = Failed(f"Prometheus at {self._url} answers too slowly")
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            failed = Failed(f"no connection to Prometheus at {self._url}: {type(error).__name__}")
        return failed, failed


def parse_rows(result: Any, labels: Sequence[str]) -> Rows:
    """Rows of an instant vector, or of a matrix. Raises KeyError, TypeError or ValueError when it is neither.

    A series without one of the labels is keyed by "": it belongs to no model and is never looked up.
    """
    if not isinstance(result, list):
        raise TypeError("not a vector")
    values: dict[Key, float] = {}
    many: dict[Key, tuple[tuple[float, float], ...]] = {}
    duplicates: set[Key] = set()
    for series in result:
        key = tuple(str(series["metric"].get(label, "")) for label in labels)
        if key in values or key in many:
            duplicates.add(key)
        if "values" in series:
            many[key] = tuple((float(at), float(value)) for at, value in series["values"])
        else:
            values[key] = float(series["value"][1])
    return Rows(values, frozenset(duplicates), many)


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else text[:199] + "…"
