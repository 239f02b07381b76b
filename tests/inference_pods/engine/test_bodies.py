"""Request bodies at the border: what a hostile or careless one may cost, and what it is told."""

import json

import pydantic
import pytest

from inference_pods.engine.bodies import ChatBody, CompletionBody, GenerateBody

USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (ChatBody, {"messages": [{}] * 1000}),
        (ChatBody, {"messages": [{"role": "user", "content": [{}] * 1000}]}),
        (ChatBody, {"messages": [{"role": "user", "content": [{}] * 1000}] * 1000}),
        (ChatBody, {"messages": [USER], "stop": [{}] * 1000}),
        (ChatBody, {"messages": [USER], "tools": [{}] * 1000}),
        (CompletionBody, {"prompt": [{}] * 1000}),
        (CompletionBody, {"prompt": ["a", *[{}] * 1000]}),
        (CompletionBody, {"prompt": [1, *[{}] * 1000]}),
        (GenerateBody, {"inputs": "a", "parameters": {"stop": [{}] * 1000}}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else next(iter(value)),
)
def test_a_list_of_bad_items_is_given_up_at_its_first_one(model, body):
    with pytest.raises(pydantic.ValidationError) as caught:
        model.model_validate_json(json.dumps(body))
    assert caught.value.error_count() <= 5


@pytest.mark.parametrize(
    ("model", "body", "field"),
    [
        (ChatBody, {"messages": [USER] * 5000}, "messages"),
        (ChatBody, {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 5000}]}, "messages"),
        (CompletionBody, {"prompt": [1] * 300_000}, "prompt"),
    ],
    ids=["messages", "parts", "tokens"],
)
def test_a_list_that_is_longer_than_any_use_is_refused_by_name(model, body, field):
    with pytest.raises(pydantic.ValidationError) as caught:
        model.model_validate_json(json.dumps(body))
    assert caught.value.errors()[0]["loc"][0] == field
    assert "at most" in str(caught.value)
