"""The operator's own code on the simulated cluster: it sheds, restores, keeps the budget, and can be replayed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.simulate.generators import flash_crowd, generate, square_wave, steady, step
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.requests import Outcome
from adaptive_operator.simulate.run import RunSettings, run
from adaptive_operator.simulate.scrapes import Fault
from tests.operator.simulate.scenes import make_scenario, mixes, quality, served

pytestmark = pytest.mark.slow


def test_ours_sheds_when_the_load_passes_the_best_tier_and_restores_when_it_falls():
    trace = generate(lambda t: 12.0 if 300 <= t < 700 else 2.0, 1800.0, seed=1)
    result = run(make_scenario(budget=3), trace, AdaptivePolicy())
    assert served(result, since=60.0) > 0.995
    busy = [r for r in result.requests if 450 <= r.arrival < 700]
    late = [r for r in result.requests if r.arrival >= 1500]
    assert sum(r.quality for r in busy) / len(busy) < 0.99
    assert sum(r.quality for r in late) / len(late) > 0.99
    assert quality(result, since=60.0) >= 0.9


def test_the_same_arguments_give_the_same_run():
    trace = generate(step(2.0, 12.0, 200.0), 600.0, seed=2)
    one, other = (run(make_scenario(), trace, AdaptivePolicy()) for _ in range(2))
    assert [(r.outcome, r.tier, r.finished_at) for r in one.requests] == [
        (r.outcome, r.tier, r.finished_at) for r in other.requests
    ]
    assert one.changes == other.changes


def test_a_model_of_a_pool_is_simulated_alone_with_its_budget():
    trace = generate(steady(2.0), 300.0, seed=4)
    alone, of_pool = (
        run(make_scenario(accelerators=accelerators), trace, AdaptivePolicy()) for accelerators in ({}, {"pool": "gpu"})
    )
    assert of_pool.changes == alone.changes
    assert served(of_pool, since=60.0) > 0.99


def test_every_decision_follows_from_its_observation_alone():
    policy = AdaptivePolicy(keep_records=True)
    run(make_scenario(), generate(step(2.0, 12.0, 200.0), 500.0, seed=3), policy)
    assert len(policy.records) > 30
    assert policy.records[-1].observation.models[0].metrics.history is not None
    for record in policy.records:
        assert decide_pool(record.observation, DecideSettings()) == record.decision


FAULTS = [Fault.GONE, Fault.STALE, Fault.NAN]


@pytest.mark.parametrize("fault", FAULTS)
def test_while_metrics_are_missing_no_replica_changes_however_the_load_moves(fault):
    def fault_at(now: float) -> Fault | None:
        return fault if 400 <= now < 700 else None

    trace = generate(lambda t: 3.0 if t < 420 else 12.0, 900.0, seed=4)
    result = run(make_scenario(), trace, AdaptivePolicy(), RunSettings(fault_at=fault_at))
    # Old samples count for 120 s, and may then only ask for more.
    blind = [c for c in result.changes if (520 if fault is Fault.STALE else 400) <= c.at < 700]
    assert blind == []
    assert any(c.at >= 700 for c in result.changes)


def test_a_steady_load_changes_nothing_once_it_is_known():
    trace = generate(steady(6.0), 2000.0, seed=1)
    result = run(make_scenario(), trace, AdaptivePolicy())
    assert [c for c in result.changes if c.at > 900] == []


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1000),
    budget=st.integers(1, 6),
    peak=st.floats(1.0, 40.0),
    half_period=st.sampled_from([30.0, 60.0, 120.0]),
    fault_from=st.floats(0.0, 400.0),
    fault=st.sampled_from([*FAULTS, None]),
)
def test_whatever_happens_the_budget_and_the_floor_hold(seed, budget, peak, half_period, fault_from, fault):
    def fault_at(now: float) -> Fault | None:
        return fault if fault_from <= now < fault_from + 100 else None

    trace = generate(square_wave(1.0, peak, half_period), 400.0, seed)
    scenario = make_scenario(budget=budget, load_seconds=10)
    result = run(scenario, trace, AdaptivePolicy(), RunSettings(fault_at=fault_at))  # raises BudgetError beyond it
    assert result.ledger.most <= budget
    started = [r for r in result.requests if r.tier]
    assert not started or sum(r.quality for r in started) / len(started) >= scenario.floor - 1e-9
    assert all(r.outcome is not Outcome.PENDING for r in result.requests)


def test_a_larger_replica_swaps_with_smaller_ones_within_the_budget():
    tiers = (("full", "bf16", 1000, 4.0, 4), ("int8", "int8", 990, 3.5, 2), ("int4", "int4", 850, 3.0, 1))
    trace = generate(flash_crowd(1.5, 8.0, 300.0, decay=300.0), 1800.0, seed=5)
    # A floor that the warm int4 keeps alone: else the way back is held, because nothing may serve meanwhile.
    result = run(make_scenario(budget=5, tiers=tiers, quality={"floorPermille": 800}), trace, AdaptivePolicy())
    assert mixes(result)[0] == mixes(result)[-1] == {"full": 1, "int4": 1}
    assert {"int8": 2, "int4": 1} in mixes(result)
    assert result.ledger.most == 5


def test_progress_goes_from_a_hundredth_to_the_whole():
    seen: list[float] = []
    run(make_scenario(), generate(steady(1.0), 60.0, seed=1), AdaptivePolicy(), progress=seen.append)
    assert seen == [i / 100 for i in range(1, 101)]
