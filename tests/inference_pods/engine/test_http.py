"""Both API families over HTTP with a scripted model: bodies, errors, streams, cancellation, overload, draining."""

import asyncio
import io
import json
import socket

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from inference_pods.engine.emulated.curve import Curve
from inference_pods.engine.emulated.runner import EmulatedRunner
from inference_pods.engine.generation import Generation
from inference_pods.engine.sampler import Sampler
from inference_pods.engine.service import Phase
from tests.inference_pods.engine.conftest import VOCABULARY

TGI = "/generate"
CHAT = "/v1/chat/completions"


@pytest.fixture(params=["scripted", "emulated"])
def any_runner(request, scripted_runner):
    """The scripted runner, and an emulated one that says the same."""
    if request.param == "scripted":
        return scripted_runner
    return EmulatedRunner([Curve(100, 10, 10)], scripted_runner.reply, VOCABULARY)


def generate_body(**parameters):
    return {"inputs": "Hello there", "parameters": {"max_new_tokens": 4, **parameters}}


def chat_body(**fields):
    return {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 4, **fields}


async def post(http, url, body):
    data = io.BytesIO((body if isinstance(body, str) else json.dumps(body)).encode())
    async with http.post(url, data=data) as response:
        return response.status, json.loads(await response.text()), response.headers


async def post_frames(http, url, body):
    """Status and the payloads of all SSE frames, format checked."""
    async with http.post(url, json=body) as response:
        raw = await response.read()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert raw.endswith(b"\n\n")
        lines = raw.decode().removesuffix("\n\n").split("\n\n")
        assert all(line.startswith("data: ") and "\n" not in line for line in lines)
        payloads = [line.removeprefix("data: ") for line in lines]
        return response.status, [p if p == "[DONE]" else json.loads(p) for p in payloads]


async def test_generate_answers_with_text_details_and_counts(serve, any_runner, http):
    engine = await serve(any_runner)
    status, answer, headers = await post(http, engine.url + TGI, generate_body(details=True, top_n_tokens=2))
    assert (status, answer["generated_text"]) == (200, "abcd")
    details = answer["details"]
    assert (details["finish_reason"], details["generated_tokens"], details["seed"]) == ("length", 4, None)
    assert [token["text"] for token in details["tokens"]] == ["a", "b", "c", "d"]
    assert [len(tokens) for tokens in details["top_tokens"]] == [2, 2, 2, 2]
    assert headers["x-generated-tokens"] == "4"
    assert int(headers["x-prompt-tokens"]) > 1


async def test_root_answers_a_list_and_repeats_the_prompt_unless_told_not_to(serve, any_runner, http):
    engine = await serve(any_runner)
    _, answer, _ = await post(http, engine.url + "/", generate_body())
    assert answer == [{"generated_text": "Hello thereabcd"}]
    _, answer, _ = await post(http, engine.url + "/", generate_body(return_full_text=False))
    assert answer == [{"generated_text": "abcd"}]


@pytest.mark.parametrize(("path", "extra"), [("/generate_stream", {}), ("/", {"stream": True})])
async def test_a_tgi_stream_ends_with_text_and_details_and_no_done(serve, any_runner, http, path, extra):
    engine = await serve(any_runner)
    body = generate_body(return_full_text=False, seed=3, temperature=0.01) | extra
    status, frames = await post_frames(http, engine.url + path, body)
    assert status == 200
    assert [frame["index"] for frame in frames] == [1, 2, 3, 4]
    assert [frame["generated_text"] for frame in frames] == [None, None, None, "abcd"]
    assert frames[-1]["details"] == {"finish_reason": "length", "generated_tokens": 4, "seed": 3, "input_length": 2}


