"""Traces: what is read, and what a user is told of a row that cannot be used."""

from __future__ import annotations

import re

import pytest

from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.traces import TraceError, TraceRules, read_trace

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def write(tmp_path, text, name="trace.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_the_azure_format_is_read_with_times_from_zero(tmp_path):
    rows = "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    trace = read_trace(write(tmp_path, HEADER + rows))
    assert [(r.prompt_tokens, r.output_tokens) for r in trace] == [(374, 44), (396, 109)]
    assert [r.arrival for r in trace] == [0.0, pytest.approx(4.314579, abs=1e-5)]


def test_the_azure_format_of_2024_is_read_with_other_columns_beside_it(tmp_path):
    rows = "2024-05-10 00:00:00.009930+00:00,2162,5,a\n2024-05-10 00:00:00.017335+00:00,2399,6,b\n"
    trace = read_trace(write(tmp_path, HEADER.rstrip() + ",Note,Note\n" + rows.replace("\n", ",c\n")))
    assert trace == (TraceRow(0.0, 2162, 5), TraceRow(pytest.approx(0.007405, abs=1e-6), 2399, 6))


def test_seconds_are_read_too(tmp_path):
    assert read_trace(write(tmp_path, HEADER + "5,1,1\n7.5,2,3\n")) == (TraceRow(0.0, 1, 1), TraceRow(2.5, 2, 3))


def test_json_lines_are_read_and_empty_ones_skipped(tmp_path):
    text = '{"time": 3, "prompt_tokens": 10, "output_tokens": 20, "user": "a"}\n\n'
    assert read_trace(write(tmp_path, text, "trace.jsonl")) == (TraceRow(0.0, 10, 20),)
    assert read_trace(write(tmp_path, text, "TRACE.JSONL")) == (TraceRow(0.0, 10, 20),)


BAD = {
    "unsorted": (HEADER + "5,1,1\n4,1,1\n", "trace.csv, row 3: 1.000 s earlier than the row before; sort"),
    "equal times": (HEADER + "5,1,1\n5,1,1\n", "row 3: the same time as the row before; remove the duplicate"),
    "a gap": (HEADER + "0,1,1\n2,1,1\n700,1,1\n", "row 4: 698 s after the row before, more than 600 s; cut the trace"),
    "times that differ by less than a microsecond": (
        HEADER + "2023-11-16 18:15:46.6805901,1,1\n2023-11-16 18:15:46.6805904,1,1\n",
        "row 3: within a microsecond of the row before; remove the duplicate, or allow equal times",
    ),
    "a bad row after empty ones": (HEADER + "\n0,1,1\n\n\nsoon,1,1\n", "row 6: TIMESTAMP is 'soon'; give"),
    "an empty line for a header": ("\n" + HEADER, "row 1: no column"),
    "an endless header": ("a" * 200_000 + "\n", "row 1: not CSV"),
    "no number": (
        HEADER + "0,1,1\nsoon,1,1\n",
        "row 3: TIMESTAMP is 'soon'; give a date and time, e.g. 2023-11-16 18:15:46.68, or seconds",
    ),
    "not a time": (HEADER + "nan,1,1\n", "row 2: TIMESTAMP is 'nan'; give a date"),
    "no output": (HEADER + "0,5,0\n", "row 2: GeneratedTokens is '0'; give a whole number from 1 to 1000000"),
    "a short row": (HEADER + "0,5\n", "row 2: GeneratedTokens is missing; give a whole number"),
    "negative prompt": (
        HEADER + "0,-5,1\n",
        "row 2: ContextTokens is '-5'; give a whole number from 1 to 1000000, or remove the row",
    ),
    "an endless field": (HEADER + "0,5," + "1" * 200_000 + "\n", "row 2: not CSV"),
    "a number that is none": (HEADER + "0,5.5,1\n", "row 2: ContextTokens is '5.5'; give a whole number"),
    "an empty field": (HEADER + "0,,1\n", "row 2: ContextTokens is ''; give a whole number"),
    "a date that is none": (HEADER + "yesterday,1,1\n", "row 2: TIMESTAMP is 'yesterday'; give a date and time"),
    "another header": ("a,b\n1,2\n", "row 1: no column TIMESTAMP, ContextTokens, GeneratedTokens; the header is 'a,"),
    "more values than columns": (
        HEADER + "0,1,1\n1,1,155,211\n",
        "row 3: 4 values for 3 columns; write numbers without commas, or remove the row",
    ),
    "a comma at the end": (HEADER + "0,1,1,\n", "row 2: 4 values for 3 columns"),
    "a column that stands twice": (
        "TIMESTAMP,ContextTokens,GeneratedTokens,ContextTokens\n0,1,1,9\n",
        "row 1: the column ContextTokens is there twice; remove one",
    ),
    "no rows": (HEADER, "trace.csv: no request in it"),
    "nothing": ("", "row 1: no column"),
    "another sign between columns": (
        HEADER.replace(",", ";"),
        "the header is 'TIMESTAMP;ContextTokens;GeneratedTokens', and has to be TIMESTAMP,ContextTokens,GeneratedTok",
    ),
    "JSON lines": ('{"time": 0, "prompt_tokens": 1}\n', "; JSON lines need a name that ends in .jsonl"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_trace_with_a_bad_row_is_refused_with_row_and_remedy(name, tmp_path):
    text, words = BAD[name]
    with pytest.raises(TraceError) as raised:
        read_trace(write(tmp_path, text))
    assert words in str(raised.value)


BAD_JSON = {
    "broken": ('{"time": 1', "trace.jsonl, row 1: not JSON"),
    "a list": ("[1, 2]", "row 1: not an object"),
    "thousands of digits": ("9" * 5000, "value has 5000 digits); write one object per line"),
    "brackets without end": ("[" * 100_000, "row 1: not JSON"),
    "a truth as a number of tokens": (
        '{"time": 1, "prompt_tokens": true, "output_tokens": 1}',
        "row 1: prompt_tokens is true; give a whole number from 1 to 1000000, or remove the row",
    ),
    "a truth as a time": (
        '{"time": false, "prompt_tokens": 1, "output_tokens": 1}',
        "row 1: time is false; give a date",
    ),
    "a field that stands twice": (
        '{"time": 1, "prompt_tokens": 2, "prompt_tokens": 3, "output_tokens": 1}',
        "row 1: prompt_tokens is there twice; remove one",
    ),
    "a field missing": ('{"time": 1, "prompt_tokens": 2}', "row 1: output_tokens is missing; give a whole number"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_a_bad_json_line_is_refused_with_row_and_remedy(name, tmp_path):
    text, words = BAD_JSON[name]
    with pytest.raises(TraceError) as raised:
        read_trace(write(tmp_path, text, "trace.jsonl"))
    assert words in str(raised.value)


def test_only_the_beginning_of_a_long_value_is_told(tmp_path):
    with pytest.raises(TraceError) as raised:
        read_trace(write(tmp_path, HEADER + "0,1," + "x" * 5000 + "\n"))
    assert len(str(raised.value)) < 300 + len(str(tmp_path))


def test_gaps_and_equal_times_can_be_allowed(tmp_path):
    path = write(tmp_path, HEADER + "0,1,1\n0,1,1\n700,1,1\n")
    assert len(read_trace(path, TraceRules(longest_gap_seconds=900.0, equal_times=True))) == 3


@pytest.mark.parametrize("gap", ["698.4", "600.001", "1000000.25"])
def test_a_gap_is_allowed_by_what_its_error_says(gap, tmp_path):
    path = write(tmp_path, HEADER + f"0,1,1\n{gap},1,1\n")
    with pytest.raises(TraceError) as raised:
        read_trace(path)
    allowed = re.search(r"--longest-gap (\d+)$", str(raised.value))
    assert allowed
    assert len(read_trace(path, TraceRules(longest_gap_seconds=float(allowed[1])))) == 2


@pytest.mark.parametrize("name", ["trace.csv", "trace.jsonl"])
def test_a_file_that_is_no_text_is_refused_by_its_name(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08\xff")
    with pytest.raises(TraceError, match=rf"{name}: not a text; give CSV or JSON lines in UTF-8"):
        read_trace(tmp_path / name)


def test_a_file_as_excel_writes_it_is_read(tmp_path):
    assert len(read_trace(write(tmp_path, "\ufeff" + HEADER + "0,1,1\n"))) == 1
    row = '{"time": 3, "prompt_tokens": 10, "output_tokens": 20}\n'
    assert len(read_trace(write(tmp_path, "\ufeff" + row, "trace.jsonl"))) == 1


def with_hole(rows, every, hole):
    """So many rows before and after the hole, one every so many seconds."""
    times = [every * i for i in range(rows)]
    times += [times[-1] + hole + time for time in times]
    return HEADER + "\n" + "".join(f"{time},1,1\n" for time in times)


def test_a_hole_that_the_mean_rate_does_not_explain_is_told_with_its_row(tmp_path):
    told = []
    assert len(read_trace(write(tmp_path, with_hole(500, 1, 300)), tell=told.append)) == 1000
    assert len(told) == 1
    assert (
        "trace.csv, row 503: 300 s after the row before, where 1.3 s are the mean; if requests are missing" in told[0]
    )


QUIET = {
    "a gap that is short": with_hole(500, 0.1, 50),
    "a gap of a trace that has few requests": with_hole(5, 30, 300),
    "a single row": HEADER + "0,1,1\n",
}


@pytest.mark.parametrize("name", QUIET)
def test_nothing_is_told_of(name, tmp_path):
    told = []
    read_trace(write(tmp_path, QUIET[name]), tell=told.append)
    assert told == []


def test_utc_offsets_count_so_that_rows_stand_in_the_order_of_what_happened(tmp_path):
    rows = "2023-11-16 18:00:00+01:00,1,1\n2023-11-16 17:00:01.5000000+00:00,2,1\n2023-11-16 17:00:02Z,3,1\n"
    assert [row.arrival for row in read_trace(write(tmp_path, HEADER + rows))] == [0.0, 1.5, 2.0]


MIXED = {
    "later by the clock on the wall, earlier in truth": (
        "2023-11-16 18:00:00+00:00,1,1\n2023-11-16 18:00:01+01:00,1,1\n",
        "row 3: 3599.000 s earlier than the row before",
    ),
    "a row without an offset after rows with one": (
        "2023-11-16 18:00:00+01:00,1,1\n2023-11-16 18:00:01,1,1\n",
        "row 3: its time has no UTC offset, but that of the first row has one",
    ),
    "a row with an offset after rows without": (
        "2023-11-16 18:00:00,1,1\n2023-11-16 18:00:01+01:00,1,1\n",
        "row 3: its time has a UTC offset, but that of the first row has none",
    ),
    "seconds after a timestamp": (
        "2023-11-16 18:00:00,1,1\n5,1,1\n",
        "row 3: its time is a number of seconds, but that of the first row is a timestamp",
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_times_that_cannot_be_compared_are_refused_with_the_row(name, tmp_path):
    text, words = MIXED[name]
    with pytest.raises(TraceError) as raised:
        read_trace(write(tmp_path, HEADER + text))
    assert words in str(raised.value)


def test_no_gap_of_more_than_a_year_is_said_to_be_allowed(tmp_path):
    with pytest.raises(TraceError) as raised:
        read_trace(write(tmp_path, HEADER + "0,1,1\n1e300,1,1\n"))
    assert str(raised.value).endswith("row 3: 1e+300 s after the row before, more than 600 s; cut the trace there")


def test_a_time_that_cannot_be_meant_is_told_in_a_few_digits(tmp_path):
    told = []
    rows = "".join(f"{second},1,1\n" for second in range(1000))
    read_trace(write(tmp_path, HEADER + rows + "1e300,1,1\n"), TraceRules(longest_gap_seconds=1e308), told.append)
    assert "row 1002: 1e+300 s after the row before" in told[0]
    with pytest.raises(TraceError, match=r"row 3: 1e\+300 s earlier than the row before"):
        read_trace(write(tmp_path, HEADER + "0,1,1\n-1e300,1,1\n"))
