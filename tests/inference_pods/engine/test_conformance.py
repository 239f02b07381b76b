"""The maintained clients against the real model: huggingface_hub's InferenceClient and the openai SDK."""

import openai
import pytest
from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import OverloadedError, ValidationError

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
    from inference_pods.engine.sequence import GenerationRequest

    return GenerationRequest((1, 2), 2)


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
    with pytest.raises(openai.UnprocessableEntityError, match="max_new_tokens"):
        await client.chat.completions.create(model="smol", messages=QUESTION, max_tokens=100_000)
    with pytest.raises(openai.UnprocessableEntityError, match="messages"):
        await client.chat.completions.create(model="smol", messages=[])
