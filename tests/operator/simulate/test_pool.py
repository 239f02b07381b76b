"""Several models on shared accelerators, nodes that go away, and nested tiers."""

from __future__ import annotations

from collections import Counter

import pytest

from adaptive_operator.simulate.generators import ahead, generate, sinusoid, steady
from adaptive_operator.simulate.policies.base import Separate
from adaptive_operator.simulate.policies.hpa import HpaPolicy
from adaptive_operator.simulate.policies.oracle import make_pool_oracle
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.requests import Outcome
from adaptive_operator.simulate.run import NodeLoss, Part, RunSettings, run, run_pool
from adaptive_operator.simulate.scenario import build_scenario
from tests.operator.simulate.scenes import make_scenario, make_spec, mixes, served


def three_in_antiphase(budget=6, seconds=1200.0):
    return [
        Part(
            build_scenario(name, make_spec(routing={"warmTier": "int8"}), budget),
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
    results = run_pool(three_in_antiphase(budget=8, seconds=2400.0), AdaptivePolicy())
    assert all(len(mixes(result)) > 2 for result in results)
    assert all(served(result, since=120.0) > 0.97 for result in results)


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
