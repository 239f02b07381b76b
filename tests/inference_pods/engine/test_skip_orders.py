"""Which layers may be left out of a model: what the recipe says, else what was measured of exactly these weights."""

import pytest

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
