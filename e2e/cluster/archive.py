"""From buildah's archive to containerd, leaving out the layers that containerd has.

A docker-archive holds the layers uncompressed and names them by their digests. Knows the two formats; runs nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_IMAGE_NAME = "io.containerd.image.name"
_OCI = "application/vnd.oci.image"
MANIFEST_TYPE = f"{_OCI}.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class ImageArchive:
    """One image of a docker-archive, seen as an OCI image."""

    path: Path
    config: bytes
    layers: tuple[tuple[str, str, int], ...]  # digest, member of the archive, bytes

    @property
    def manifest(self) -> bytes:
        """The OCI manifest; the same image always has the same one."""
        config = {"mediaType": f"{_OCI}.config.v1+json", "digest": _digest(self.config), "size": len(self.config)}
        layers = [{"mediaType": f"{_OCI}.layer.v1.tar", "digest": d, "size": size} for d, _, size in self.layers]
        document = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers}
        return json.dumps(document).encode()

    @property
    def digest(self) -> str:
        """Digest of the manifest, by which containerd knows the image."""
        return _digest(self.manifest)

    def write_layout(self, output: IO[bytes], reference: str, present: Collection[str]) -> int:
        """Write an OCI layout as a tar stream, without the layers in `present`; returns the bytes of those written.

        The index names the image `reference`.
        """
        annotations = {_IMAGE_NAME: reference}
        entry = {"mediaType": MANIFEST_TYPE, "digest": self.digest, "size": len(self.manifest)}
        index = {"schemaVersion": 2, "manifests": [{**entry, "annotations": annotations}]}
        total = 0
        with tarfile.open(self.path) as source, tarfile.open(fileobj=output, mode="w|") as target:
            _add(target, "oci-layout", io.BytesIO(b'{"imageLayoutVersion": "1.0.0"}'))
            _add(target, "index.json", io.BytesIO(json.dumps(index).encode()))
            for document in (self.manifest, self.config):
                _add(target, _blob_name(_digest(document)), io.BytesIO(document))
            for digest, member, size in dict.fromkeys(self.layers):
                if digest not in present:
                    content = source.extractfile(member)
                    assert content is not None
                    _add(target, _blob_name(digest), content, size)
                    total += size
        return total


def open_archive(path: Path) -> ImageArchive:
    """Read the description of the archive's only image; layers stay in the file."""
    with tarfile.open(path) as archive:
        [image] = json.loads(_read(archive, "manifest.json"))
        config = _read(archive, image["Config"])
        digests: list[str] = json.loads(config)["rootfs"]["diff_ids"]
        members = [_resolve(archive, name) for name in image["Layers"]]
    layers = tuple((digest, member.name, member.size) for digest, member in zip(digests, members, strict=True))
    return ImageArchive(path, config, layers)


def _resolve(archive: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    """A layer that occurs twice is a link the second time."""
    member = archive.getmember(name)
    return archive.getmember(str(Path(name).parent / member.linkname)) if member.issym() else member


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    content: Any = archive.extractfile(name)
    return bytes(content.read())


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], size: int | None = None) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content.getvalue()) if isinstance(content, io.BytesIO) else size or 0
    archive.addfile(entry, content)
