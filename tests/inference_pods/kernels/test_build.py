import os
import stat

import pytest

from inference_pods.kernels import build
from inference_pods.kernels.library import load_library


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda _: None)


def put_library(folder, content=b""):
    prebuilt = build.library_path(folder, "generic")
    prebuilt.write_bytes(content)
    prebuilt.chmod(0o755)
    return prebuilt


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Writes its output, open to the whole group, instead of compiling."""
    script = tmp_path / "compiler"
    script.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho built > "$2"\nchmod 775 "$2"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))


def test_a_prebuilt_library_needs_no_compiler(tmp_path, no_compiler):
    prebuilt = put_library(tmp_path)
    assert build.ensure_library("generic", tmp_path) == prebuilt


def test_without_library_and_compiler_the_error_names_the_remedy(tmp_path, no_compiler):
    with pytest.raises(build.KernelUnavailableError, match=r"install g\+\+"):
        build.ensure_library("generic", tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(build.KernelUnavailableError, match="ADAPTIVE_KERNEL_CACHE"):
        build.ensure_library("generic", tmp_path / "file" / "cache")


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing_behind(tmp_path, monkeypatch):
    compiler = tmp_path / "broken-compiler"
    compiler.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(build.KernelUnavailableError, match="no such flag"):
        build.ensure_library("avx2", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.so"))


def test_the_name_follows_the_sources_and_the_flags(tmp_path, monkeypatch):
    (tmp_path / "step.cpp").write_text("one")
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    first = build.source_hash("avx2")
    assert first != build.source_hash("avx512")
    (tmp_path / "step.cpp").write_text("two")
    assert build.source_hash("avx2") != first


def test_no_variant_relaxes_floating_point_or_targets_the_build_machine():
    flags = {flag for variant in build.VARIANT_FLAGS.values() for flag in (*variant, *build.COMMON_FLAGS)}
    assert not flags & {"-ffast-math", "-Ofast", "-march=native", "-mtune=native", "-funsafe-math-optimizations"}


def test_the_cache_is_the_users_own_and_its_libraries_are_trusted_again(tmp_path, compiler):
    built = build.ensure_library("generic", tmp_path / "cache")
    assert stat.S_IMODE(built.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(built.stat().st_mode) == 0o755
    assert build.ensure_library("generic", tmp_path / "cache") == built


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
@pytest.mark.parametrize("prebuilt", [True, False], ids=["with a library", "without one"])
def test_a_cache_that_others_may_write_is_neither_loaded_from_nor_built_in(tmp_path, compiler, mode, prebuilt):
    folder = tmp_path / "cache"
    folder.mkdir()
    if prebuilt:
        put_library(folder)
    folder.chmod(mode)
    before = sorted(folder.iterdir())
    with pytest.raises(build.KernelUnavailableError, match="written by other users"):
        build.ensure_library("generic", folder)
    assert sorted(folder.iterdir()) == before


def test_a_library_that_others_may_write_is_not_loaded(tmp_path):
    put_library(tmp_path).chmod(0o775)
    with pytest.raises(build.KernelUnavailableError, match="written by other users"):
        build.ensure_library("generic", tmp_path)


def test_a_link_in_the_place_of_a_library_is_not_loaded(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target = build.library_path(tmp_path, "generic")
    target.symlink_to(put_library(tmp_path / "elsewhere"))
    with pytest.raises(build.KernelUnavailableError, match="not trusted"):
        build.ensure_library("generic", tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
@pytest.mark.parametrize("part", ["folder", "library"])
def test_what_belongs_to_another_user_is_not_loaded(tmp_path, part):
    library = put_library(tmp_path)
    os.chown(tmp_path if part == "folder" else library, 12345, 12345)
    with pytest.raises(build.KernelUnavailableError, match="belongs to user 12345"):
        build.ensure_library("generic", tmp_path)


def test_what_belongs_to_root_is_loaded_by_any_user(tmp_path, monkeypatch):
    library, owner = put_library(tmp_path), tmp_path.stat().st_uid
    monkeypatch.setattr(build.os, "geteuid", lambda: 12345)
    if owner == 0:
        assert build.ensure_library("generic", tmp_path) == library
    else:
        with pytest.raises(build.KernelUnavailableError, match=f"belongs to user {owner}"):
            build.ensure_library("generic", tmp_path)


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path, compiler):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".generic.lock").symlink_to(victim)
    with pytest.raises(build.KernelUnavailableError, match="cannot be written"):
        build.ensure_library("generic", tmp_path)
    assert victim.read_text() == "precious"


def test_an_images_kernels_can_be_read_by_the_pods_user(tmp_path, compiler, monkeypatch):
    folder = tmp_path / "image" / "kernels"
    monkeypatch.setattr("sys.argv", ["build", "--output", str(folder)])
    assert build.main() == 0
    assert stat.S_IMODE(folder.stat().st_mode) & 0o755 == 0o755
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o755 for path in folder.glob("*.so"))


def test_a_file_that_is_no_library_is_as_good_as_none(tmp_path, monkeypatch):
    put_library(tmp_path, b"no ELF file")
    monkeypatch.setenv("ADAPTIVE_KERNEL_CACHE", str(tmp_path))
    load_library.cache_clear()
    with pytest.raises(build.KernelUnavailableError, match="cannot be loaded"):
        load_library("generic")
