"""The maintained clients against the real model: huggingface_hub's InferenceClient and the openai SDK."""

import asyncio

import openai
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import GenerationError, OverloadedError, ValidationError

from inference_pods.engine.sequence import GenerationRequest
from inference_pods.kernels.formats import Precision

pytestmark = pytest.mark.timeout(240)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."


@pytest.fixture
async def engine(serve, load_runner):
    return await serve(load_runner(Precision.INT8), batch=4)


async def test_hub_text_generation_whole_and_streamed_agree(engine):
    async with AsyncInferenceClient(engine.url) as client:
        prompt = "The capital of France is"
        wishes = {"max_new_tokens": 6, "details": True, "return_full_text": False}
        whole = await client.text_generation(prompt, **wishes)
        assert whole.generated_text.startswith(" Paris")
        assert whole.details.generated_tokens == 6
        assert whole.details.finish_reason == "length"
        stream = await client.text_generation(prompt, stream=True, **wishes)
        chunks = [chunk async for chunk in stream]
        assert [chunk.token.id for chunk in chunks] == [token.id for token in whole.details.tokens]
        assert chunks[-1].generated_text == whole.generated_text
        plain = [text async for text in await client.text_generation(prompt, max_new_tokens=6, stream=True)]
        assert "".join(plain) == whole.generated_text


