"""The pause image of every pod: one static binary, made into an image archive without any tool.

Knows containerd's ctr; nothing of other images.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path

from e2e.cluster.kubectl import wait_until
from e2e.cluster.processes import check_alive, explain_death
from e2e.cluster.runtime import PAUSE_IMAGE
from e2e.cluster.settings import Cluster, ClusterError
from e2e.cluster.shell import is_success, run

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def ensure_pause_image(cluster: Cluster, paths: Mapping[str, Path]) -> None:
    """Import the pause image if containerd lacks it; waits for containerd."""
    ctr = [str(paths["ctr"]), f"--address={cluster.containerd_socket}", "--namespace=k8s.io"]
    answers = lambda: cluster.containerd_socket.exists() and is_success([*ctr, "version"])  # noqa: E731
    if not wait_until(answers, 30, lambda: check_alive(cluster, "containerd")):
        raise ClusterError(f"containerd does not answer:\n{explain_death(cluster, 'containerd')}")
    if PAUSE_IMAGE in run([*ctr, "images", "list", "--quiet"]).split():
        return
    archive = cluster.folder / "pause.tar"
    archive.write_bytes(build_archive(paths["pause"].read_bytes(), PAUSE_IMAGE))
    run([*ctr, "images", "import", archive])
    archive.unlink()


def build_archive(program: bytes, reference: str) -> bytes:
    """A docker-archive whose image holds just `/pause`."""
    layer = _tar({"pause": program}, mode=0o755)
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    files = {"config.json": json.dumps(config).encode(), "layer.tar": layer}
    return _tar({**files, "manifest.json": json.dumps(manifest).encode()}, mode=0o644)


def _tar(files: Mapping[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
