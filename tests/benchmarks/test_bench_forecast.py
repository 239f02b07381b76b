"""The benchmark of forecasts: loads by name, slower replicas, runs that are kept, and paired differences."""

from __future__ import annotations

import json

import pytest

from adaptive_operator.simulate.scenario import load_scenario
from benchmarks import bench_forecast
from benchmarks.bench_forecast import SLOWER, Case, arrivals, main, render, slow_scenario
from benchmarks.policy_scenes import EXAMPLES

RAMP = Case("single", "ramp900", 300.0, 12)


def rate(rows, begin, end):
    return sum(begin <= row.arrival < end for row in rows) / (end - begin)


def test_a_ramp_is_calm_then_rises_then_stays():
    rows = arrivals("ramp900", 1, None)
    found = [rate(rows, *span) for span in ((0, 900), (1300, 1400), (1800, 3600))]
    assert found == pytest.approx([2.0, 6.0, 10.0], rel=0.15)


@pytest.mark.parametrize("load", ["ramp", "wave900", "conv4", "sine0"])
def test_a_load_that_there_is_not_is_told(load):
    with pytest.raises(ValueError, match="no load"):
        arrivals(load, 1, None)


def test_replicas_take_longer_for_everything_and_the_objective_allows_it():
    usual = load_scenario(EXAMPLES / "decode-only.yaml", EXAMPLES / "profile-decode-only.yaml", 12)
    slow = slow_scenario(Case("decode-only", "ramp900", 155.0, 12))
    assert slow.tpot_seconds == pytest.approx(SLOWER * usual.tpot_seconds)
    for one, other in zip(slow.tiers, usual.tiers, strict=True):
        assert (one.name, one.load_seconds) == (other.name, 155.0)
        assert one.rate == pytest.approx(other.rate / SLOWER)
        assert one.curve.step(8) == pytest.approx(SLOWER * other.curve.step(8))
    cards = {tier.name: tier.card for tier in slow.spec.tiers}
    for tier in slow.tiers:
        assert cards[tier.name].load_seconds == 155
        assert cards[tier.name].capacity_milli_requests_per_second == pytest.approx(1000 * tier.rate, abs=1)


def test_a_single_tier_is_its_own_warm_tier():
    alone = slow_scenario(RAMP)
    assert [tier.name for tier in alone.tiers] == [tier.name for tier in alone.spec.tiers] == ["full"]
    assert alone.spec.routing.warm_tier is None


def record(violations):
    told = {"system_accuracy": 1.0, "accelerator_hours": 4.0, "starts_per_hour": 5.0, "flaps": 0}
    return {"violations": violations, **told}


def test_differences_are_taken_by_seed_and_to_the_first_policy():
    known = {
        f"{RAMP.name}|{name}|{seed}": record(value)
        for name, values in {"ours": (0.02, 0.04), "oracle": (0.01, 0.02)}.items()
        for seed, value in enumerate(values)
    }
    first, second = render(known, [RAMP], ["ours", "oracle"]).splitlines()[2:]
    assert first.startswith("| single ramp900 300 s, 12 accelerators | ours | 2 | 3.00 | 1.0000 |")
    # 1 and 2 points less: 12.706 · 0.707 / sqrt(2) around their mean.
    assert "| oracle | 2 | 1.50 (-1.50 ± 6.35) |" in second


def test_a_run_that_is_there_is_not_run_again(monkeypatch, tmp_path, capsys):
    ran = []
    monkeypatch.setattr(bench_forecast, "play", lambda case, name, seed, _trace: ran.append(name) or record(0.01))
    path = tmp_path / "forecast.jsonl"
    arguments = ["--tables", "single", "--loads", "ramp900", "--seeds", "1", "--results", str(path)]
    assert main([*arguments, "--policies", "ours"]) == 0
    assert main([*arguments, "--policies", "ours,oracle"]) == 0
    assert ran == ["ours", "oracle"]
    assert [json.loads(line)["key"].split("|")[1] for line in path.read_text().splitlines()] == ["ours", "oracle"]
    assert "| oracle | 1 | 1.00 (+0.00) |" in capsys.readouterr().out


def test_one_short_run_has_its_figures_and_its_changes(monkeypatch):
    monkeypatch.setattr(bench_forecast, "arrivals", lambda *_: SHORT)
    found = bench_forecast.play(RAMP, "ours", 1, None)
    assert found["requests"] > 0
    assert found["log"][0][1] == {"full": 1}


SHORT = tuple(row for row in arrivals("steady2", 1, None) if row.arrival < 400)