async def test_a_chat_stream_has_role_deltas_finish_usage_and_done(serve, any_runner, http):
    engine = await serve(any_runner)
    body = chat_body(stream=True, stream_options={"include_usage": True})
    _, frames = await post_frames(http, engine.url + CHAT, body)
    assert frames[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [frame["choices"][0]["delta"].get("content") for frame in frames[1:5]] == ["a", "b", "c", "d"]
    assert frames[5]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    assert frames[6]["choices"] == []
    assert frames[6]["usage"]["completion_tokens"] == 4
    assert frames[7] == "[DONE]"
    assert len({frame["id"] for frame in frames[:-1]}) == 1


async def test_openai_cuts_the_stop_string_and_tgi_keeps_it(serve, any_runner, http):
    engine = await serve(any_runner)
    _, answer, _ = await post(http, engine.url + CHAT, chat_body(max_tokens=20, stop="cd"))
    assert answer["choices"][0]["message"]["content"] == "ab"
    assert answer["choices"][0]["finish_reason"] == "stop"
    _, frames = await post_frames(http, engine.url + CHAT, chat_body(max_tokens=20, stop=["cd"], stream=True))
    assert "".join(f["choices"][0]["delta"].get("content", "") for f in frames[:-1]) == "ab"
    _, answer, _ = await post(http, engine.url + TGI, generate_body(max_new_tokens=20, stop=["cd"], details=True))
    assert (answer["generated_text"], answer["details"]["finish_reason"]) == ("abcd", "stop_sequence")


@pytest.mark.parametrize(("stop", "tokens"), [("cd", ["a", "b"]), ("zz", ["a", "b", "c", "d"])])
async def test_openai_lists_the_tokens_of_the_text_that_it_shows(serve, scripted_runner, http, stop, tokens):
    engine = await serve(scripted_runner)
    wishes = chat_body(stop=stop, logprobs=True, top_logprobs=1)
    _, whole, _ = await post(http, engine.url + CHAT, wishes)
    assert [entry["token"] for entry in whole["choices"][0]["logprobs"]["content"]] == tokens
    assert whole["usage"]["completion_tokens"] == 4
    _, frames = await post_frames(http, engine.url + CHAT, {**wishes, "stream": True})
    listed = [f["choices"][0]["logprobs"] for f in frames[:-1]]
    assert [entry["token"] for one in listed if one for entry in one["content"]] == tokens

    wishes = {"prompt": "Hello", "max_tokens": 4, "temperature": 0, "stop": stop, "logprobs": 1}
    _, whole, _ = await post(http, engine.url + "/v1/completions", wishes)
    logprobs = whole["choices"][0]["logprobs"]
    assert logprobs["tokens"] == tokens
    assert logprobs["text_offset"] == list(range(len(tokens)))
    assert len(logprobs["token_logprobs"]) == len(logprobs["top_logprobs"]) == len(tokens)
    _, frames = await post_frames(http, engine.url + "/v1/completions", {**wishes, "stream": True})
    listed = [f["choices"][0]["logprobs"] for f in frames[:-1]]
    assert [token for one in listed if one for token in one["tokens"]] == tokens


async def test_plain_completions_take_text_or_tokens_and_give_logprobs(serve, any_runner, http, tokenizer):
    engine = await serve(any_runner)
    for prompt in ("Hello", ["Hello"], tokenizer.encode("Hello")):
        body = {"prompt": prompt, "max_tokens": 2, "temperature": 0, "logprobs": 1}
        status, answer, _ = await post(http, engine.url + "/v1/completions", body)
        assert status == 200
        choice = answer["choices"][0]
        assert (choice["text"], choice["logprobs"]["tokens"]) == ("ab", ["a", "b"])
        assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 2


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": 0}, "temperature"),
        ({"top_p": 1.0}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"top_n_tokens": 6}, "top_n_tokens"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 9, "temperature": 2.0}, "best_of"),
        ({"watermark": True}, "watermark"),
        ({"decoder_input_details": True}, "decoder_input_details"),
        ({"grammar": {"type": "regex", "value": "a"}}, "grammar"),
        ({"max_new_tokens": 5000}, "max_new_tokens"),
    ],
)
async def test_what_tgi_refuses_names_the_field_as_body_or_first_frame(serve, any_runner, http, parameters, field):
    engine = await serve(any_runner)
    status, answer, _ = await post(http, engine.url + TGI, generate_body(**parameters))
    assert (status, answer["error_type"]) == (422, "validation")
    assert field in answer["error"]
    status, frames = await post_frames(http, engine.url + "/generate_stream", generate_body(**parameters))
    assert (status, len(frames), frames[0]["error_type"]) == (200, 1, "validation")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages"),
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 100000}, "`messages` tokens + `max_tokens` must be <="),
        ({"max_completion_tokens": 100000}, "`max_completion_tokens`"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs: true"),
    ],
)
async def test_what_openai_routes_refuse_names_the_field_in_their_dialect(serve, any_runner, http, fields, field):
    engine = await serve(any_runner)
    for stream in (False, True):
        status, answer, _ = await post(http, engine.url + CHAT, chat_body(**fields, stream=stream))
        assert status == 422
        assert answer["error"]["type"] == "invalid_request_error"
        assert field in answer["error"]["message"]


