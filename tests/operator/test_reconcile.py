"""One pass, with the real policy and an API server in memory: who may fail without hurting whom, what is said once."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from adaptive_operator import reconcile
from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.apply.events import EventRecorder
from adaptive_operator.apply.lease import LeaseHolder, LeaseSettings, NotLeaderError
from adaptive_operator.apply.steps import StepTaker
from adaptive_operator.decide import pool as pool_decisions
from adaptive_operator.decide.adopted import AdoptedPlan
from adaptive_operator.decide.decision import PoolDecision
from adaptive_operator.decide.optimize.solve import Method
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.decision_log import DecisionLog
from adaptive_operator.kube import ForbiddenError, NotFoundError, UnavailableError
from adaptive_operator.metrics import OperatorMetrics
from adaptive_operator.observe.cluster import ClusterReader, InventoryError
from adaptive_operator.observe.inventory import NodeInventory
from adaptive_operator.observe.last_answers import LastAnswers
from adaptive_operator.observe.observation import Planning, PoolObservation, PoolShare, Season
from adaptive_operator.observe.past_arrivals import PastArrivals
from adaptive_operator.observe.pools import build_pools
from adaptive_operator.observe.prometheus import Answer, Answers, Failed, Rows
from adaptive_operator.observe.queries import Query, QueryName, Windows
from adaptive_operator.plan.model import plan_model
from adaptive_operator.plan.plan import ApplyObject, Plan
from adaptive_operator.plan.settings import PlanSettings
from adaptive_operator.policy import Policy
from adaptive_operator.reconcile import PassSettings, Reconciler
from adaptive_operator.record import decode_record
from adaptive_operator.replay import Replayed, replay_lines
from adaptive_operator.solving import SolverError
from stand_ins.fake_kube import FakeKube
from stand_ins.no_prometheus import NoPrometheus
from stand_ins.plant import demo_spec, metrics, observe_one
from stand_ins.raw_objects import build_accelerator_pool, build_model, build_node, build_tier

NOW = 1767225700.0


class Scene:
    def __init__(self, *models: dict[str, Any], plan: Any = plan_model, kube: Any = FakeKube) -> None:
        self.kube: Any = kube(models)
        self.monotonic = 0.0
        self.lease = LeaseHolder(self.kube, LeaseSettings("system", "lock", "me"), wall_clock=lambda: NOW)
        self.metrics = OperatorMetrics()
        self.reconciler = Reconciler(
            cluster=ClusterReader(self.kube),
            nodes=NodeInventory(self.kube, monotonic=lambda: self.monotonic),
            prometheus=LastAnswers(NoPrometheus(), asyncio.Event()),
            policy=Policy(decide_pool, plan, DecideSettings(), PlanSettings("engine:1", "router:1")),
            steps=StepTaker(self.kube, self.lease, EventRecorder(self.kube, "me"), wall_clock=lambda: NOW),
            lease=self.lease,
            metrics=self.metrics,
            settings=PassSettings({"nvidia.com/gpu": 8}, Windows(2.0), 5.0),
            wall_clock=lambda: NOW,
        )

    async def run(self, passes: int = 1) -> int:
        if not self.lease.is_leading:
            await self.lease.step()
        return [await self.reconciler.run_pass() for _ in range(passes)][-1]

    def names(self, kind: str) -> list[str]:
        return sorted(name for of_kind, _, name in self.kube.objects if of_kind == kind)

    def pool(self, name: str = "gpu") -> dict[str, Any]:
        return self.kube.objects["AcceleratorPool", "", name].get("status") or {}

    def conditions(self, name: str = "assistant") -> dict[str, tuple[str, str]]:
        status = self.kube.objects["AdaptiveModel", "demo", name].get("status") or {}
        return {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions", [])}


async def test_a_new_model_gets_its_children_and_a_status_in_one_pass() -> None:
    scene = Scene(build_model())
    assert await scene.run() > 0
    assert scene.names("Deployment") == ["assistant-router"]
    assert len(scene.names("StatefulSet")) == 2
    assert "assistant" in scene.names("Service")
    assert scene.conditions()["Ready"] == ("Unknown", "FirstSeen")
    assert scene.conditions()["MetricsAvailable"][0] in ("False", "Unknown")


@pytest.mark.parametrize("limits", [{}, {"nvidia.com/gpu": "0"}], ids=["removed", "zero"])
async def test_an_accelerator_limit_that_was_edited_away_is_written_back_and_ends_no_pass(
    limits: dict[str, str],
) -> None:
    scene = Scene(build_model())
    await scene.run(2)
    made = {name: scene.kube.objects["StatefulSet", "demo", name] for name in scene.names("StatefulSet")}
    for item in made.values():
        item["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": dict(limits)}
    await scene.run(2)
    assert scene.conditions().get("Degraded", ("", ""))[1] != "InternalError"
    for name in made:
        template = scene.kube.objects["StatefulSet", "demo", name]["spec"]["template"]["spec"]
        assert int(template["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) > 0


async def test_converged_is_quiet() -> None:
    scene = Scene(build_model())
    await scene.run(3)
    before = len(scene.kube.writes)
    assert await scene.run(5) == 0
    assert len(scene.kube.writes) == before


class BusyKube(FakeKube):
    """Every write takes a while; counts those under way."""

    under_way = 0
    most = 0

    async def apply(self, manifest: Any, **options: Any) -> Any:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.001)
        self.under_way -= 1
        return await super().apply(manifest, **options)


@pytest.mark.parametrize("spec", [{}, {"tiers": [{"name": "full"}]}], ids=["models that are new", "broken models"])
async def test_however_many_models_there_are_a_few_are_written_for_at_a_time(spec: dict[str, Any]) -> None:
    """With a write for each of 100 models at once, the last ones ran into their time limit before they were sent."""
    scene = Scene(*(build_model(f"m{i:02d}", **spec) for i in range(60)), kube=BusyKube)
    await scene.run(2)
    assert 2 <= scene.kube.most <= 16
    assert {scene.conditions(f"m{i:02d}")["Ready"][0] for i in range(60)} <= {"Unknown", "False"}


class TellingKube(FakeKube):
    """An answer takes a turn of the event loop, as from a socket; tells when it came."""

    told: list[str]

    async def apply(self, manifest: Any, **options: Any) -> Any:
        await asyncio.sleep(0)
        written = await super().apply(manifest, **options)
        self.told.append(f"written {manifest['metadata']['name']}")
        return written


async def test_an_edited_model_is_planned_first_and_written_before_all_others_are_planned() -> None:
    """Planning 300 models takes more than a second: an edit is not to wait for those that it does not touch."""
    told: list[str] = []

    def plan(model: Any, *rest: Any) -> Any:
        told.append(f"planned {model.name}")
        return plan_model(model, *rest)

    names = [f"m{i:03d}" for i in range(80)]
    scene = Scene(*(build_model(name) for name in names), plan=plan, kube=TellingKube)
    scene.kube.told = told
    await scene.run(3)
    edited = scene.kube.objects["AdaptiveModel", "demo", names[-1]]
    edited["metadata"]["generation"] += 1
    edited["spec"]["quality"] = {"floorPermille": 800}
    told.clear()
    await scene.run()
    assert told[0] == f"planned {names[-1]}"
    assert f"written {names[-1]}" in told[:-30]


class SlowKube(FakeKube):
    """Each write takes a second of the scene's clock."""

    scene: Scene

    async def apply(self, manifest: Any, **options: Any) -> Any:
        self.scene.monotonic += 1.0
        return await super().apply(manifest, **options)


