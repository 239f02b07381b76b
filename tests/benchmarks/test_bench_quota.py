from benchmarks.bench_quota import Case, Figures, count_threads, parse_cpu_seconds, render
from benchmarks.cpu_quota import Throttling


def test_cpu_time_is_read_behind_a_name_with_spaces_and_brackets():
    assert parse_cpu_seconds("7 (a ) b) S " + "0 " * 10 + "150 50 0") == 2.0


def test_threads_are_read_from_their_line():
    assert count_threads("Name:\tpython\nThreads:\t5\nSigQ:\t0/9\n") == 5


def test_a_row_has_medians_ranges_and_the_share_of_the_first_case():
    cases = (Case("one core", 1.0), Case("half a core", 0.5))
    full = [Figures(speed, 1, 4, 1.0, Throttling(10, 0)) for speed in (40.0, 44.0, 36.0)]
    half = [Figures(speed, 1, 5, 0.5, Throttling(10, 9)) for speed in (18.0, 20.0, 19.0)]
    rows = render(cases, [full, half]).splitlines()[2:]
    assert rows == [
        "| one core | 1 / 4 | 40.0 (36.0-44.0) | 100% | 1.00 | 0% |",
        "| half a core | 1 / 5 | 19.0 (18.0-20.0) | 48% | 0.50 | 90% |",
    ]