async def test_an_input_that_is_too_long_names_the_limit_and_can_be_truncated(serve, any_runner, http):
    engine = await serve(any_runner, total_tokens=32, blocks=4)
    body = {"inputs": "word " * 60, "parameters": {"max_new_tokens": 2}}
    status, answer, _ = await post(http, engine.url + TGI, body)
    assert status == 422
    assert "32 tokens" in answer["error"]
    body["parameters"]["truncate"] = 8
    status, _, headers = await post(http, engine.url + TGI, body)
    assert (status, headers["x-prompt-tokens"]) == (200, "8")


@pytest.mark.parametrize("path", [TGI, "/v1/completions"])
async def test_a_request_that_the_kv_cache_could_never_hold_is_refused(serve, any_runner, http, path):
    """4 blocks of 16 tokens; the limit of a request says 1024."""
    engine = await serve(any_runner, total_tokens=1024, blocks=4)
    body = {"inputs": "word " * 70, "parameters": {"max_new_tokens": 2}, "prompt": "word " * 70, "max_tokens": 2}
    assert (await post(http, engine.url + path, body))[0] == 422
    body = {"inputs": "word", "parameters": {"max_new_tokens": 64}, "prompt": "word", "max_tokens": 64}
    status, answer, _ = await post(http, engine.url + path, body)
    assert status == 422
    assert "<= 64" in json.dumps(answer)


async def test_requests_that_the_kv_cache_cannot_hold_together_give_way_and_all_finish(serve, scripted_runner, http):
    """4 blocks of 16 tokens; each of three requests comes to 2 + 46 tokens."""
    engine = await serve(scripted_runner, total_tokens=64, blocks=4)
    scripted_runner.gate.clear()
    asked = [asyncio.create_task(post(http, engine.url + TGI, generate_body(max_new_tokens=46))) for _ in range(3)]
    await engine.wait_for(lambda: engine.service.live_requests == 3)
    scripted_runner.gate.set()
    answers = await asyncio.gather(*asked)
    text = "abcdefghijklmnopqrstuvwxyz" * 2
    assert [answer["generated_text"] for _, answer, _ in answers] == [text[:46]] * 3
    scheduler = engine.service.engine.scheduler
    assert scheduler.stats.preemptions >= 1
    scheduler.check_integrity()
    assert scheduler.blocks.used_blocks == 0


@pytest.mark.parametrize("raw", ["", "{", "[]", '{"inputs": 3}', "\x00"])
async def test_a_broken_body_gets_json_in_both_dialects_without_echoing_it(serve, scripted_runner, http, raw):
    engine = await serve(scripted_runner)
    status, answer, _ = await post(http, engine.url + TGI, raw)
    assert (status, answer["error_type"]) == (422, "validation")
    status, answer, _ = await post(http, engine.url + CHAT, raw)
    assert (status, answer["error"]["code"]) == (422, "validation")


async def test_unknown_routes_methods_and_huge_bodies_get_json_too(serve, scripted_runner, http):
    engine = await serve(scripted_runner)
    async with http.get(engine.url + "/no/such") as response:
        assert (response.status, (await response.json())["error_type"]) == (404, "not_found")
    async with http.get(engine.url + CHAT) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (405, "method_not_allowed")
    status, answer, _ = await post(http, engine.url + TGI, {"inputs": "a" * (2 * 1024 * 1024)})
    assert status == 413
    assert "2097152 bytes" in answer["error"]


