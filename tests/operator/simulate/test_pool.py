"""Several models on shared accelerators, nodes that go away, and nested tiers."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.simulate.cards import measure_cards
from adaptive_operator.simulate.events import EventQueue
from adaptive_operator.simulate.generators import ahead, generate, sinusoid, square_wave, steady, step
from adaptive_operator.simulate.policies.ablations import make_variant
from adaptive_operator.simulate.policies.base import Separate
from adaptive_operator.simulate.policies.hpa import HpaPolicy
from adaptive_operator.simulate.policies.oracle import make_pool_oracle
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.profile import ProfileError
from adaptive_operator.simulate.replica import Replica
from adaptive_operator.simulate.requests import Outcome, Request
from adaptive_operator.simulate.run import NodeLoss, Part, RunSettings, run, run_pool
from adaptive_operator.simulate.scaling import cut_trace
from adaptive_operator.simulate.scenario import build_scenario
from adaptive_operator.simulate.scrapes import Fault
from adaptive_operator.simulate.traces import read_trace
from tests.needed import need_trace
from tests.operator.simulate.queues import NOTHING, make_curve
from tests.operator.simulate.scenes import curves_of, make_scenario, make_spec, mixes, served

pytestmark = pytest.mark.slow


def three_in_antiphase(budget=6, seconds=600.0):
    """Loads a third of 1,200 s apart: within half of that each of the three rises or falls by most of its height."""
    return [
        Part(
            build_scenario(name, make_spec(routing={"warmTier": "int8"}), budget, curves_of(make_spec())),
            generate(ahead(sinusoid(0.5, 12.0, 1200.0), 400.0 * i), seconds, seed=i),
        )
        for i, name in enumerate(("a", "b", "c"))
    ]


def most_together(results):
    """Accelerators held at each sample, summed over the models."""
    held = Counter()
    for result in results:
        for sample in result.samples:
            held[sample.at] += sample.held
    return max(held.values())


POLICIES = {
    "ours": lambda parts: AdaptivePolicy(),
    "hpa for each": lambda parts: Separate([HpaPolicy() for _ in parts]),
    "the oracle": lambda parts: make_pool_oracle([(part.scenario, part.trace) for part in parts]),
}


@pytest.mark.parametrize("name", POLICIES)
def test_models_of_a_pool_share_the_budget_under(name):
    parts = three_in_antiphase()
    results = run_pool(parts, POLICIES[name](parts))  # raises BudgetError beyond it
    assert [result.scenario.name for result in results] == ["a", "b", "c"]
    assert [len(result.requests) for result in results] == [len(part.trace) for part in parts]
    assert 3 <= most_together(results) <= 6
    assert all(served(result, since=120.0) > 0.6 for result in results)


def test_in_antiphase_replicas_go_where_the_load_is():
    results = run_pool(three_in_antiphase(budget=8, seconds=1200.0), AdaptivePolicy())
    assert all(len(mixes(result)) > 2 for result in results)
    assert all(served(result, since=120.0) > 0.97 for result in results)


def test_without_the_swap_cost_no_plan_hears_of_the_prices_of_the_one_before():
    heard = []
    for text in ("", "without-swap-cost"):
        policy = make_variant(text, 15.0)
        policy.keep_records = True
        run_pool(three_in_antiphase(budget=4, seconds=300.0), policy)
        assert any(record.decision.planned for record in policy.records)
        heard.append(any(price > 0 for record in policy.records for price in record.observation.prices.values()))
    assert heard == [True, False]


def test_two_models_of_one_name_are_refused():
    with pytest.raises(ValueError, match="same name"):
        run_pool([three_in_antiphase()[0]] * 2, AdaptivePolicy())


def test_when_a_node_is_lost_ours_serves_with_what_is_left_and_never_passes_it():
    settings = RunSettings(losses=(NodeLoss(600.0, 2, 600.0),))
    result = run(make_scenario(budget=4), generate(steady(9.0), 2000.0, seed=1), AdaptivePolicy(), settings)
    lost = [request for request in result.requests if request.outcome is Outcome.CUT]
    assert lost
    assert all(570 <= request.arrival <= 600 for request in lost)
    meanwhile = [request for request in result.requests if 950 <= request.arrival < 1200]
    assert sum(request.outcome is Outcome.FINISHED for request in meanwhile) > 0.99 * len(meanwhile)
    assert max(sum(sample.ready.values()) for sample in result.samples if 610 <= sample.at < 1200) <= 2
    assert any(sum(sample.ready.values()) > 2 for sample in result.samples if sample.at > 1500)


@settings(max_examples=4, deadline=None)
@given(
    seed=st.integers(0, 1000),
    budget=st.integers(2, 6),
    peaks=st.lists(st.floats(1.0, 20.0), min_size=2, max_size=3),
    half_period=st.sampled_from([30.0, 60.0, 120.0]),
    # At, accelerators, and for how long; several at once may take everything away.
    losses=st.lists(
        st.builds(NodeLoss, st.floats(10.0, 350.0), st.integers(1, 3), st.sampled_from([20.0, 120.0, 600.0])),
        max_size=3,
    ),
    fault_from=st.floats(0.0, 350.0),
    fault=st.sampled_from([*Fault, None]),
)
def test_models_of_a_pool_start_nothing_beyond_what_is_left_however_nodes_and_metrics_come_and_go(
    seed, budget, peaks, half_period, losses, fault_from, fault
):
    def fault_at(now):
        return fault if fault_from <= now < fault_from + 100 else None

    parts = [
        Part(
            build_scenario(f"m{i}", make_spec(load_seconds=10), budget, curves_of(make_spec())),
            generate(ahead(square_wave(1.0, peak, half_period), half_period * i), 400.0, seed + i),
        )
        for i, peak in enumerate(peaks)
    ]
    keep_to_budget(parts, budget, RunSettings(fault_at=fault_at, losses=tuple(losses)))


@pytest.fixture(scope="module")
def conversation():
    """Azure's conversation trace."""
    return read_trace(need_trace())


