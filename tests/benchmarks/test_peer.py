import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest

from benchmarks import peer


@pytest.fixture
def existing_build(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    for target in peer.TARGETS:
        (tmp_path / "bin" / target).touch()
    (tmp_path / "CMakeCache.txt").write_text("GGML_NATIVE:BOOL=OFF\n")
    monkeypatch.setenv("ADAPTIVE_LLAMA_CPP", str(tmp_path))
    return tmp_path


def test_an_existing_build_is_used(existing_build):
    assert peer.find_tools("avx2") == existing_build / "bin"


def test_a_build_for_other_instructions_is_refused(existing_build):
    with pytest.raises(SystemExit, match="GGML_NATIVE=OFF: not native"):
        peer.find_tools("native")


def test_an_incomplete_build_is_refused(existing_build):
    (existing_build / "bin" / "llama-server").unlink()

    with pytest.raises(SystemExit, match="llama-server"):
        peer.find_tools("avx2")


def test_only_the_llama_cpp_folder_is_unpacked(tmp_path):
    with tarfile.open(tmp_path / "sdist.tar.gz", "w:gz") as tar:
        for name in ("pkg-1/llama.cpp/LICENSE", "pkg-1/wrapper/main.py", "pkg-1/setup.py"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())

    peer._unpack(tmp_path / "sdist.tar.gz", tmp_path / "out")

    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"pkg-1/llama.cpp/LICENSE"}


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Stands in for `pip download`: puts a source archive into the folder that it is told, and keeps its commands."""
    commands = []

    def download(command, *, check):
        commands.append(command)
        with tarfile.open(Path(command[command.index("--dest") + 1]) / "pkg-1.tar.gz", "w:gz") as tar:
            tar.addfile(tarfile.TarInfo("pkg-1/llama.cpp/LICENSE"), io.BytesIO())
        archive = (Path(command[command.index("--dest") + 1]) / "pkg-1.tar.gz").read_bytes()
        monkeypatch.setattr(peer, "SHA256", hashlib.sha256(archive).hexdigest())

    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(peer.subprocess, "run", download)
    return commands


def test_the_source_tree_is_downloaded_once(registry):
    assert (peer._fetch_tree() / "LICENSE").is_file()
    assert peer._fetch_tree() == peer.peer_folder() / "llama.cpp"
    assert len(registry) == 1


def test_the_download_does_not_build_its_own_build_tools_from_source(registry):
    peer._fetch_tree()

    assert ":all:" not in registry[0]
    assert registry[0][registry[0].index("--no-binary") + 1] == peer.PACKAGE


def test_an_archive_with_another_digest_is_not_unpacked(registry, monkeypatch):
    put_archive = peer.subprocess.run

    def download(command, *, check):
        put_archive(command, check=check)
        monkeypatch.setattr(peer, "SHA256", "0" * 64)

    monkeypatch.setattr(peer.subprocess, "run", download)

    with pytest.raises(SystemExit, match="refusing to build"):
        peer._fetch_tree()
    assert not (peer.peer_folder() / "llama.cpp").exists()


def test_the_build_downloads_nothing_more(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(peer, "_find_build_tools", lambda: ["cmake", "ninja"])
    monkeypatch.setattr(peer.subprocess, "run", lambda command, *, check: commands.append(command))

    peer._build(tmp_path / "tree", tmp_path / "build", "avx2")

    configure, build = commands
    assert {"-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"} <= set(configure)
    assert set(peer.TARGETS) <= set(build)


def test_build_tools_that_pip_installed_are_found_off_the_path(tmp_path, monkeypatch):
    for tool in ("cmake", "ninja"):
        (tmp_path / tool).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    assert peer._find_build_tools() == [str(tmp_path / "cmake"), str(tmp_path / "ninja")]


def test_missing_build_tools_are_named_with_the_command_that_brings_them(tmp_path, monkeypatch):
    (tmp_path / "cmake").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    with pytest.raises(SystemExit, match=r"needs ninja: .*/python -m pip install ninja"):
        peer._find_build_tools()


def test_the_cache_is_outside_the_checkout_unless_told(monkeypatch, tmp_path):
    monkeypatch.delenv("ADAPTIVE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert peer.cache_folder() == tmp_path / "adaptive-llm"

    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path / "other"))
    assert peer.cache_folder() == tmp_path / "other"
