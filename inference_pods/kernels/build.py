"""Compiles the C++ kernels: one shared object per CPU variant, named by the hash of its sources and flags.

`python -m inference_pods.kernels.build --output DIR` builds every variant of this architecture (container images);
on a bare host the loader builds the one it needs at first use. Never runs where the cache is read-only. What others
than root and this process's user could have written is never loaded: it would run as this process.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

SOURCES = Path(__file__).parent / "cpp"
COMMON_FLAGS = (
    "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-pthread",
    "-static-libstdc++", "-static-libgcc",
)  # fmt: skip
VARIANT_FLAGS: dict[str, tuple[str, ...]] = {
    "avx512": (
        "-O3", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mavx2", "-mfma", "-mf16c",
    ),
    "avx2": ("-O3", "-mavx2", "-mfma", "-mf16c"),
    "generic": ("-O2",),
}  # fmt: skip


class KernelUnavailableError(RuntimeError):
    """No compiled kernel is there and none can be built; the message says why."""


def default_cache() -> Path:
    """Folder of compiled kernels: ADAPTIVE_KERNEL_CACHE, else below XDG_CACHE_HOME or ~/.cache."""
    if folder := os.environ.get("ADAPTIVE_KERNEL_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "adaptive-llm" / "kernels"


def source_hash(variant: str) -> str:
    """12 hex digits over all sources and the variant's flags; the compiler's version is left out on purpose,
    because a running image has no compiler to ask."""
    digest = hashlib.sha256(" ".join(COMMON_FLAGS + VARIANT_FLAGS[variant]).encode())
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in {".h", ".cpp"}:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def library_path(folder: Path, variant: str) -> Path:
    return folder / f"adaptive-{variant}-{source_hash(variant)}.so"


def _refuse_foreign(path: Path) -> None:
    """Raises KernelUnavailableError if others than root and this process's user may write it, OSError if it is gone."""
    found = path.stat() if path.is_dir() else path.lstat()
    if found.st_uid not in (0, os.geteuid()):
        fault = f"belongs to user {found.st_uid}"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        fault = "can be written by other users"
    elif not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
        fault = "is no plain file"
    else:
        return
    raise KernelUnavailableError(
        f"{path} {fault}, so its kernels are not trusted; remove it, or set ADAPTIVE_KERNEL_CACHE to a folder that "
        "only you can write"
    )


def _open_lock(path: Path) -> int:
    """A link in its place is not followed: it would have a file of somebody's choice opened for writing."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def compile_variant(folder: Path, variant: str, compiler: str) -> Path:
    """Compiles one variant into `folder` unless it is there; safe against concurrent callers."""
    target = library_path(folder, variant)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_foreign(folder)
    with os.fdopen(_open_lock(folder / f".{variant}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            _refuse_foreign(target)
            return target
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            output = Path(scratch) / target.name
            command = [compiler, *COMMON_FLAGS, *VARIANT_FLAGS[variant], str(SOURCES / "step.cpp"), "-o", str(output)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                raise KernelUnavailableError(f"{compiler} failed on the {variant} kernels: {result.stderr[-2000:]}")
            output.chmod(0o755)  # whatever the umask: a group that may write it makes it untrusted
            output.replace(target)
    return target


def ensure_library(variant: str, folder: Path | None = None) -> Path:
    """Path of the compiled variant, building it when the cache is writable and a compiler is there.

    Raises:
        KernelUnavailableError: nothing prebuilt, and no compiler or no writable cache; or others may write the cache.
    """
    folder = folder or default_cache()
    target = library_path(folder, variant)
    try:
        if os.path.lexists(target):
            _refuse_foreign(folder)
            _refuse_foreign(target)
            return target
    except OSError as error:
        raise KernelUnavailableError(f"kernel cache {folder} cannot be read ({error})") from error
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise KernelUnavailableError(
            f"no {variant} kernels in {folder} and no g++ to build them; install g++ or prebuild"
        )
    try:
        return compile_variant(folder, variant, compiler)
    except OSError as error:
        raise KernelUnavailableError(
            f"kernel cache {folder} cannot be written ({error}); set ADAPTIVE_KERNEL_CACHE"
        ) from error


def architecture_variants(machine: str = platform.machine()) -> tuple[str, ...]:
    """All variants on x86-64; elsewhere only the portable one compiles."""
    return tuple(VARIANT_FLAGS) if machine in {"x86_64", "AMD64"} else ("generic",)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the inference kernels for every CPU variant.")
    parser.add_argument("--output", type=Path, default=default_cache(), help="folder for the shared objects")
    folder = parser.parse_args().output
    with suppress(OSError):  # the first variant says so
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)  # readable: the image's pods run as another user
    for variant in architecture_variants():
        started = time.monotonic()
        try:
            path = ensure_library(variant, folder)
        except KernelUnavailableError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
        sys.stdout.write(f"{path.name} ready after {time.monotonic() - started:.1f} s\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
