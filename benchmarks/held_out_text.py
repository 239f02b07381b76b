"""English text that no part of this project was tuned on: the HTML of a Debian package, fetched once into the cache.

Without apt the project's own documentation stands in, with a loud warning: figures are then not comparable.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

from benchmarks.peer import cache_folder

PACKAGE = "anarchism"  # 6.9 MB of prose (GPL-2); read, never redistributed
_LEAST_BYTES = 40_000  # smaller files are mostly navigation
_NAVIGATION_CHARACTERS = 3000  # at the top of each file
_CHARACTERS_PER_TOKEN = 8  # generous, so that one slice always holds enough tokens


class _Text(HTMLParser):
    """Collects what a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if self._hidden <= 0:
            self.parts.append(data)


def strip_html(html: str) -> str:
    """Visible text with its white space folded."""
    parser = _Text()
    parser.feed(html)
    return re.sub(r"\s+", " ", "".join(parser.parts)).strip()


def read_passages(count: int, tokens: int) -> list[str]:
    """`count` passages of different files, each long enough for `tokens` tokens."""
    length = tokens * _CHARACTERS_PER_TOKEN
    texts = [text[_NAVIGATION_CHARACTERS:] for text in _read_documents()]
    texts = [text[:length] for text in texts if len(text) >= length]
    if len(texts) < count:
        raise SystemExit(f"{count} passages are wanted, the text has only {len(texts)}: lower --windows")
    return [texts[index * len(texts) // count] for index in range(count)]


def _read_documents() -> list[str]:
    folder = _fetch_package()
    if folder is None:
        return _read_own_documentation()
    files = sorted(path for path in folder.rglob("*.html") if path.stat().st_size > _LEAST_BYTES)
    return [strip_html(path.read_text(errors="replace")) for path in files]


def _fetch_package() -> Path | None:
    """The unpacked package; None where apt cannot deliver it."""
    folder = cache_folder() / "texts" / PACKAGE
    if folder.is_dir():
        return folder
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = ["apt-get", "download", "-o", "APT::Sandbox::User=root", PACKAGE]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        archives = list(Path(scratch).glob("*.deb"))
        if done.returncode or not archives:
            print(f"apt-get download {PACKAGE}: {done.stderr.strip()[-300:]}", file=sys.stderr)
            return None
        unpacked = Path(scratch) / "unpacked"
        subprocess.run(["dpkg", "-x", str(archives[0]), str(unpacked)], check=True)
        shutil.move(unpacked, folder)
    return folder


def _read_own_documentation() -> list[str]:
    print(f"WARNING: no Debian package {PACKAGE} here (needs apt-get and dpkg): using this project's documentation "
          "instead. Do not compare these figures with others.", file=sys.stderr)  # fmt: skip
    root = Path(__file__).parents[1]
    return [re.sub(r"\s+", " ", path.read_text()) for path in sorted(root.rglob("*.md")) if ".venv" not in path.parts]
