"""What correcting the cards is worth, and that honest ones are left alone: the operator's own code under a load."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adaptive_operator.decide.settings import CorrectionSettings, DecideSettings
from adaptive_operator.simulate.generators import generate, steady
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.requests import Outcome, TraceRow
from adaptive_operator.simulate.run import RunResult, run
from adaptive_operator.simulate.scenario import Scenario
from adaptive_operator.simulate.scores import is_attained
from tests.operator.simulate.scenes import TIERS, make_scenario, make_spec

pytestmark = pytest.mark.slow

AT_THEIR_WORD = CorrectionSettings(least_permille=1000, most_permille=1000)
SECONDS = 800.0


def overstated(times: float) -> Scenario:
    """Tiers that are as fast as ever, with cards that claim more."""
    real = make_scenario()
    claimed = make_spec(tuple((n, precision, q, rate * times, a) for n, precision, q, rate, a in TIERS))
    return replace(real, spec=claimed.model_copy(update={"accelerators": real.spec.accelerators}))


def played(scenario: Scenario, load: float, correction: CorrectionSettings) -> tuple[RunResult, AdaptivePolicy]:
    policy = AdaptivePolicy(settings=DecideSettings(correction=correction), keep_records=True)
    return run(scenario, generate(steady(load), SECONDS, seed=3), policy), policy


def attained(scenario: Scenario, result: RunResult) -> float:
    """Part of the later half's requests within the objective."""
    late = [request for request in result.requests if request.arrival >= SECONDS / 2]
    return sum(is_attained(request, scenario) for request in late) / len(late)


def factors(policy: AdaptivePolicy) -> list[dict[str, int]]:
    """Of every pass."""
    memories = [record.decision.decisions[0].memory for record in policy.records]
    return [{tier: item.factor_permille for tier, item in memory.corrections.items()} for memory in memories]


def test_cards_that_claim_twice_as_much_are_corrected_and_far_more_requests_are_in_time():
    scenario = overstated(2.0)
    believed, _ = played(scenario, 22.0, AT_THEIR_WORD)
    corrected, policy = played(scenario, 22.0, CorrectionSettings())
    assert attained(scenario, corrected) > attained(scenario, believed) + 0.25
    assert min(factors(policy)[-1].values()) < 800


@pytest.mark.parametrize("load", [pytest.param(12.0, id="carried"), pytest.param(40.0, id="more than all can carry")])
def test_honest_cards_are_never_taken_for_less(load):
    _, policy = played(make_scenario(), load, CorrectionSettings())
    assert all(factor >= 1000 for seen in factors(policy) for factor in seen.values())


def test_bursts_with_nothing_between_them_say_nothing_of_the_card():
    """While a burst lasts, tokens are late; the rest of the two minutes nobody calls, and that is time, too."""
    scenario = make_scenario(budget=1, tiers=TIERS[:1])
    bursts = (range(60) for _ in range(5))
    rows = [TraceRow(60 + 180.0 * at + 0.05 * i, 1155, 100) for at, burst in enumerate(bursts) for i in burst]
    policy = AdaptivePolicy(settings=DecideSettings(), keep_records=True)
    result = run(scenario, tuple(rows), policy)
    assert {request.outcome for request in result.requests} == {Outcome.FINISHED}
    assert sorted(request.tpot for request in result.requests)[-60] > 0.035
    assert all(factor == 1000 for seen in factors(policy) for factor in seen.values())
