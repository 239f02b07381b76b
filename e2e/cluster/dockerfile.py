"""What an image is made from: the files that a Dockerfile copies, as one hash.

Pure reading; builds nothing.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from e2e.cluster.settings import ClusterError

# Made by running the code, never part of an image's input.
_GENERATED = ("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "*.pyc", "*.egg-info")


def hash_inputs(dockerfile: Path, context: Path, extra: Sequence[str]) -> str:
    """Hash of the Dockerfile, of the files it copies from `context`, and of `extra` (target, build arguments, base)."""
    digest = hashlib.sha256(json.dumps(list(extra)).encode())
    digest.update(dockerfile.read_bytes())
    ignore = context / ".dockerignore"
    digest.update(ignore.read_bytes() if ignore.exists() else b"")
    for path in _list_files(dockerfile, context):
        executable = bool(path.stat().st_mode & 0o100)
        digest.update(f"\0{path.relative_to(context).as_posix()} {executable} ".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def list_sources(text: str) -> list[str]:
    """Sources of a Dockerfile's COPY and ADD instructions, without those of other stages and of the network."""
    sources: list[str] = []
    for instruction in _list_instructions(text):
        keyword, _, rest = instruction.partition(" ")
        if keyword.upper() not in ("COPY", "ADD"):
            continue
        words = json.loads(rest) if rest.lstrip().startswith("[") else shlex.split(rest)
        flags = [w for w in words if w.startswith("--")]
        if not any(f.startswith("--from=") for f in flags):
            sources += [w for w in words if w not in flags][:-1]
    return [s for s in sources if "://" not in s]


def _list_instructions(text: str) -> Iterator[str]:
    """Instructions with their continuation lines joined; comments and here-documents' bodies are no matter here."""
    pending = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        pending += line.strip()
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
        elif pending:
            yield pending
            pending = ""


def _list_files(dockerfile: Path, context: Path) -> list[Path]:
    found: set[Path] = set()
    for source in list_sources(dockerfile.read_text()):
        pattern = source.strip("/").removeprefix("./") or "."
        matches = list(context.glob(pattern)) if pattern != "." else [context]
        if not matches:
            raise ClusterError(f"{dockerfile}: it copies {source!r}, which is not below {context}")
        for match in matches:
            found.update(p for p in (match.rglob("*") if match.is_dir() else [match]) if p.is_file())
    return sorted(p for p in found if not _is_generated(p.relative_to(context)))


def _is_generated(relative: Path) -> bool:
    return any(fnmatch.fnmatch(part, pattern) for part in relative.parts for pattern in _GENERATED)
