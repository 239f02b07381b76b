import pytest

from inference_pods.kernels.formats import Precision
from inference_pods.kernels.levels import Level, LevelError, LevelPlan, build_levels, check_levels

BOTH = (Precision.INT8, Precision.INT4)
ORDER = (17, 14, 5, 4, 26, 12, 3, 25)


def test_levels_are_named_by_precision_and_depth_the_first_is_the_default():
    assert build_levels(BOTH, (30, 28), 30, ORDER) == (
        Level("int8", Precision.INT8),
        Level("int4", Precision.INT4),
        Level("int8-d28", Precision.INT8, (14, 17)),
        Level("int4-d28", Precision.INT4, (14, 17)),
    )


def test_without_depths_all_layers_run():
    assert build_levels(BOTH, (), 30) == (Level("int8", Precision.INT8), Level("int4", Precision.INT4))


def test_the_default_plan_reads_a_nested_model_at_both_precisions_and_a_plain_one_at_its_own():
    assert [level.name for level in LevelPlan().build(Precision.NESTED, 30)] == ["int8", "int4"]
    assert [level.name for level in LevelPlan().build(Precision.INT4, 30)] == ["int4"]
    assert [level.name for level in LevelPlan(depths=(30, 29), skip_order=ORDER).build(Precision.INT8, 30)] == [
        "int8",
        "int8-d29",
    ]


def test_layers_are_left_out_in_the_given_order():
    assert build_levels((Precision.INT8,), (11,), 12, (7, 3)) == (Level("int8-d11", Precision.INT8, (7,)),)


@pytest.mark.parametrize(
    ("depth", "layers", "order", "message"),
    [
        (31, 30, ORDER, "depth 31 is not possible: 8 of 30 layers may be left out, so 22 to 30 are"),
        (21, 30, ORDER, "depth 21 is not possible: 8 of 30 layers may be left out, so 22 to 30 are"),
        (0, 30, ORDER, "so 22 to 30 are"),
        (2, 3, (), "depth 2 is not possible: 0 of 3 layers may be left out, so 3 are"),
    ],
)
def test_a_depth_that_is_not_possible_names_those_that_are(depth, layers, order, message):
    with pytest.raises(LevelError, match=message):
        build_levels(BOTH, (layers, depth), layers, order)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((3, 7, 3), "names layer 3 twice"),
        ((3, 12), "names layer 12, beyond the layers 0 to 11"),
        ((-1,), "names layer -1, beyond the layers 0 to 11"),
    ],
)
def test_an_order_that_does_not_fit_the_model_is_refused_even_where_no_depth_needs_it(order, message):
    with pytest.raises(LevelError, match=message):
        build_levels(BOTH, (12,), 12, order)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((), "at least one"),
        ((Level("a", Precision.INT8), Level("a", Precision.INT4)), "distinct names"),
        ((Level("fp32", Precision.FP32),), "nested weights cannot be read as fp32, only int8, int4"),
        ((Level("deep", Precision.INT8, (3,)),), "beyond the layers 0 to 2"),
    ],
    ids=["none", "two of one name", "a precision that is not in the planes", "a layer that is not there"],
)
def test_levels_that_cannot_be_served_are_refused(levels, message):
    with pytest.raises(LevelError, match=message):
        check_levels(levels, Precision.NESTED, 3)


def test_a_plan_with_a_precision_that_is_not_stored_is_refused():
    with pytest.raises(LevelError, match="int8 weights cannot be read as int4, only int8"):
        LevelPlan(precisions=BOTH).build(Precision.INT8, 30)
