"""Tools that come as Debian packages: containerd, runc, CNI plugins (unpacked into the cache, so that no system
service starts), and buildah, debootstrap, nft (installed, since they have no service).

Knows nothing of clusters.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from pathlib import Path

from e2e.cluster.settings import ClusterError, cache_folder
from e2e.cluster.shell import is_success, locked, run

# Package → files inside it, relative to /.
UNPACKED = {
    "containerd": ("usr/bin/containerd", "usr/bin/containerd-shim-runc-v2", "usr/bin/ctr"),
    "runc": ("usr/sbin/runc",),
    "containernetworking-plugins": ("usr/lib/cni/ptp", "usr/lib/cni/host-local", "usr/lib/cni/loopback"),
}
# Command → package that has it.
INSTALLED = {"nft": "nftables", "buildah": "buildah", "debootstrap": "debootstrap", "openssl": "openssl"}
_PATH = os.pathsep.join(["/usr/local/sbin", "/usr/sbin", "/sbin"])


def find_command(name: str) -> str | None:
    """Path of a system command, also where PATH lacks the sbin folders."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + os.pathsep + _PATH)


def find_tools() -> dict[str, Path]:
    """Paths of the unpacked tools by name, plus "cni" for the plugins' folder; ClusterError if one is missing."""
    found = {}
    for relative in (f for files in UNPACKED.values() for f in files):
        name = Path(relative).name
        found[name] = _find_file(relative)
    missing = sorted(name for name, path in found.items() if not path.exists())
    if missing:
        raise ClusterError(f"not there yet: {', '.join(missing)}; run `python -m e2e.cluster build`")
    found["cni"] = found["ptp"].parent
    return found


def ensure_tools() -> None:
    """Unpack and install what is missing; prints one line per package."""
    with locked(cache_folder() / "debian.lock", "another process is installing packages; waiting for it"):
        for package, files in UNPACKED.items():
            if not all(_find_file(f).exists() for f in files):
                _unpack(package)
        missing = [package for command, package in INSTALLED.items() if not find_command(command)]
        if missing:
            _install(missing)


def _root() -> Path:
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    label = f"{release.get('ID', 'linux')}-{release.get('VERSION_ID', '0')}-{platform.machine()}"
    key = hashlib.sha256(repr(sorted(UNPACKED.items())).encode()).hexdigest()[:8]
    return cache_folder() / "debian" / f"{label}-{key}"


def _find_file(relative: str) -> Path:
    """The unpacked file; where packages cannot be unpacked, the user's own."""
    unpacked = _root() / relative
    if unpacked.exists() or _can_unpack():
        return unpacked
    own = find_command(Path(relative).name)
    plugins = next((p for p in (Path("/opt/cni/bin"), Path("/usr/lib/cni")) if p.is_dir()), Path("/opt/cni/bin"))
    return Path(own) if own else plugins / Path(relative).name


def _can_unpack() -> bool:
    return bool(find_command("apt-get") and find_command("dpkg-deb"))


def _unpack(package: str) -> None:
    if not _can_unpack():
        raise ClusterError(f"{package}: install it with this machine's package manager (no apt-get here to do it)")
    print(f"{package}: downloading the Debian package", flush=True)
    _root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_root().parent) as folder:
        _download(package, Path(folder))
        for archive in Path(folder).glob("*.deb"):
            run(["dpkg-deb", "-x", archive, _root()], timeout_seconds=300)


def _download(package: str, folder: Path) -> None:
    argv = ["apt-get", "download", "-q", package]
    try:
        run(argv, cwd=folder, timeout_seconds=600)
    except ClusterError:
        if os.geteuid() != 0:
            raise
        run(["apt-get", "update", "-q"], timeout_seconds=600)
        run(argv, cwd=folder, timeout_seconds=600)


def _install(packages: list[str]) -> None:
    command = f"apt-get install -y --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0 or not find_command("apt-get"):
        raise ClusterError(f"missing: {', '.join(packages)}; install them, on Debian: sudo {command}")
    print(f"installing {', '.join(packages)}", flush=True)
    argv = ["env", "DEBIAN_FRONTEND=noninteractive", *command.split()]
    if not is_success(argv, timeout_seconds=900):
        run(["apt-get", "update", "-q"], timeout_seconds=600)
        run(argv, timeout_seconds=900)
