"""Settings from the environment, and errors that name the variable and the remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adaptive_operator.settings import ConfigurationError, OperatorSettings, load_settings

URL = {"ADAPTIVE_PROMETHEUS_URL": "http://prometheus.monitoring.svc:9090"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", dict(URL))


def test_only_prometheus_has_to_be_named() -> None:
    settings = load_settings()
    assert settings.namespaces == ()
    assert settings.own_namespace == "adaptive-system"
    assert settings.windows.stable_seconds == 60.0


def test_the_load_repeats_itself_every_day_unless_the_period_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = load_settings().build_prometheus()
    past = load_settings().build_past(reader)
    assert past is not None
    assert past.period_seconds == 86_400.0
    monkeypatch.setenv("ADAPTIVE_SEASON_PERIOD_SECONDS", "0")
    assert load_settings().build_past(reader) is None
    reader.close()


def test_lists_and_maps_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTIVE_NAMESPACES", '["a","b"]')
    monkeypatch.setenv("ADAPTIVE_ACCELERATOR_BUDGETS", '{"nvidia.com/gpu": 4}')
    settings = load_settings()
    assert settings.namespaces == ("a", "b")
    assert settings.accelerator_budgets == {"nvidia.com/gpu": 4}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ADAPTIVE_PROMETHEUS_URL", "prometheus:9090", "set it, e.g. http"),
        ("ADAPTIVE_PROMETHEUS_URL", None, "is not set"),
        ("ADAPTIVE_LEASE_SECONDS", "1", "greater than or equal to 3"),
        ("ADAPTIVE_SCRAPE_INTERVAL_SECONDS", "soon", "valid number"),
        ("ADAPTIVE_ACCELERATOR_BUDGETS", "4", "valid dictionary"),
        ("ADAPTIVE_ACCELERATOR_BUDGETS", '{"nvidia.com/gpu": -1}', "greater than or equal to 0"),
        ("ADAPTIVE_ACCELERATOR_BUDGETS", '{"gpu": 1}', "pattern"),
        ("ADAPTIVE_ACCELERATOR_BUDGETS", "{nvidia", "is not JSON"),
        ("ADAPTIVE_NAMESPACES", "team-a", "is not JSON"),
        ("ADAPTIVE_NAMESPACES", '["Team A"]', "pattern"),
        ("ADAPTIVE_IMAGE_PULL_POLICY", "Sometimes", "pattern"),
        ("ADAPTIVE_SEASON_PERIOD_SECONDS", "5400", "multiple of 3600"),
        ("ADAPTIVE_SEASON_PERIOD_SECONDS", "-3600", "greater than or equal to 0"),
        ("ADAPTIVE_PROMETHEUS_READ_SECONDS", "100", "must be less than ADAPTIVE_PASS_TIMEOUT_SECONDS"),
    ],
)
def test_a_wrong_value_names_its_variable_and_a_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, words: str
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value).startswith(name)
    assert words in str(caught.value)


def test_stale_and_periods_reach_decide_and_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTIVE_SCRAPE_INTERVAL_SECONDS", "5")
    monkeypatch.setenv("ADAPTIVE_STALE_AFTER_SCRAPES", "3")
    monkeypatch.setenv("ADAPTIVE_PLANNER_PERIOD_SECONDS", "7")
    settings = load_settings()
    decide, plan = settings.decide_settings(), settings.plan_settings()
    assert (decide.scrape_interval_seconds, decide.stale_after_scrapes, decide.planner_period_seconds) == (
        5.0,
        3.0,
        7.0,
    )
    assert plan.stale_after_seconds == 15.0


@pytest.mark.parametrize(
    ("period", "timeout", "seconds"),
    [("15", "60", 10.0), ("5", "60", 10.0), ("45", "60", 15.0), ("300", "600", 20.0), ("15", "15", 5.0)],
    ids=["by default", "never too short for large pools", "a third of the period", "at most 20 s", "a third of a pass"],
)
def test_a_pools_program_takes_a_third_of_the_period_at_most(
    monkeypatch: pytest.MonkeyPatch, period: str, timeout: str, seconds: float
) -> None:
    """While it lasts, edits of models in other pools wait for the end of the pass."""
    monkeypatch.setenv("ADAPTIVE_PLANNER_PERIOD_SECONDS", period)
    monkeypatch.setenv("ADAPTIVE_PASS_TIMEOUT_SECONDS", timeout)
    assert load_settings().solver_seconds == seconds


def test_outside_of_a_pod_two_processes_have_two_identities() -> None:
    first, second = load_settings().lease_settings().identity, load_settings().lease_settings().identity
    assert first != second


def test_every_knob_says_when_to_change_it() -> None:
    source = Path(sys.modules[OperatorSettings.__module__].__file__ or "").read_text().splitlines()
    commented = False
    for line in source[source.index("class OperatorSettings(BaseSettings):") :]:
        if "@" in line:
            break
        commented = line.startswith("    #") or (commented and bool(line.strip()))
        if (
            line.startswith("    ")
            and ": " in line
            and " = " in line
            and "#" not in line
            and "model_config" not in line
        ):
            assert commented, f"no comment above: {line}"


def test_the_process_ends_with_2_and_one_line_per_mistake() -> None:
    environment = {"ADAPTIVE_LEASE_SECONDS": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "operator")}
    done = subprocess.run(
        [sys.executable, "-m", "adaptive_operator"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line.split(":")[0].split()[0] for line in lines] == ["ADAPTIVE_PROMETHEUS_URL", "ADAPTIVE_LEASE_SECONDS"]


@pytest.mark.parametrize("scrape", [0.5, 2.0, 15.0, 60.0])
def test_the_policy_judges_chance_by_the_windows_that_the_queries_ask_for(scrape):
    settings = load_settings({"prometheus_url": "http://prometheus:9090", "scrape_interval_seconds": scrape})
    windows, decide = settings.windows, settings.decide_settings()
    assert (decide.arrivals_window_seconds, decide.recent_window_seconds) == (
        windows.stable_seconds,
        windows.recent_seconds,
    )
