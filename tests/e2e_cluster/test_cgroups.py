"""Removing the cluster's control group while containers take theirs away."""

import os
from pathlib import Path

import pytest

from e2e.cluster import cgroups
from e2e.cluster.settings import Cluster


def test_a_group_that_vanishes_while_it_is_listed_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cluster = Cluster("vanishing", tmp_path / "state")
    parent = tmp_path / "cpu"
    pod = parent / cluster.context / "kubepods" / "pod-1"
    pod.mkdir(parents=True)
    monkeypatch.setattr(cgroups, "hierarchies", lambda _root: [parent])
    scandir = os.scandir

    def racing(path: str | Path):
        if Path(path) == pod and pod.exists():
            pod.rmdir()  # its container ended between the listing of its parent and its own
        return scandir(path)

    monkeypatch.setattr(os, "scandir", racing)
    cgroups.remove_group(cluster, tmp_path)
    assert not (parent / cluster.context).exists()
