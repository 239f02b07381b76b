"""Finds the checkpoint that a source URI names: `package://PACKAGE/FILE` or `file:///PATH`. Opens nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from urllib.parse import unquote, urlsplit

from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.safetensors import refuse_pickle

_REMEDY = (
    "use package://PACKAGE/PATH (an installed Python package's data) or file:///PATH, where PATH is a .gguf file, "
    "a .safetensors file, or a folder with config.json and safetensors"
)


def resolve_source(uri: str) -> Path:
    """Path of an existing .gguf or .safetensors file, or of a folder with a config.json.

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
    if path.is_dir():
        if (path / "config.json").is_file():
            return path
        raise LoadError(LoadReason.NOT_FOUND, f"model.source {uri!r}: the folder has no config.json; {_REMEDY}")
    if not path.is_file():
        raise LoadError(LoadReason.NOT_FOUND, f"model.source {uri!r}: no such file in this image or volume; {_REMEDY}")
    refuse_pickle(path)
    if path.suffix.lower() not in (".gguf", ".safetensors"):
        raise LoadError(
            LoadReason.UNSUPPORTED,
            f"model.source {uri!r}: only .gguf and .safetensors can be loaded; convert the checkpoint to one of them",
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
