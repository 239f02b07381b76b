"""Penalties as the maintained clients ask for them, over HTTP: each parameter changes exactly what it should.

The model says `a` again and again, and next likes `b`. Worked for a frequency penalty of 1: `a` falls from 10 to 9 and
8, `b` is 8.5 then, falls to 7.5, and so on.
"""

import openai
import pytest
from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import ValidationError

from inference_pods.kernels.decoder import TokenScores

MESSAGES = [{"role": "user", "content": "Hi"}]
TOKENS = 6

CASES = pytest.mark.parametrize(
    ("wishes", "text"),
    [
        ({}, "aaaaaa"),
        ({"frequency_penalty": 1.0}, "aababa"),
        ({"frequency_penalty": -1.0}, "aaaaaa"),
        ({"presence_penalty": 2.0}, "abaaaa"),
        ({"presence_penalty": 1.0}, "aaaaaa"),
        ({"frequency_penalty": 0.6, "presence_penalty": 0.75}, "aabaab"),
    ],
    ids=str,
)


@pytest.fixture
async def engine(serve, scripted_runner, tokenizer):
    a, b = (tokenizer.encode(letter)[0] for letter in "ab")
    score = scripted_runner._scores

    def score_two(chunk, last):
        scores = score(chunk, last)
        logits = scores.logits
        logits[:] = 0.0
        logits[a], logits[b] = 10.0, 8.5
        return TokenScores(a, scores.log_total, logits)

    scripted_runner._scores = score_two
    return await serve(scripted_runner)


@pytest.fixture
async def sdk(engine):
    async with openai.AsyncOpenAI(base_url=engine.url + "/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
async def hub(engine):
    async with AsyncInferenceClient(engine.url) as client:
        yield client


@CASES
async def test_openai_chat(sdk, wishes, text):
    asked = {"model": "smol", "messages": MESSAGES, "temperature": 0, "max_tokens": TOKENS, **wishes}
    assert (await sdk.chat.completions.create(**asked)).choices[0].message.content == text
    chunks = [chunk async for chunk in await sdk.chat.completions.create(**asked, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text


@CASES
async def test_openai_completions(sdk, wishes, text):
    asked = {"model": "smol", "prompt": "Hi", "temperature": 0, "max_tokens": TOKENS, **wishes}
    assert (await sdk.completions.create(**asked)).choices[0].text == text


@CASES
async def test_hub_chat(hub, wishes, text):
    answer = await hub.chat_completion(MESSAGES, temperature=0, max_tokens=TOKENS, **wishes)
    assert answer.choices[0].message.content == text


@pytest.mark.parametrize(
    ("wishes", "text"),
    [
        ({}, "aaaaaa"),
        ({"frequency_penalty": 1.0}, "aababa"),
        ({"repetition_penalty": 1.25}, "abaaaa"),
        ({"repetition_penalty": 1.1}, "aaaaaa"),
    ],
    ids=str,
)
async def test_hub_text_generation(hub, wishes, text):
    asked = {"prompt": "Hi", "max_new_tokens": TOKENS, "return_full_text": False, **wishes}
    assert await hub.text_generation(**asked) == text
    stream = await hub.text_generation(**asked, stream=True)
    assert "".join([piece async for piece in stream]) == text


async def test_penalties_beyond_two_are_refused_by_name(sdk, hub):
    with pytest.raises(openai.UnprocessableEntityError, match="presence_penalty"):
        await sdk.chat.completions.create(model="smol", messages=MESSAGES, presence_penalty=2.5)
    with pytest.raises(ValidationError, match="frequency_penalty"):
        await hub.text_generation("Hi", frequency_penalty=-2.5)
