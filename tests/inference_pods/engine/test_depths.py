"""Depth levels of a real replica: whose order of layers is used, and what happens where nobody measured one."""

from __future__ import annotations

import shutil

import pytest

from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.settings import parse_settings
from inference_pods.engine.startup import build_engine


def build(source, *arguments):
    settings = parse_settings(["--model-source", source, "--precision", "int4", "--device", "cpu", *arguments])
    return build_engine(settings, lambda _events: None, lambda _result, _seconds: None, lambda _loss: None)


@pytest.fixture
def unknown_source(model_path, tmp_path):
    """The example model with a byte more: as many layers, but weights that nobody measured."""
    path = tmp_path / "other.gguf"
    shutil.copyfile(model_path, path)
    with path.open("ab") as file:
        file.write(b"\0")
    return f"file://{path}"


def test_the_example_model_leaves_out_what_was_measured_of_it(model_source, model_path):
    engine = build(model_source, "--depths", "30,28")
    assert engine.levels == ("int4", "int4-d28")
    assert engine.description["skip_order"] == [17, 14, 5, 4, 26, 12, 3, 25]


def test_another_model_with_as_many_layers_is_refused(unknown_source):
    with pytest.raises(LoadError, match=r"recipe\.nested\.skipOrder") as caught:
        build(unknown_source, "--depths", "30,28")
    assert caught.value.reason is LoadReason.UNSUPPORTED


def test_an_order_that_is_given_serves_any_model_and_is_said(unknown_source):
    engine = build(unknown_source, "--depths", "30,28", "--skip-order", "5,12,4")
    assert engine.levels == ("int4", "int4-d28")
    assert engine.description["skip_order"] == [5, 12, 4]
