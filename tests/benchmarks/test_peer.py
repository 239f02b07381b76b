import io
import tarfile

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


def test_the_cache_is_outside_the_checkout_unless_told(monkeypatch, tmp_path):
    monkeypatch.delenv("ADAPTIVE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert peer.cache_folder() == tmp_path / "adaptive-llm"

    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path / "other"))
    assert peer.cache_folder() == tmp_path / "other"
