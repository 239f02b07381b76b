"""The choreography on a toy cluster: random decisions, edits, slow and broken pods, kills between any two writes."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.revisions import tier_inputs
from adaptive_operator.observe.observation import ModelObservation, PodObservation, PodPhase, PolicyMemory
from adaptive_operator.plan import plan_model
from adaptive_operator.plan.plan import ApplyObject, DeleteObject, Plan
from adaptive_operator.plan.revisions import current_revisions
from tests.operator.plan.situations import SETTINGS, demo_tiers, make_decision, make_spec
from tests.operator.plan.toy_cluster import ToyCluster

BUDGET = 4
COST = {"full": 2, "int8": 1, "int4": 1}
MIXES = [
    {"full": full, "int8": int8, "int4": int4}
    for full in range(3)
    for int8 in range(5)
    for int4 in range(5)
    if 0 < 2 * full + int8 + int4 <= BUDGET
]
ROLLING = dict.fromkeys(COST, 1)


def run_pass(cluster: ToyCluster, decision: Decision, epoch: int = 1, kill_after: int | None = None) -> Plan:
    """One pass of an operator that has just started; killed after so many of its writes."""
    plan = plan_model(cluster.observe(), decision, SETTINGS, cluster.now, epoch)
    for step in plan.steps[:kill_after]:
        cluster.take(step)
        assert cluster.held() <= decision.accelerators_granted
    return plan


def settle(cluster: ToyCluster, decision: Decision, epoch: int = 1, rounds: int = 60) -> None:
    for _ in range(rounds):
        plan = run_pass(cluster, decision, epoch)
        if not plan.steps and cluster.is_at_rest():
            return
        cluster.run_controllers()


def writes_of(plan: Plan) -> list[ApplyObject | DeleteObject]:
    return [step for step in plan.steps if isinstance(step, ApplyObject | DeleteObject)]


class Choreography(RuleBasedStateMachine):
    """Anything may happen in any order; the invariants hold after every write."""

    @initialize(mix=st.sampled_from(MIXES), end_rounds=st.integers(1, 3), busy_rounds=st.integers(0, 3))
    def start(self, mix: dict[str, int], end_rounds: int, busy_rounds: int) -> None:
        self.cluster = ToyCluster(make_spec(), dict(ROLLING), end_rounds, busy_rounds)
        self.mix, self.epoch = mix, 1
        self.proven: dict[str, str] = {}  # tier -> inputs of the revision it goes on with instead of the spec's

    @rule(mix=st.sampled_from(MIXES))
    def decide(self, mix: dict[str, int]) -> None:
        self.mix = mix

    @rule(tier=st.sampled_from(sorted(COST)), rounds=st.sampled_from([0, 1, 3, None]))
    def change_load_time(self, tier: str, rounds: int | None) -> None:
        self.cluster.load_rounds[tier] = rounds

    @rule(tier=st.integers(0, 2), gib=st.integers(1, 3))
    def edit_tier(self, tier: int, gib: int) -> None:
        tiers = demo_tiers()
        tiers[tier]["replica"]["memory"] = f"{gib}Gi"
        self.cluster.spec = make_spec(tiers)

    @rule(tier=st.sampled_from(sorted(COST)), index=st.integers(0, 3))
    def hold_back_or_adopt(self, tier: str, index: int) -> None:
        made = sorted(item.tier_inputs for item in self.cluster.observe().stateful_sets if item.tier == tier)
        self.proven.pop(tier, None)
        if index < len(made):
            self.proven[tier] = made[index]

    @rule(kill_after=st.one_of(st.none(), st.integers(0, 12)))
    def reconcile(self, kill_after: int | None) -> None:
        model, held = self.cluster.observe(), self.cluster.held()
        before = self.cluster.routable()
        run_pass(self.cluster, self.decision, self.epoch, kill_after)
        if before and not self.cluster.routable():
            assert not self.wanted_pods(model), "the last ready replica drains before what was started got ready"
            missing = [COST[tier] for tier, count in self.mix.items() if count > 0]
            assert min(missing) > BUDGET - held, "the last ready replica drains although another could be started first"

    def wanted_pods(self, model: ModelObservation) -> list[PodObservation]:
        revisions = current_revisions(model, SETTINGS.engine_image, self.held_back)
        wanted = {item.name: self.mix[tier] for tier, item in revisions.items()}
        return [pod for pod in model.pods if pod.ordinal < wanted.get(pod.stateful_set, 0)]

    @rule()
    def restart(self) -> None:
        self.epoch += 1

    @rule()
    def time_passes(self) -> None:
        self.cluster.run_controllers()

    @property
    def decision(self) -> Decision:
        return make_decision(
            self.mix, granted=BUDGET, held_back=self.held_back, memory=PolicyMemory(proven=dict(self.proven))
        )

    @property
    def held_back(self) -> dict[str, str]:
        """As the policy does: only while the StatefulSet exists, and not what the spec asks for anyway."""
        model = self.cluster.observe()
        made = {item.tier_inputs for item in model.stateful_sets}
        asked = {tier.name: tier_inputs(model.spec, tier) for tier in model.spec.tiers}
        return {t: inputs for t, inputs in self.proven.items() if inputs in made and inputs != asked[t]}

    @invariant()
    def never_holds_more_than_the_grant(self) -> None:
        if hasattr(self, "cluster"):
            assert self.cluster.held() <= BUDGET

    @invariant()
    def never_removes_a_pod_that_routers_still_use(self) -> None:
        if hasattr(self, "cluster"):
            assert self.cluster.removed_undrained == []

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        self.cluster.load_rounds = dict(ROLLING)
        settle(self.cluster, self.decision, self.epoch)
        assert {tier: n for tier, n in self.cluster.asked().items() if n} == {t: n for t, n in self.mix.items() if n}
        assert all(self.cluster.is_ready(pod) for pod in self.cluster.pods)
        assert plan_model(self.cluster.observe(), self.decision, SETTINGS, self.cluster.now, self.epoch).steps == ()


Choreography.TestCase.settings = settings(
    max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestChoreography = pytest.mark.timeout(300)(Choreography.TestCase)


def start_with(mix: dict[str, int]) -> ToyCluster:
    cluster = ToyCluster(make_spec(), dict(ROLLING))
    settle(cluster, make_decision(mix), rounds=8)
    assert cluster.asked() == mix
    return cluster


def test_the_swap_of_the_demo_and_its_restoration_lead_where_they_should() -> None:
    cluster = start_with({"full": 1, "int4": 1})
    for mix in ({"full": 0, "int8": 3, "int4": 1}, {"full": 1, "int8": 0, "int4": 1}):
        settle(cluster, make_decision(mix), rounds=15)
        assert {tier: count for tier, count in cluster.asked().items() if count} == {t: n for t, n in mix.items() if n}


def test_a_swap_keeps_a_ready_replica_at_every_moment() -> None:
    cluster = start_with({"full": 1, "int4": 1})
    decision = make_decision({"full": 0, "int8": 3, "int4": 1})
    for _ in range(15):
        run_pass(cluster, decision)
        assert cluster.routable()
        cluster.run_controllers()


def test_a_tier_that_never_gets_ready_costs_the_origin_nothing_when_there_was_room() -> None:
    cluster = start_with({"full": 1, "int4": 1})
    cluster.load_rounds["int8"] = None
    decision = make_decision({"full": 0, "int8": 3, "int4": 1})
    for _ in range(40):
        run_pass(cluster, decision)
        assert {pod.tier for pod in cluster.routable()} == {"full", "int4"}
        cluster.run_controllers()
    assert cluster.asked() == {"full": 1, "int8": 1, "int4": 1}


def test_a_roll_back_leads_to_the_origin_and_frees_what_the_failed_tier_held() -> None:
    cluster = start_with({"full": 1, "int4": 1})
    cluster.load_rounds["int8"] = None
    settle(cluster, make_decision({"full": 0, "int8": 3, "int4": 1}), rounds=10)
    settle(cluster, make_decision({"full": 1, "int8": 0, "int4": 1}), rounds=10)
    assert cluster.held() == 3
    assert cluster.asked() == {"full": 1, "int8": 0, "int4": 1}


@pytest.mark.parametrize("kill_after", range(14))
def test_a_swap_that_is_killed_after_every_kth_write_still_ends(kill_after: int) -> None:
    cluster = start_with({"full": 1, "int4": 1})
    decision = make_decision({"full": 0, "int8": 3, "int4": 1})
    run_pass(cluster, decision, epoch=2, kill_after=kill_after)
    settle(cluster, decision, epoch=3, rounds=15)
    assert cluster.asked() == {"full": 0, "int8": 3, "int4": 1}
    assert cluster.removed_undrained == []


def test_an_edited_tier_is_exchanged_and_its_old_stateful_set_goes() -> None:
    cluster = start_with({"full": 1, "int4": 1})
    tiers = demo_tiers()
    tiers[2]["replica"]["memory"] = "2Gi"
    cluster.spec = make_spec(tiers)
    decision = make_decision({"full": 1, "int4": 1})
    settle(cluster, decision, rounds=12)
    memory = {
        item["metadata"]["labels"]["adaptivellm.dev/tier"]: item["spec"]["template"]["spec"]["containers"][0][
            "resources"
        ]
        for (kind, _), item in cluster.objects.items()
        if kind == "StatefulSet"
    }
    assert [(tier, shape["limits"]["memory"]) for tier, shape in sorted(memory.items())] == [
        ("full", "1Gi"),
        ("int4", "2Gi"),
    ]
    assert len(cluster.pods) == 2
    assert writes_of(plan_model(cluster.observe(), decision, SETTINGS, cluster.now, 1)) == []


def test_a_new_operator_image_restarts_no_pod() -> None:
    cluster = start_with({"full": 1, "int4": 1})
    pods = {pod.uid for pod in cluster.pods}
    upgraded = replace(SETTINGS, engine_image="registry.example/engine:2", max_batch_size=16)
    decision = make_decision({"full": 1, "int4": 1})
    for _ in range(6):
        for step in plan_model(cluster.observe(), decision, upgraded, cluster.now, 2).steps:
            cluster.take(step)
        cluster.run_controllers()
    assert {pod.uid for pod in cluster.pods} == pods
    images = {item["spec"]["template"]["spec"]["containers"][0]["image"] for item in cluster._stateful_sets()}
    assert images == {SETTINGS.engine_image}


def test_going_back_to_an_earlier_edit_finds_its_pods_again() -> None:
    cluster = start_with({"full": 1, "int4": 1})
    pods = {pod.uid for pod in cluster.pods}
    decision = make_decision({"full": 1, "int4": 1})
    edited = demo_tiers()
    edited[2]["replica"]["memory"] = "2Gi"
    for tiers in (edited, demo_tiers()):
        cluster.spec = make_spec(tiers)
        run_pass(cluster, decision)
    settle(cluster, decision)
    assert {pod.uid for pod in cluster.pods} == pods


def test_busy_replicas_go_at_the_drain_deadline_at_the_latest() -> None:
    cluster = ToyCluster(make_spec(scaling={"drainDeadlineSeconds": 30}), dict(ROLLING), busy_rounds=10_000)
    settle(cluster, make_decision({"full": 1, "int4": 1}), rounds=8)
    for _ in range(5):  # 25 seconds
        run_pass(cluster, make_decision({"full": 0, "int4": 1}))
        cluster.run_controllers()
    assert cluster.asked()["full"] == 1
    settle(cluster, make_decision({"full": 0, "int4": 1}), rounds=4)
    assert cluster.asked()["full"] == 0


def nested_form(levels: list[str], qualities: dict[str, int], **recipe: Any) -> dict[str, Any]:
    cards = [
        {"name": name, "qualityPermille": quality, "capacityMilliRequestsPerSecond": 1650 - quality}
        for name, quality in qualities.items()
    ]
    return {"recipe": {"nested": {"levels": levels, **recipe}}, "card": {"levels": cards}}


PLAIN = {"recipe": {"precision": "int4"}, "card": {"qualityPermille": 800, "capacityMilliRequestsPerSecond": 850}}
FOUR_LEVELS = nested_form(
    ["int8", "int4"], {"int8": 998, "int8-d28": 950, "int4": 780, "int4-d28": 700}, depths=[30, 28]
)
ONE_LEVEL = nested_form(["int4"], {"int4": 810})
RECIPES = {
    "plain-to-nested": (PLAIN, FOUR_LEVELS),
    "nested-to-plain": (FOUR_LEVELS, PLAIN),
    "fewer-levels": (FOUR_LEVELS, ONE_LEVEL),
    "more-levels": (ONE_LEVEL, FOUR_LEVELS),
}


def spec_with(form: dict[str, Any]) -> AdaptiveModelSpec:
    full, int8, int4 = demo_tiers()
    return make_spec([full, int8, {**int4, **form}])


def levels_by_replica(cluster: ToyCluster, tier: str) -> dict[str, set[str]]:
    """What the engine of each ready replica was told to serve, read from its arguments."""
    sets = {item.name: item for item in cluster.observe().stateful_sets}
    containers = {name: item.manifest["spec"]["template"]["spec"]["containers"][0] for name, item in sets.items()}
    ready = [pod for pod in cluster.observe().pods if pod.tier == tier and pod.phase is PodPhase.READY]
    return {pod.name: levels_of_arguments(containers[pod.stateful_set]["args"]) for pod in ready}


def levels_of_arguments(arguments: list[str]) -> set[str]:
    options = dict(pairwise(arguments))
    suffixes = ["", *(f"-d{depth}" for depth in options.get("--depths", "").split(",")[1:])]
    return {level + suffix for level in options.get("--levels", "").split(",") for suffix in suffixes}


def levels_in_table(cluster: ToyCluster, tier: str) -> dict[str, set[str]]:
    """What the routing table says of each StatefulSet of a tier."""
    table = json.loads(cluster.observe().routing_table or "{}")
    return {item["statefulSet"]: set(item["levels"]) for item in table.get("revisions", []) if item["tier"] == tier}


@pytest.mark.parametrize(("before", "after"), RECIPES.values(), ids=RECIPES)
def test_while_a_recipe_is_exchanged_the_table_names_no_level_that_a_replica_does_not_have(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    decision = make_decision({"full": 1, "int8": 0, "int4": 2}, {"full": 0.5, "int4": 0.5})
    cluster = ToyCluster(spec_with(before), dict(ROLLING))
    settle(cluster, decision)
    cluster.spec = spec_with(after)
    seen = set()
    for _ in range(60):
        plan = run_pass(cluster, decision)
        routes = {route["level"] for route in routes_of_table(cluster, "int4")}
        said = levels_in_table(cluster, "int4")
        for pod, levels in levels_by_replica(cluster, "int4").items():
            assert said[pod.rpartition("-")[0]] == levels
            assert levels <= routes
            seen.add(frozenset(levels))
        if not plan.steps and cluster.is_at_rest():
            break
        cluster.run_controllers()
    assert len(seen) == 2, "both recipes have served"
    assert set().union(*levels_by_replica(cluster, "int4").values()) == routes


@pytest.mark.parametrize(("before", "after"), RECIPES.values(), ids=RECIPES)
def test_a_tier_that_goes_on_with_its_earlier_revision_has_the_levels_and_the_quality_of_that_one(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    decision = make_decision({"full": 1, "int8": 0, "int4": 2}, {"full": 0.5, "int4": 0.5})
    cluster = ToyCluster(spec_with(before), dict(ROLLING))
    settle(cluster, decision)
    routes = routes_of_table(cluster, "int4")
    inputs = tier_inputs(cluster.spec, cluster.spec.tiers[2])
    cluster.spec = spec_with(after)
    settle(cluster, replace(decision, held_back={"int4": inputs}))
    assert routes_of_table(cluster, "int4") == routes


def routes_of_table(cluster: ToyCluster, tier: str) -> list[dict[str, Any]]:
    table = json.loads(cluster.observe().routing_table or "")
    return [route for route in table["routes"] if route["tier"] == tier]
