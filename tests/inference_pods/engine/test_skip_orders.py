"""Which layers may be left out of a model: what the recipe says, else what was measured of exactly these weights."""

from pathlib import Path

import pytest
import yaml

from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.skip_orders import find_skip_order

SMOLLM2 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
OTHER = "0" * 64


def unread() -> str:
    raise AssertionError("the digest was waited for")


def test_the_recipes_order_is_taken_without_a_look_at_the_weights():
    assert find_skip_order((7, 3), (30, 28), 30, unread) == (7, 3)


@pytest.mark.parametrize("depths", [(), (30,)], ids=["no depths", "all layers"])
def test_where_no_layer_is_left_out_no_order_is_needed(depths):
    assert find_skip_order((), depths, 30, unread) == ()


@pytest.mark.parametrize("first", [28, 32])
def test_the_first_depth_has_to_be_the_whole_model_else_the_operator_names_its_levels_otherwise(first):
    with pytest.raises(LoadError, match=rf"the first depth is {first}, but the model has 30 layers.*--depths"):
        find_skip_order((17, 14), (first, 26), 30, unread)


def test_the_measured_order_of_the_example_model_leaves_out_none_of_its_vital_layers():
    order = find_skip_order((), (30, 28), 30, lambda: SMOLLM2)
    assert order[:2] == (17, 14)
    assert not {0, 1, 8, 11, 28, 29} & set(order)


def test_another_model_of_as_many_layers_is_refused_with_the_field_and_the_command_that_measures():
    with pytest.raises(LoadError) as caught:
        find_skip_order((), (30, 28), 30, lambda: OTHER)
    assert caught.value.reason is LoadReason.UNSUPPORTED
    for words in ("recipe.nested.skipOrder", "--skip-order", "python -m inference_pods.engine.rank_layers", "28"):
        assert words in caught.value.message


def test_the_example_names_the_order_that_was_measured_of_its_weights():
    spec = yaml.safe_load((Path(__file__).parents[3] / "examples" / "nested.yaml").read_text())["spec"]
    (nested,) = [tier["recipe"]["nested"] for tier in spec["tiers"] if "nested" in tier["recipe"]]
    measured = find_skip_order((), nested["depths"], 30, lambda: spec["model"]["sha256"])
    assert tuple(nested["skipOrder"]) == measured