@settings(max_examples=3, deadline=None)
@given(
    begin=st.floats(0.0, 3300.0),
    budget=st.integers(2, 6),
    loss=st.builds(NodeLoss, st.floats(10.0, 100.0), st.integers(1, 3), st.sampled_from([20.0, 60.0])),
    fault_from=st.floats(0.0, 100.0),
    fault=st.sampled_from([*Fault]),
)
def test_the_same_holds_beside_a_model_whose_load_was_recorded(conversation, begin, budget, loss, fault_from, fault):
    own = make_spec(load_seconds=10)
    parts = [
        Part(build_scenario("recorded", own, budget, curves_of(own)), cut_trace(conversation, begin, begin + 120.0)),
        Part(
            build_scenario("made", own, budget, curves_of(own)), generate(square_wave(1.0, 12.0, 30.0), 120.0, seed=1)
        ),
    ]
    faults = RunSettings(fault_at=lambda now: fault if fault_from <= now < fault_from + 40 else None, losses=(loss,))
    keep_to_budget(parts, budget, faults)


def keep_to_budget(parts, budget, faults):
    """Run it: nothing is started, granted or wanted beyond what is there and not held already, at any event."""
    losses, policy = faults.losses, AdaptivePolicy(keep_records=True)
    results = run_pool(parts, policy, faults)  # raises BudgetError
    assert max(result.most_held_in_pool for result in results) <= budget
    for record in policy.records:
        held = sum(held_accelerators(model) for model in record.observation.models)
        granted = sum(decision.accelerators_granted for decision in record.decision.decisions)
        left = max(budget - sum(n.accelerators for n in losses if n.at <= record.at < n.at + n.seconds), 0)
        assert granted <= max(left, held)
        # All tiers are of one accelerator: what is wanted of a pool that shrank is never more than what was asked for.
        wanted = sum(sum(decision.replicas.values()) for decision in record.decision.decisions)
        assert wanted <= max(left, sum(_asked(model) for model in record.observation.models))


