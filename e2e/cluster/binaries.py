"""Build the Go binaries of a cluster once, and find them again.

The cache is keyed by what a binary is made from (go.mod, go.sum, sources, linker flags, Go's version), so a changed
version is rebuilt and an interrupted build goes on with the next missing binary. Knows nothing of clusters.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import toolchain
from e2e.cluster.settings import KUBERNETES_VERSION, ClusterError, cache_folder
from e2e.cluster.shell import last_lines, locked, run

SOURCES = Path(__file__).parent / "go"
_STAMP = "k8s.io/component-base/version"
_KUBERNETES_FLAGS = f"-X {_STAMP}.gitVersion={KUBERNETES_VERSION} -X {_STAMP}.gitMajor=1 -X {_STAMP}.gitMinor=35"

_HELM_FLAGS = "-X helm.sh/helm/v4/internal/version.version=v4.3.1"

# Go's own caches after all binaries are built: 5.3 and 2.6 GB measured.
GO_CACHE_BYTES, GO_MODULE_BYTES = 6 * 10**9, 3 * 10**9


@dataclass(frozen=True, slots=True)
class Binary:
    """One Go command: where its source is and how a copy that the user already has tells its version."""

    name: str
    module: str  # folder below go/
    package: str
    version_arguments: tuple[str, ...] = ()
    version: str = ""  # a word that the answer must contain; empty: never taken from PATH
    linker_flags: str = ""
    tags: str = ""


def _kubernetes(name: str, *arguments: str) -> Binary:
    arguments = arguments or ("--version",)
    return Binary(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", arguments, KUBERNETES_VERSION, _KUBERNETES_FLAGS)


BINARIES = (
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kubectl", "version", "--client"),
    _kubernetes("kube-proxy"),
    Binary("etcd", "etcd", "go.etcd.io/etcd/server/v3", ("--version",), "3.6.5"),
    Binary("helm", "helm", "helm.sh/helm/v4/cmd/helm", ("version", "--short"), "v4.3.1", _HELM_FLAGS),
    Binary("coredns", "addons", "./coredns", ("-version",), "CoreDNS-1.14.7"),
    # Debian's package is compiled without the Kubernetes discovery. The tags leave out the clouds' large libraries.
    Binary(
        "prometheus",
        "addons",
        "github.com/prometheus/prometheus/cmd/prometheus",
        tags="remove_all_sd,enable_kubernetes_sd",
    ),
    Binary("pause", "pause", "."),
)
# Only for clusters whose pods do not run: built when it is asked for.
KWOK = Binary("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok", ("--version",), "v0.8.0")


def find_binaries(wanted: Sequence[Binary] = BINARIES) -> dict[str, Path]:
    """Paths of Go binaries by name; raises ClusterError naming the remedy if one is missing."""
    found = {binary.name: _target(binary, toolchain.cache_key()) for binary in wanted}
    missing = sorted(name for name, path in found.items() if not path.exists())
    if missing:
        raise ClusterError(f"not built yet: {', '.join(missing)}; run `python -m e2e.cluster build`")
    return found


def build_binaries(wanted: Sequence[Binary] = BINARIES) -> None:
    """Make the Go binaries available in the cache; prints one line per binary that had to be made."""
    with locked(cache_folder() / "build.lock", "another process is building the binaries; waiting for it"):
        go = toolchain.ensure_go()
        missing = [b for b in wanted if not _target(b, toolchain.cache_key()).exists()]
        started = time.monotonic()
        for number, binary in enumerate(missing, 1):
            print(f"[{number}/{len(missing)}] {binary.name} ", end="", flush=True)
            _provide(binary, go)
        if missing:
            print(f"{len(missing)} binaries in {time.monotonic() - started:.0f} s", flush=True)
        _remove_outdated()


def _provide(binary: Binary, go: Path) -> None:
    started = time.monotonic()
    target = _target(binary, toolchain.cache_key())
    target.parent.mkdir(parents=True, exist_ok=True)
    own = _find_on_path(binary)
    if own:
        target.unlink(missing_ok=True)
        target.symlink_to(own)
        print(f"found: {own}", flush=True)
        return
    _compile(binary, go, target)
    print(f"built in {time.monotonic() - started:.0f} s", flush=True)


def _compile(binary: Binary, go: Path, target: Path) -> None:
    """Compile into a temporary name and rename, so that what exists under its name is whole."""
    temporary = target.with_name(f".{target.name}.part")
    flags = f"-s -w {binary.linker_flags}".strip()
    argv = ["nice", "-n", "5", str(go), "build", "-trimpath", "-tags", binary.tags, "-ldflags", flags]
    argv += ["-o", str(temporary), binary.package]
    process = subprocess.Popen(
        argv,
        cwd=SOURCES / binary.module,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = _wait_showing_progress(process)
    if process.returncode != 0:
        raise ClusterError(
            f"\n{binary.name}: `go build` failed; check the network and the free disk space (Go's caches take"
            f" {(GO_CACHE_BYTES + GO_MODULE_BYTES) // 10**9} GB),"
            f" then run the same command again, it resumes:\n{last_lines(output)}"
        )
    temporary.replace(target)


def _wait_showing_progress(process: subprocess.Popen[str]) -> str:
    try:
        while True:
            try:
                return process.communicate(timeout=15)[0]
            except subprocess.TimeoutExpired:
                print(".", end="", flush=True)
    except BaseException:
        process.kill()
        raise


def _find_on_path(binary: Binary) -> Path | None:
    """The user's own copy, if it says that it has exactly the wanted version."""
    own = shutil.which(binary.name)
    if not own or not binary.version:
        return None
    try:
        answer = run([own, *binary.version_arguments], timeout_seconds=10)
    except ClusterError:
        return None
    words = answer.replace("+", " ").split()
    return Path(own).resolve() if binary.version in words else None


def _target(binary: Binary, go_version: str) -> Path:
    return cache_folder() / "go" / f"{binary.module}-{_key(binary.module, go_version)}" / binary.name


def _key(module: str, go_version: str) -> str:
    """Hash of everything that a module's binaries are made from."""
    digest = hashlib.sha256(go_version.encode())
    for path in sorted(p for p in (SOURCES / module).rglob("*") if p.is_file()):
        digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes())
    for binary in (*BINARIES, KWOK):
        if binary.module == module:
            digest.update(f"{binary.package} {binary.linker_flags} {binary.tags}".encode())
    return digest.hexdigest()[:16]


def _remove_outdated() -> None:
    """Drop builds of versions that no checkout has used for 30 days, so that the cache does not grow for ever."""
    wanted = {_target(b, toolchain.cache_key()).parent for b in (*BINARIES, KWOK)}
    for folder in wanted:
        if folder.exists():
            os.utime(folder)
    for folder in (cache_folder() / "go").iterdir():
        if folder not in wanted and time.time() - folder.stat().st_mtime > 30 * 86400:
            print(f"removing outdated {folder}", file=sys.stderr)
            shutil.rmtree(folder)
