"""Bursts in time: a few requests at once are served by what is there; only load that lasts gets replicas.

Readings are made from single arrivals as Prometheus makes them: increases between scrapes, over the stable and the
panic window.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import pytest

from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.observe.observation import ModelMetrics
from stand_ins.plant import DEMO_SCALING, DEMO_SETTINGS, Model, Plant, demo_spec, metrics
from tests.operator.decide.test_nested import NESTED

START = 10_000.0
SCRAPE = 2.0
SERVED = 0.9  # requests/s of one nested replica at its fastest level


def rate(arrivals: Sequence[float], now: float, window: float) -> float:
    """As `rate()` has it: the increase from the first to the last scrape of the window, by the time between them."""
    last = now // SCRAPE * SCRAPE
    first = last - (window - SCRAPE) // SCRAPE * SCRAPE
    return (bisect.bisect_right(arrivals, last) - bisect.bisect_right(arrivals, first)) / (last - first)


def waiting(arrivals: Sequence[float], now: float) -> float:
    """Requests that one replica has not begun with."""
    free_at, left = 0.0, 0
    for at in arrivals:
        if at > now:
            break
        left += free_at > now
        free_at = max(free_at, at) + 1 / SERVED
    return float(left)


def plant(arrivals: Sequence[float], **scaling: int) -> tuple[Plant, Model]:
    """One nested replica that has been ready for long, with a budget of 3, as in examples/nested.yaml."""
    spec = demo_spec(tiers=[NESTED], accelerators={"budget": 3}, scaling=DEMO_SCALING | scaling)
    model = Model("nested", spec, lambda now: 0.0)
    peaks: list[float] = []

    def read(now: float) -> ModelMetrics:
        stable = rate(arrivals, now, 15.0)
        peaks.append(stable)
        return metrics(stable, peak=max(peaks), queue=waiting(arrivals, now), recent=rate(arrivals, now, 6.0))

    model.metrics = read
    made = Plant([model], budget=3, now=START - 60, period=float(scaling.get("plannerPeriodSeconds", 5)))
    made.run(60)
    assert model.mix() == {"nested": 1}
    return made, model


BURSTS = {
    "nine requests at once": [0.0] * 9,
    "nine requests within three seconds": [i / 3 for i in range(9)],
    "nine requests within six seconds": [i / 1.5 for i in range(9)],
    "twelve requests at once": [0.0] * 12,
    "two bursts, half a minute apart": [0.0] * 9 + [30.0] * 9,
}


@pytest.mark.parametrize("phase", [0.1, 1.3, 2.6, 3.9, 4.8])
@pytest.mark.parametrize("name", BURSTS)
def test_an_idle_nested_model_answers_at_its_lower_level_and_starts_no_replica(name: str, phase: float) -> None:
    cluster, model = plant([START + phase + at for at in BURSTS[name]])
    cluster.run(90)
    assert {tuple(d.replicas.items()) for _, d in model.decisions} == {(("nested", 1),)}
    assert "ShedToCheaperTier" in model.reasons()
    assert not [f for _, d in model.decisions for f in d.findings if f.reason == "CapacityLimited"]


@pytest.mark.parametrize(("plans", "seconds"), [(1, 5), (2, 10), (3, 15)])
def test_load_that_lasts_gets_replicas_as_soon_as_the_plans_in_agreement_have_seen_it(plans: int, seconds: int) -> None:
    cluster, model = plant([START + 0.1 + i / 2 for i in range(200)], plansInAgreement=plans)
    cluster.run(60)
    grown = next(at for at, d in model.decisions if d.replicas["nested"] > 1)
    assert grown - START <= seconds


def test_nine_requests_at_once_pass_what_a_replica_carries_threefold_and_are_held_as_a_burst() -> None:
    """9 in 4 s between scrapes, and 8 wait: 2.25/s + 8/30 s = 2.52/s, where one replica is planned to carry 0.81/s."""
    cluster, _ = plant([START + 1.0] * 9)
    cluster.now = START + 2.0
    (decision,) = decide_pool(cluster.observe(), DEMO_SETTINGS).decisions
    assert decision.reason == "ShedToCheaperTier"
    assert decision.inputs.startswith(
        "demand 2.52/s (age 1 s), peak 2.52/s (age 1 s), just now 2.25/s (age 1 s), queue 8 (age 1 s), capacity 0.81/s"
    )
    assert decision.memory.agreed_plan == "more than nested=1"