async def test_tokenize_gives_ids_and_places(serve, scripted_runner, http):
    engine = await serve(scripted_runner)
    _, answer, _ = await post(http, engine.url + "/tokenize", {"inputs": "The capital"})
    assert [(piece["text"], piece["start"], piece["stop"]) for piece in answer] == [("The", 0, 3), (" capital", 3, 11)]


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/", CHAT])
async def test_a_client_that_goes_away_leaves_the_batch_within_one_step(serve, scripted_runner, http, path):
    engine = await serve(scripted_runner, batch=1)
    scripted_runner.gate.clear()
    body = chat_body(max_tokens=500, stream=True) if path == CHAT else generate_body(max_new_tokens=500)
    client = asyncio.create_task(post(http, engine.url + path, body))
    await engine.wait_for(lambda: engine.service.engine.scheduler.running)
    client.cancel()
    await engine.wait_for(lambda: engine.service.live_requests == 0)
    steps = len(scripted_runner.steps)
    scripted_runner.gate.set()
    await engine.wait_for(lambda: engine.service.engine.scheduler.is_idle)
    assert len(scripted_runner.steps) <= steps + 2  # the step in progress, and at most one that had begun
    assert engine.service.engine.scheduler.blocks.used_blocks == 0


async def test_a_full_line_is_refused_at_once_with_retry_after(serve, scripted_runner, http):
    engine = await serve(scripted_runner, batch=1, waiting=1)
    scripted_runner.gate.clear()
    accepted = [asyncio.create_task(post(http, engine.url + TGI, generate_body())) for _ in range(2)]
    await engine.wait_for(lambda: engine.service.live_requests == 2)
    status, answer, headers = await post(http, engine.url + TGI, generate_body())
    assert (status, answer["error_type"]) == (429, "overloaded")
    assert 1 <= int(headers["Retry-After"]) <= 60
    status, answer, headers = await post(http, engine.url + "/generate_stream", generate_body())
    assert (status, answer["error_type"]) == (429, "overloaded")
    assert "Retry-After" in headers
    status, answer, headers = await post(http, engine.url + CHAT, chat_body(stream=True))
    assert (status, answer["error"]["type"]) == (429, "rate_limit_error")
    assert "Retry-After" in headers
    scripted_runner.gate.set()
    assert [(await task)[0] for task in accepted] == [200, 200]


async def test_while_stopping_new_requests_are_refused_and_running_ones_finish(serve, scripted_runner, http):
    engine = await serve(scripted_runner)
    scripted_runner.gate.clear()
    running = asyncio.create_task(post(http, engine.url + TGI, generate_body()))
    await engine.wait_for(lambda: engine.service.live_requests == 1)
    engine.service.phase = Phase.STOPPING
    for path in (TGI, "/generate_stream", "/"):
        status, answer, headers = await post(http, engine.url + path, generate_body())
        assert (status, answer["error_type"]) == (503, "unhealthy")
        assert "Retry-After" in headers
    status, answer, _ = await post(http, engine.url + CHAT, chat_body(stream=True))
    assert (status, answer["error"]["type"]) == (503, "service_unavailable_error")
    assert not await engine.service.wait_idle(0.02)
    scripted_runner.gate.set()
    assert (await running)[1]["generated_text"] == "abcd"
    assert await engine.service.wait_idle(1.0)


@pytest.mark.parametrize(
    ("phase", "status"), [(Phase.LOADING, 503), (Phase.READY, 200), (Phase.STOPPING, 503)], ids=lambda value: str(value)
)
async def test_health_is_good_only_when_ready(serve, any_runner, http, phase, status):
    engine = await serve(any_runner, phase=phase)
    async with http.get(engine.url + "/ping") as response:
        assert response.status == 200, "liveness must not end a replica that loads or drains"
    for path in ("/health", "/"):
        async with http.get(engine.url + path) as response:
            assert response.status == status
            if status == 503:
                assert (await response.json())["error_type"] == "healthcheck"


async def test_readiness_is_proved_by_a_token(serve, scripted_runner):
    engine = await serve(scripted_runner, phase=Phase.LOADING)
    await engine.service.prove()
    assert len(scripted_runner.steps) == 1
    assert engine.service.live_requests == 0


async def test_a_failing_model_is_an_error_of_the_request_in_each_dialect(serve, scripted_runner, http):
    engine = await serve(scripted_runner)
    scripted_runner.fail = True
    status, answer, _ = await post(http, engine.url + TGI, generate_body())
    assert (status, answer["error_type"]) == (424, "generation")
    _, frames = await post_frames(http, engine.url + "/generate_stream", generate_body())
    assert frames[-1]["error_type"] == "generation"
    _, frames = await post_frames(http, engine.url + CHAT, chat_body(stream=True))
    assert frames[-2]["error"]["code"] == "generation"
    assert frames[-1] == "[DONE]"
    scripted_runner.fail = False
    assert (await post(http, engine.url + TGI, generate_body()))[0] == 200


