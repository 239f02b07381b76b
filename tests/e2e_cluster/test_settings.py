from pathlib import Path

import pytest

from e2e.cluster import settings
from e2e.cluster.settings import ClusterError, find_cluster, known_clusters


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ADAPTIVE_STATE", "/s")
    monkeypatch.delenv("ADAPTIVE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


@pytest.mark.parametrize("name", ["dev", "a", "e2e-2", "a" * 20])
def test_a_name_that_can_be_a_host_name_is_accepted(name: str):
    cluster = find_cluster(name)
    assert cluster.folder == Path("/s/clusters") / name
    assert cluster.context == f"adaptive-{name}"


@pytest.mark.parametrize("name", ["", "Dev", "a_b", "-a", "a-", "../x", "a" * 21, "a b"])
def test_a_name_that_could_not_be_a_namespace_or_leads_outside_is_refused(name: str):
    with pytest.raises(ClusterError, match="--name"):
        find_cluster(name)


def test_a_folder_too_deep_for_sockets_is_refused_with_the_setting_that_helps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ADAPTIVE_STATE", "/" + "x" * 60)
    with pytest.raises(ClusterError, match="set ADAPTIVE_STATE to a shorter path"):
        find_cluster("dev")


@pytest.mark.parametrize("interval", ["500ms", "2s", "1m"])
def test_prometheus_durations_are_taken(interval: str):
    assert find_cluster("dev", scrape_interval=interval).scrape_interval == interval


@pytest.mark.parametrize("interval", ["2", "0s", "2 s", "-1s", "1.5s"])
def test_other_intervals_are_refused_by_name(interval: str):
    with pytest.raises(ClusterError, match="--scrape-interval"):
        find_cluster("dev", scrape_interval=interval)


def test_negative_accelerators_are_refused():
    with pytest.raises(ClusterError, match="--accelerators -1"):
        find_cluster("dev", accelerators=-1)


def test_the_cache_follows_the_setting_then_xdg_then_home(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/h")
    assert settings.cache_folder() == Path("/h/.cache/adaptive-llm")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert settings.cache_folder() == Path("/x/adaptive-llm")
    monkeypatch.setenv("ADAPTIVE_CACHE", "/own")
    assert settings.cache_folder() == Path("/own")


def test_lock_files_beside_the_folders_are_no_clusters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ADAPTIVE_STATE", str(tmp_path))
    (tmp_path / "clusters" / "b").mkdir(parents=True)
    (tmp_path / "clusters" / "a").mkdir()
    (tmp_path / "clusters" / ".a.lock").touch()
    assert known_clusters() == ["a", "b"]
