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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.cluster.debian import find_command
from e2e.cluster.settings import ClusterError, cache_folder
from e2e.cluster.shell import run

BASE_IMAGE = "localhost/adaptive-base:bookworm"
INPUTS_LABEL = "adaptivellm.dev/inputs"
_BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates", "libgomp1")
_UNUSED_DAYS = 7
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

    def build(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """`buildah bud` with its output shown."""
        options = ["bud", "--isolation", "chroot", "--layers", "--network", "host", "--pull-never", "--format", "oci"]
        argv = self.command(*options, "--signature-policy", self.policy(), *arguments)
        status = subprocess.run(["nice", "-n", "5", *argv], check=False, env={**os.environ, **(environment or {})})
        if status.returncode != 0:
            raise ClusterError("the image's build failed, see above; the next attempt goes on after its last layer")

    def list_images(self, *filters: str) -> list[dict[str, Any]]:
        """Images as dictionaries with `id`, `names` and `created` (seconds since 1970)."""
        arguments = [part for f in filters for part in ("--filter", f)]
        found: list[dict[str, Any]] = json.loads(self.run("images", "--json", *arguments) or "[]") or []
        return found

    def find_by_inputs(self, repository: str, inputs: str) -> str | None:
        """Id of an image of `repository` that was made from these inputs."""
        for image in self.list_images(f"label={INPUTS_LABEL}={inputs}"):
            if any(name.startswith(f"{repository}:") for name in image.get("names") or []):
                return str(image["id"])
        return None

    def prune(self) -> None:
        """Drop interrupted builds, and layers of former builds that are older than a week."""
        self.run("rm", "--all")
        for image in self.list_images("dangling=true"):
            if time.time() - int(image["created"]) > _UNUSED_DAYS * 86400:
                subprocess.run(self.command("rmi", str(image["id"])), check=False, capture_output=True)


def open_store() -> Buildah:
    """Buildah with the project's storage."""
    return Buildah(cache_folder() / "buildah")


def ensure_base_image(buildah: Buildah) -> str:
    """Make the Debian base image if it is missing; returns the hash of what it is made from."""
    mirror = os.environ.get("ADAPTIVE_DEBIAN_MIRROR", "")
    inputs = hashlib.sha256(repr((_BASE_PACKAGES, mirror)).encode()).hexdigest()
    if buildah.find_by_inputs(BASE_IMAGE.partition(":")[0], inputs):
        return inputs
    print(f"{BASE_IMAGE}: debootstrap (about a minute)", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=buildah.folder) as folder:
        _bootstrap(Path(folder) / "rootfs", mirror)
        dockerfile = Path(folder) / "Dockerfile"
        dockerfile.write_text("FROM scratch\nCOPY rootfs /\n")
        label = f"{INPUTS_LABEL}={inputs}"
        buildah.build(["--tag", BASE_IMAGE, "--label", label, "--quiet", "--file", str(dockerfile), folder])
    print(f"{BASE_IMAGE}: made in {time.monotonic() - started:.0f} s", flush=True)
    return inputs


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
