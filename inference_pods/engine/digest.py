"""The sha256 of a checkpoint's weights, computed beside loading and checked against what was promised.

One weights file: its own sha256. Shards: the sha256 of their `sha256sum` listing in the order of their names, that is
`cd FOLDER && sha256sum SHARDS | sha256sum`. config.json and tokenizer files are not covered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from inference_pods.engine.errors import LoadError, LoadReason


def compute_digest(files: Sequence[Path]) -> str:
    """64 hexadecimal digits."""
    digests = {path.name: _file_digest(path) for path in files}
    if len(digests) == 1:
        return next(iter(digests.values()))
    listing = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256(listing.encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DigestCheck:
    """Hashes in a thread of its own from the start; hashing releases the interpreter's lock, so loading goes on."""

    def __init__(self, files: Sequence[Path], expected: str | None) -> None:
        self._expected = expected
        self._names = files[0].name + (f" and {len(files) - 1} more" if len(files) > 1 else "")
        executor = ThreadPoolExecutor(1, thread_name_prefix="digest")
        self._digest: Future[str] = executor.submit(compute_digest, files)
        executor.shutdown(wait=False)

    def finish(self) -> str:
        """The digest, once it is known.

        Raises:
            LoadError: ModelCorrupt when it is another one than expected.
        """
        digest = self._digest.result()
        if self._expected is not None and digest != self._expected:
            raise LoadError(
                LoadReason.CORRUPT,
                f"{self._names}: sha256 is {digest}, expected {self._expected}; download the weights again, or correct "
                "model.sha256 (--model-sha256)",
            )
        return digest