async def test_an_engine_whose_loop_ended_fails_its_requests_and_asks_for_a_restart(
    serve, scripted_runner, http, monkeypatch, caplog
):
    engine = await serve(scripted_runner)
    scripted_runner.gate.clear()
    running = asyncio.create_task(post(http, engine.url + TGI, generate_body()))
    await engine.wait_for(lambda: engine.service.engine.scheduler.running)
    monkeypatch.setattr(engine.service.engine.scheduler, "commit", lambda plan: plan[99])
    scripted_runner.gate.set()
    assert (await running)[0] == 503
    assert (await post(http, engine.url + TGI, generate_body()))[0] == 503
    for path in ("/ping", "/health"):
        async with http.get(engine.url + path) as response:
            assert response.status == 503
    assert "ended by an error" in caplog.text


async def test_metrics_exist_at_zero_and_count(serve, any_runner, http):
    engine = await serve(any_runner)
    labels = '{model="smol",tier="full"}'

    async def value(name):
        async with http.get(engine.url + "/metrics") as response:
            lines = (await response.text()).splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(name + labels)))

    names = ("running", "waiting", "kv_blocks_used", "prompt_tokens_total", "generated_tokens_total", "load_seconds")
    assert [await value(f"adaptive_engine_{name}") for name in (*names, "step_seconds_count")] == [0.0] * 7
    assert await value("adaptive_engine_kv_blocks_total") == 128
    await post(http, engine.url + TGI, generate_body())
    assert await value("adaptive_engine_generated_tokens_total") == 4
    assert await value("adaptive_engine_prompt_tokens_total") == 2
    assert await value("adaptive_engine_step_seconds_count") == 4


async def read_by_label(http, engine, name, label):
    """Values of a metric by one of its labels."""
    async with http.get(engine.url + "/metrics") as response:
        families = text_string_to_metric_families(await response.text())
    return {
        sample.labels[label]: sample.value for family in families for sample in family.samples if sample.name == name
    }


async def test_requests_and_tokens_are_counted_by_level_from_zero_on(serve, scripted_runner, http):
    engine = await serve(scripted_runner, levels=("int8", "int4"))
    requests, tokens = "adaptive_engine_level_requests_total", "adaptive_engine_level_generated_tokens_total"
    assert await read_by_label(http, engine, requests, "level") == {"int8": 0, "int4": 0}
    for level in ("int4", "int8", "int4"):
        async with http.post(engine.url + TGI, json=generate_body(), headers={"x-level": level}) as response:
            assert response.status == 200
    assert await read_by_label(http, engine, requests, "level") == {"int8": 1, "int4": 2}
    assert await read_by_label(http, engine, tokens, "level") == {"int8": 4, "int4": 8}


async def test_info_and_metrics_name_the_same_kernels(serve, scripted_runner, http):
    engine = await serve(scripted_runner)
    async with http.get(engine.url + "/info") as response:
        said = (await response.json())["kernels"]
    assert await read_by_label(http, engine, "adaptive_engine_kernels_info", "kernels") == {said: 1}


async def test_prompts_never_reach_the_log(serve, scripted_runner, http, caplog):
    caplog.set_level("DEBUG")
    engine = await serve(scripted_runner)
    scripted_runner.fail = True
    secret = "xylophone-4711"
    await post(http, engine.url + TGI, {"inputs": secret, "parameters": {"max_new_tokens": 99999}})
    await post(http, engine.url + TGI, {"inputs": secret})
    await post(http, engine.url + CHAT, {"messages": [{"role": secret, "content": None}]})
    assert secret not in caplog.text


async def test_n_choices_come_whole_and_streamed_with_their_index(serve, any_runner, http):
    engine = await serve(any_runner)
    status, answer, _ = await post(http, engine.url + CHAT, chat_body(n=3, logprobs=True))
    assert status == 200
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in answer["choices"]] == [
        (index, "abcd", "length") for index in range(3)
    ]
    assert answer["usage"] == {"prompt_tokens": answer["usage"]["prompt_tokens"], "completion_tokens": 12} | {
        "total_tokens": answer["usage"]["prompt_tokens"] + 12
    }
    body = chat_body(n=3, stream=True, stop="c", max_tokens=9, stream_options={"include_usage": True})
    _, frames = await post_frames(http, engine.url + CHAT, body)
    texts, ends = {}, []
    for chunk in frames[:-2]:
        (choice,) = chunk["choices"]
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["delta"].get("content", "")
        ends += [choice["index"]] * (choice["finish_reason"] == "stop")
    assert texts == {0: "ab", 1: "ab", 2: "ab"}
    assert sorted(ends) == [0, 1, 2]
    assert frames[-2]["usage"]["completion_tokens"] == 9
    assert engine.service.live_requests == 0


