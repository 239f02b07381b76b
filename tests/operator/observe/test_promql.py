"""PromQL pieces: nothing that comes from outside changes an expression's shape."""

from __future__ import annotations

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.observe.promql import aggregate, duration, equal, one_of, rate, selector

INJECTIONS = [
    'x"}[1m])) or vector(1e9) or sum(rate(y{a="',
    'a"} or up{b="c',
    "back\\slash",
    'trailing\\"',
    "line\nbreak",
    "tab\tand\rreturn",
    "a|b",
    ".*",
    "(?i)x",
    "ünïcode – · 模型",
    "",
]


def parse_selector(text: str) -> promql_parser.VectorSelector:
    tree = promql_parser.parse(text)
    assert isinstance(tree, promql_parser.VectorSelector), f"{text} is a {type(tree).__name__}"
    return tree


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_value_from_outside_stays_one_value(text: str) -> None:
    tree = parse_selector(selector("metric_total", equal("model", text)))
    assert [(m.name, m.value) for m in tree.matchers.matchers] == [("model", text)]


@given(st.text(max_size=40))
def test_any_text_stays_one_value(text: str) -> None:
    tree = parse_selector(selector("metric_total", equal("model", text), equal("namespace", "n")))
    assert [(m.name, m.value) for m in tree.matchers.matchers] == [("model", text), ("namespace", "n")]


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_set_of_values_matches_literally(text: str) -> None:
    tree = parse_selector(selector("metric_total", one_of("model", [text, "other"])))
    assert len(tree.matchers.matchers) == 1
    pattern = tree.matchers.matchers[0].value
    assert pattern == "|".join(_quote_meta(value) for value in sorted([text, "other"]))


def _quote_meta(value: str) -> str:
    """RE2's QuoteMeta."""
    return "".join(f"\\{c}" if c in r"\.+*?()|[]{}^$" else c for c in value)


@pytest.mark.parametrize("name", ["", "1a", "a b", "a{", 'a"', "a-b"])
def test_a_wrong_metric_or_label_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a metric name"):
        selector(name)
    with pytest.raises(ValueError, match="not a label name"):
        str(equal(name, "x"))
    with pytest.raises(ValueError, match="not a label name"):
        aggregate("sum", [name], "up")


def test_durations_are_whole_milliseconds_and_never_zero() -> None:
    assert [duration(s) for s in (15, 7.5, 0.0001)] == ["15000ms", "7500ms", "1ms"]


def test_a_rate_is_a_call_over_a_matrix() -> None:
    tree = promql_parser.parse(rate(selector("a_total", equal("b", "c")), 15))
    assert isinstance(tree, promql_parser.Call)
    assert tree.func.name == "rate"
