"""How far a card is trusted: what pulls its factor which way, how fast, and what leaves it alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.correction import Pace, TierSample, correct, is_stale
from adaptive_operator.decide.revisions import inputs_of
from adaptive_operator.decide.settings import CorrectionSettings, DecideSettings
from adaptive_operator.decide.situation import Situation, build_situation
from adaptive_operator.observe.observation import (
    Correction,
    ModelObservation,
    PodPhase,
    PolicyMemory,
    SwapRecord,
    TierReadings,
    Unknown,
)
from adaptive_operator.reasons import Reason
from stand_ins.plant import DEMO_SETTINGS, DEMO_TIERS, decide_one, demo_spec, metrics, observe_one, tier

NOW = 10_000.0
CARD = 800  # requests per 1000 s
LIMITS = CorrectionSettings()
MANY = 1e12  # requests: their number is certain


def moved(factor: int | None, rate: float, pace: Pace, seconds: float = 1e6, requests: float = MANY) -> int:
    """The factor after one measurement, `seconds` after its last move; None: it never moved."""
    before = None if factor is None else Correction(CARD, factor, NOW - seconds)
    after = correct(before, CARD, TierSample(requests, rate, pace), NOW, DecideSettings())
    return 1000 if after is None else after.factor_permille


@pytest.mark.parametrize(
    ("factor", "rate", "pace", "expected"),
    [
        pytest.param(None, 0.72, Pace.BUSY, 900, id="busy at 0.9 of the card: it carries no more"),
        pytest.param(None, 0.40, Pace.BUSY, 850, id="busy at half of it: three steps at once"),
        pytest.param(650, 0.40, Pace.BUSY, 600, id="busy at half of it, at last: the lower bound"),
        pytest.param(None, 0.88, Pace.BUSY, 1000, id="busy beyond the card: it is overloaded, and as fast as it says"),
        pytest.param(800, 0.72, Pace.BUSY, 800, id="busy beyond what is planned with: no reason to plan with more"),
        pytest.param(None, 0.88, Pace.COMFORTABLE, 1100, id="beyond the card with ease: it carries more"),
        pytest.param(None, 8.00, Pace.COMFORTABLE, 1150, id="ten times the card: three steps at once"),
        pytest.param(1150, 8.00, Pace.COMFORTABLE, 1200, id="ten times the card, at last: the upper bound"),
        pytest.param(None, 0.88, Pace.KEPT, 1000, id="beyond the card, and just in time: as it should be"),
        pytest.param(None, 0.10, Pace.COMFORTABLE, 1000, id="hardly used and fast: that says nothing"),
        pytest.param(800, 0.56, Pace.COMFORTABLE, 850, id="used as planned with ease: more is tried"),
        pytest.param(800, 0.40, Pace.COMFORTABLE, 800, id="used less than planned: nothing is tried"),
        pytest.param(800, 0.56, Pace.KEPT, 800, id="used as planned, and just in time: nothing is tried"),
        pytest.param(1100, 0.80, Pace.MISSED, 1050, id="more than the card, and the objective is missed: back"),
        pytest.param(1000, 0.30, Pace.MISSED, 1000, id="missed by a burst or a wait elsewhere: the card stays"),
        pytest.param(800, 0.30, Pace.MISSED, 800, id="missed by a burst or a wait elsewhere: the factor stays"),
        pytest.param(800, 0.30, Pace.UNKNOWN, 800, id="nobody streams: nothing is known of the objective"),
    ],
)
def test_the_factor_goes_where_a_measurement_pulls_it(factor, rate, pace, expected):
    assert moved(factor, rate, pace) == expected


@pytest.mark.parametrize(
    ("seconds", "rate", "expected"),
    [
        pytest.param(74, 0.48, 800, id="a gap of four steps: not yet"),
        pytest.param(75, 0.48, 750, id="a gap of four steps: one in a quarter of the time"),
        pytest.param(150, 0.48, 700, id="a gap of four steps: two in half of it"),
        pytest.param(299, 0.60, 800, id="a gap of one step: not yet"),
        pytest.param(300, 0.60, 750, id="a gap of one step: after five minutes"),
        pytest.param(9999, 0.61, 800, id="less than a step: never"),
    ],
)
def test_a_small_gap_takes_longer_than_a_large_one(seconds, rate, expected):
    assert moved(800, rate, Pace.BUSY, seconds) == expected


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        pytest.param(49, 1000, id="too few requests"),
        pytest.param(64, 1000, id="few: 0.875 may be the card by chance"),
        pytest.param(10_000, 900, id="many: it is surely less than the card"),
    ],
)
def test_chance_speaks_for_what_is_believed(requests, expected):
    assert moved(None, 0.70, Pace.BUSY, requests=requests) == expected


def test_a_factor_that_stood_at_the_lower_bound_for_ten_minutes_makes_the_card_stale():
    assert not is_stale(Correction(CARD, 600, NOW - 599), NOW, LIMITS)
    assert is_stale(Correction(CARD, 600, NOW - 600), NOW, LIMITS)
    assert not is_stale(Correction(CARD, 650, NOW - 6000), NOW, LIMITS)
    assert not is_stale(Correction(CARD, 1200, NOW - 6000), NOW, LIMITS)


samples = st.builds(
    TierSample, st.floats(0.0, 1e6), st.floats(0.0, 1e4, allow_subnormal=False), st.sampled_from(list(Pace))
)


@given(st.lists(st.tuples(samples, st.floats(0.0, 900.0)), max_size=40))
def test_the_factor_is_always_within_its_bounds_and_moves_in_steps(measured):
    state, now = None, NOW
    for sample, gap in measured:
        now += gap
        before = 1000 if state is None else state.factor_permille
        state = correct(state, CARD, sample, now, DecideSettings())
        after = 1000 if state is None else state.factor_permille
        assert 600 <= after <= 1200
        assert after % 50 == 0
        assert abs(after - before) <= 150


@given(st.floats(0.65, 0.99))
def test_replicas_that_stay_busy_pull_the_factor_to_what_they_answer(part):
    state = None
    for passed in range(0, 3600, 15):
        state = correct(state, CARD, TierSample(MANY, part * CARD / 1000, Pace.BUSY), NOW + passed, DecideSettings())
    factor = 1.0 if state is None else state.factor_permille / 1000
    assert part <= factor + 1e-3 <= part + 0.052


def tries(carried: float, hours: float, state: Correction | None = None) -> list[float]:
    """When more was tried (seconds) of replicas that carry this part of their card, and always are planned in full."""
    times, settings = [], DecideSettings()
    for passed in range(0, int(3600 * hours), 15):
        before = 1000 if state is None else state.factor_permille
        planned = 0.9 * before / 1000
        pace = Pace.COMFORTABLE if planned <= carried else Pace.BUSY
        sample = TierSample(MANY, min(planned, carried) * CARD / 1000, pace)
        state = correct(state, CARD, sample, NOW + passed, settings)
        if state is not None and state.factor_permille > before:
            times.append(float(passed))
    return times


def test_what_was_tried_in_vain_is_tried_again_ever_more_rarely():
    down_again = 150  # seconds until the factor is back
    waits = [later - earlier - down_again for earlier, later in pairwise(tries(0.7, hours=6))]
    assert waits == [600, 1200, 2400, 4800, 4800, 4800]


def test_what_was_tried_with_success_is_followed_by_more_in_five_minutes():
    start = Correction(CARD, 600, NOW, failed_probes=4)
    assert tries(1.0, hours=3, state=start) == [4800.0 + 300 * step for step in range(8)]


def test_being_busy_counts_as_tried_in_vain_after_a_try_only():
    def after(probes: int, pace: Pace, rate: float) -> int:
        before = Correction(CARD, 800, NOW - 600, probes=probes, failed_probes=2)
        state = correct(before, CARD, TierSample(MANY, rate, pace), NOW, DecideSettings())
        assert state is not None
        return state.failed_probes

    assert after(1, Pace.BUSY, 0.56) == 3
    assert after(0, Pace.BUSY, 0.56) == 2
    assert after(1, Pace.COMFORTABLE, 0.80) == 2


# Full on two replicas that were busy for two minutes at half of their card.
BUSY = TierReadings({"": 0.8}, 120.0, least_waiting=5.0, least_tpot_seconds=0.05)


def observed(
    readings: TierReadings | None = BUSY, spec: AdaptiveModelSpec | None = None, memory: PolicyMemory | None = None
) -> ModelObservation:
    remembered = memory or PolicyMemory(wanted={"full": 2}, generation=1)
    model = observe_one(spec or demo_spec(), {"full": 2}, metrics(1.5), memory=remembered)
    pods = tuple(replace(pod, phase=PodPhase.READY, ready_since=NOW - 600) for pod in model.pods)
    tiers = {} if readings is None else {"full": readings}
    return replace(model, pods=pods, metrics=replace(model.metrics, tiers=tiers))


def situation(model: ModelObservation, settings: DecideSettings = DEMO_SETTINGS) -> Situation:
    return build_situation(model, NOW, 0.0, 4, settings)


def factors(model: ModelObservation, settings: DecideSettings = DEMO_SETTINGS) -> dict[str, int]:
    return {name: item.factor_permille for name, item in situation(model, settings).memory.corrections.items()}


def rate_of(model: ModelObservation) -> float:
    card = situation(model).tiers[0].card
    assert card is not None
    return card.requests_per_second


def test_busy_replicas_correct_the_card_that_is_decided_by():
    model = observed()
    assert factors(model) == {"full": 850}
    assert rate_of(model) == pytest.approx(0.68)


@pytest.mark.parametrize(
    ("readings", "is_busy"),
    [
        pytest.param({"least_waiting": 2.0}, True, id="a request waits in each queue"),
        pytest.param({"least_waiting": 1.0}, False, id="a queue was empty"),
        pytest.param({"least_waiting": 0.0, "least_tpot_seconds": 0.11}, True, id="tokens come too late"),
        pytest.param({"least_waiting": None, "least_tpot_seconds": 0.09}, False, id="tokens come in time"),
        pytest.param({"least_waiting": None, "least_tpot_seconds": None}, False, id="nothing is known"),
        pytest.param({"least_waiting": 0.0, "ttft_p95_seconds": 99.0, "tpot_p95_seconds": 0.05}, False, id="late only"),
    ],
)
def test_only_replicas_that_were_busy_all_the_while_carry_less_than_their_card(readings, is_busy):
    assert factors(observed(replace(BUSY, **readings))) == ({"full": 850} if is_busy else {})


def test_levels_count_by_what_they_take_of_a_replica():
    nested = {
        "recipe": {"nested": {"levels": ["int8", "int4"]}},
        "card": {
            "qualityPermille": 998,
            "capacityMilliRequestsPerSecond": 800,
            "levels": [{"name": "int4", "qualityPermille": 780, "capacityMilliRequestsPerSecond": 1600}],
        },
    }
    spec = demo_spec(tiers=(tier(0, **nested),))
    readings = replace(BUSY, answers={"int8": 0.4, "int4": 1.76})  # a replica: 0.2 + 0.88 / 2 = 0.64 of 0.8/s
    assert factors(observed(readings, spec)) == {"full": 850}
    card = situation(observed(readings, spec)).tiers[0].card
    assert [level.rate for level in card.levels] == pytest.approx([0.68, 1.36])


def with_pod(model: ModelObservation, **changes: object) -> ModelObservation:
    return replace(model, pods=(model.pods[0], replace(model.pods[1], **changes)))


SWAP = SwapRecord("id", "RestoredTier", {"full": 2}, {"full": 1, "int8": 1}, "Starting", NOW - 5, NOW + 60, 1)
UNTRUSTED = replace(metrics(1.5), tiers={"full": BUSY})


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(observed(None), id="there is no measurement"),
        pytest.param(with_pod(observed(), ready_since=NOW - 119), id="a replica is cold"),
        pytest.param(with_pod(observed(), phase=PodPhase.STARTING, ready_since=None), id="a replica is starting"),
        pytest.param(with_pod(observed(), phase=PodPhase.PENDING, ready_since=None), id="a replica is pending"),
        pytest.param(with_pod(observed(), phase=PodPhase.TERMINATING), id="a replica is leaving"),
        pytest.param(replace(observed(), pods=()), id="nothing serves"),
        pytest.param(
            observed(replace(BUSY, answers={"int8": 0.4, "int4": 0.4})),
            id="an edit to levels is held back: the answers are of those, and not of what is in force",
        ),
        pytest.param(
            observed(replace(BUSY, answers={"": BUSY.answers[""] * 0.99, "int8-d28": 0.01})),
            id="a level that no card describes answered, too: it is not known what that takes of a replica",
        ),
        pytest.param(replace(observed(), swap=SWAP), id="a swap is in flight"),
        pytest.param(
            observed(memory=PolicyMemory(wanted={"full": 2}, generation=1, last_change_at=NOW - 119)),
            id="replicas have changed a moment ago",
        ),
        pytest.param(observed(memory=PolicyMemory(wanted={"full": 2}, generation=0)), id="the spec was edited"),
        pytest.param(
            replace(observed(), metrics=replace(UNTRUSTED, arrivals=Unknown("arrivals", "timed out"))),
            id="the demand is unknown",
        ),
        pytest.param(replace(observed(), metrics=replace(metrics(1.5, age=60.0), tiers={"full": BUSY})), id="stale"),
    ],
)
def test_a_tier_that_cannot_be_measured_keeps_its_factor(model):
    assert factors(model) == {}
    written = {"full": Correction(CARD, 700, NOW - 3600)}
    model = replace(model, memory=replace(model.memory, corrections=written))
    assert situation(model).memory.corrections == written


@given(st.integers(0, 119), st.sampled_from([600, 800, 1000, 1200]), st.floats(0.0, 100.0))
def test_cold_replicas_never_move_a_factor(seconds, factor, rate):
    written = {"full": Correction(CARD, factor, NOW - 3600)}
    cold = with_pod(observed(replace(BUSY, answers={"": rate})), ready_since=NOW - seconds)
    assert situation(replace(cold, memory=replace(cold.memory, corrections=written))).memory.corrections == written


def test_a_card_that_was_edited_is_taken_at_its_word():
    memory = PolicyMemory(wanted={"full": 2}, generation=1, corrections={"full": Correction(CARD + 1, 700, NOW - 60)})
    model = observed(None, memory=memory)
    assert factors(model) == {}
    assert rate_of(model) == pytest.approx(0.8)


SLOW = {**DEMO_TIERS[0]["replica"], "maxTokensPerStep": 32}


@pytest.mark.parametrize(
    ("edited", "selector"),
    [
        pytest.param({"tiers": (tier(0, replica={**SLOW, "maxTokensPerStep": 64}),)}, {}, id="longer steps"),
        pytest.param({"tiers": (tier(0, replica={**SLOW, "cpu": "2"}),)}, {}, id="more cores"),
        pytest.param({"tiers": (tier(0, replica={**SLOW, "kvPrecision": "int8"}),)}, {}, id="smaller keys and values"),
        pytest.param({"tiers": (tier(0, replica=SLOW, recipe={"precision": "int8"}),)}, {}, id="another recipe"),
        pytest.param({"slo": {"ttftMilliseconds": 1000, "tpotMilliseconds": 200}}, {}, id="later tokens are in time"),
        pytest.param({}, {"gpu": "new"}, id="other nodes"),
    ],
)
def test_a_factor_does_not_outlive_an_edit_of_what_makes_replicas_fast(edited, selector):
    before = {"tiers": (tier(0, replica=SLOW),)}
    written = situation(observed(spec=demo_spec(**before))).memory
    assert written.corrections["full"].factor_permille == 850
    same = observed(None, demo_spec(**before), written)
    assert situation(same).memory.corrections == written.corrections
    model = replace(observed(None, demo_spec(**{**before, **edited}), written), node_selector=selector)
    assert factors(model) == {}
    assert rate_of(model) == pytest.approx(0.8)


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param({"quality": {"floorPermille": 700}}, id="the floor"),
        pytest.param({"slo": {"ttftMilliseconds": 700, "tpotMilliseconds": 100}}, id="the time to the first token"),
    ],
)
def test_a_factor_outlives_an_edit_that_makes_no_replica_faster(edited):
    written = situation(observed()).memory
    assert factors(observed(None, demo_spec(**edited), written)) == {"full": 850}


def test_a_factor_of_an_older_operator_is_kept_until_its_next_step():
    older = {"full": Correction(CARD, 900, NOW - 3600)}
    memory = PolicyMemory(wanted={"full": 2}, generation=1, corrections=older)
    assert situation(observed(None, memory=memory)).memory.corrections == older
    stepped = situation(observed(memory=memory)).memory.corrections["full"]
    assert stepped.factor_permille < 900
    assert stepped.inputs is not None


def test_a_factor_stays_with_the_revision_that_an_edit_is_held_back_for():
    model = observed()
    written = situation(model).memory
    earlier = inputs_of(model, model.spec.tiers[0])
    edited = demo_spec(tiers=(tier(0, replica=SLOW), *DEMO_TIERS[1:]))
    memory = replace(written, proven={"full": earlier}, quarantined_until={"full": NOW + 60})
    held_back = situation(replace(model, spec=edited, memory=memory))
    assert held_back.held_back == {"full": earlier}
    assert held_back.memory.corrections == written.corrections


@pytest.mark.parametrize("factor", [1, 550, 1250])
def test_a_factor_that_is_out_of_bounds_is_not_believed(factor):
    memory = PolicyMemory(wanted={"full": 2}, generation=1, corrections={"full": Correction(CARD, factor, NOW - 60)})
    assert factors(observed(None, memory=memory)) == {}


def test_a_window_that_is_longer_than_replicas_are_warm_has_to_pass_too():
    young = with_pod(observed(replace(BUSY, window_seconds=240.0)), ready_since=NOW - 239)
    assert factors(young) == {}
    assert factors(with_pod(young, ready_since=NOW - 240)) == {"full": 850}


def test_a_second_look_at_the_same_pass_moves_nothing_further():
    first = situation(observed())
    again = situation(replace(observed(), memory=first.memory))
    assert again.memory.corrections == first.memory.corrections


def test_bounds_of_one_switch_the_correction_off():
    off = replace(DEMO_SETTINGS, correction=CorrectionSettings(least_permille=1000, most_permille=1000))
    assert factors(observed(), off) == {}


def test_a_decision_keeps_the_factor_and_names_it_beside_the_card():
    decision = decide_one(observed())
    assert decision.factors == {"full": 0.85}
    correction = decision.memory.corrections["full"]
    assert (correction.card_milli, correction.factor_permille, correction.moved_at) == (CARD, 850, NOW)
    assert "full card 0.80/s, measured 0.85 of it" in decision.inputs
    assert "capacity 1.22/s" in decision.inputs  # 2 x 0.8 x 0.85 x 0.9


@pytest.mark.parametrize(
    ("seconds", "is_told"), [pytest.param(599, False, id="not yet"), pytest.param(600, True, id="ten minutes")]
)
def test_a_card_that_claims_far_too_much_is_told_with_the_remedy(seconds, is_told):
    written = {"full": Correction(CARD, 600, NOW - seconds)}
    memory = PolicyMemory(wanted={"full": 2}, generation=1, corrections=written)
    told = [f.message for f in decide_one(observed(None, memory=memory)).findings if f.reason is Reason.CARD_STALE]
    assert len(told) == is_told
    for message in told:
        assert message.startswith("full card 0.80/s, measured 0.60 of it: ")
        assert "capacityMilliRequestsPerSecond" in message