async def test_hub_chat_completion_whole_and_streamed_agree(engine):
    async with AsyncInferenceClient(engine.url) as client:
        whole = await client.chat_completion(QUESTION, max_tokens=20, temperature=0)
        assert whole.choices[0].message.content == ANSWER
        assert whole.choices[0].finish_reason == "stop"
        stream = await client.chat_completion(QUESTION, max_tokens=20, temperature=0, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == ANSWER


async def test_hub_sees_typed_errors_whole_and_streamed(engine):
    async with AsyncInferenceClient(engine.url) as client:
        with pytest.raises(ValidationError, match="top_p"):
            await client.text_generation("Hello", top_p=2.0, max_new_tokens=2)
        with pytest.raises(ValidationError, match="max_new_tokens"):
            async for _ in await client.text_generation("Hello", max_new_tokens=100_000, stream=True):
                pass


async def test_hub_sees_overload(serve, scripted_runner):
    engine = await serve(scripted_runner, batch=1, waiting=0)
    scripted_runner.gate.clear()
    async with AsyncInferenceClient(engine.url) as client:
        first = engine.service.start(_small_request())
        with pytest.raises(OverloadedError):
            await client.text_generation("Hello", max_new_tokens=2)
        scripted_runner.gate.set()
        engine.service.close(first)


def _small_request():
    return GenerationRequest((1, 2), 2)


def _use_sync_client(url):
    """Everything that the synchronous client does, in a thread of its own."""
    prompt = "The capital of France is"
    wishes = {"max_new_tokens": 6, "details": True, "return_full_text": False}
    with InferenceClient(url) as client:
        whole = client.text_generation(prompt, **wishes)
        chunks = list(client.text_generation(prompt, stream=True, **wishes))
        chat = client.chat_completion(QUESTION, max_tokens=20, temperature=0)
        deltas = list(client.chat_completion(QUESTION, max_tokens=20, temperature=0, stream=True))
        with pytest.raises(ValidationError, match="top_p"):
            client.text_generation("Hello", top_p=2.0, max_new_tokens=2)
    assert [chunk.token.id for chunk in chunks] == [token.id for token in whole.details.tokens]
    assert chunks[-1].generated_text == whole.generated_text
    assert chunks[-1].details.input_length == 5
    assert chat.choices[0].message.content == ANSWER
    assert "".join(delta.choices[0].delta.content or "" for delta in deltas) == ANSWER
    assert deltas[-1].choices[0].finish_reason == "stop"


async def test_hub_sync_client_sees_the_same(engine):
    await asyncio.to_thread(_use_sync_client, engine.url)


async def test_hub_sampling_wishes_are_understood(engine):
    async with AsyncInferenceClient(engine.url) as client:

        async def sample(**wishes):
            return await client.text_generation("Once upon a time", max_new_tokens=12, details=True, **wishes)

        wishes = {"temperature": 1.2, "top_k": 40, "top_p": 0.95, "typical_p": 0.95, "repetition_penalty": 1.1}
        first, again = [await sample(do_sample=True, seed=11, **wishes) for _ in range(2)]
        assert first.generated_text == again.generated_text
        assert first.details.seed == 11
        drawn = await sample(do_sample=True)
        repeated = await sample(do_sample=True, seed=drawn.details.seed)
        assert repeated.generated_text == drawn.generated_text, "the reported seed repeats the text"
        best = await sample(best_of=3, do_sample=True, top_n_tokens=2)
        assert len(best.details.best_of_sequences) == 2
        assert [len(tokens) for tokens in best.details.top_tokens] == [2] * len(best.details.tokens)
        stopped = await sample(stop=[","])
        assert stopped.generated_text.endswith(",")
        assert stopped.details.finish_reason == "stop_sequence"
        with pytest.raises(ValidationError, match="use sampling"):
            await sample(best_of=2)
        with pytest.raises(ValidationError, match="decoder_input_details"):
            await sample(decoder_input_details=True)


async def test_hub_chat_wishes_are_understood(engine):
    async with AsyncInferenceClient(engine.url) as client:
        answer = await client.chat_completion(
            QUESTION, max_tokens=4, temperature=0, n=2, logprobs=True, top_logprobs=3, stop=["Paris"], seed=4
        )
        assert [choice.message.content for choice in answer.choices] == ["The capital of France"] * 2
        content = answer.choices[0].logprobs.content
        assert [len(entry.top_logprobs) for entry in content] == [3] * 4
        assert answer.usage.completion_tokens == 8
        stream = await client.chat_completion(
            QUESTION, max_tokens=3, temperature=0, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage.completion_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_hub_sees_bad_headers_and_passed_deadlines_as_its_own_errors(serve, scripted_runner, stream):
    engine = await serve(scripted_runner)

    async def generate(headers):
        async with AsyncInferenceClient(engine.url, headers=headers) as client:
            answer = await client.text_generation("Hello", max_new_tokens=3, stream=stream)
            return [text async for text in answer] if stream else answer

    with pytest.raises(ValidationError, match="x-level"):
        await generate({"x-level": "int2"})
    scripted_runner.gate.clear()
    with pytest.raises(GenerationError, match="x-deadline-ms"):
        await generate({"x-deadline-ms": "50"})
    scripted_runner.gate.set()


@pytest.fixture
async def client(engine):
    async with openai.AsyncOpenAI(base_url=engine.url + "/v1", api_key="unused", max_retries=0) as sdk:
        yield sdk


async def test_openai_chat_whole_and_streamed_agree(client):
    whole = await client.chat.completions.create(model="smol", messages=QUESTION, temperature=0, max_tokens=20)
    assert whole.choices[0].message.content == ANSWER
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    stream = await client.chat.completions.create(
        model="smol",
        messages=QUESTION,
        temperature=0,
        max_tokens=20,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
    assert chunks[-1].usage == whole.usage


async def test_openai_logprobs_completions_and_models(client):
    chat = await client.chat.completions.create(
        model="smol", messages=QUESTION, temperature=0, max_tokens=3, logprobs=True, top_logprobs=2
    )
    content = chat.choices[0].logprobs.content
    assert [len(entry.top_logprobs) for entry in content] == [2, 2, 2]
    assert all(entry.logprob == pytest.approx(entry.top_logprobs[0].logprob) for entry in content)
    plain = await client.completions.create(
        model="smol", prompt="The capital of France is", temperature=0, max_tokens=4
    )
    assert plain.choices[0].text.startswith(" Paris")
    assert [model.id async for model in await client.models.list()] == ["smol"]


@pytest.mark.slow
async def test_openai_sampling_with_a_seed_repeats(client):
    async def sample(seed):
        answer = await client.chat.completions.create(
            model="smol",
            messages=[{"role": "user", "content": "Tell me a story."}],
            temperature=1.5,
            max_tokens=12,
            seed=seed,
        )
        return answer.choices[0].message.content

    assert await sample(5) == await sample(5)
    assert len({await sample(seed) for seed in range(4)}) > 1


async def test_openai_sees_typed_errors(client):
    with pytest.raises(openai.UnprocessableEntityError, match="`messages` tokens and 100000"):
        await client.chat.completions.create(model="smol", messages=QUESTION, max_tokens=100_000)
    with pytest.raises(openai.UnprocessableEntityError, match="messages"):
        await client.chat.completions.create(model="smol", messages=[])
    with pytest.raises(openai.BadRequestError, match="x-level") as caught:
        await client.chat.completions.create(model="smol", messages=QUESTION, extra_headers={"x-level": "int2"})
    assert caught.value.type == "invalid_request_error"
    assert "int8" in str(caught.value) or "full" in str(caught.value)


async def test_openai_n_comes_whole_and_streamed(client):
    wishes = {"model": "smol", "messages": QUESTION, "temperature": 1.3, "max_tokens": 8, "seed": 3, "n": 3}
    whole = await client.chat.completions.create(**wishes)
    texts = {choice.index: choice.message.content for choice in whole.choices}
    assert sorted(texts) == [0, 1, 2]
    assert len(set(texts.values())) > 1
    stream = await client.chat.completions.create(**wishes, stream=True, logprobs=True, top_logprobs=1)
    streamed, ends = dict.fromkeys(texts, ""), []
    async for chunk in stream:
        (choice,) = chunk.choices
        streamed[choice.index] += choice.delta.content or ""
        ends += [choice.index] if choice.finish_reason else []
    assert streamed == texts
    assert sorted(ends) == [0, 1, 2]


async def test_openai_completions_stream_stop_and_best_of(client):
    wishes = {"model": "smol", "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    whole = await client.completions.create(**wishes, stop="France", logprobs=2)
    chunks = [c async for c in await client.completions.create(**wishes, stop="France", logprobs=2, stream=True)]
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert "France" not in whole.choices[0].text
    tokens = [token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.tokens]
    assert tokens == whole.choices[0].logprobs.tokens
    best = await client.completions.create(**{**wishes, "temperature": 1.0}, best_of=4, n=2, seed=1)
    assert [choice.index for choice in best.choices] == [0, 1]


async def test_openai_stream_helper_accumulates_the_answer(client):
    async with client.chat.completions.stream(model="smol", messages=QUESTION, temperature=0, max_tokens=20) as stream:
        async for _ in stream:
            pass
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.content == ANSWER


@pytest.fixture
async def patient_client(serve, scripted_runner):
    """The SDK as people use it: it repeats by itself what the server lets it repeat."""
    engine = await serve(scripted_runner, batch=1, waiting=0)
    async with openai.AsyncOpenAI(base_url=engine.url + "/v1", api_key="unused", max_retries=2) as sdk:
        yield sdk, engine
    scripted_runner.gate.set()


def _count_submissions(engine, monkeypatch):
    seen = []
    submit = engine.service.engine.loop.submit
    monkeypatch.setattr(engine.service.engine.loop, "submit", lambda i, r: (seen.append(i), submit(i, r)))
    return seen


async def test_openai_does_not_repeat_what_missed_its_deadline(patient_client, scripted_runner, monkeypatch):
    client, engine = patient_client
    seen = _count_submissions(engine, monkeypatch)
    scripted_runner.gate.clear()
    with pytest.raises(openai.InternalServerError, match="x-deadline-ms") as caught:
        await client.chat.completions.create(model="smol", messages=QUESTION, extra_headers={"x-deadline-ms": "50"})
    assert (caught.value.status_code, caught.value.code, len(seen)) == (504, "deadline_exceeded", 1)


async def test_openai_waits_as_told_when_the_engine_is_full(patient_client, scripted_runner):
    client, engine = patient_client
    scripted_runner.gate.clear()
    first = engine.service.start(_small_request())
    with pytest.raises(openai.RateLimitError, match="overloaded"):
        await client.with_options(max_retries=0).chat.completions.create(model="smol", messages=QUESTION)
    asking = asyncio.create_task(client.chat.completions.create(model="smol", messages=QUESTION, max_tokens=2))
    await asyncio.sleep(0.2)
    engine.service.close(first)
    scripted_runner.gate.set()
    assert (await asking).usage.completion_tokens == 2


async def test_openai_sees_a_failure_inside_a_stream(patient_client, scripted_runner):
    client, _ = patient_client
    scripted_runner.fail = True
    with pytest.raises(openai.APIError, match="failed during generation"):
        async for _ in await client.chat.completions.create(model="smol", messages=QUESTION, stream=True):
            pass