async def test_the_event_loop_has_a_turn_between_the_planning_of_two_models() -> None:
    """The Lease is renewed in it: planning sixteen models in a row held it up for 80 ms."""
    turns, planned = 0, list[int]()

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def plan(*seen: Any) -> Any:
        planned.append(turns)
        return plan_model(*seen)

    scene = Scene(*(build_model(f"m{i:02d}") for i in range(20)), plan=plan)
    counting = asyncio.create_task(count_turns())
    await scene.run()
    counting.cancel()
    assert len(planned) == len(set(planned)) == 20


async def test_a_pass_that_wrote_for_long_leaves_the_rest_to_one_that_follows_at_once() -> None:
    """A first pass over 300 models ran into its limit of 60 s, and none was told that it is ready before that."""
    names = [f"m{i:02d}" for i in range(30)]
    scene = Scene(*(build_model(name) for name in names), kube=SlowKube)
    scene.kube.scene, scene.reconciler.monotonic = scene, lambda: scene.monotonic
    again: list[str] = []
    scene.reconciler.call_when_unfinished(lambda: again.append("pass"))
    await scene.run()
    written = {name for _, _, name in scene.kube.writes}
    assert again == ["pass"]
    left = [name for name in names if name not in written]
    assert 0 < len(left) < 30
    for _ in range(20):
        again.clear()
        scene.kube.calls.clear()
        await scene.run()
        if not again:
            break
    assert len(scene.names("Deployment")) == 30
    await scene.run(2)
    scene.kube.calls.clear()
    assert (await scene.run(), scene.kube.writes, again) == (0, [], [])


async def test_a_model_that_cannot_be_planned_does_not_use_up_the_time_of_a_pool_that_is_slow_to_decide() -> None:
    scene = Scene(build_model("a"), build_model("broken", tiers="nonsense"), kube=SlowKube)
    scene.kube.scene, scene.reconciler.monotonic = scene, lambda: scene.monotonic
    policy = scene.reconciler.policy

    def decide_slowly(observation: Any, settings: Any) -> Any:
        scene.monotonic += 60.0
        return decide_pool(observation, settings)

    scene.reconciler.policy = replace(policy, decide_pool=decide_slowly)
    await scene.run()
    assert "a" in {name for _, _, name in scene.kube.writes}


async def test_those_that_had_to_wait_come_first_the_next_time() -> None:
    """Else a few models whose writes hang would keep all others waiting for ever."""
    planned: list[str] = []

    def plan(model: Any, *rest: Any) -> Any:
        planned.append(model.name)
        return plan_model(model, *rest)

    names = [f"m{i:02d}" for i in range(30)]
    scene = Scene(*(build_model(name) for name in names), plan=plan, kube=SlowKube)
    scene.kube.scene, scene.reconciler.monotonic = scene, lambda: scene.monotonic
    await scene.run()
    left = [name for name in names if name not in planned]
    planned.clear()
    await scene.run()
    assert planned
    assert set(planned) <= set(left)


async def test_who_does_not_lead_does_nothing() -> None:
    scene = Scene(build_model())
    with pytest.raises(NotLeaderError):
        await scene.reconciler.run_pass()
    assert scene.kube.calls == []


async def test_a_model_that_does_not_parse_is_told_so_once_and_its_neighbour_is_served() -> None:
    broken = build_model("broken", tiers=[{"name": "full"}])
    scene = Scene(broken, build_model())
    await scene.run(3)
    assert scene.conditions("broken") == {"Ready": ("False", "InvalidSpec"), "Degraded": ("True", "InvalidSpec")}
    assert len(scene.names("StatefulSet")) == 2
    assert [call for call in scene.kube.writes if call[2] == "broken"] == [("patch", "AdaptiveModel", "broken")]


async def test_a_model_whose_plan_raises_is_told_so_and_its_neighbour_is_served() -> None:
    def plan(model: Any, *rest: Any) -> Any:
        if model.name == "odd":
            raise KeyError("defect")
        return plan_model(model, *rest)

    scene = Scene(build_model("odd"), build_model(), plan=plan)
    await scene.run(3)
    assert scene.conditions("odd")["Degraded"] == ("True", "InternalError")
    assert scene.names("Deployment") == ["assistant-router"]
    assert [call[2] for call in scene.kube.writes].count("odd") == 1


async def test_a_pass_whose_readings_grew_too_old_ends_early_is_told_and_counted_and_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def plan_late(*seen: Any) -> Plan:
        plan = plan_model(*seen)
        steps = [replace(s, disruptive=True) if isinstance(s, ApplyObject) else s for s in plan.steps]
        return replace(plan, steps=tuple(steps), fresh_until=NOW - 1.0)

    scene = Scene(build_model(), plan=plan_late)
    again: list[str] = []
    scene.reconciler.call_when_unfinished(lambda: again.append("pass"))
    with caplog.at_level(logging.INFO, logger="adaptive_operator.reconcile"):
        await scene.run()
    assert "pass ended early model=demo/assistant cause=ServiceAccount assistant-router takes a replica" in caplog.text
    assert scene.metrics.registry.get_sample_value("adaptive_operator_outdated_plans_total") == 1.0
    assert scene.names("StatefulSet") == []
    assert scene.conditions()["Degraded"] == ("False", "AsWanted")
    assert again == ["pass"], "it is planned anew at once"


async def test_who_had_a_plan_that_grew_too_old_comes_first_the_next_time() -> None:
    planned: list[str] = []

    def plan_late(model: Any, *rest: Any) -> Plan:
        planned.append(model.name)
        plan = plan_model(model, *rest)
        if model.name != "m2" or len(planned) > 4:
            return plan
        steps = [replace(s, disruptive=True) if isinstance(s, ApplyObject) else s for s in plan.steps]
        return replace(plan, steps=tuple(steps), fresh_until=NOW - 1.0)

    scene = Scene(*(build_model(f"m{i}") for i in range(4)), plan=plan_late)
    await scene.run()
    planned.clear()
    await scene.run()
    assert planned[0] == "m2"


