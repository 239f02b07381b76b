"""Build the project's images and bring them into a cluster; what has not changed is skipped.

The only module that knows which images there are.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import debian, network, pip_access
from e2e.cluster.archive import ImageArchive, open_archive
from e2e.cluster.buildah import Buildah, ensure_base_image, ensure_variant, open_store
from e2e.cluster.dockerfile import hash_inputs
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


@dataclass(frozen=True, slots=True)
class Ground:
    """What all images of one run are built on."""

    context: Path  # the Dockerfiles' build context
    base: str  # name of the base image
    mounts: tuple[str, ...]  # arguments for `buildah bud`


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
        buildah.prune()
        sources = pip_access.find_environment(os.environ, REPOSITORY_ROOT)
        base = ensure_variant(buildah, ensure_base_image(buildah), pip_access.describe_sources(sources))
        mounts = pip_access.list_mounts(buildah.folder / "pip", sources)
        for image in images:
            _provide(cluster, buildah, image, tag, Ground(context, base, tuple(mounts)))


def _provide(cluster: Cluster, buildah: Buildah, image: Image, tag: str, ground: Ground) -> None:
    started = time.monotonic()
    reference = f"{image.repository}:{tag}"
    identity, built = _build(buildah, image, reference, ground)
    finished = time.monotonic()
    moved = _import(cluster, buildah, reference, identity)
    seconds = f"build {finished - started:.0f} s, import {time.monotonic() - finished:.0f} s"
    print(f"{reference}: {'built' if built else 'unchanged'}, {moved} ({seconds})", flush=True)


def _build(buildah: Buildah, image: Image, reference: str, ground: Ground) -> tuple[str, bool]:
    """Build, or tag an image of the same content; returns the image's id and whether something was built."""
    dockerfile = ground.context / image.dockerfile
    if not dockerfile.is_file():
        raise ClusterError(f"{dockerfile}: not there, so the image {image.name} cannot be built")
    inputs = hash_inputs(dockerfile, ground.context, [image.repository, image.target, ground.base])
    known = buildah.recall("inputs", inputs)
    if known and buildah.has(known):
        buildah.run("tag", known, reference)
        return known, False
    print(f"{reference}: building", flush=True)
    arguments = ["--tag", reference, "--build-arg", f"BASE_IMAGE={ground.base}"]
    arguments += ["--target", image.target] if image.target else []
    identity = buildah.build([*arguments, *ground.mounts, "--file", str(dockerfile), str(ground.context)])
    buildah.remember("inputs", inputs, identity)
    return identity, True


def _import(cluster: Cluster, buildah: Buildah, reference: str, identity: str) -> str:
    """Bring an image into containerd; says in words how much had to be moved."""
    digest = buildah.recall("digests", identity)
    imported = _list_imported(cluster)
    if digest and imported.get(reference) == digest:
        return "already in the cluster"
    other = next((name for name, known in imported.items() if known == digest), None)
    if other:
        run([*_ctr(cluster), "images", "tag", "--force", other, reference])
        return "only the tag was new"
    print(f"{reference}: bringing it into the cluster", flush=True)
    with tempfile.TemporaryDirectory(dir=buildah.folder) as folder:
        path = Path(folder) / "image.tar"
        options = ["--quiet", "--signature-policy", buildah.policy()]
        buildah.run("push", *options, identity, f"docker-archive:{path}:{reference}", timeout_seconds=600)
        archive = open_archive(path)
        moved = _send(cluster, archive, reference)
    if _list_imported(cluster).get(reference) != archive.digest:
        raise ClusterError(f"{reference}: containerd did not take the image; see {cluster.logs / 'containerd.log'}")
    buildah.remember("digests", identity, archive.digest)
    return f"{moved / 1e6:.0f} MB imported"


def _send(cluster: Cluster, archive: ImageArchive, reference: str) -> int:
    present = set(run([*_ctr(cluster), "content", "list", "--quiet"]).split())
    argv = [*_ctr(cluster), "images", "import", "-"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)
        assert process.stdin is not None
        try:
            with process.stdin as stream:
                moved = archive.write_layout(stream, reference, present)
        except BrokenPipeError:
            moved = 0
        if process.wait() != 0:
            errors.seek(0)
            text = errors.read().decode(errors="replace")
            raise ClusterError(f"{reference}: `ctr images import` failed:\n{last_lines(text)}")
    return moved


def _list_imported(cluster: Cluster) -> dict[str, str]:
    """Digest by reference of the images that containerd has."""
    rows = [line.split() for line in run([*_ctr(cluster), "images", "list"]).splitlines()[1:]]
    return {row[0]: row[2] for row in rows if len(row) > 2 and row[0].startswith("localhost/")}


def _ctr(cluster: Cluster) -> list[str]:
    return [str(debian.find_tools()["ctr"]), f"--address={cluster.containerd_socket}", "--namespace=k8s.io"]
