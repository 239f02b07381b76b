"""The container format: what is read, and what is refused with the file's name and a remedy."""

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.safetensors import SafetensorsModel
from inference_pods.kernels.formats import SourceType


def pack(header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


VALUES = np.arange(12, dtype=np.float32)
HEADER = {
    "__metadata__": {"format": "pt"},
    "a": entry("F32", [3, 4], 0, 48),
    "b": entry("BF16", [8], 48, 64),
    "c": entry("F16", [2, 2, 2], 64, 80),
}
DATA = VALUES.tobytes() + bytes(range(32))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path


@pytest.mark.parametrize("named", ["folder", "file"])
def test_tensors_are_read_from_a_folder_or_a_file(folder, named):
    path = folder / "weights.safetensors"
    path.write_bytes(pack(HEADER, DATA))
    model = SafetensorsModel(folder if named == "folder" else path)
    sizes = {name: (t.rows, t.columns, t.kind) for name, t in model.tensors.items()}
    assert sizes == {"a": (3, 4, SourceType.F32), "b": (1, 8, SourceType.BF16), "c": (4, 2, SourceType.F16)}
    assert np.array_equal(model.data(model.tensors["a"]).view(np.float32), VALUES)
    assert bytes(model.data(model.tensors["c"])) == bytes(range(16, 32))
    assert model.config == {"model_type": "llama"}
    assert [file.name for file in model.weights_files] == ["weights.safetensors"]
    model.close()


def write_shards(folder, index=None):
    (folder / "one.safetensors").write_bytes(pack({"a": entry("F32", [1, 2], 0, 8)}, b"\1" * 8))
    (folder / "two.safetensors").write_bytes(pack({"b": entry("F32", [1, 2], 0, 8)}, b"\2" * 8))
    index = index or {"a": "one.safetensors", "b": "two.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def test_shards_are_found_through_the_index(folder):
    write_shards(folder)
    model = SafetensorsModel(folder)
    assert [bytes(model.data(model.tensors[name]))[:1] for name in "ab"] == [b"\1", b"\2"]
    assert [file.name for file in model.weights_files] == ["one.safetensors", "two.safetensors"]


@pytest.mark.parametrize(
    ("index", "reason", "words"),
    [
        ({"a": "one.safetensors", "b": "three.safetensors"}, LoadReason.NOT_FOUND, "three.safetensors"),
        ({"a": "two.safetensors"}, LoadReason.CORRUPT, "not in two.safetensors"),
        ({"a": "../one.safetensors"}, LoadReason.CORRUPT, "same folder"),
        ({"a": "pytorch_model.bin"}, LoadReason.UNSUPPORTED, "run code"),
        ({"a": 3}, LoadReason.CORRUPT, "same folder"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(folder, index, reason, words):
    write_shards(folder, index)
    with pytest.raises(LoadError) as caught:
        SafetensorsModel(folder)
    assert caught.value.reason is reason
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (b"", LoadReason.CORRUPT, "empty"),
        (b"\0\0", LoadReason.CORRUPT, "download it again"),
        (pack(b"{"), LoadReason.CORRUPT, "download it again"),
        (pack([1]), LoadReason.CORRUPT, "no JSON object"),
        (struct.pack("<Q", 2**60), LoadReason.CORRUPT, "does not fit"),
        (pack(b'{"a": 1, "a": 2}'), LoadReason.CORRUPT, "twice"),
        (pack({"a": entry("F32", [2], 0, 8)}, bytes(7)), LoadReason.CORRUPT, "beyond the end"),
        (pack({"a": entry("F32", [2], 0, 7)}, bytes(8)), LoadReason.CORRUPT, "takes 7 bytes"),
        (pack({"a": entry("F32", [-2], 8, 0)}, bytes(8)), LoadReason.CORRUPT, "valid shape"),
        (pack({"a": entry("F32", [True], 0, 4)}, bytes(8)), LoadReason.CORRUPT, "valid shape"),
        (pack({"a": entry("F32", [], 0, 4)}, bytes(8)), LoadReason.CORRUPT, "valid shape"),
        (pack({"a": {"dtype": "F32"}}), LoadReason.CORRUPT, "shape"),
        (pack({"a": entry("F8_E4M3", [2], 0, 2)}, bytes(8)), LoadReason.UNSUPPORTED, "F8_E4M3"),
        (pack({"a": entry("I64", [1], 0, 8)}, bytes(8)), LoadReason.UNSUPPORTED, "F32, F16 or BF16"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else str(value),
)
def test_a_file_that_cannot_be_served_is_named_with_the_remedy(folder, content, reason, words):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(LoadError) as caught:
        SafetensorsModel(folder)
    assert caught.value.reason is reason
    assert caught.value.message.startswith("model.safetensors")
    assert words in caught.value.message


@given(position=st.integers(0, 250), value=st.integers(0, 255))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_header_never_raises_anything_else(folder, position, value):
    damaged = bytearray(pack(HEADER, DATA))
    damaged[position] = value
    (folder / "model.safetensors").write_bytes(bytes(damaged))
    with contextlib.suppress(LoadError):
        model = SafetensorsModel(folder)
        for tensor in model.tensors.values():
            assert len(model.data(tensor)) == tensor.size_bytes


def test_pickle_files_are_refused_by_name(folder):
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(LoadError, match=r"pytorch_model\.bin: pickle files can run code") as caught:
        SafetensorsModel(folder)
    assert caught.value.reason is LoadReason.UNSUPPORTED


def test_files_without_an_index_and_a_missing_config_say_what_is_missing(folder):
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes(pack({}))
    with pytest.raises(LoadError, match=r"no model\.safetensors\.index\.json"):
        SafetensorsModel(folder)
    (folder / "config.json").unlink()
    with pytest.raises(LoadError, match=r"config\.json: No such file"):
        SafetensorsModel(folder)
