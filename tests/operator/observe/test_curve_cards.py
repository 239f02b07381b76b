"""Cards that leave the rate to a curve: what is filled in, what stands, and where nothing can be told."""

from __future__ import annotations

from typing import Any

import pytest

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.attaining import attaining_rate
from adaptive_operator.decide.curve import Curve, Objective, Request
from adaptive_operator.levels import levels_of
from adaptive_operator.observe.curve_cards import USUAL_REQUEST, complete_cards

TIMES = {"stepMicroseconds": 28_400, "decodeMicrosecondsPerSequence": 350, "prefillMicrosecondsPerToken": 107}
FAST = {"stepMicroseconds": 16_000, "decodeMicrosecondsPerSequence": 350, "prefillMicrosecondsPerToken": 107}
CURVE = {**TIMES, "maxSequences": 16, "maxTokensPerStep": 256}
REFERENCE = {"referencePromptTokens": 128, "referenceOutputTokens": 64}
NESTED = {"nested": {"levels": ["int8", "int4"]}}
SLO = {"ttftMilliseconds": 2000, "tpotMilliseconds": 60, "attainmentPercent": 95}


def emulated(card: dict[str, Any] | None, name: str = "emu", **changes: Any) -> dict[str, Any]:
    tier = {
        "name": name,
        "recipe": {"precision": "bf16"},
        "engine": "emulated",
        "curve": CURVE,
        "replica": {"accelerators": 1, "cpu": "1", "memory": "1Gi"},
    }
    return tier | changes | ({} if card is None else {"card": card})


def read(*tiers: dict[str, Any], **slo: int) -> AdaptiveModelSpec:
    source = {"source": "file:///not/read"}
    return AdaptiveModelSpec.model_validate({"model": source, "slo": {**SLO, **slo}, "tiers": list(tiers)})


def rate(step: float, request: Request, **objective: float) -> float:
    curve = Curve(0.0, 0.107, ((0.0, step), (16.0, step + 16 * 0.35)), 65_536.0, 16, 256.0)
    values = {"tpot_milliseconds": 60.0, "ttft_milliseconds": 2000.0, "attainment_percent": 95.0, **objective}
    return attaining_rate(curve, request, Objective(**values))


SHORT = Request(128.0, 64.0)


@pytest.mark.parametrize(
    ("tiers", "slo", "expected"),
    [
        pytest.param(
            [emulated({"qualityPermille": 1000, **REFERENCE})], {}, rate(28.4, SHORT), id="of the reference request"
        ),
        pytest.param(
            [emulated({"qualityPermille": 1000})], {}, rate(28.4, USUAL_REQUEST), id="of the usual one without it"
        ),
        pytest.param(
            [
                emulated({"qualityPermille": 1000}),
                emulated({"qualityPermille": 900, "capacityMilliRequestsPerSecond": 8000, **REFERENCE}, name="other"),
            ],
            {},
            rate(28.4, SHORT),
            id="of the one that another tier's card describes",
        ),
        pytest.param(
            [emulated({"qualityPermille": 1000, **REFERENCE})],
            {"tpotMilliseconds": 40, "attainmentPercent": 99},
            rate(28.4, SHORT, tpot_milliseconds=40.0, attainment_percent=99.0),
            id="at the objective of the model",
        ),
    ],
)
def test_a_card_without_a_rate_has_that_of_its_curve(tiers, slo, expected):
    completed = complete_cards(read(*tiers, **slo))

    assert completed.from_curves == ("emu",)
    assert levels_of(completed.spec.tiers[0])[0].requests_per_second == pytest.approx(expected, abs=1e-3)


def test_levels_have_the_rates_of_their_own_curves_or_of_the_tiers():
    curve = {**CURVE, "levels": [{"name": "int4", **FAST}]}
    levels = [{"name": "int4", "qualityPermille": 900}]
    card = {"qualityPermille": 990, "levels": levels, **REFERENCE}
    completed = complete_cards(read(emulated(card, recipe=NESTED, curve=curve)))
    same = complete_cards(read(emulated(card, recipe=NESTED)))

    assert [level.requests_per_second for level in levels_of(completed.spec.tiers[0])] == pytest.approx(
        [rate(28.4, SHORT), rate(16.0, SHORT)], abs=1e-3
    )
    assert len({level.requests_per_second for level in levels_of(same.spec.tiers[0])}) == 1


def test_the_top_level_may_have_its_card_among_the_levels():
    card = {"levels": [{"name": "int8", "qualityPermille": 990}], **REFERENCE}
    completed = complete_cards(read(emulated(card, recipe=NESTED)))

    assert completed.from_curves == ("emu",)
    assert levels_of(completed.spec.tiers[0])[0].requests_per_second == pytest.approx(rate(28.4, SHORT), abs=1e-3)


@pytest.mark.parametrize(
    "tier",
    [
        pytest.param(emulated({"qualityPermille": 1000, "capacityMilliRequestsPerSecond": 5000}), id="a declared rate"),
        pytest.param(emulated(None), id="a tier without a card"),
        pytest.param(emulated({"qualityPermille": 1000}, engine="native", curve=None), id="a tier without a curve"),
        pytest.param(
            emulated({"qualityPermille": 1000}, curve={**CURVE, "stepMicroseconds": 80_000}),
            id="a curve that keeps the objective at no rate",
        ),
    ],
)
def test_nothing_is_changed_for(tier):
    spec = read(tier)

    completed = complete_cards(spec)

    assert (completed.spec, completed.from_curves) == (spec, ())
