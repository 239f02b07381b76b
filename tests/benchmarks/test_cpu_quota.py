import pytest

from benchmarks.cpu_quota import QuotaUnavailableError, Throttling, cpu_quota, find_parent, parse_throttling


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_both_versions_are_found(tmp_path):
    write(tmp_path / "one", cpu__cpu_dot_cfs_quota_us="-1")
    write(tmp_path / "two", cgroup_dot_controllers="cpu io", cgroup_dot_subtree_control="cpu io")
    assert find_parent(tmp_path / "one") == tmp_path / "one" / "cpu"
    assert find_parent(tmp_path / "two") == tmp_path / "two"


def test_where_no_group_can_be_made_the_reason_is_said(tmp_path):
    write(tmp_path / "two", cgroup_dot_controllers="cpu io", cgroup_dot_subtree_control="io")
    with pytest.raises(QuotaUnavailableError, match="subtree_control"):
        find_parent(tmp_path / "two")
    with pytest.raises(QuotaUnavailableError, match="no cgroup hierarchy"):
        find_parent(tmp_path / "none")


def test_a_folder_that_cannot_be_made_is_said_with_what_it_needs(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    write(tmp_path, cpu__cpu_dot_cfs_quota_us="-1")
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(QuotaUnavailableError, match="Permission denied; this needs root"), cpu_quota(0.5, tmp_path):
        pass


def test_throttling_is_what_happened_since():
    before = parse_throttling("usage_usec 5\nnr_periods 10\nnr_throttled 2\n")
    after = parse_throttling("nr_periods 30\nnr_throttled 12\nthrottled_time 99\n")
    assert after.since(before) == Throttling(20, 10)
    assert after.since(before).share == 0.5
    assert Throttling(0, 0).share == 0.0
