"""Request bodies at the border: what a hostile or careless one may cost, and what it is told."""

import json
from itertools import product

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


@pytest.mark.parametrize(
    ("field", "number"),
    [
        *product(
            ("temperature", "repetition_penalty", "frequency_penalty", "top_p", "typical_p"),
            ("NaN", "Infinity", "1e400", "-3", "1e5"),
        ),
        ("temperature", "0"),
        ("repetition_penalty", "1e-50"),
    ],
)
def test_a_number_out_of_its_bounds_is_refused_by_name_with_the_bound(field, number):
    with pytest.raises(pydantic.ValidationError) as caught:
        GenerateBody.model_validate_json(f'{{"inputs": "a", "parameters": {{"{field}": {number}}}}}')
    (error,) = caught.value.errors()
    assert error["loc"] == ("parameters", field)
    assert error["type"] in {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}


@pytest.mark.parametrize("field", ["temperature", "top_p", "frequency_penalty", "presence_penalty"])
@pytest.mark.parametrize("number", ["NaN", "1e400", "1e5"])
def test_openais_numbers_have_bounds_too(field, number):
    with pytest.raises(pydantic.ValidationError) as caught:
        CompletionBody.model_validate_json(f'{{"prompt": "a", "{field}": {number}}}')
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]
