import hashlib
import io
import json
import tarfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from e2e.cluster.archive import open_archive
from e2e.cluster.pause import build_archive


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def write_docker_archive(path: Path, layers: list[bytes]) -> Path:
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}}).encode()
    names = [f"{index}/layer.tar" for index in range(len(layers))]
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["r:t"], "Layers": names}]).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in [("c.json", config), ("manifest.json", manifest), *zip(names, layers, strict=True)]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def read_layout(stream: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


@given(layers=st.lists(st.binary(max_size=2000), min_size=1, max_size=4, unique=True), data=st.data())
def test_every_blob_has_its_digest_as_name_and_only_present_layers_are_left_out(
    tmp_path_factory, layers: list[bytes], data: st.DataObject
):
    path = write_docker_archive(tmp_path_factory.mktemp("a") / "a.tar", layers)
    present = {digest(layer) for layer in data.draw(st.sets(st.sampled_from(layers)))}
    archive, output = open_archive(path), io.BytesIO()
    moved = archive.write_layout(output, "localhost/x:dev", present)
    files = read_layout(output.getvalue())
    blobs = {f"sha256:{name.rpartition('/')[2]}": content for name, content in files.items() if "/" in name}
    assert all(digest(content) == name for name, content in blobs.items())
    wanted = {digest(layer) for layer in layers}
    assert wanted - blobs.keys() == present
    assert moved == sum(len(layer) for layer in layers if digest(layer) not in present)
    manifest = json.loads(blobs[archive.digest])
    assert [layer["digest"] for layer in manifest["layers"]] == [digest(layer) for layer in layers]


def test_the_index_names_the_image_for_containerd(tmp_path: Path):
    archive, output = open_archive(write_docker_archive(tmp_path / "a.tar", [b"x"])), io.BytesIO()
    archive.write_layout(output, "localhost/x:dev", ())
    [entry] = json.loads(read_layout(output.getvalue())["index.json"])["manifests"]
    assert entry["digest"] == archive.digest
    assert entry["annotations"] == {"io.containerd.image.name": "localhost/x:dev"}


def test_the_same_image_has_the_same_digest_under_every_name(tmp_path: Path):
    first, second = (open_archive(write_docker_archive(tmp_path / name, [b"x", b"y"])) for name in ("a.tar", "b.tar"))
    assert first.digest == second.digest


def test_the_pause_image_is_one_executable_file(tmp_path: Path):
    (tmp_path / "pause.tar").write_bytes(build_archive(b"program", "localhost/pause:1"))
    archive = open_archive(tmp_path / "pause.tar")
    output = io.BytesIO()
    archive.write_layout(output, "localhost/pause:1", ())
    [(layer_digest, _, _)] = archive.layers
    layer = read_layout(output.getvalue())[f"blobs/{layer_digest.replace(':', '/')}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as content:
        [member] = content.getmembers()
    assert (member.name, member.mode) == ("pause", 0o755)
