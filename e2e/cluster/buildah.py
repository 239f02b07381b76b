"""Buildah with a storage of its own below the cache; the user's own containers and images are never seen.

Knows the command line of buildah and of debootstrap; not which images the project has.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.debian import find_command
from e2e.cluster.settings import ClusterError, cache_folder
from e2e.cluster.shell import is_success, run, write_atomic

BASE_IMAGE = "localhost/adaptive-base:bookworm"
_BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates", "libgomp1")
_UNUSED_DAYS = 7
_REMEMBERED = 200
_POLICY = {"default": [{"type": "insecureAcceptAnything"}]}


@dataclass(frozen=True, slots=True)
class Buildah:
    """The command with its storage options."""

    folder: Path  # everything lies below it

    def command(self, *arguments: str) -> list[str]:
        """Full command line."""
        binary = find_command("buildah")
        if not binary:
            raise ClusterError("buildah: not found; run `python -m e2e.cluster build`, or install the package buildah")
        storage = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run")]
        return [binary, *storage, "--storage-driver", "overlay", *arguments]

    def run(self, *arguments: str, timeout_seconds: float = 300) -> str:
        """Standard output of a buildah command."""
        return run(self.command(*arguments), timeout_seconds=timeout_seconds)

    def policy(self) -> str:
        """Path of a policy file that accepts images without signature (they never leave this machine)."""
        path = self.folder / "policy.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_POLICY))
        return str(path)

    def build(self, arguments: Sequence[str]) -> str:
        """`buildah bud` with its output shown; returns the image's id."""
        options = ["bud", "--isolation", "chroot", "--layers", "--network", "host", "--pull-never", "--format", "oci"]
        identity = self.folder / "built"
        argv = self.command(*options, "--signature-policy", self.policy(), "--iidfile", str(identity), *arguments)
        if subprocess.run(["nice", "-n", "5", *argv], check=False).returncode != 0:
            raise ClusterError("the image's build failed, see above; the next attempt goes on after its last layer")
        return identity.read_text().strip().removeprefix("sha256:")

    def has(self, identity: str) -> bool:
        """Whether the image still exists."""
        return is_success(self.command("inspect", "--type", "image", identity))

    def recall(self, kind: str, key: str) -> str | None:
        """What `remember` stored: an image's id by its inputs, or a manifest's digest by the image's id."""
        return self._memory().get(kind, {}).get(key)

    def remember(self, kind: str, key: str, value: str) -> None:
        """Store one fact; the oldest ones are dropped."""
        memory = self._memory()
        memory.setdefault(kind, {}).pop(key, None)
        memory[kind][key] = value
        memory[kind] = dict(list(memory[kind].items())[-_REMEMBERED:])
        write_atomic(self.folder / "memory.json", json.dumps(memory, indent=1))

    def _memory(self) -> dict[str, dict[str, str]]:
        try:
            memory: dict[str, dict[str, str]] = json.loads((self.folder / "memory.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return memory

    def prune(self) -> None:
        """Drop interrupted builds, and what former builds and test tags left more than a week ago."""
        self.run("rm", "--all")
        oldest = time.time() - _UNUSED_DAYS * 86400
        dangling = json.loads(self.run("images", "--json", "--filter", "dangling=true") or "[]") or []
        tagged = json.loads(self.run("images", "--json") or "[]") or []
        outdated = [str(image["id"]) for image in dangling if image["created"] < oldest]
        outdated += [n for i in tagged if i["created"] < oldest for n in i.get("names") or [] if not is_lasting(n)]
        for name in outdated:
            subprocess.run(self.command("rmi", name), check=False, capture_output=True)


def is_lasting(name: str) -> bool:
    """Whether an image is kept whatever its age: base images, and the tag that every run uses anew."""
    return name.startswith(BASE_IMAGE) or name.endswith(":dev")


def open_store() -> Buildah:
    """Buildah with the project's storage."""
    folder = cache_folder() / "buildah"
    folder.mkdir(parents=True, exist_ok=True)
    return Buildah(folder)


def ensure_base_image(buildah: Buildah) -> str:
    """Make the Debian base image if it is missing; returns the hash of what it is made from."""
    mirror = os.environ.get("ADAPTIVE_DEBIAN_MIRROR", "")
    inputs = hashlib.sha256(repr((_BASE_PACKAGES, mirror)).encode()).hexdigest()
    if buildah.has(BASE_IMAGE) and buildah.recall("inputs", inputs):
        return inputs
    print(f"{BASE_IMAGE}: debootstrap (about a minute)", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=buildah.folder) as folder:
        _bootstrap(Path(folder) / "rootfs", mirror)
        dockerfile = Path(folder) / "Dockerfile"
        dockerfile.write_text("FROM scratch\nCOPY rootfs /\n")
        identity = buildah.build(["--tag", BASE_IMAGE, "--quiet", "--file", str(dockerfile), folder])
    buildah.remember("inputs", inputs, identity)
    print(f"{BASE_IMAGE}: made in {time.monotonic() - started:.0f} s", flush=True)
    return inputs


def ensure_variant(buildah: Buildah, base: str, sources: str) -> str:
    """The base image under a name of its own for each source of Python packages; returns that name.

    Cached layers are found by the image they start from, and pip's answer depends on what it was offered: without this
    a torch with CUDA would stay in the cache when the CPU build is named later.
    """
    inputs = hashlib.sha256(f"{base} {sources}".encode()).hexdigest()
    name = f"{BASE_IMAGE}-{inputs[:8]}"
    if not buildah.has(name):
        with tempfile.TemporaryDirectory(dir=buildah.folder) as folder:
            dockerfile = Path(folder) / "Dockerfile"
            dockerfile.write_text(f"FROM {BASE_IMAGE}\nLABEL adaptivellm.dev/packages={inputs}\n")
            buildah.build(["--tag", name, "--quiet", "--file", str(dockerfile), folder])
    return name


def _bootstrap(rootfs: Path, mirror: str) -> None:
    debootstrap = find_command("debootstrap")
    if not debootstrap:
        raise ClusterError("debootstrap: not found; run `python -m e2e.cluster build`, or install its package")
    packages = f"--include={','.join(_BASE_PACKAGES)}"
    argv = ["nice", "-n", "5", debootstrap, "--variant=minbase", packages, "bookworm", str(rootfs)]
    run([*argv, *([mirror] if mirror else [])], timeout_seconds=1200)
    for leftover in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log"):
        for path in (rootfs / leftover).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(rootfs / "dev")  # device files; the run-time brings its own
    (rootfs / "dev").mkdir()