async def test_best_of_gives_the_most_probable_of_its_candidates(serve, scripted_runner, http):
    engine = await serve(scripted_runner)
    wishes = {"best_of": 4, "temperature": 0.9, "details": True, "max_new_tokens": 5}
    status, answer, _ = await post(http, engine.url + TGI, generate_body(**wishes))
    assert status == 200

    def mean(details):
        return sum(token["logprob"] for token in details["tokens"]) / len(details["tokens"])

    others = answer["details"]["best_of_sequences"]
    assert len(others) == 3
    assert mean(answer["details"]) >= max(map(mean, others))
    assert len({one["seed"] for one in [answer["details"], *others]}) == 4
    body = {"prompt": "Hello", "max_tokens": 5, "temperature": 0.9, "seed": 1, "logprobs": 0}
    _, best, _ = await post(http, engine.url + "/v1/completions", {**body, "best_of": 4, "n": 2})
    _, each, _ = await post(http, engine.url + "/v1/completions", {**body, "n": 4})
    scores = [sum(choice["logprobs"]["token_logprobs"]) / 5 for choice in each["choices"]]
    assert len(set(scores)) > 1
    assert [sum(c["logprobs"]["token_logprobs"]) / 5 for c in best["choices"]] == sorted(scores, reverse=True)[:2]
    assert best["usage"]["completion_tokens"] == 20


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (TGI, generate_body(best_of=2), "you must use sampling"),
        (TGI, generate_body(best_of=2, do_sample=True, seed=1), "`seed` must not be set"),
        ("/v1/completions", {"prompt": "a", "best_of": 2, "stream": True}, "`best_of`"),
        ("/v1/completions", {"prompt": "a", "best_of": 2, "n": 3}, "below `n`"),
    ],
)
async def test_best_of_that_makes_no_sense_is_refused(serve, scripted_runner, http, path, body, words):
    engine = await serve(scripted_runner)
    status, answer, _ = await post(http, engine.url + path, body)
    assert status == 422
    assert words in json.dumps(answer)
    _, frames = await post_frames(http, engine.url + "/generate_stream", generate_body(best_of=2, do_sample=True))
    assert "streaming" in frames[0]["error"]


async def test_siblings_are_admitted_together_or_not_at_all(serve, scripted_runner, http):
    engine = await serve(scripted_runner, batch=2, waiting=1)
    scripted_runner.gate.clear()
    first = asyncio.create_task(post(http, engine.url + CHAT, chat_body(n=2)))
    await engine.wait_for(lambda: engine.service.live_requests == 2)
    status, answer, headers = await post(http, engine.url + CHAT, chat_body(n=2))
    assert (status, answer["error"]["code"]) == (429, "overloaded")
    assert "Retry-After" in headers
    status, answer, _ = await post(http, engine.url + CHAT, chat_body(n=4))
    assert (status, "3 requests" in answer["error"]["message"]) == (422, True)
    scripted_runner.gate.set()
    assert (await first)[0] == 200


async def test_a_client_that_goes_away_takes_all_its_siblings_along(serve, scripted_runner, http):
    engine = await serve(scripted_runner)
    scripted_runner.gate.clear()
    client = asyncio.create_task(post(http, engine.url + CHAT, chat_body(n=4, max_tokens=500)))
    await engine.wait_for(lambda: engine.service.live_requests == 4)
    client.cancel()
    await engine.wait_for(lambda: engine.service.live_requests == 0)
    scripted_runner.gate.set()
    await engine.wait_for(lambda: engine.service.engine.scheduler.is_idle)
    assert engine.service.engine.scheduler.blocks.used_blocks == 0


