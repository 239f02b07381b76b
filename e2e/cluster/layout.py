"""An OCI image layout as the way from buildah to containerd: only blobs that containerd lacks travel.

Knows the layout's files; runs nothing.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_REF_NAME = "org.opencontainers.image.ref.name"
_IMAGE_NAME = "io.containerd.image.name"


@dataclass(frozen=True, slots=True)
class Layout:
    """A folder with `index.json` and `blobs/sha256/…`."""

    folder: Path

    def manifest_digest(self, label: str) -> str | None:
        """Digest of the manifest that carries `label` as its reference name."""
        for entry in self._entries():
            if entry.get("annotations", {}).get(_REF_NAME) == label:
                return str(entry["digest"])
        return None

    def list_blobs(self, digest: str) -> list[str]:
        """Digests of a manifest, its configuration and its layers, in this order."""
        manifest = json.loads(self.blob(digest).read_text())
        parts = [manifest["config"], *manifest["layers"]]
        return list(dict.fromkeys([digest, *(str(part["digest"]) for part in parts)]))

    def blob(self, digest: str) -> Path:
        """File of a blob."""
        return self.folder / "blobs" / Path(*digest.split(":"))

    def write_archive(self, output: IO[bytes], digest: str, reference: str, present: Collection[str]) -> int:
        """Write a tar archive that names the image `reference`, without the blobs in `present`; returns its bytes."""
        entry = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": self.blob(digest).stat().st_size,
            "annotations": {_IMAGE_NAME: reference},
        }
        index = {"schemaVersion": 2, "manifests": [entry]}
        total = 0
        with tarfile.open(fileobj=output, mode="w|") as archive:
            _add_text(archive, "oci-layout", '{"imageLayoutVersion": "1.0.0"}')
            _add_text(archive, "index.json", json.dumps(index))
            for blob in self.list_blobs(digest):
                # The manifest always travels: a reader refuses an index whose manifest it did not get.
                if blob == digest or blob not in present:
                    archive.add(self.blob(blob), arcname="blobs/" + blob.replace(":", "/"))
                    total += self.blob(blob).stat().st_size
        return total

    def prune(self) -> None:
        """Drop blobs that no reference needs any more."""
        wanted = {self.blob(blob) for entry in self._entries() for blob in self.list_blobs(str(entry["digest"]))}
        for path in (self.folder / "blobs" / "sha256").glob("*"):
            if path not in wanted:
                path.unlink()

    def _entries(self) -> list[dict[str, Any]]:
        try:
            entries: list[dict[str, Any]] = json.loads((self.folder / "index.json").read_text())["manifests"]
        except FileNotFoundError:
            return []
        return [entry for entry in entries if _REF_NAME in entry.get("annotations", {})]


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(text.encode())
    archive.addfile(entry, io.BytesIO(text.encode()))
