"""The questions of one pass: each parses, and names only the models it is asked for."""

from __future__ import annotations

import re

import promql_parser
import pytest

from adaptive_operator.observe.queries import (
    ARRIVALS,
    ModelScope,
    Query,
    QueryName,
    Windows,
    build_past_queries,
    build_queries,
)

MODELS = [ModelScope("demo", "a", 300), ModelScope("demo", "b", 20), ModelScope("prod", "a", 300)]

QUANTILES = [name for name in QueryName if name.endswith("_p95") or name is QueryName.TIER_TPOT]


def test_every_query_parses_and_keeps_its_labels() -> None:
    for query in build_queries(MODELS, Windows(2.0)):
        tree = promql_parser.parse(query.expression)
        assert tree is not None
        if query.name not in QUANTILES:
            assert f"by ({', '.join(query.labels)})" in query.expression


def test_each_question_is_asked_once_per_pool_and_the_peak_once_per_hold_window() -> None:
    names = [(q.name, q.hold_seconds) for q in build_queries(MODELS, Windows(2.0))]
    assert len(names) == len(set(names))
    assert {hold for name, hold in names if name is QueryName.PEAK_ARRIVALS} == {20, 300}
    assert {name for name, _ in names} == set(QueryName) - {QueryName.PAST_ARRIVALS}


def test_the_number_of_questions_does_not_grow_with_the_models() -> None:
    many = [ModelScope("demo", f"model-{i}", 300) for i in range(500)]
    assert len(build_queries(many, Windows(15.0))) == len(build_queries(many[:1], Windows(15.0)))


@pytest.mark.parametrize(
    ("scrape", "stable", "recent"), [(1.0, 15.0, 6.0), (2.0, 15.0, 6.0), (5.0, 20.0, 15.0), (15.0, 60.0, 45.0)]
)
def test_windows_follow_the_scrape_interval(scrape: float, stable: float, recent: float) -> None:
    windows = Windows(scrape)
    assert (windows.stable_seconds, windows.recent_seconds) == (stable, recent)


def test_a_hold_window_shorter_than_a_rate_window_still_holds_two_evaluations() -> None:
    queries = build_queries([ModelScope("demo", "a", 1)], Windows(15.0))
    peak = next(q for q in queries if q.name is QueryName.PEAK_ARRIVALS)
    assert peak.expression.endswith("[60000ms:30000ms])")


def test_the_history_is_forty_bins_of_the_scrape_interval_or_of_fifteen_seconds() -> None:
    for scrape, words in ((2.0, "[15000ms])))[600000ms:15000ms]"), (30.0, "[90000ms])))[1200000ms:30000ms]")):
        queries = build_queries(MODELS, Windows(scrape))
        history = next(q for q in queries if q.name is QueryName.ARRIVAL_HISTORY)
        assert history.expression.endswith(words)


def test_a_tiers_speed_is_measured_over_two_minutes_or_two_stable_windows() -> None:
    assert [Windows(scrape).measured_seconds for scrape in (2.0, 15.0, 30.0)] == [120.0, 120.0, 240.0]


def test_a_tier_counts_as_busy_by_the_least_busy_moment_of_the_time_that_its_answers_are_counted_over() -> None:
    found = {q.name: q.expression for q in build_queries(MODELS, Windows(2.0))}
    assert "[120000ms]" in found[QueryName.TIER_ANSWERS]
    for name, step in ((QueryName.TIER_WAITING, "2000ms"), (QueryName.TIER_TPOT, "7500ms")):
        assert found[name].startswith("min_over_time(")
        assert found[name].endswith(f"[120000ms:{step}])")
    tpot = found[QueryName.TIER_TPOT]
    assert tpot.count("by (namespace, model, tier") == 2  # what stands in while nobody streams has the same labels


DAY = 86_400.0
NOW = 20_000 * DAY + 5 * 60.0


def past_queries(*models: ModelScope, scrape: float = 15.0) -> tuple[Query, ...]:
    return build_past_queries(models or MODELS, Windows(scrape), NOW - 600.0, NOW + 120.0, DAY)


def test_the_past_is_one_question_for_each_of_two_periods_at_a_fixed_time() -> None:
    queries = past_queries()
    assert {query.name for query in queries} == {QueryName.PAST_ARRIVALS}
    assert [query.periods_back for query in queries] == [1, 2]
    for back, query in enumerate(queries, start=1):
        tree = promql_parser.parse(query.expression)
        assert isinstance(tree, promql_parser.SubqueryExpr)
        assert (tree.range.total_seconds(), tree.step.total_seconds()) == (720.0, 60.0)
        assert query.expression.endswith(f" @ {NOW + 120.0 - back * DAY:.3f}")


def without_strings(expression: str) -> str:
    return re.sub(r'"(\\.|[^"\\])*"', '""', expression)


def test_a_name_from_outside_does_not_change_the_questions_about_the_past() -> None:
    odd = ModelScope("demo", 'a"}[1m])) or vector(1e9) or rate(x{b="', 300)
    for query, plain in zip(past_queries(odd), past_queries(MODELS[0]), strict=True):
        assert isinstance(promql_parser.parse(query.expression), promql_parser.SubqueryExpr)
        assert without_strings(query.expression) == without_strings(plain.expression)


@pytest.mark.parametrize(
    ("scrape", "seconds", "scrapes"),
    [(1.0, 60, 59), (2.0, 60, 29), (15.0, 60, 3), (20.0, 120, 5), (30.0, 120, 3), (60.0, 240, 3), (300.0, 1200, 3)],
)
def test_a_bin_counts_when_every_series_was_there_for_all_but_one_scrape(
    scrape: float, seconds: int, scrapes: int
) -> None:
    text = past_queries(scrape=scrape)[0].expression
    assert Windows(scrape).season_bin_seconds == seconds
    assert 3600 % seconds == 0
    assert f"[{seconds}000ms]" in text
    assert f"min by (namespace, model) (count_over_time({ARRIVALS}{{" in text
    assert f">= {scrapes})[" in text
