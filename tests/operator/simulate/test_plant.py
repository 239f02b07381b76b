"""Pods: when they serve, how long they hold their accelerators, and what becomes of their requests when they go."""

from __future__ import annotations

import pytest

from adaptive_operator.simulate.events import EventQueue
from adaptive_operator.simulate.plant import GONE_SECONDS, Accelerators, BudgetError, Plant
from adaptive_operator.simulate.requests import Outcome, Request
from tests.operator.simulate.scenes import make_scenario


@pytest.fixture
def plant():
    return Plant(EventQueue(), make_scenario(budget=2))


def test_a_pod_holds_at_once_and_serves_when_it_has_loaded(plant):
    pod = plant.create("full")
    assert (plant.held, pod.is_ready) == (1, False)
    plant.events.run_until(24.9)  # 5 s until it is scheduled, 20 s to load
    assert not pod.is_ready
    plant.events.run_until(25.0)
    assert pod.is_ready


def test_a_pod_beyond_the_budget_is_an_error_even_while_another_one_is_terminating(plant):
    pod = plant.create("full")
    plant.create("int4")
    plant.terminate(pod, 0.0)
    with pytest.raises(BudgetError, match="2 accelerators"):
        plant.create("int8")
    plant.events.run_until(2.0 + GONE_SECONDS)
    plant.create("int8")
    assert plant.held == 2


def test_an_idle_pod_is_gone_a_little_after_it_was_told_to_go(plant):
    pod = plant.create("full")
    plant.events.run_until(30.0)
    plant.terminate(pod, 30.0)
    plant.events.run_until(32.0 + GONE_SECONDS)
    assert plant.pods == {}


def test_a_busy_pod_ends_its_answer_first(plant):
    pod = plant.create("full")
    plant.events.run_until(30.0)
    request = Request(30.0, 100, 1000)  # about 15 s
    pod.replica.submit(request)
    plant.terminate(pod, 30.0)
    plant.events.run_until(40.0)
    assert pod.uid in plant.pods
    plant.events.run_until(60.0)
    assert request.outcome is Outcome.FINISHED
    assert plant.pods == {}


def test_when_the_grace_is_over_answers_are_cut_and_what_waits_goes_elsewhere(plant):
    lost: list[Request] = []
    ended: list[Request] = []
    plant.on_loss, plant.on_end = lost.append, ended.append
    pod = plant.create("full")
    plant.events.run_until(30.0)
    running, waiting = Request(30.0, 100, 100_000), Request(31.0, 8_000_000, 10)
    pod.replica.submit(running)
    plant.events.run_until(31.0)
    pod.replica.submit(waiting)
    plant.terminate(pod, 5.0)
    plant.events.run_until(36.0)
    assert (ended, lost) == ([running], [waiting])
    assert running.outcome is Outcome.CUT
    assert pod.uid in plant.pods  # until its accelerators are free
    plant.events.run_until(36.0 + GONE_SECONDS)
    assert plant.pods == {}


def test_the_ledger_has_the_integrals_of_what_was_held(plant):
    plant.create("full")
    plant.events.run_until(10.0)
    plant.create("full")
    plant.events.run_until(100.0)
    ledger = plant.close()
    assert (ledger.most, ledger.starts) == (2, 2)
    assert ledger.held_seconds == pytest.approx(100 + 90)
    assert ledger.not_ready_seconds == pytest.approx(25 + 25)


def test_a_pod_that_is_told_to_go_while_it_loads_never_serves(plant):
    changes: list[float] = []
    plant.on_change = lambda: changes.append(plant.events.now)
    pod = plant.create("full")
    plant.terminate(pod, 0.0)
    plant.events.run_until(100.0)
    assert pod.ready_at is None
    assert changes == [0.0, 2.0 + GONE_SECONDS]


def test_a_lost_node_takes_its_pods_along_and_what_is_made_meanwhile_waits_for_it():
    plant = Plant(EventQueue(), make_scenario(budget=2))
    lost: list[Request] = []
    plant.on_loss = lost.append
    old, young = plant.create("full"), plant.create("int8")
    plant.events.run_until(30.0)
    old.replica.submit(Request(30.0, 1000, 500))
    plant.shared.lose(1)
    assert (list(plant.pods.values()), plant.shared.available, len(lost)) == ([young], 1, 1)
    successor = plant.create("full")  # as a StatefulSet would, whatever the nodes have
    plant.events.run_until(100.0)
    assert (successor.scheduled_at, successor.is_ready, plant.held) == (None, False, 2)
    plant.shared.give_back(1)
    plant.events.run_until(125.0)
    assert (successor.scheduled_at, successor.is_ready) == (100.0, True)


def test_a_pod_that_never_got_a_node_is_gone_at_once():
    plant = Plant(EventQueue(), make_scenario(budget=2))
    plant.shared.lose(2)
    pod = plant.create("full")
    plant.terminate(pod, 30.0)
    plant.events.run_until(0.0)
    assert plant.held == 0


def test_models_of_a_pool_share_one_budget():
    shared, events = Accelerators(3), EventQueue()
    one, other = (Plant(events, make_scenario(budget=3), shared) for _ in range(2))
    one.create("full")
    one.create("full")
    other.create("full")
    with pytest.raises(BudgetError, match="3 accelerators"):
        other.create("full")
    assert (one.held, other.held, shared.held, shared.most) == (2, 1, 3, 3)