def _asked(model):
    return sum(item.replicas * item.accelerators for item in model.stateful_sets)


NESTED = {
    "name": "nested",
    "recipe": {"nested": {"levels": ["int8", "int4"]}},
    "replica": {"accelerators": 1, "cpu": "1", "memory": "16Gi"},
    "card": {
        "qualityPermille": 990,
        "capacityMilliRequestsPerSecond": 6400,
        "referencePromptTokens": 1155,
        "referenceOutputTokens": 211,
        "loadSeconds": 20,
        "levels": [{"name": "int4", "qualityPermille": 965, "capacityMilliRequestsPerSecond": 10_000}],
    },
}


def nested_spec():
    document = make_spec().model_dump(mode="json", by_alias=True, exclude_none=True)
    return AdaptiveModelSpec.model_validate({**document, "tiers": [NESTED]})


def nested_scenario(curves=None):
    return build_scenario("assistant", nested_spec(), 1, curves)


def test_a_nested_tier_sheds_to_its_lower_level_without_a_change_of_replicas():
    trace = generate(step(2.0, 8.0, 300.0), 420.0, seed=1)
    result = run(nested_scenario(), trace, AdaptivePolicy())
    assert {r.level for r in result.requests if 100 <= r.arrival < 300} == {"int8"}
    late = [r for r in result.requests if r.arrival >= 310]
    assert {r.level for r in late} == {"int8", "int4"}
    assert {round(r.quality, 3) for r in late if r.level == "int4"} == {0.965}
    assert mixes(result) == [{"nested": 1}]


def test_policies_that_know_no_levels_serve_the_top_one():
    result = run(nested_scenario(), generate(steady(3.0), 200.0, seed=1), HpaPolicy())
    assert {r.level for r in result.requests if r.tier} == {"int8"}


def test_a_nested_replica_computes_one_level_after_the_other():
    slow, fast = make_curve(), make_curve().scaled(2.0, 2.0)
    both = [serve_at_once(("int8", "int4"), slow, fast), serve_at_once(("int4", "int4"), slow, fast)]
    step_slow, step_fast = slow.step(1), fast.step(1)
    mixed = [100 * (step_slow + step_fast)] * 2
    alike = [100 * fast.step(2)] * 2
    assert both == [pytest.approx(mixed), pytest.approx(alike)]


def serve_at_once(levels, slow, fast):
    """Seconds of decoding 101 tokens, of requests that come together."""
    events = EventQueue()
    replica = Replica(slow, events, NOTHING, NOTHING, levels={"int8": slow, "int4": fast})
    requests = [Request(0.0, 100, 101, level=level) for level in levels]
    events.at(0.0, lambda: [replica.submit(request) for request in requests[1:]] and None)
    # The first one begins alone; its prefill ends before the others' does, so time starts when all decode.
    replica.submit(requests[0])
    events.run_until(100.0)
    return [request.finished_at - max(r.first_token_at for r in requests) for request in requests]


def test_measured_cards_have_the_levels_too():
    curves = {"nested": make_curve(), "nested/int4": make_curve().scaled(1.5, 1.5)}
    trace = generate(steady(5.0), 200.0, seed=1)
    (tier,) = measure_cards(nested_scenario(curves), trace, seed=1).scenario.spec.tiers
    (level,) = tier.card.levels
    assert level.capacity_milli_requests_per_second > 1.3 * tier.card.capacity_milli_requests_per_second


def test_a_profile_without_a_level_is_refused():
    with pytest.raises(ProfileError, match=r"no level int4 of tier nested; add it under tiers\.nested\.levels"):
        nested_scenario({"nested": make_curve()})