async def test_a_part_of_a_character_shows_its_bytes_but_no_text(serve, scripted_runner, http, tokenizer):
    parts = tokenizer.encode("\N{DRAGON FACE}")
    scripted_runner.reply = parts
    engine = await serve(scripted_runner)
    body = chat_body(max_tokens=len(parts), logprobs=True)
    _, answer, _ = await post(http, engine.url + CHAT, body)
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "\N{DRAGON FACE}"
    raw = b"".join(bytes(entry["bytes"]) for entry in choice["logprobs"]["content"])
    assert raw.decode() == "\N{DRAGON FACE}"
    _, frames = await post_frames(http, engine.url + CHAT, {**body, "stream": True})
    texts = [f["choices"][0]["delta"].get("content") for f in frames[1:-2]]
    assert texts == [""] * (len(parts) - 1) + ["\N{DRAGON FACE}"]


async def test_streamed_logprobs_say_where_their_text_is(serve, scripted_runner, http):
    engine = await serve(scripted_runner)
    body = {"prompt": "Hello", "max_tokens": 3, "temperature": 0, "logprobs": 1, "stream": True}
    _, frames = await post_frames(http, engine.url + "/v1/completions", body)
    assert [f["choices"][0]["logprobs"]["text_offset"] for f in frames[:3]] == [[0], [1], [2]]


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/", CHAT, "/v1/completions"])
async def test_a_full_engine_refuses_before_it_reads_the_body(serve, scripted_runner, http, path):
    engine = await serve(scripted_runner, batch=1, waiting=0)
    scripted_runner.gate.clear()
    accepted = asyncio.create_task(post(http, engine.url + TGI, generate_body()))
    await engine.wait_for(lambda: engine.service.live_requests == 1)
    status, answer, headers = await post(http, engine.url + path, "{ no JSON")
    assert (status, "overloaded" in json.dumps(answer)) == (429, True)
    assert "Retry-After" in headers
    scripted_runner.gate.set()
    assert (await accepted)[0] == 200


async def test_a_body_of_many_wrong_fields_is_told_the_first_five(serve, scripted_runner, http):
    engine = await serve(scripted_runner)
    names = ("max_new_tokens", "top_k", "top_p", "typical_p", "temperature", "truncate", "seed", "best_of")
    status, answer, _ = await post(http, engine.url + TGI, {"inputs": "a", "parameters": dict.fromkeys(names, -1)})
    assert status == 422
    assert answer["error"].count("`parameters.") == 5
    assert answer["error"].endswith("; and 3 more")


async def test_a_defect_in_the_work_on_one_request_is_a_500_of_that_request(
    serve, scripted_runner, http, monkeypatch, caplog
):
    engine = await serve(scripted_runner)

    def raise_defect(*_):
        raise KeyError("Hello there")

    monkeypatch.setattr(Sampler, "choose", raise_defect)
    status, answer, _ = await post(http, engine.url + TGI, generate_body())
    assert (status, answer["error_type"]) == (500, "incomplete_generation")
    status, answer, _ = await post(http, engine.url + CHAT, chat_body())
    assert (status, answer["error"]["type"], answer["error"]["code"]) == (500, "server_error", "internal_error")
    assert "Hello there" not in caplog.text
    assert "KeyError at test_http.py" in caplog.text
    monkeypatch.undo()
    assert (await post(http, engine.url + TGI, generate_body()))[0] == 200


async def raise_defect(*_, **__):
    raise RuntimeError("Hello there")


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/", CHAT, "/v1/completions"])
async def test_an_unexpected_error_is_json_of_the_family_and_says_nothing_of_the_inside(
    serve, scripted_runner, http, monkeypatch, caplog, path
):
    engine = await serve(scripted_runner)
    monkeypatch.setattr(engine.service, "tokenise", raise_defect)
    body = {**chat_body(stream=True), "prompt": "Hello there", "inputs": "Hello there"}
    status, answer, _ = await post(http, engine.url + path, body)
    error = answer["error"]
    assert (status, error if isinstance(error, str) else error["message"]) == (
        500,
        "the engine failed on this request; its log says where",
    )
    assert isinstance(error, dict) is path.startswith("/v1/")
    assert "Hello there" not in caplog.text
    assert "RuntimeError at test_http.py" in caplog.text


