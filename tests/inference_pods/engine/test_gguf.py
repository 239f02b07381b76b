import contextlib
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.gguf import GgufFile
from inference_pods.kernels.formats import SourceType

METADATA = {"general.architecture": "llama", "llama.block_count": 2, "names": ["one", "two"]}


@pytest.fixture(scope="module")
def small_file(tmp_path_factory, write_gguf):
    values = np.arange(64, dtype=np.float32)
    tensors = {"a.weight": ([32, 2], 0, values.tobytes()), "b.weight": ([32], 3, bytes(range(20)))}
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf", METADATA, tensors)


def test_metadata_and_tensors_are_read(small_file):
    file = GgufFile(small_file)
    assert file.metadata == METADATA
    tensor = file.tensors["a.weight"]
    assert (tensor.rows, tensor.columns, tensor.kind) == (2, 32, SourceType.F32)
    assert np.array_equal(file.data(tensor).view(np.float32), np.arange(64, dtype=np.float32))
    assert bytes(file.data(file.tensors["b.weight"])) == bytes(range(20))


def test_a_file_cut_anywhere_is_corrupt_and_says_so(small_file, tmp_path):
    whole = small_file.read_bytes()
    for length in range(0, len(whole) - 13, 7):  # the last 12 bytes are padding
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(whole[:length])
        with pytest.raises(LoadError, match="download it again") as caught:
            GgufFile(cut)
        assert caught.value.reason is LoadReason.CORRUPT


@given(position=st.integers(0, 250), value=st.integers(0, 255))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_header_never_raises_anything_else(small_file, tmp_path, position, value):
    damaged = bytearray(small_file.read_bytes())
    damaged[position] = value
    path = tmp_path / "damaged.gguf"
    path.write_bytes(bytes(damaged))
    with contextlib.suppress(LoadError):
        file = GgufFile(path)
        for tensor in file.tensors.values():
            file.data(tensor)


@pytest.mark.parametrize(("kind", "words"), [(12, "ggml type 12"), (99, "ggml type 99")])
def test_tensor_types_that_cannot_be_read_are_named(tmp_path, write_gguf, kind, words):
    path = write_gguf(tmp_path / "odd.gguf", METADATA, {"a.weight": ([32], kind, bytes(64))})
    with pytest.raises(LoadError, match=words) as caught:
        GgufFile(path)
    assert caught.value.reason is LoadReason.UNSUPPORTED


def test_an_unknown_version_is_unsupported(tmp_path, write_gguf):
    with pytest.raises(LoadError, match="version 9") as caught:
        GgufFile(write_gguf(tmp_path / "future.gguf", {}, {}, version=9))
    assert caught.value.reason is LoadReason.UNSUPPORTED


def write_pair(path, value_type, value):
    """A file without tensors whose only metadata is general.alignment."""
    key = b"general.alignment"
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, len(key)) + key + struct.pack("<I", value_type) + value)
    return path


@pytest.mark.parametrize(
    ("value_type", "value", "words"),
    [
        (4, struct.pack("<I", 0), "alignment is 0"),
        (5, struct.pack("<i", -32), "alignment is -32"),
        (4, struct.pack("<I", 2**32 - 1), "alignment is 4294967295"),
        (7, b"\1", "alignment is True"),
        (8, struct.pack("<Q", 2) + b"32", "alignment is 32"),
        (9, struct.pack("<IQI", 4, 1, 32), r"alignment is \[32\]"),
        (9, struct.pack("<IQ", 9, 1) * 5000 + struct.pack("<IQ", 4, 0), "nested"),
        (9, struct.pack("<IQ", 11, 2**61) + bytes(64), "cannot fit"),
        (9, struct.pack("<IQ", 11, 9) + bytes(64), "cannot fit"),
        (9, struct.pack("<IQ", 8, 9) + bytes(64), "cannot fit"),
        (9, struct.pack("<IQ", 9, 6) + bytes(64), "cannot fit"),
        (9, struct.pack("<IQ", 99, 1) + bytes(64), "type 99"),
    ],
    ids=[
        "alignment zero", "alignment negative", "alignment huge", "alignment a truth value", "alignment a text",
        "alignment an array", "arrays in arrays", "more numbers than memory", "more numbers than the file holds",
        "more texts than the file holds", "more arrays than the file holds", "elements of unknown type",
    ],
)  # fmt: skip
def test_metadata_that_cannot_be_is_corrupt_and_says_why(tmp_path, value_type, value, words):
    with pytest.raises(LoadError, match=words) as caught:
        GgufFile(write_pair(tmp_path / "odd.gguf", value_type, value))
    assert caught.value.reason is LoadReason.CORRUPT


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "?", "u8", "i8", "f8"])
def test_numbers_are_a_view_of_the_file_until_it_is_closed(tmp_path, write_gguf, dtype):
    numbers = np.array([1, 0, 1], dtype)
    file = GgufFile(write_gguf(tmp_path / "numbers.gguf", {"odd": "x", "numbers": numbers, "after": 7}, {}))
    assert file.metadata["numbers"].dtype == numbers.dtype
    assert file.metadata["numbers"].tolist() == numbers.tolist()
    assert not file.metadata["numbers"].flags.owndata
    assert file.metadata["after"] == 7
    file.close()


def test_an_empty_array_is_read_at_the_end_of_a_file_too(tmp_path, write_gguf):
    assert len(GgufFile(write_gguf(tmp_path / "empty.gguf", {"none": np.array([], "i4")}, {})).metadata["none"]) == 0
