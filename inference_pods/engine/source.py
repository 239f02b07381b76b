"""Finds the model file that a source URI names: `package://PACKAGE/FILE` or `file:///PATH`. Opens nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from urllib.parse import unquote, urlsplit

from inference_pods.engine.errors import LoadError, LoadReason

_REMEDY = "use package://PACKAGE/FILE.gguf (an installed Python package's data file) or file:///PATH/FILE.gguf"


def resolve_source(uri: str) -> Path:
    """Path of an existing GGUF file.

    Raises:
        LoadError: ModelUnsupported for another scheme or format, ModelNotFound when nothing is there.
    """
    parts = urlsplit(uri)
    if parts.scheme == "package":
        path = _package_file(parts.netloc, unquote(parts.path).lstrip("/"), uri)
    elif parts.scheme == "file" and parts.netloc in ("", "localhost"):
        path = Path(unquote(parts.path))
    else:
        raise LoadError(
            LoadReason.UNSUPPORTED,
            f"model.source {uri!r}: scheme {parts.scheme or 'none'!r} is not supported; {_REMEDY}",
        )
    if not path.is_file():
        raise LoadError(LoadReason.NOT_FOUND, f"model.source {uri!r}: no such file in this image or volume; {_REMEDY}")
    if path.suffix.lower() != ".gguf":
        raise LoadError(
            LoadReason.UNSUPPORTED,
            f"model.source {uri!r}: only .gguf files can be loaded; convert the checkpoint to GGUF",
        )
    return path


def _package_file(package: str, inner: str, uri: str) -> Path:
    """The package is located without importing it: its own imports may be absent here."""
    if not package.isidentifier():
        raise LoadError(LoadReason.NOT_FOUND, f"model.source {uri!r}: {package!r} is not a package name; {_REMEDY}")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    roots = list(spec.submodule_search_locations or ()) if spec else []
    if not roots:
        raise LoadError(
            LoadReason.NOT_FOUND, f"model.source {uri!r}: package {package!r} is not installed in this image; {_REMEDY}"
        )
    root = Path(roots[0]).resolve()
    path = (root / inner).resolve()
    if not path.is_relative_to(root):
        raise LoadError(LoadReason.NOT_FOUND, f"model.source {uri!r}: the file lies outside the package; {_REMEDY}")
    return path
