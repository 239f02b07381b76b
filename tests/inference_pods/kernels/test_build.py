import pytest

from inference_pods.kernels import build


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda _: None)


def test_a_prebuilt_library_needs_no_compiler(tmp_path, no_compiler):
    prebuilt = build.library_path(tmp_path, "generic")
    prebuilt.touch()
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
