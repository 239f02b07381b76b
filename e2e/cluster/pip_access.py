"""Give `pip` inside an image build what it has on this machine: index, certificates, a folder of wheels.

Everything is bind-mounted for the time of the build, so no address and no credential gets into an image.
"""

from __future__ import annotations

import ast
import configparser
import io
import sys
from collections.abc import Mapping
from pathlib import Path

from e2e.cluster.settings import ClusterError
from e2e.cluster.shell import run, write_atomic

_KEPT = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_BUNDLE_INSIDE = "/etc/ssl/certs/ca-certificates.crt"


def find_environment(environment: Mapping[str, str], repository: Path) -> dict[str, str]:
    """The environment with TORCH_FIND_LINKS as the Makefile sets it, for callers that did not come through it."""
    wheels = repository.parent / "shared" / "wheels"
    named = "TORCH_FIND_LINKS" in environment or "TORCH_INDEX" in environment
    return dict(environment) if named or not wheels.is_dir() else {**environment, "TORCH_FIND_LINKS": str(wheels)}


def describe_sources(environment: Mapping[str, str]) -> str:
    """What the choice of a package depends on besides the lock file: the wheels at hand, the further index."""
    links = environment.get("TORCH_FIND_LINKS", "").strip()
    folder = Path(links) if links and "://" not in links else None
    wheels = sorted(f"{p.name} {p.stat().st_size}" for p in folder.glob("*.whl")) if folder else [links]
    return " ".join([*wheels, environment.get("TORCH_INDEX", "").strip()])


def list_mounts(folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Arguments for `buildah bud`; the generated pip configuration is written below `folder`.

    TORCH_FIND_LINKS may be a folder (mounted at /wheels) or a page's address; TORCH_INDEX a further index.
    """
    links = environment.get("TORCH_FIND_LINKS", "").strip()
    is_page = "://" in links
    wheels = Path(links).resolve() if links and not is_page else folder / "no-wheels"
    if links and not is_page and not wheels.is_dir():
        raise ClusterError(f"TORCH_FIND_LINKS={links}: no such folder; name one with wheels, or unset it")
    (folder / "no-wheels").mkdir(parents=True, exist_ok=True)
    settings = parse_pip_settings(run([sys.executable, "-m", "pip", "config", "list"], timeout_seconds=60))
    pip_configuration = folder / "pip.conf"
    pages = [links] if is_page else []
    text = build_pip_configuration(settings, ["/wheels", *pages], environment.get("TORCH_INDEX", "").strip())
    write_atomic(pip_configuration, text, 0o600)
    mounts = {wheels: "/wheels", pip_configuration: "/etc/pip.conf"}
    bundle = _find_bundle(environment)
    if bundle:
        mounts[bundle] = _BUNDLE_INSIDE
    return [part for source, target in mounts.items() for part in ("--volume", f"{source}:{target}:ro")]


def parse_pip_settings(listing: str) -> dict[str, str]:
    """`pip config list` → setting by name; those of `global`, `install` and the environment count alike."""
    found: dict[str, str] = {}
    for line in listing.splitlines():
        key, separator, value = line.partition("=")
        name = key.strip().rpartition(".")[2]
        if separator and name in _KEPT:
            found[name] = str(ast.literal_eval(value.strip())).strip()
    return found


def build_pip_configuration(settings: Mapping[str, str], find_links: list[str], extra_index: str) -> str:
    """Text of a pip.conf for the build."""
    parser = configparser.RawConfigParser()
    section = {**settings, "cert": _BUNDLE_INSIDE, "find-links": "\n".join(find_links)}
    indices = [settings.get("extra-index-url", ""), extra_index]
    if any(indices):
        section["extra-index-url"] = "\n".join(index for index in indices if index)
    parser["global"] = section
    buffer = io.StringIO()
    parser.write(buffer)
    return buffer.getvalue()


def _find_bundle(environment: Mapping[str, str]) -> Path | None:
    named = [environment.get(name, "") for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")]
    return next((Path(p).resolve() for p in [*named, *_BUNDLES] if p and Path(p).is_file()), None)