async def test_a_refused_write_is_told_with_verb_and_resource_and_forgotten_when_it_works() -> None:
    scene = Scene(build_model())
    scene.kube.fail = lambda verb, kind, _name: (
        ForbiddenError("patch", "deployments", 403, "no rule") if (verb, kind) == ("patch", "Deployment") else None
    )
    await scene.run(2)
    assert scene.conditions()["Degraded"] == ("True", "Forbidden")
    message = scene.kube.objects["AdaptiveModel", "demo", "assistant"]["status"]["conditions"][-1]["message"]
    assert message.startswith("may not patch deployments: no rule")
    versions = scene.kube.objects["AdaptiveModel", "demo", "assistant"]["metadata"]["resourceVersion"]
    await scene.run(2)
    assert scene.kube.objects["AdaptiveModel", "demo", "assistant"]["metadata"]["resourceVersion"] == versions
    scene.kube.fail = lambda *_: None
    await scene.run(2)
    assert scene.conditions()["Degraded"] == ("False", "AsWanted")


async def test_children_that_cannot_be_listed_stop_everything_and_the_models_say_why() -> None:
    scene = Scene(build_model())
    scene.kube.fail = lambda verb, kind, _name: (
        ForbiddenError("list", "pods", 403, "no rule") if (verb, kind) == ("list", "Pod") else None
    )
    with pytest.raises(InventoryError):
        await scene.run()
    assert scene.conditions()["Degraded"] == ("True", "Forbidden")
    assert scene.names("StatefulSet") == []


async def test_an_api_server_that_is_away_is_nobodys_fault() -> None:
    scene = Scene(build_model())
    await scene.lease.step()
    scene.kube.fail = lambda verb, kind, _name: UnavailableError(verb, kind, 503, "away") if kind == "Pod" else None
    with pytest.raises(InventoryError):
        await scene.run()
    assert scene.conditions() == {}


async def test_an_edit_between_read_and_write_ends_the_models_pass_and_the_next_one_catches_up() -> None:
    scene = Scene(build_model())
    touched = []

    def edit(verb: str, kind: str, name: str) -> None:
        if (verb, kind) == ("list", "Pod") and not touched:
            touched.append(name)
            scene.kube.touch("AdaptiveModel", "demo", "assistant")

    scene.kube.fail = edit
    assert await scene.run() == 0
    assert scene.names("StatefulSet") == []
    await scene.run()
    assert len(scene.names("StatefulSet")) == 2


async def test_children_of_a_later_epoch_raise_ours_instead_of_stopping_us() -> None:
    scene = Scene(build_model())
    await scene.run()
    for key, raw in scene.kube.objects.items():
        if key[0] == "StatefulSet":
            raw["metadata"]["annotations"]["adaptivellm.dev/epoch"] = "41"
    await scene.run()
    assert scene.lease.epoch == 42
    stamps = {
        raw["metadata"]["annotations"]["adaptivellm.dev/epoch"]
        for key, raw in scene.kube.objects.items()
        if key[0] in ("StatefulSet", "Service", "Deployment")
    }
    assert stamps == {"42"}


