"""An AcceleratorPool in a simulation: as it is read from a manifest, and what its shares do under contention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.api.pool import AcceleratorPoolSpec, PoolDivision
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.simulate.failing_loads import FailingLoads, Failure
from adaptive_operator.simulate.generators import Rate, ahead, generate, square_wave, steady
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.pool_model import Member, PoolModel, PoolModelError, find_pool
from adaptive_operator.simulate.run import NodeLoss, Part, RunResult, RunSettings, run_pool
from adaptive_operator.simulate.scenario import ScenarioError, build_scenario, load_scenarios
from tests.operator.simulate.scenes import curves_of, make_spec, served

EXAMPLES = Path(__file__).parents[3] / "examples"
BUDGET = 8
HALF_PERIOD = 300.0
# Three parts of four of what the reservation leaves are a's.
SHARES = [
    {"namespace": "team", "model": "a", "weight": 3},
    {"namespace": "team", "model": "c", "reservation": 3},
]


def play(
    loads: dict[str, Rate], shares: list[dict[str, Any]], world: RunSettings | None = None, **spec: Any
) -> tuple[dict[str, RunResult], AdaptivePolicy]:
    """Models of one accelerator per replica, each with its load for 20 minutes."""
    declared = AcceleratorPoolSpec.model_validate({"budget": BUDGET, "shares": shares, **spec})
    pool = PoolModel("gpus", declared)
    own = make_spec(accelerators={"pool": "gpus"})
    parts = [
        Part(build_scenario(name, own, BUDGET, curves_of(own), pool=pool), generate(rate, 4 * HALF_PERIOD, seed))
        for seed, (name, rate) in enumerate(loads.items())
    ]
    policy = AdaptivePolicy(keep_records=True)
    results = run_pool(parts, policy, world)  # raises BudgetError beyond budget and surge
    return {result.scenario.name: result for result in results}, policy


def held(results: dict[str, RunResult], begin: float, end: float) -> list[dict[str, int]]:
    """Accelerators by model at each sample of this time (seconds)."""
    moments: dict[float, dict[str, int]] = {}
    for name, result in results.items():
        for sample in result.samples:
            if begin <= sample.at < end:
                moments.setdefault(sample.at, {})[name] = sample.held
    assert moments
    return list(moments.values())


@pytest.mark.slow
def test_weights_and_reservations_hold_when_a_square_wave_makes_all_want_more_than_there_is():
    wave = square_wave(1.0, 20.0, HALF_PERIOD)
    loads = dict.fromkeys("abc", wave)
    with_shares, without = play(loads, SHARES)[0], play(loads, [])[0]
    for peak in (1, 3):
        begin, end = (peak + 0.5) * HALF_PERIOD, (peak + 1) * HALF_PERIOD
        assert all(moment == {"a": 4, "b": 1, "c": 3} for moment in held(with_shares, begin, end))
        assert all(sorted(moment.values()) == [2, 3, 3] for moment in held(without, begin, end))
    low = held(with_shares, 2.9 * HALF_PERIOD, 3 * HALF_PERIOD)
    assert all(sum(moment.values()) <= 6 for moment in low)  # nobody wants its share then


@pytest.mark.slow
def test_a_reservation_is_the_others_while_its_owner_is_idle_and_the_owners_when_the_load_comes():
    loads = {"a": steady(20.0), "b": steady(20.0), "c": square_wave(1.0, 20.0, HALF_PERIOD)}
    results, policy = play(loads, SHARES)
    for peak in (1, 3):
        busy = held(results, (peak + 0.6) * HALF_PERIOD, (peak + 1) * HALF_PERIOD)
        assert all(moment["c"] >= 3 and moment["a"] > moment["b"] for moment in busy)
    idle = held(results, 2.8 * HALF_PERIOD, 3 * HALF_PERIOD)
    assert all(moment["a"] + moment["b"] > BUDGET - 3 for moment in idle)
    for record in policy.records:
        assert sum(held_accelerators(model) for model in record.observation.models) <= BUDGET
        assert sum(decision.accelerators_granted for decision in record.decision.decisions) <= BUDGET


@pytest.mark.slow
def test_a_pool_that_the_plan_divides_runs_the_program_with_its_weights_within_budget_and_surge():
    loads = dict.fromkeys("ab", square_wave(1.0, 30.0, HALF_PERIOD))
    shares = [{"namespace": "team", "model": "b", "weight": 3}]
    results, policy = play(loads, shares, division="Planned", surgeAccelerators=1)
    assert any(record.decision.planned for record in policy.records)
    assert any(record.observation.prices for record in policy.records), "the next plan knows the last one's prices"
    assert {record.observation.division for record in policy.records} == {PoolDivision.PLANNED}
    assert results["a"].most_held_in_pool <= BUDGET + 1
    assert {d.part.weight for d in policy.records[-1].decision.decisions if d.part} == {1, 3}


@pytest.mark.slow
def test_the_surge_is_used_for_swaps_only():
    loads = dict.fromkeys("abc", square_wave(1.0, 20.0, HALF_PERIOD))
    results, policy = play(loads, SHARES, surgeAccelerators=1)
    assert results["a"].most_held_in_pool == BUDGET + 1
    for record in policy.records:
        decisions = record.decision.decisions
        wanted = sum(sum(decision.replicas.values()) for decision in decisions)
        assert wanted <= BUDGET
        if sum(held_accelerators(model) for model in record.observation.models) > BUDGET:
            assert any(model.swap is not None for model in record.observation.models)


@pytest.mark.slow
@settings(max_examples=3, deadline=None)
@given(
    seed=st.integers(0, 1000),
    weights=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    reserved=st.integers(0, 4),
    surge=st.integers(0, 2),
    half_period=st.sampled_from([30.0, 60.0, 120.0]),
    failing=st.lists(
        st.builds(FailingLoads, st.sampled_from(["full", "int8", "int4"]), st.sampled_from(Failure), st.just(0.5)),
        max_size=2,
    ),
    losses=st.lists(st.builds(NodeLoss, st.floats(10.0, 350.0), st.integers(1, 6), st.just(60.0)), max_size=2),
    division=st.sampled_from(PoolDivision),
)
def test_whatever_is_promised_and_fails_no_pool_holds_more_than_budget_and_surge(
    seed, weights, reserved, surge, half_period, failing, losses, division
):
    budget = 5
    shares = [{"namespace": "team", "model": f"m{i}", "weight": weight} for i, weight in enumerate(weights)]
    shares[0]["reservation"] = reserved if division is PoolDivision.WEIGHTED else 0
    own = {"budget": budget, "surgeAccelerators": surge, "shares": shares, "division": division}
    spec = AcceleratorPoolSpec.model_validate(own)
    own = make_spec(accelerators={"pool": "gpus"}, load_seconds=10)
    parts = [
        Part(
            build_scenario(f"m{i}", own, budget, curves_of(own), pool=PoolModel("gpus", spec)),
            generate(ahead(square_wave(1.0, 15.0, half_period), half_period * i), 400.0, seed + i),
        )
        for i in range(3)
    ]
    policy = AdaptivePolicy(keep_records=True)
    # Raises BudgetError beyond budget and surge.
    run_pool(parts, policy, RunSettings(losses=tuple(losses), failing_loads=tuple(failing)))
    for record in policy.records:
        models = record.observation.models
        lost = sum(loss.accelerators for loss in losses if loss.at <= record.at < loss.at + loss.seconds)
        asked = sum(item.replicas * item.accelerators for model in models for item in model.stateful_sets)
        wanted = sum(sum(decision.replicas.values()) for decision in record.decision.decisions)
        assert wanted <= max(min(budget, budget + surge - lost), asked)


@pytest.mark.slow
def test_a_pool_whose_nodes_are_all_away_decides_nothing_and_goes_on_when_they_are_back():
    away = RunSettings(losses=(NodeLoss(300.0, BUDGET, 200.0),))
    results, policy = play({"a": steady(4.0), "b": steady(4.0)}, [], away)
    assert [record for record in policy.records if 300 < record.at < 500] == []
    assert all(served(result, since=700.0) > 0.99 for result in results.values())


def test_a_manifest_with_a_pool_is_read_with_budget_surge_price_and_the_shares_of_its_models():
    scenarios = load_scenarios(EXAMPLES / "pool.yaml")
    assert [(s.name, s.budget, s.surge, s.spec.accelerators.pool) for s in scenarios] == [
        ("chat", 8, 1, "a100"),
        ("summarizer", 8, 1, "a100"),
    ]
    policy = AdaptivePolicy(keep_records=True)
    run_pool([Part(scenario, generate(steady(0.3), 60.0, seed=1)) for scenario in scenarios], policy)
    seen = policy.records[-1].observation
    assert (seen.name, seen.budget, seen.surge) == ("a100", 8, 1)
    assert {(share.model, share.reservation, share.weight) for share in seen.shares} == {
        ("chat", 4, 3),
        ("summarizer", 0, 1),
    }
    assert {model.pool_price_milli for model in seen.models} == {2500}


def test_a_manifest_with_a_pool_that_the_plan_divides_is_simulated_so():
    scenarios = load_scenarios(EXAMPLES / "planned-pool.yaml")
    policy = AdaptivePolicy(keep_records=True)
    run_pool([Part(scenario, generate(steady(0.3), 60.0, seed=1)) for scenario in scenarios], policy)
    seen = policy.records[-1].observation
    assert (seen.name, seen.division, seen.budget) == ("shared", PoolDivision.PLANNED, 6)
    assert [(share.model, share.weight) for share in seen.shares] == [("chat", 3)]
    assert {d.part.weight for d in policy.records[-1].decision.decisions if d.part} == {1, 3}


def test_the_budget_of_the_command_line_replaces_the_pools():
    assert {s.budget for s in load_scenarios(EXAMPLES / "pool.yaml", budget=6)} == {6}


MEMBERS = (Member("a", "one", "gpus"), Member("b", "one", "gpus"), Member("c", "two", "gpus"))


def find(spec: dict[str, Any], members: tuple[Member, ...] = MEMBERS, budget: int | None = None) -> PoolModel | None:
    return find_pool([{"kind": "AcceleratorPool", "metadata": {"name": "gpus"}, "spec": spec}], members, budget)


NAMESPACES = {
    "a share of one model": ([{"namespace": "two", "model": "c", "weight": 2}], MEMBERS, [("c", 2)]),
    "a share of a namespace with one model": ([{"namespace": "two", "weight": 2}], MEMBERS, [("c", 2)]),
    "a share of the namespace of all": ([{"namespace": "one", "weight": 2}], MEMBERS[:2], [("", 2)]),
    "a share of what a model of its own leaves": (
        [{"namespace": "one", "weight": 2}, {"namespace": "one", "model": "a", "weight": 3}],
        MEMBERS,
        [("b", 2), ("a", 3)],
    ),
    "a share of nobody here": ([{"namespace": "three", "weight": 2}], MEMBERS, []),
    "a share of another model of the name": ([{"namespace": "one", "model": "c", "weight": 2}], MEMBERS, []),
}


@pytest.mark.parametrize("name", NAMESPACES)
def test_shares_are_those_of_the_models_that_they_are_for(name):
    shares, members, wanted = NAMESPACES[name]
    found = find({"budget": 4, "shares": shares}, members)
    read = found.raw("simulation")["spec"]["shares"]
    assert [(share["model"], share["weight"]) for share in read] == wanted
    assert {share["namespace"] for share in read} <= {"simulation"}


REFUSED = {
    "no budget": ({}, MEMBERS, "names no budget; set it, or give --budget"),
    "an empty budget": ({"budget": 0}, MEMBERS, "spec.budget is 0, which holds no replica; raise it, or give --budget"),
    "more reserved than there is": (
        {"budget": 2, "shares": [{"namespace": "one", "reservation": 3}]},
        MEMBERS[:2],
        "of all shares together must not be greater than budget",
    ),
    "more reserved than what is given": (
        {"budget": 4, "shares": [{"namespace": "one", "reservation": 3}]},
        MEMBERS[:2],
        "3 accelerators of pool gpus are reserved, it has 2; lower the reservations, or raise --budget",
    ),
    "models of no pool beside": ({"budget": 2}, (*MEMBERS, Member("d", "one", None)), "must name the same"),
    "a namespace of several among others": (
        {"budget": 2, "shares": [{"namespace": "one", "weight": 3}]},
        MEMBERS,
        "give each model a share of its own",
    ),
    "a reservation that the plan would not keep": (
        {"budget": 4, "division": "Planned", "shares": [{"namespace": "one", "reservation": 1}]},
        MEMBERS[:2],
        "set division: Weighted, or leave the reservation out",
    ),
    "a negative budget": ({"budget": -1}, MEMBERS, "AcceleratorPool gpus: spec.budget: Invalid value: -1: should be"),
    "a typing error": ({"budgt": 2}, MEMBERS, 'unknown field "spec.budgt"; did you mean budget?'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_pool_that_cannot_be_simulated_is_refused_with_the_remedy(name):
    spec, members, words = REFUSED[name]
    with pytest.raises(PoolModelError) as raised:
        find(spec, members, 2 if name == "more reserved than what is given" else None)
    assert words in str(raised.value)


def test_pools_of_one_name_or_without_a_name_are_refused():
    pool = {"kind": "AcceleratorPool", "metadata": {"name": "gpus"}, "spec": {"budget": 2}}
    with pytest.raises(PoolModelError, match="two AcceleratorPools are called gpus; give each a name"):
        find_pool([pool, pool], MEMBERS, None)
    with pytest.raises(PoolModelError, match=r"metadata\.name: Required value; set it"):
        find_pool([{**pool, "metadata": {}}], MEMBERS, None)


def test_a_manifest_with_such_a_pool_is_refused_by_its_name(tmp_path):
    documents = list(yaml.safe_load_all((EXAMPLES / "pool.yaml").read_text()))
    del documents[0]["spec"]["budget"]
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump_all(documents))
    with pytest.raises(ScenarioError, match=r"pool\.yaml: AcceleratorPool a100 names no budget"):
        load_scenarios(tmp_path / "pool.yaml")


def test_a_manifest_whose_pool_is_not_in_it_needs_a_budget(tmp_path):
    documents = [
        doc for doc in yaml.safe_load_all((EXAMPLES / "pool.yaml").read_text()) if doc["kind"] != "AcceleratorPool"
    ]
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump_all(documents))
    words = r"accelerators\.pool is a100, and no AcceleratorPool is in the manifest; add it, or give --budget"
    with pytest.raises(ScenarioError, match=words):
        load_scenarios(tmp_path / "pool.yaml")
    assert load_scenarios(tmp_path / "pool.yaml", budget=8)[0].budget == 8


def test_a_pool_that_is_none_of_the_manifests_is_refused_with_what_may_be_meant():
    pools = [{"kind": "AcceleratorPool", "metadata": {"name": "gpus"}, "spec": {"budget": 2}}]
    with pytest.raises(PoolModelError) as raised:
        find_pool(pools, (Member("a", "one", "gpu"),), 4)
    assert str(raised.value) == (
        "a: accelerators.pool is gpu, which is no AcceleratorPool of the manifest; did you mean gpus?"
    )
    assert find_pool(pools, (Member("a", "one", None),), 4) is None


def test_shares_of_nobody_here_are_told():
    shares = [{"namespace": "one", "model": "aa", "weight": 2}, {"namespace": "six", "weight": 2}]
    found = find({"budget": 4, "shares": [*shares, {"namespace": "two", "weight": 2}]})
    words = "AcceleratorPool gpus: the share of"
    assert found.left_out == (
        f"{words} model one/aa is left out: no model is of it here; did you mean one/a?",
        f"{words} namespace six is left out: no model is of it here; there are one, two",
    )


def test_a_pool_that_is_not_in_the_manifest_is_left_out():
    assert find_pool([], MEMBERS, 4) is None
