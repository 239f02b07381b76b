"""Frames followed beside the stream, however the bytes are cut."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.router.dialect import Dialect
from inference_pods.router.sse import MAX_HELD_BYTES, FrameWatch

TGI_LAST = {"generated_text": "abc", "details": {"generated_tokens": 3, "finish_reason": "length"}, "index": 3}


def data(document) -> bytes:
    return b"data: " + (document if isinstance(document, bytes) else json.dumps(document).encode()) + b"\n\n"


def tgi_stream() -> bytes:
    token = {"index": 1, "token": {"text": "é\u2028x"}, "generated_text": None, "details": None}
    return data(token) + b": comment\n\n" + data(token | {"token": {"text": '"error"'}}) + data(TGI_LAST)


def chat(delta, finish=None, **fields):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]} | fields


def openai_stream(usage: bool) -> bytes:
    chunks = [chat({"role": "assistant", "content": ""}), *[chat({"content": "a"})] * 3, chat({}, "length")]
    if usage:
        chunks.append({"choices": [], "usage": {"completion_tokens": 3}})
    return b"".join(map(data, chunks)) + data(b"[DONE]")


def pieces(whole: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    return [whole[start:end] for start, end in pairwise(borders)]


@pytest.mark.parametrize(
    ("dialect", "whole"),
    [(Dialect.TGI, tgi_stream()), (Dialect.OPENAI, openai_stream(False)), (Dialect.OPENAI, openai_stream(True))],
    ids=["tgi", "openai", "openai with usage"],
)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=60))
def test_any_cutting_gives_the_same_bytes_tokens_and_end(dialect, whole, cuts):
    watch = FrameWatch(dialect)
    forwarded = b"".join(watch.feed(piece) for piece in pieces(whole, cuts))
    assert forwarded + watch.finish() == whole
    assert watch.is_complete()
    assert watch.token_count() == 3
    assert watch.error is None


@given(cut=st.integers(0, 10_000))
def test_a_stream_cut_anywhere_before_its_end_is_incomplete_and_half_a_frame_is_never_sent(cut):
    for dialect, whole in ((Dialect.TGI, tgi_stream()), (Dialect.OPENAI, openai_stream(True))):
        watch = FrameWatch(dialect)
        forwarded = watch.feed(whole[: cut % (len(whole) - 3)])
        assert forwarded == b"" or forwarded.endswith(b"\n\n")
        watch.finish()
        assert not watch.is_complete()


def test_a_last_frame_without_its_blank_line_is_closed():
    watch = FrameWatch(Dialect.TGI)
    assert watch.feed(data(TGI_LAST)[:-2]) == b""
    assert watch.finish() == data(TGI_LAST)
    assert watch.is_complete()


def test_frames_with_carriage_returns_are_passed_unchanged():
    watch = FrameWatch(Dialect.OPENAI)
    whole = b"data: {}\r\n\r\ndata: [DONE]\r\n\r\n"
    assert watch.feed(whole) == whole
    assert watch.is_complete()


@pytest.mark.parametrize(
    ("dialect", "error", "status"),
    [
        (Dialect.TGI, {"error": "full", "error_type": "overloaded"}, 429),
        (Dialect.TGI, {"error": "bad", "error_type": "validation"}, 422),
        (Dialect.TGI, {"error": "?", "error_type": "new"}, 500),
        (Dialect.OPENAI, {"error": {"message": "m", "code": "overloaded"}}, 429),
        (Dialect.OPENAI, {"error": {"message": "m", "code": 400}}, 400),
        (Dialect.OPENAI, {"error": {"message": "m", "http_status_code": 422}}, 422),
        (Dialect.OPENAI, {"error": {"message": "m", "type": "invalid_request_error"}}, 400),
        (Dialect.OPENAI, {"error": {"message": "m"}}, 500),
    ],
)
def test_an_error_frame_is_seen_with_the_status_that_it_means(dialect, error, status):
    watch = FrameWatch(dialect)
    watch.feed(data(error))
    assert watch.error is not None
    assert watch.error.status == status
    assert json.loads(watch.error.body) == error
    assert watch.is_complete()


def test_a_frame_that_never_ends_is_passed_on_rather_than_kept():
    watch = FrameWatch(Dialect.TGI)
    forwarded = sum(len(watch.feed(b"x" * 65536)) for _ in range(40))
    assert forwarded >= 40 * 65536 - MAX_HELD_BYTES - 65536


def test_a_frame_that_only_names_the_role_is_not_a_token_yet(tools):
    chat = FrameWatch(Dialect.OPENAI)
    assert not chat.has_token()
    chat.feed(tools.openai_frame("", role="assistant"))
    assert not chat.has_token()
    chat.feed(tools.openai_frame("a"))
    assert chat.has_token()
    plain = FrameWatch(Dialect.TGI)
    plain.feed(tools.tgi_frame(1))
    assert plain.has_token()