async def test_a_deleted_model_gets_no_children_while_it_waits_for_its_own() -> None:
    model = build_model()
    model["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    scene = Scene(model)
    assert await scene.run() == 0
    assert scene.names("StatefulSet") == []


async def test_a_decision_is_logged_once_and_counted_in_each_pass(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(build_model())
    with caplog.at_level(logging.INFO, logger="adaptive_operator.reconcile"):
        await scene.run(2)
        caplog.clear()
        await scene.run(3)
    assert [r for r in caplog.records if "decision" in r.getMessage()] == []
    counted = [
        sample.value
        for metric in scene.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "adaptive_operator_decision_total"
    ]
    assert sum(counted) == 5


def test_to_note_readings_that_are_missing_takes_no_longer_for_each_of_many_models() -> None:
    """A series that is not there was looked for among those of all models: 50 ms of the event loop for 100 models."""
    models = [observe_one(demo_spec(), {}, metrics(1.0), name=f"m{i}") for i in range(400)]
    pool = PoolObservation(NOW, "nvidia.com/gpu", 8, 1, 0.0, tuple(models))
    noting = OperatorMetrics()
    noting.note_pool(pool, 0)
    before = time.process_time()
    noting.note_pool(pool, 0)
    assert time.process_time() - before < 0.2


A, B = {"full": 1, "int4": 1}, {"full": 0, "int4": 3}
DECIDED = {
    # mode, mixes that are decided on, 100 s apart -> flaps; None: no series
    "there and back": ("Active", (A, B, A, A), 1.0),
    "there and back when the other had lived for 300 s": ("Active", (A, B, B, B, A), 0.0),
    "there, and nobody acts on it": ("DryRun", (A, B, A), None),
}


@pytest.mark.parametrize("name", DECIDED)
async def test_a_mix_that_comes_back_soon_is_counted(name: str) -> None:
    mode, mixes, expected = DECIDED[name]
    scene = Scene(build_model(mode=mode), plan=lambda model, *_: Plan(model.key, ()))
    for turn, mix in enumerate(mixes):

        def decide(pool: PoolObservation, settings: DecideSettings, mix: dict[str, int] = mix) -> PoolDecision:
            decided = decide_pool(pool, settings)
            return replace(decided, decisions=tuple(replace(d, replicas=mix) for d in decided.decisions))

        scene.reconciler.policy = replace(scene.reconciler.policy, decide_pool=decide)
        scene.reconciler.wall_clock = lambda turn=turn: NOW + 100.0 * turn
        await scene.run()
    value = scene.metrics.registry.get_sample_value
    assert value("adaptive_operator_flaps_total", {"namespace": "demo", "model": "assistant"}) == expected


RESTARTED = {
    # mixes before the restart, and after it, 100 s apart -> flaps that the new process counts
    "the other mix ran before the restart": ((A, B), (A,), 1.0),
    "the other mix came with it": ((A,), (B, A), 1.0),
    "the other mix had lived for 300 s": ((A, B, B), (B, A), 0.0),
    "nothing came back": ((A,), (B, B), 0.0),
}


@pytest.mark.parametrize("name", RESTARTED)
async def test_a_mix_that_comes_back_soon_after_a_restart_is_counted(name: str) -> None:
    before, after, expected = RESTARTED[name]
    scene = Scene(build_model())
    for turn, mix in enumerate([*before, *after]):
        if turn == len(before):
            scene = Scene(kube=lambda _, kube=scene.kube: kube)

        def decide(pool: PoolObservation, settings: DecideSettings, mix: dict[str, int] = mix) -> PoolDecision:
            decided = decide_pool(pool, settings)
            return replace(decided, decisions=tuple(replace(d, replicas=mix, swap=None) for d in decided.decisions))

        scene.reconciler.policy = replace(scene.reconciler.policy, decide_pool=decide)
        scene.reconciler.wall_clock = lambda turn=turn: NOW + 100.0 * turn
        await scene.run()
    value = scene.metrics.registry.get_sample_value
    assert value("adaptive_operator_flaps_total", {"namespace": "demo", "model": "assistant"}) == expected


async def test_the_series_of_a_model_that_is_gone_are_gone() -> None:
    scene = Scene(build_model())
    await scene.run()
    del scene.kube.objects["AdaptiveModel", "demo", "assistant"]
    await scene.run()
    names = {s.name for m in scene.metrics.registry.collect() for s in m.samples if "model" in s.labels}
    assert names == set()


async def test_the_budget_is_shown_with_what_is_held() -> None:
    scene = Scene(build_model())
    await scene.run(2)
    value = scene.metrics.registry.get_sample_value
    assert value("adaptive_operator_budget_total", {"resource": "nvidia.com/gpu", "pool": ""}) == 8.0
    assert value("adaptive_operator_budget_held", {"resource": "nvidia.com/gpu", "pool": ""}) == 3.0


async def test_a_model_without_a_budget_runs_on_what_nodes_advertise_and_its_status_says_how_much() -> None:
    scene = Scene(build_model(accelerators={"resource": "example.com/npu"}), build_node("a", {"example.com/npu": "3"}))
    await scene.run(2)
    assert len(scene.names("StatefulSet")) == 2
    status = scene.kube.objects["AdaptiveModel", "demo", "assistant"]["status"]
    assert status["acceleratorsBudget"] == 3
    labels = {"resource": "example.com/npu", "pool": ""}
    assert scene.metrics.registry.get_sample_value("adaptive_operator_budget_total", labels)


async def test_nodes_are_not_read_while_somebody_names_the_budget_and_replicas_fit_wherever_it_allows() -> None:
    small = [build_tier("int8"), build_tier("int4")]
    scene = Scene(build_model("own", tiers=small), build_model("shared", accelerators={}, tiers=small))
    await scene.run(2)
    assert [call for call in scene.kube.calls if call[1] == "Node"] == []


async def test_a_replica_of_two_accelerators_starts_where_a_node_has_both_whoever_names_the_budget() -> None:
    """Six nodes of one accelerator each beside one of two: the second model's best tier fits nowhere."""
    nodes = [
        *(build_node(name, {"nvidia.com/gpu": "1"}) for name in "abdefg"),
        build_node("c", {"nvidia.com/gpu": "2"}),
    ]
    scene = Scene(build_model("first", accelerators={}), build_model("second", accelerators={}), *nodes)
    await scene.run(2)
    full = [name for name in scene.names("StatefulSet") if "-full-" in name]
    assert [name.split("-full-")[0] for name in full] == ["first"]
    assert len([name for name in scene.names("StatefulSet") if "-int4-" in name]) == 2


async def test_one_pass_in_which_nodes_cannot_be_read_starts_nothing_that_no_node_holds() -> None:
    nodes = [build_node(name, {"nvidia.com/gpu": "1"}) for name in "abcdefgh"]
    scene = Scene(build_model(accelerators={}), *nodes)
    await scene.run()
    small = [build_model(name, accelerators={}) for name in ("second", "third")]
    scene.kube.objects |= {("AdaptiveModel", "demo", raw["metadata"]["name"]): raw for raw in small}
    away = UnavailableError("list", "nodes", 503, "away")
    scene.kube.fail = lambda _verb, kind, _name: away if kind == "Node" else None
    scene.monotonic += 60.0
    await scene.run(2)
    assert [name for name in scene.names("StatefulSet") if "-int4-" in name or "-int8-" in name]
    assert [name for name in scene.names("StatefulSet") if "-full-" in name] == []


async def test_nothing_moves_while_the_nodes_cannot_be_read_and_the_model_says_so_once() -> None:
    scene = Scene(build_model(accelerators={"resource": "example.com/npu"}), build_node("a", {"example.com/npu": "3"}))
    await scene.run(2)
    replicas = {
        name: scene.kube.objects["StatefulSet", "demo", name]["spec"]["replicas"] for name in scene.names("StatefulSet")
    }
    scene.kube.fail = lambda verb, kind, _name: (
        ForbiddenError("list", "nodes", 403, "no rule") if kind == "Node" else None
    )
    scene.monotonic += 60.0
    scene.kube.calls.clear()
    await scene.run(3)
    assert scene.conditions()["Degraded"] == ("True", "BudgetUnknown")
    message = scene.kube.objects["AdaptiveModel", "demo", "assistant"]["status"]["conditions"][-1]["message"]
    assert "the nodes could not be asked (list nodes: no rule (HTTP 403))" in message
    assert scene.kube.writes == [("patch", "AdaptiveModel", "assistant")]
    assert {n: scene.kube.objects["StatefulSet", "demo", n]["spec"]["replicas"] for n in replicas} == replicas
    scene.kube.fail = lambda *_: None
    await scene.run()
    assert scene.conditions()["Degraded"] == ("False", "AsWanted")


async def test_of_models_that_start_in_one_pass_the_one_with_the_largest_replica_begins_first() -> None:
    """Pods get their nodes in the order in which they are made: small ones would take the large one's place."""
    sizes = {"a": 1, "b": 4, "c": 2}
    models = [build_model(name, tiers=[build_tier("t", accelerators=size)]) for name, size in sizes.items()]
    scene = Scene(*models)
    await scene.run()
    made = [name for verb, kind, name in scene.kube.writes if kind == "StatefulSet"]
    assert [name.split("-")[0] for name in made] == ["b", "c", "a"]


OVERLAPS = {
    "two pools": ({"x": "one", "y": "two"}, {"gpu": "a100"}),
    "a pool and models that name none": ({"x": "one", "y": ""}, {}),
}


@pytest.mark.parametrize(("homes", "selector"), OVERLAPS.values(), ids=OVERLAPS)
async def test_pools_on_the_same_nodes_share_the_one_that_has_room_for_a_large_replica(
    homes: dict[str, str], selector: dict[str, str]
) -> None:
    """Each pool would start its model's full there: in the same pass, and in the next, while its pod is not made."""
    sizes = dict.fromkeys("abdefgh", "1") | {"c": "2"}
    nodes = [build_node(name, {"nvidia.com/gpu": size}, **selector) for name, size in sizes.items()]
    of_pool: dict[str, Any] = {"budget": 4} | ({"nodeSelector": selector} if selector else {})
    pools = [build_accelerator_pool(name, **of_pool) for name in homes.values() if name]
    models = [build_model(name, accelerators={"pool": pool} if pool else {}) for name, pool in homes.items()]
    scene = Scene(*pools, *nodes, *models)
    for _ in range(3):
        await scene.run()
        assert len([name for name in scene.names("StatefulSet") if "-full-" in name]) == 1
        assert len([name for name in scene.names("StatefulSet") if "-int4-" in name]) == 2


async def test_the_line_of_a_decision_tells_what_the_pool_gives_and_what_else_is_to_be_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nodes = [build_node("n", {"nvidia.com/gpu": "4"}, gpu="a100")]
    pool = build_accelerator_pool(budget=2, nodeSelector={"gpu": "a100"})
    scene = Scene(pool, *nodes, *(build_model(name, accelerators={"pool": "gpu"}) for name in "ab"))
    with caplog.at_level(logging.INFO, logger="adaptive_operator.reconcile"):
        await scene.run()
    [line] = [r.getMessage() for r in caplog.records if "decision model=demo/a" in r.getMessage()]
    assert line.endswith(
        'pool="1 accelerator (weight 1): has all that it wants" findings=["HeldForMissingMetrics: arrivals'
        ' (adaptive_router_arrivals_total): no connection to Prometheus"]'
    )


async def test_the_models_of_a_pool_share_it_and_its_status_says_who_has_what() -> None:
    shares = [{"namespace": "demo", "model": "a", "weight": 3}]
    pool = build_accelerator_pool(
        budget=4, nodeSelector={"gpu": "a100"}, shares=shares, pricePerAcceleratorHourMilli=2500
    )
    nodes = [build_node("n", {"nvidia.com/gpu": "8"}, gpu="a100")]
    scene = Scene(pool, *nodes, *(build_model(name, accelerators={"pool": "gpu"}) for name in "ab"))
    await scene.run(3)
    status = scene.pool()
    assert (status["budget"], status["held"], status["heldSummary"], status["costPerHourMilli"]) == (
        4,
        4,
        "4/4",
        10_000,
    )
    assert (status["observedGeneration"], status["modelsTotal"]) == (2, 2)
    (ready,) = status["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "True", "Sharing")
    found = [(m["name"], m["accelerators"], m["weight"], m["reason"]) for m in status["models"]]
    assert found == [("a", 3, 3, "Satisfied"), ("b", 1, 1, "Minimum")]
    templates = [raw["spec"]["template"] for key, raw in scene.kube.objects.items() if key[0] == "StatefulSet"]
    assert all(template["spec"]["nodeSelector"] == {"gpu": "a100"} for template in templates)
    assert scene.kube.objects["AdaptiveModel", "demo", "a"]["status"]["acceleratorsBudget"] == 4
    value = scene.metrics.registry.get_sample_value
    assert value("adaptive_operator_budget_held", {"resource": "nvidia.com/gpu", "pool": "gpu"}) == 4.0


async def test_the_models_of_a_pool_that_the_plan_divides_are_decided_with_weights_and_its_status_says_so() -> None:
    asked: list[PoolObservation] = []

    def decide(pool: PoolObservation, settings: DecideSettings) -> PoolDecision:
        asked.append(pool)
        return decide_pool(pool, settings)

    shares = [{"namespace": "demo", "model": "a", "weight": 3}]
    pool = build_accelerator_pool(budget=4, division="Planned", shares=shares)
    models = [build_model(name, accelerators={"pool": "gpu"}) for name in "ab"]
    scene = Scene(pool, build_node("n", {"nvidia.com/gpu": "8"}), *models)
    scene.reconciler.policy = replace(scene.reconciler.policy, decide_pool=decide)
    await scene.run(3)
    assert {(seen.name, seen.division, seen.shares) for seen in asked} == {
        ("gpu", PoolDivision.PLANNED, (PoolShare("demo", "a", 0, 3),))
    }
    found = [(m["name"], m["weight"], m["reservation"], m["reason"]) for m in scene.pool()["models"]]
    assert found == [("a", 3, 0, "Satisfied"), ("b", 1, 0, "Planned")]
    assert scene.pool()["held"] <= 4
    scene.kube.calls.clear()
    await scene.run(3)
    assert scene.kube.writes == [], "nothing moves, so nothing is written"


async def test_edited_shares_are_told_once_by_each_model_of_the_pool_though_nothing_moves() -> None:
    pool = build_accelerator_pool(budget=6, shares=[{"namespace": "demo", "model": "a", "weight": 3}])
    models = [build_model(name, accelerators={"pool": "gpu"}) for name in "ab"]
    scene = Scene(pool, build_node("n", {"nvidia.com/gpu": "8"}), *models)
    await scene.run(3)
    statuses = [scene.kube.objects["AdaptiveModel", "demo", name]["status"] for name in "ab"]
    scene.kube.objects["AcceleratorPool", "", "gpu"]["spec"]["shares"][0]["weight"] = 2
    scene.kube.calls.clear()
    await scene.run(4)
    assert sorted(scene.kube.writes) == [
        ("patch", "AcceleratorPool", "gpu"),
        ("patch", "AdaptiveModel", "a"),
        ("patch", "AdaptiveModel", "b"),
    ]
    for name, before in zip("ab", statuses, strict=True):
        now = scene.kube.objects["AdaptiveModel", "demo", name]["status"]
        assert now["lastDecision"]["shares"] != before["lastDecision"]["shares"]
        assert len(now["history"]) == len(before["history"])
    assert "weight 2" in scene.kube.objects["AdaptiveModel", "demo", "a"]["status"]["lastDecision"]["pool"]


async def test_a_pools_status_is_written_on_change_only() -> None:
    scene = Scene(build_accelerator_pool(budget=4), build_node("n", {"nvidia.com/gpu": "8"}))
    await scene.run(3)
    assert [call for call in scene.kube.writes if call[1] == "AcceleratorPool"] == [("patch", "AcceleratorPool", "gpu")]
    scene.kube.objects["AcceleratorPool", "", "gpu"]["spec"]["budget"] = 5
    await scene.run(2)
    assert scene.pool()["budget"] == 5
    assert [call[1] for call in scene.kube.writes].count("AcceleratorPool") == 2


async def test_lost_nodes_shrink_the_pool_and_what_is_wanted_of_it() -> None:
    nodes = [build_node("n", {"nvidia.com/gpu": "4"}), build_node("m", {"nvidia.com/gpu": "2"})]
    models = [build_model(name, accelerators={"pool": "gpu"}) for name in "ab"]
    scene = Scene(build_accelerator_pool(), *nodes, *models)
    await scene.run(3)
    assert (scene.pool()["heldSummary"], scene.pool()["conditions"][0]["reason"]) == ("6/6", "Sharing")
    scene.kube.objects["Node", "", "m"]["status"]["conditions"][0]["status"] = "Unknown"
    scene.monotonic += 60.0
    await scene.run()
    assert (scene.pool()["heldSummary"], scene.pool()["conditions"][0]["reason"]) == ("6/4", "OverBudget")
    assert sum(member["granted"] for member in scene.pool()["models"]) <= 4


async def test_a_model_whose_pool_is_unknown_keeps_what_it_has_and_its_neighbour_is_served() -> None:
    lost = build_model("lost", accelerators={"pool": "gpu"})
    scene = Scene(build_accelerator_pool(budget=4), build_node("n", {"nvidia.com/gpu": "8"}), lost, build_model())
    await scene.run(3)
    sets = {key: raw["spec"]["replicas"] for key, raw in scene.kube.objects.items() if key[0] == "StatefulSet"}
    assert any("lost" in key[2] for key in sets)
    del scene.kube.objects["AcceleratorPool", "", "gpu"]
    scene.kube.calls.clear()
    await scene.run(3)
    assert scene.conditions("lost")["Degraded"] == ("True", "UnknownPool")
    assert {k: r["spec"]["replicas"] for k, r in scene.kube.objects.items() if k[0] == "StatefulSet"} == sets
    assert [call for call in scene.kube.writes if call[2] == "lost"] == [("patch", "AdaptiveModel", "lost")]
    status = scene.kube.objects["AdaptiveModel", "demo", "lost"]["status"]
    assert status["reasonSummary"] == "UnknownPool"
    assert "Create it, or correct the name" in status["messageSummary"]
    assert scene.conditions()["Degraded"] == ("False", "AsWanted")
    value = scene.metrics.registry.get_sample_value
    assert value("adaptive_operator_budget_total", {"resource": "nvidia.com/gpu", "pool": "gpu"}) is None


async def test_a_pool_that_nobody_can_count_says_so_and_so_do_its_models() -> None:
    scene = Scene(build_accelerator_pool(), build_model(accelerators={"pool": "gpu"}))
    await scene.run(2)
    (ready,) = scene.pool()["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "NoAccelerators")
    assert "budget" not in scene.pool()
    assert scene.conditions()["Ready"] == ("False", "PoolNotReady")
    assert scene.names("StatefulSet") == []


async def test_a_fault_that_is_over_leaves_the_short_view() -> None:
    lost = build_model("lost", accelerators={"pool": "gpu"})
    scene = Scene(build_node("n", {"nvidia.com/gpu": "8"}), lost)
    await scene.run(2)
    status = scene.kube.objects["AdaptiveModel", "demo", "lost"]["status"]
    assert (status["reasonSummary"], "lastDecision" in status) == ("UnknownPool", False)
    pool = build_accelerator_pool(budget=4)
    scene.kube.objects["AcceleratorPool", "", "gpu"] = pool
    await scene.run(2)
    status = scene.kube.objects["AdaptiveModel", "demo", "lost"]["status"]
    assert status["reasonSummary"] == status["lastDecision"]["reason"] == "StartingUp"


async def test_a_pool_with_fewer_accelerators_than_its_budget_says_why_and_names_shares_of_nobody() -> None:
    shares = [{"namespace": "demo", "model": "assistent", "weight": 2}]
    pool = build_accelerator_pool(budget=6, shares=shares)
    scene = Scene(pool, build_node("n", {"nvidia.com/gpu": "4"}), build_model(accelerators={"pool": "gpu"}))
    await scene.run(2)
    (ready,) = scene.pool()["conditions"]
    assert (ready["status"], ready["reason"]) == ("True", "Sharing")
    assert "budget is 6" in ready["message"]
    assert "nobody has the shares of demo/assistent" in ready["message"]
    scene.kube.calls.clear()
    await scene.run(2)
    assert [call for call in scene.kube.writes if call[1] == "AcceleratorPool"] == []


async def test_a_pool_status_that_cannot_be_written_stops_nobody() -> None:
    model = build_model(accelerators={"pool": "gpu"})
    scene = Scene(build_accelerator_pool(budget=4), build_node("n", {"nvidia.com/gpu": "8"}), model)
    scene.kube.fail = lambda verb, kind, _name: (
        ForbiddenError("patch", "acceleratorpools/status", 403, "no rule")
        if (verb, kind) == ("patch", "AcceleratorPool")
        else None
    )
    await scene.run(2)
    assert len(scene.names("StatefulSet")) == 2


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotFoundError("list", "acceleratorpools", 404, "the server could not find it"), "definition is not installed"),
        (ForbiddenError("list", "acceleratorpools", 403, "no rule"), "update the chart's ClusterRole"),
    ],
    ids=["not installed", "not allowed"],
)
async def test_where_pools_cannot_be_read_only_models_that_name_one_suffer(error: Exception, words: str) -> None:
    scene = Scene(build_model("lost", accelerators={"pool": "gpu"}), build_model())
    scene.kube.fail = lambda _verb, kind, _name: error if kind == "AcceleratorPool" else None
    await scene.run(2)
    assert scene.conditions("lost")["Degraded"] == ("True", "UnknownPool")
    status = scene.kube.objects["AdaptiveModel", "demo", "lost"]["status"]
    assert words in status["conditions"][-1]["message"]
    assert len(scene.names("StatefulSet")) == 2


async def test_pools_that_cannot_be_read_for_a_moment_stop_the_pass_because_their_share_is_unknown() -> None:
    scene = Scene(build_model())
    scene.kube.fail = lambda verb, kind, _name: (
        UnavailableError(verb, kind, 503, "away") if kind == "AcceleratorPool" else None
    )
    with pytest.raises(InventoryError):
        await scene.run()
    assert scene.names("StatefulSet") == []


async def test_an_operator_of_some_namespaces_asks_for_no_pool() -> None:
    scene = Scene(build_model("lost", accelerators={"pool": "gpu"}))
    scene.reconciler.cluster = ClusterReader(scene.kube, ["demo"])
    await scene.run(2)
    assert [call for call in scene.kube.calls if call[1] == "AcceleratorPool"] == []
    status = scene.kube.objects["AdaptiveModel", "demo", "lost"]["status"]
    assert "sees its namespaces only" in status["conditions"][-1]["message"]


@pytest.mark.parametrize("named", [False, True], ids=["models of no pool", "a pool that the plan divides"])
async def test_a_solver_that_fails_costs_nobody_the_pass_and_the_log_has_what_was_decided_upon(
    tmp_path: Path, named: bool
) -> None:
    asked: list[Planning] = []

    def decide(pool: PoolObservation, settings: DecideSettings) -> PoolDecision:
        asked.append(pool.planning)
        if pool.planning is Planning.SOLVED:
            raise SolverError("the process ended")
        return decide_pool(pool, settings)

    pool = [build_accelerator_pool(division="Planned"), build_node("n", {"nvidia.com/gpu": "8"})]
    own = {"accelerators": {"pool": "gpu"}} if named else {}
    scene = Scene(*(pool if named else ()), build_model("a", **own), build_model("b", **own))
    scene.reconciler.policy = replace(scene.reconciler.policy, decide_pool=decide)
    scene.reconciler.decision_log = DecisionLog(tmp_path / "log.jsonl", 1 << 20)
    await scene.run()
    scene.reconciler.decision_log.close()
    assert asked == [Planning.SOLVED, Planning.BY_NEED]
    assert [scene.conditions(name)["Degraded"] for name in ("a", "b")] == [("True", "PoolNotSolved")] * 2
    assert "TiersReady" in scene.conditions("a")
    assert "TiersReady" in scene.conditions("b")
    record = decode_record((tmp_path / "log.jsonl").read_text())
    assert record.observation.planning is Planning.BY_NEED


async def test_a_defect_in_a_pools_plan_is_counted_and_logged_with_its_trace_and_the_pool_shared_by_need(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def decide(pool: PoolObservation, settings: DecideSettings) -> PoolDecision:
        if len(pool.models) > 1 and pool.planning is Planning.SOLVED:
            raise ZeroDivisionError("defect")
        return decide_pool(pool, settings)

    scene = Scene(build_model("a"), build_model("b"))
    scene.reconciler.policy = replace(scene.reconciler.policy, decide_pool=decide)
    await scene.run(2)
    assert [scene.conditions(name)["Degraded"] for name in ("a", "b")] == [("True", "PoolNotSolved")] * 2
    counted = scene.metrics.registry.get_sample_value("adaptive_operator_solver_failures_total", {"cause": "Failed"})
    assert counted == 2
    told = [record for record in caplog.records if "could not be planned" in record.message]
    assert len(told) == 1, "the same one is logged once"
    assert told[0].exc_info


async def test_the_log_has_the_plan_that_a_decision_was_made_with(tmp_path: Path) -> None:
    plan = AdoptedPlan({"demo/a": {"full": 1}, "demo/b": {}}, 1.5, 1.6, 0.01, Method.MASTER, True, {"gpu": 0.2}, 0.3)

    def decide(pool: PoolObservation, settings: DecideSettings) -> PoolDecision:
        return replace(decide_pool(pool, settings), plan=plan)

    scene = Scene(build_model("a"), build_model("b"))
    scene.reconciler.policy = replace(scene.reconciler.policy, decide_pool=decide)
    scene.reconciler.decision_log = DecisionLog(tmp_path / "log.jsonl", 1 << 20)
    await scene.run()
    scene.reconciler.decision_log.close()
    assert decode_record((tmp_path / "log.jsonl").read_text()).plan == plan


class Remembers:
    """A Prometheus with three days of a load that is 1/s until NOW's minute, and from then on 20/s, on each day."""

    async def read(self, queries: Sequence[Query]) -> Answers:
        return {query: self._answer(query) for query in queries}

    def _answer(self, query: Query) -> Answer:
        keys = [("demo", name) for name in ("a", "b")]
        match query.name:
            case QueryName.ROUTER_AGE:
                return Rows({(*key, "router"): 1.0 for key in keys})
            case QueryName.ARRIVAL_HISTORY:
                return Rows({}, series=dict.fromkeys(keys, self._bins(15.0, -40, 0)))
            case QueryName.PAST_ARRIVALS:
                return Rows({}, series=dict.fromkeys(keys, self._bins(60.0, -30, 30, query.periods_back or 0)))
            case QueryName.ARRIVALS | QueryName.RECENT_ARRIVALS | QueryName.PEAK_ARRIVALS | QueryName.ROUTER_QUEUE:
                return Rows(dict.fromkeys(keys, float(query.name is not QueryName.ROUTER_QUEUE)))
        return Rows({})

    def _bins(self, seconds: float, first: int, last: int, back: int = 0) -> tuple[tuple[float, float], ...]:
        newest = math.floor(NOW / seconds) * seconds - back * 86_400.0
        return tuple((newest + i * seconds, 20.0 if i > 0 else 1.0) for i in range(first, last + 1))


def with_a_past(*models: dict[str, Any], past: Any) -> Scene:
    scene = Scene(*models)
    scene.reconciler.prometheus = LastAnswers(Remembers(), asyncio.Event())
    scene.reconciler.past = PastArrivals(past, Windows(2.0), 86_400.0)
    return scene


async def test_what_two_days_had_is_in_the_record_and_its_replay_decides_the_same(tmp_path: Path) -> None:
    scene = with_a_past(build_model("a"), build_model("b"), past=Remembers())
    await scene.run()
    scene.reconciler.decision_log = DecisionLog(tmp_path / "log.jsonl", 1 << 20)
    await scene.run()
    scene.reconciler.decision_log.close()
    [line] = (tmp_path / "log.jsonl").read_text().splitlines()
    season = decode_record(line).observation.models[0].metrics.season
    assert season is not None
    # From ten minutes ago until a load time of 20 s and a planner period from now.
    assert season.periods == ((1.0,) * 10 + (20.0,) * 2,) * 2
    assert len(TypeAdapter(Season).dump_json(season)) < 250
    replayed = [item for item in replay_lines([line]) if isinstance(item, Replayed)]
    assert [(item.again.key, item.differs_in) for item in replayed] == [("demo/a", ()), ("demo/b", ())]


@pytest.mark.parametrize("kind", ["fails", "hangs", "empty"])
async def test_a_past_that_does_not_come_changes_no_decision(kind: str) -> None:
    class Silent:
        async def read(self, queries: Sequence[Query]) -> Answers:
            if kind == "hangs":
                await asyncio.Event().wait()
            return dict.fromkeys(queries, Failed("timed out") if kind == "fails" else Rows({}))

    both = [with_a_past(build_model("a"), build_model("b"), past=Silent()) for _ in range(2)]
    with_it, without = both
    without.reconciler.past = None
    for scene in both:
        async with asyncio.timeout(5):
            await scene.run(3)
    assert with_it.conditions("a")["MetricsAvailable"][0] == "True"
    told = [[scene.kube.objects["AdaptiveModel", "demo", name]["status"] for name in ("a", "b")] for scene in both]
    assert told[0] == told[1]


def break_decisions_of(name: str, patch: pytest.MonkeyPatch) -> None:
    """From now on no pool with this model can be decided, in a replay neither."""
    build = pool_decisions.build_situation

    def build_or_raise(model: Any, *rest: Any) -> Any:
        if model.name == name:
            raise ZeroDivisionError("defect")
        return build(model, *rest)

    patch.setattr(pool_decisions, "build_situation", build_or_raise)


async def test_a_decision_beside_a_model_that_cannot_be_decided_is_replayed_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(build_model("odd"), build_model("a"), build_model("b"))
    await scene.run(3)
    break_decisions_of("odd", monkeypatch)
    scene.reconciler.decision_log = DecisionLog(tmp_path / "log.jsonl", 1 << 20)
    await scene.run()
    scene.reconciler.decision_log.close()
    assert scene.conditions("odd")["Degraded"] == ("True", "InternalError")
    [line] = (tmp_path / "log.jsonl").read_text().splitlines()
    assert decode_record(line).observation.budget < 8
    replayed = [item for item in replay_lines([line]) if isinstance(item, Replayed)]
    assert [(item.again.key, item.differs_in) for item in replayed] == [("demo/a", ()), ("demo/b", ())]


async def test_where_no_model_can_be_decided_the_log_gets_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(build_model("odd"))
    break_decisions_of("odd", monkeypatch)
    scene.reconciler.decision_log = DecisionLog(tmp_path / "log.jsonl", 1 << 20)
    await scene.run()
    scene.reconciler.decision_log.close()
    assert not (tmp_path / "log.jsonl").exists()


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({}, 'binding=["floor of quality"] alternative="int8 2: 3.1/s for 2 accelerators"'),
        ({"to": "full 3"}, 'binding=[] alternative=""'),
        ({"reason": "Steady"}, 'binding=[] alternative=""'),
    ],
    ids=["told already", "other replicas", "another reason"],
)
async def test_the_line_of_a_decision_that_the_status_has_already_tells_the_explanation_there(
    edit: dict[str, str], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The first pass of an operator that started anew logged an empty one."""
    scene = Scene(build_model())
    await scene.run(3)
    last = scene.kube.objects["AdaptiveModel", "demo", "assistant"]["status"]["lastDecision"]
    last |= {"binding": ["floor of quality"], "alternative": "int8 2: 3.1/s for 2 accelerators", **edit}
    scene.reconciler._said.clear()  # as in an operator that has just started
    with caplog.at_level(logging.INFO, logger="adaptive_operator.reconcile"):
        await scene.run()
    assert told in caplog.text


async def test_models_are_parsed_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def build(*snapshot: Any) -> Any:
        threads.append(threading.get_ident())
        return build_pools(*snapshot)

    monkeypatch.setattr(reconcile, "build_pools", build)
    await Scene(build_model()).run()
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("names", ["a", "ab"], ids=["one model", "several"])
async def test_the_event_loop_goes_on_while_models_are_decided(names: str) -> None:
    """One model with many tiers on hundreds of accelerators takes seconds; the Lease must not wait for it."""
    threads: list[int] = []

    def decide(pool: PoolObservation, settings: DecideSettings) -> PoolDecision:
        threads.append(threading.get_ident())
        ticked.clear()
        assert ticked.wait(10), "the event loop stands still"
        return decide_pool(pool, settings)

    async def tick() -> None:
        while True:
            ticked.set()
            await asyncio.sleep(0.01)

    ticked = threading.Event()
    scene = Scene(*(build_model(name) for name in names))
    scene.reconciler.policy = replace(scene.reconciler.policy, decide_pool=decide)
    ticking = asyncio.create_task(tick())
    await scene.run()
    ticking.cancel()
    assert threads
    assert threading.get_ident() not in threads
    assert "TiersReady" in scene.conditions("a")


async def periods_of(scene: Scene) -> dict[str, float]:
    """Seconds that each pool asks for, at the beginning of a pass that plans them all."""
    asked: dict[str, float] = {}

    def is_due(pool: str, period: float) -> bool:
        asked[pool] = period
        return True

    await scene.lease.step()
    await scene.reconciler.run_pass(is_due)
    return asked


def scaled(name: str, seconds: int | None) -> dict[str, Any]:
    return build_model(name, scaling={} if seconds is None else {"plannerPeriodSeconds": seconds})


async def test_a_long_period_of_one_model_is_not_that_of_models_that_ask_for_none() -> None:
    assert await periods_of(Scene(scaled("a", None), scaled("b", 3600))) == {"nvidia.com/gpu": 15.0}
    assert await periods_of(Scene(scaled("b", 3600))) == {"nvidia.com/gpu": 3600.0}


async def test_a_pool_in_which_a_swap_is_in_flight_is_planned_as_often_as_the_operator_plans() -> None:
    scene = Scene(scaled("a", 3600))
    await scene.run(2)
    assert scene.kube.objects["AdaptiveModel", "demo", "a"]["status"].get("swap") is not None
    assert await periods_of(scene) == {"nvidia.com/gpu": 15.0}


async def test_a_pool_whose_passes_take_long_is_not_planned_as_often_as_a_model_asks_for() -> None:
    scene = Scene(scaled("a", 1), scaled("b", None))

    def decide(pool: PoolObservation, settings: DecideSettings) -> PoolDecision:
        scene.monotonic += 3.0
        return decide_pool(pool, settings)

    scene.reconciler.monotonic = lambda: scene.monotonic
    scene.reconciler.policy = replace(scene.reconciler.policy, decide_pool=decide)
    assert [await periods_of(scene) for _ in range(2)] == [{"nvidia.com/gpu": 1.0}, {"nvidia.com/gpu": 6.0}]


async def test_a_solver_hears_of_the_models_that_a_program_may_plan_before_anything_is_asked_of_prometheus() -> None:
    """It has time to start while metrics are read; models of a pool that is divided by weight are no program's."""
    told: list[object] = []

    class Listening(NoPrometheus):
        async def read(self, queries: Sequence[Query]) -> Answers:
            told.append("read")
            return await super().read(queries)

    nodes = [build_node("n", {"nvidia.com/gpu": "8"}, gpu="a100")]
    pool = build_accelerator_pool(budget=4, nodeSelector={"gpu": "a100"})
    pooled = [build_model(name, accelerators={"pool": "gpu"}) for name in "abc"]
    scene = Scene(pool, *nodes, *pooled, build_model("d"), build_model("e"))
    scene.reconciler.prometheus = LastAnswers(Listening(), asyncio.Event())
    scene.reconciler.memory.prepare = told.append
    await scene.run()
    assert told[:2] == [2, "read"]
    told.clear()
    scene.kube.objects["AcceleratorPool", "", "gpu"]["spec"]["division"] = "Planned"
    await scene.run()
    assert told[:2] == [3, "read"]
