from benchmarks.idle import parse_idle, wait_until_idle


def script(*shares):
    """Readings of /proc/stat, two per interval, with these idle shares."""
    readings = [reading for share in shares for reading in ((0, 0), (int(share * 100), 100))]
    return iter(readings).__next__


def test_ticks_of_all_processors_are_read_from_the_first_line():
    text = "cpu  10 1 5 80 4 0 0 0 7 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n"

    assert parse_idle(text) == (84, 100)


def test_the_gate_opens_at_the_first_idle_interval():
    check = wait_until_idle(60.0, script(0.2, 0.5, 0.95), lambda _: None)

    assert (check.share, check.passed) == (0.95, True)


def test_a_busy_machine_is_recorded_after_the_time_out():
    check = wait_until_idle(1.0, script(0.2, 0.5, 0.95), lambda _: None)

    assert (check.share, check.passed) == (0.5, False)
