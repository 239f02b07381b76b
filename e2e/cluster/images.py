"""Build the project's images and bring them into a cluster; what has not changed is skipped.

The only module that knows which images there are.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import debian, network, pip_access
from e2e.cluster.buildah import BASE_IMAGE, INPUTS_LABEL, Buildah, ensure_base_image, open_store
from e2e.cluster.dockerfile import hash_inputs
from e2e.cluster.layout import Layout
from e2e.cluster.settings import Cluster, ClusterError, cache_folder
from e2e.cluster.shell import last_lines, locked, run

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its repository name, Dockerfile (relative to the context) and stage."""

    name: str
    repository: str
    dockerfile: str
    target: str = ""


IMAGES = (
    Image("operator", "localhost/adaptive-llm-operator", "operator/Dockerfile"),
    Image("router", "localhost/adaptive-llm-router", "inference_pods/Dockerfile", "router"),
    Image("engine", "localhost/adaptive-llm-engine", "inference_pods/Dockerfile", "engine"),
)


def provide_images(
    cluster: Cluster,
    tag: str,
    images: Sequence[Image] = IMAGES,
    context: Path = REPOSITORY_ROOT,
) -> None:
    """Build what changed and import what the cluster lacks; prints one line per image."""
    debian.ensure_tools()
    if not network.exists(cluster) or not cluster.containerd_socket.exists():
        raise ClusterError(f"cluster {cluster.name!r} is not up in full mode; run `python -m e2e.cluster up` first")
    with locked(cache_folder() / "images.lock", "another process is building images; waiting for it"):
        buildah = open_store()
        buildah.folder.mkdir(parents=True, exist_ok=True)
        buildah.prune()
        base = ensure_base_image(buildah)
        for image in images:
            _provide(cluster, buildah, image, tag, context, base)
        _layout().prune()


def _provide(cluster: Cluster, buildah: Buildah, image: Image, tag: str, context: Path, base: str) -> None:
    started = time.monotonic()
    reference = f"{image.repository}:{tag}"
    built = _build(buildah, image, reference, context, base)
    pushed = time.monotonic()
    moved = _import(cluster, buildah, reference)
    seconds = f"build {pushed - started:.0f} s, import {time.monotonic() - pushed:.0f} s"
    print(f"{reference}: {'built' if built else 'unchanged'}, {moved} ({seconds})", flush=True)


def _build(buildah: Buildah, image: Image, reference: str, context: Path, base: str) -> bool:
    """Build, or tag an image of the same content; True if something was built."""
    dockerfile = context / image.dockerfile
    if not dockerfile.is_file():
        raise ClusterError(f"{dockerfile}: not there, so the image {image.name} cannot be built")
    extra = [image.target, base, *pip_access.list_wheels(os.environ)]
    inputs = hash_inputs(dockerfile, context, extra)
    known = buildah.find_by_inputs(image.repository, inputs)
    if known:
        buildah.run("tag", known, reference)
        return False
    print(f"{reference}: building", flush=True)
    arguments = ["--tag", reference, "--label", f"{INPUTS_LABEL}={inputs}", "--build-arg", f"BASE_IMAGE={BASE_IMAGE}"]
    arguments += ["--target", image.target] if image.target else []
    arguments += pip_access.list_mounts(buildah.folder / "pip", os.environ)
    buildah.build([*arguments, "--file", str(dockerfile), str(context)])
    return True


def _import(cluster: Cluster, buildah: Buildah, reference: str) -> str:
    """Bring an image into containerd; says in words how much had to be moved."""
    layout = _layout()
    # Uncompressed: what is known by its digest is not written again, and nobody waits for gzip.
    target = f"oci:{layout.folder}:{reference}"
    options = ["--quiet", "--disable-compression", "--format", "oci", "--signature-policy", buildah.policy()]
    buildah.run("push", *options, reference, target, timeout_seconds=600)
    digest = layout.manifest_digest(reference)
    if digest is None:
        raise ClusterError(f"{reference}: buildah wrote no manifest; remove {layout.folder} and try again")
    if _imported_digest(cluster, reference) == digest:
        return "already in the cluster"
    moved = _send(cluster, layout, digest, reference)
    if _imported_digest(cluster, reference) != digest:
        raise ClusterError(f"{reference}: containerd did not take the image")
    return f"{moved / 1e6:.0f} MB imported"


def _send(cluster: Cluster, layout: Layout, digest: str, reference: str) -> int:
    present: Collection[str] = set(run([*_ctr(cluster), "content", "list", "--quiet"]).split())
    argv = [*_ctr(cluster), "images", "import", "-"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        with process.stdin as stream:
            moved = layout.write_archive(stream, digest, reference, present)
    except BrokenPipeError:
        moved = 0
    errors = process.stderr.read().decode(errors="replace")
    if process.wait() != 0:
        raise ClusterError(f"{reference}: `ctr images import` failed:\n{last_lines(errors)}")
    return moved


def _imported_digest(cluster: Cluster, reference: str) -> str | None:
    listing = run([*_ctr(cluster), "images", "list", f"name=={reference}"])
    rows = [line.split() for line in listing.splitlines()[1:]]
    return next((row[2] for row in rows if row[0] == reference), None)


def _ctr(cluster: Cluster) -> list[str]:
    return [str(debian.find_tools()["ctr"]), f"--address={cluster.containerd_socket}", "--namespace=k8s.io"]


def _layout() -> Layout:
    return Layout(cache_folder() / "images")