@pytest.mark.parametrize("path", ["/generate_stream", CHAT])
async def test_an_unexpected_error_within_a_stream_ends_it_with_an_error_frame(
    serve, scripted_runner, http, monkeypatch, caplog, path
):
    engine = await serve(scripted_runner)
    monkeypatch.setattr(Generation, "_next_event", raise_defect)
    _, frames = await post_frames(http, engine.url + path, {**generate_body(), **chat_body(stream=True)})
    if path == CHAT:
        assert frames[-1] == "[DONE]"
        assert frames[-2]["error"]["code"] == "internal_error"
    else:
        assert frames[-1]["error_type"] == "incomplete_generation"
    assert engine.service.live_requests == 0
    assert "Hello there" not in caplog.text


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/", CHAT])
async def test_an_engine_that_fills_up_while_a_prompt_is_read_refuses_with_a_status(
    serve, scripted_runner, http, monkeypatch, path
):
    engine = await serve(scripted_runner, batch=1, waiting=0)
    scripted_runner.gate.clear()
    tokenise = engine.service.tokenise
    overtaken, first = asyncio.Event(), [True]

    async def be_overtaken(*arguments, **named):
        if first and first.pop():
            await overtaken.wait()
        return await tokenise(*arguments, **named)

    monkeypatch.setattr(engine.service, "tokenise", be_overtaken)
    body = {**generate_body(), **chat_body(stream=True)}
    late = asyncio.create_task(post(http, engine.url + path, body))
    await engine.wait_for(lambda: not first)
    winner = asyncio.create_task(post(http, engine.url + TGI, generate_body()))
    await engine.wait_for(lambda: engine.service.live_requests == 1)
    overtaken.set()
    status, answer, headers = await late
    assert (status, "overloaded" in json.dumps(answer)) == (429, True)
    assert "Retry-After" in headers
    scripted_runner.gate.set()
    assert (await winner)[0] == 200


@pytest.mark.parametrize("path", ["/generate_stream", CHAT])
async def test_a_reader_that_takes_nothing_loses_its_place_after_the_write_timeout(
    serve, scripted_runner, http, monkeypatch, path
):
    engine = await serve(scripted_runner, batch=1, waiting=0, write_timeout_seconds=0.05)
    written = []

    async def fill_up(stream, data):
        """As when the client's window and all buffers on the way are full."""
        written.append(data)
        await asyncio.Event().wait()

    body = {**generate_body(max_new_tokens=500), **chat_body(stream=True, max_tokens=500)}
    with monkeypatch.context() as full:
        full.setattr(web.StreamResponse, "write", fill_up)
        async with asyncio.timeout(5):
            with pytest.raises(aiohttp.ClientError):
                await post(http, engine.url + path, body)
    assert len(written) == 1
    assert engine.service.live_requests == 0
    await engine.wait_for(lambda: engine.service.engine.scheduler.is_idle)
    assert engine.service.engine.scheduler.blocks.used_blocks == 0
    assert (await post(http, engine.url + TGI, generate_body()))[0] == 200


async def test_a_stream_that_takes_longer_than_the_write_timeout_goes_on_while_it_is_read(serve, scripted_runner, http):
    engine = await serve(scripted_runner, write_timeout_seconds=0.05)
    scripted_runner.gate.clear()
    stream = asyncio.create_task(post_frames(http, engine.url + "/generate_stream", generate_body()))
    await engine.wait_for(lambda: engine.service.live_requests == 1)
    await asyncio.sleep(0.1)
    scripted_runner.gate.set()
    assert (await stream)[1][-1]["generated_text"] == "abcd"


async def test_a_client_that_stops_reading_its_socket_is_let_go_without_a_trace_in_the_log(
    serve, scripted_runner, caplog
):
    runner = EmulatedRunner([Curve(1, 1, 1)], scripted_runner.reply, VOCABULARY)
    engine = await serve(runner, total_tokens=100_000, blocks=8000, write_timeout_seconds=0.2)
    body = json.dumps(generate_body(max_new_tokens=90_000, top_n_tokens=5)).encode()
    head = f"POST /generate_stream HTTP/1.1\r\nHost: engine\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", int(engine.url.rpartition(":")[2])))
        client.sendall(head.encode() + body)
        await engine.wait_for(lambda: engine.service.live_requests == 1)
        await engine.wait_for(lambda: engine.service.live_requests == 0, seconds=30)
    assert "took nothing for 0.2 s" in caplog.text
    assert "ERROR" not in caplog.text
