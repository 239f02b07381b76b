"""What is checked before the demo starts: disk space. Tools are in test_install.py."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from e2e.cluster.settings import ClusterError
from e2e.demo import preflight
from e2e.demo.preflight import GB, missing
from e2e.demo.settings import ROOT, Settings

ENVIRONMENT_GB = 3  # .venv, 2.5 measured: it is there when the demo starts, so preflight does not ask for it
ENVIRONMENT_CUDA_GB = 5  # what PyPI's torch adds to it


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Cache and state that are not there yet, on one filesystem. The state's path is short, as sockets need it.

    Nothing is built yet, and torch is a CPU build.
    """
    monkeypatch.setenv("TORCH_FIND_LINKS", "/wheels")
    monkeypatch.setattr(preflight, "find_binaries", _not_built)
    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ADAPTIVE_STATE", "/nowhere/s")
    return tmp_path


def _not_built() -> dict[str, Path]:
    raise ClusterError("not built yet")


def _set_free(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(gigabytes * GB)))
    monkeypatch.setattr(preflight, "_existing", lambda _: Path("/"))


def _disk_lines(settings: Settings) -> list[str]:
    return [line for line in missing(settings) if "GB free" in line]


@pytest.mark.parametrize(("gigabytes", "lines"), [(20.9, 1), (21, 0), (500, 0)])
def test_a_first_run_needs_space_for_gos_caches_too(
    monkeypatch: pytest.MonkeyPatch, folders: Path, gigabytes: float, lines: int
) -> None:
    _set_free(monkeypatch, gigabytes)
    assert len(_disk_lines(Settings())) == lines


@pytest.mark.parametrize(("gigabytes", "lines"), [(11.9, 1), (12, 0)])
def test_once_the_binaries_are_built_go_needs_no_space(
    monkeypatch: pytest.MonkeyPatch, folders: Path, gigabytes: float, lines: int
) -> None:
    monkeypatch.setattr(preflight, "find_binaries", dict)
    _set_free(monkeypatch, gigabytes)
    assert len(_disk_lines(Settings())) == lines


@pytest.mark.parametrize(("gigabytes", "lines"), [(35.9, 1), (36, 0)])
def test_torch_with_cuda_is_in_the_image_and_in_the_nodes_copies_of_it(
    monkeypatch: pytest.MonkeyPatch, folders: Path, gigabytes: float, lines: int
) -> None:
    monkeypatch.setenv("TORCH_FIND_LINKS", "")
    _set_free(monkeypatch, gigabytes)
    assert len(_disk_lines(Settings())) == lines


def test_the_readme_asks_for_what_the_demo_asks_for_and_the_environment(
    monkeypatch: pytest.MonkeyPatch, folders: Path
) -> None:
    found = re.search(r"(\d+) GB of disk \((\d+) GB with", (ROOT / "README.md").read_text())
    assert found
    _set_free(monkeypatch, 0)
    for told, links, environment in (
        (found[1], "/wheels", ENVIRONMENT_GB),
        (found[2], "", ENVIRONMENT_GB + ENVIRONMENT_CUDA_GB),
    ):
        monkeypatch.setenv("TORCH_FIND_LINKS", links)
        (line,) = _disk_lines(Settings())
        asked = re.search(r"needs (\d+) GB", line)
        assert asked
        assert 0 <= int(told) - int(asked[1]) - environment <= 1


def test_too_full_a_disk_is_one_line_with_its_remedy(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    _set_free(monkeypatch, 3)
    (line,) = _disk_lines(Settings())
    assert "3.0 GB free" in line
    assert "needs 21 GB" in line
    assert "ADAPTIVE_CACHE, ADAPTIVE_STATE, GOCACHE, GOMODCACHE" in line
    assert "\n" not in line


def test_an_existing_cluster_needs_no_disk_here(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    _set_free(monkeypatch, 0)
    assert _disk_lines(Settings(context="mine")) == []


def test_a_cluster_that_is_there_has_its_space(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    _set_free(monkeypatch, 0)
    assert len(_disk_lines(Settings())) == 1
    monkeypatch.setattr(preflight, "find_cluster", lambda _: SimpleNamespace(folder=folders))
    assert _disk_lines(Settings()) == []


def test_a_bad_cluster_name_is_a_line_and_not_a_traceback(folders: Path) -> None:
    assert any("--name 'Not OK'" in line for line in missing(Settings(cluster="Not OK")))


def test_gos_caches_are_where_go_looks_for_them(monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
    asked: list[Path] = []
    _set_free(monkeypatch, 500)
    monkeypatch.setattr(preflight, "_existing", lambda folder: asked.append(folder) or Path("/"))
    monkeypatch.setenv("GOCACHE", "/big/build")
    monkeypatch.delenv("GOMODCACHE", raising=False)
    monkeypatch.setenv("GOPATH", "/big/go")
    assert _disk_lines(Settings()) == []
    assert {Path("/big/build"), Path("/big/go/pkg/mod")} <= set(asked)


def test_two_disks_are_asked_for_their_own_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FIND_LINKS", "/wheels")
    monkeypatch.setattr(preflight, "find_binaries", dict)
    paths = {path: SimpleNamespace(stat=lambda device=n: SimpleNamespace(st_dev=device)) for n, path in enumerate("cs")}
    monkeypatch.setattr(preflight, "cache_folder", lambda: "c")
    monkeypatch.setattr(preflight, "state_folder", lambda: "s")
    monkeypatch.setattr(preflight, "find_cluster", lambda _: SimpleNamespace(folder=Path("/nowhere/s")))
    monkeypatch.setattr(preflight, "_existing", paths.__getitem__)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=6 * GB))
    (line,) = _disk_lines(Settings())
    assert "needs 7 GB" in line
    assert "set ADAPTIVE_STATE to" in line
