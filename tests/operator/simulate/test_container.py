"""A container that crashes while it loads: what the operator sees between its lives, and when the next one begins.

Pods are on a node for 5 s before they load for 20 s.
"""

from __future__ import annotations

from adaptive_operator.observe.observation import PodPhase
from adaptive_operator.simulate.container import Container, back_off_seconds
from adaptive_operator.simulate.events import EPOCH
from adaptive_operator.simulate.failing_loads import FailingLoads, Failure
from tests.operator.simulate.scenes import make_plant, seen_pod


def test_a_container_waits_from_its_crash_until_its_next_life_begins():
    container = Container(began_at=5.0)
    assert not container.is_waiting(0.0)  # its first life is yet to begin: that is no back-off
    container.crash(25.0, Failure.CRASHES)
    assert (container.began_at, container.restarts) == (35.0, 1)
    assert [container.is_waiting(now) for now in (25.0, 34.9, 35.0)] == [True, True, False]


def test_a_load_that_crashes_waits_without_words_and_is_tried_again():
    plant = make_plant(FailingLoads("full", Failure.CRASHES))
    pod = plant.create("full")
    plant.events.run_until(26.0)
    found = seen_pod(plant, pod)
    assert (found.phase, found.load_failure_reason) == (PodPhase.FAILED, None)
    assert found.trouble == "CrashLoopBackOff: back-off restarting failed container"
    plant.events.run_until(36.0)  # the next life
    assert seen_pod(plant, pod).phase is PodPhase.STARTING


def test_a_load_that_is_refused_says_why_also_in_its_next_lives():
    plant = make_plant(FailingLoads("full", Failure.REFUSES))
    pod = plant.create("full")
    plant.events.run_until(24.0)
    assert seen_pod(plant, pod).phase is PodPhase.STARTING
    for now in (26.0, 36.0):
        plant.events.run_until(now)
        found = seen_pod(plant, pod)
        assert (found.phase, found.load_failure_reason) == (PodPhase.FAILED, "ModelCorrupt")


def test_a_container_is_started_again_after_twice_the_wait_each_time_up_to_five_minutes():
    assert [back_off_seconds(crashes) for crashes in (1, 2, 3, 6, 60)] == [10, 20, 40, 300, 300]
    plant = make_plant(FailingLoads("full", Failure.CRASHES, seconds=80.0))
    pod = plant.create("full")
    # Loads end at 25, 55 and 95 s.
    plant.events.run_until(100.0)
    assert (pod.ready_at, pod.container.restarts) == (95.0, 2)
    assert seen_pod(plant, pod).ready_since == EPOCH + 95.0


def test_a_pod_that_is_told_to_go_while_it_waits_to_be_started_again_is_gone_for_good():
    plant = make_plant(FailingLoads("full", Failure.CRASHES))
    pod = plant.create("full")
    plant.events.run_until(30.0)
    plant.terminate(pod, 30.0)
    plant.events.run_until(200.0)
    assert (plant.held, pod.ready_at) == (0, None)
