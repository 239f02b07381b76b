"""The fluid model: fills the best tier first, keeps every request's count, and waits as long as routers do."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from e2e.scale.fluid import FluidModel, FluidTier, read_tiers
from inference_pods.engine.emulated.curve import Curve

# 100 and 200 requests/s: 10 output tokens after the first, 1000 and 500 us each, no prefill.
FULL = FluidTier("full", 1.0, Curve(10_000, 0, 0), 10, 8, 11)
FAST = FluidTier("int4", 0.9, Curve(5_000, 0, 0), 10, 8, 11)
BOTH = {"full": 1, "int4": 1}


def model(wait: float = 10.0) -> FluidModel:
    return FluidModel((FULL, FAST), wait)


def test_the_saturated_rate_is_that_of_the_batch_model() -> None:
    assert (FULL.requests_per_second, FAST.requests_per_second) == pytest.approx((100.0, 200.0))


@pytest.mark.parametrize(
    ("rate", "full", "fast", "waiting"),
    [
        pytest.param(0, 0, 0, 0, id="no load"),
        pytest.param(60, 60, 0, 0, id="the best tier alone while it can"),
        pytest.param(250, 100, 150, 0, id="what is too much for it goes to the next"),
        pytest.param(330, 100, 200, 30, id="what is too much for both waits"),
    ],
)
def test_tiers_are_filled_from_the_best_down(rate: float, full: float, fast: float, waiting: float) -> None:
    fluid = model()
    flows = fluid.advance(1.0, rate, BOTH)
    assert (flows["full"].served, flows["int4"].served, fluid.waiting) == pytest.approx((full, fast, waiting))


def test_what_waited_is_served_once_the_load_falls_and_shows_in_the_first_token() -> None:
    fluid = model()
    fluid.advance(1.0, 330, BOTH)
    flows = fluid.advance(1.0, 0, BOTH)
    assert (flows["full"].served, fluid.waiting) == pytest.approx((30, 0))
    assert flows["full"].ttft_seconds == pytest.approx(0.1 + FULL.prefill_seconds)


def test_nobody_waits_longer_than_the_longest_wait() -> None:
    fluid = model(wait=0.5)
    fluid.advance(1.0, 1000, BOTH)
    assert (fluid.waiting, fluid.refused) == pytest.approx((150, 550))


def test_without_a_replica_all_is_refused() -> None:
    fluid = model()
    assert fluid.advance(1.0, 10, {"full": 0}) == {}
    assert fluid.refused == 10


def test_a_full_replica_runs_its_whole_batch_and_an_idle_one_nothing() -> None:
    assert model().advance(1.0, 100, {"full": 1})["full"].running == pytest.approx(10)
    assert model().advance(1.0, 0, {"full": 1})["full"].running == 0


@given(st.lists(st.tuples(st.floats(0, 1000), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_no_request_is_lost_or_made_up(intervals: list[tuple[float, int, int]]) -> None:
    fluid, arrived, done = model(wait=1.0), 0.0, 0.0
    for rate, full, fast in intervals:
        flows = fluid.advance(2.0, 2.0 * rate, {"full": full, "int4": fast})
        arrived += 2.0 * rate
        done += fluid.refused + sum(flow.served for flow in flows.values())
    assert done + fluid.waiting == pytest.approx(arrived)


def test_a_nested_tier_serves_its_top_level() -> None:
    spec = yaml.safe_load((Path(__file__).parents[2] / "examples" / "emulated.yaml").read_text())["spec"]
    spec["tiers"][0]["recipe"] = {"nested": {"levels": ["int8", "int4"]}}
    assert [tier.level for tier in read_tiers(spec)] == ["int8", ""]


def test_the_examples_tiers_are_read_best_first_and_native_ones_left_out() -> None:
    spec = yaml.safe_load((Path(__file__).parents[2] / "examples" / "emulated.yaml").read_text())["spec"]
    spec["tiers"].append({"name": "native", "card": {"qualityPermille": 1000}})
    tiers = read_tiers({"tiers": spec["tiers"][::-1]})
    assert [(tier.name, tier.sequences, tier.prompt_tokens) for tier in tiers] == [("full", 16, 128), ("int4", 16, 128)]
    assert tiers[0].requests_per_second == pytest.approx(6.78, abs=0.01)
