import pytest

from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.source import resolve_source


@pytest.mark.parametrize(
    ("uri", "reason", "words"),
    [
        ("package://no_such_package/model.gguf", LoadReason.NOT_FOUND, "not installed"),
        ("package://json/model.gguf", LoadReason.NOT_FOUND, "no such file"),
        ("package://json/../../../etc/passwd", LoadReason.NOT_FOUND, "outside the package"),
        ("package://not-a-name/model.gguf", LoadReason.NOT_FOUND, "not a package name"),
        ("file:///no/such/model.gguf", LoadReason.NOT_FOUND, "no such file"),
        ("file://otherhost/model.gguf", LoadReason.UNSUPPORTED, "scheme"),
        ("hf://owner/name", LoadReason.UNSUPPORTED, "package://"),
        ("model.gguf", LoadReason.UNSUPPORTED, "'none'"),
    ],
)
def test_a_source_that_cannot_be_served_names_cause_and_remedy(uri, reason, words):
    with pytest.raises(LoadError, match=r"model\.source") as caught:
        resolve_source(uri)
    assert caught.value.reason is reason
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("name", "words"),
    [("model.bin", "run code"), ("model.PT", "run code"), ("model.onnx", "only .gguf and .safetensors")],
)
def test_another_file_format_is_unsupported_and_says_how_to_convert(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(LoadError, match="convert") as caught:
        resolve_source(f"file://{tmp_path}/{name}")
    assert caught.value.reason is LoadReason.UNSUPPORTED
    assert words in caught.value.message


def test_a_folder_needs_its_config(tmp_path):
    with pytest.raises(LoadError, match=r"no config\.json"):
        resolve_source(f"file://{tmp_path}")
    (tmp_path / "config.json").write_text("{}")
    assert resolve_source(f"file://{tmp_path}") == tmp_path


def test_a_file_is_found_by_its_path_with_escaped_characters(tmp_path):
    path = tmp_path / "a model.gguf"
    path.touch()
    assert resolve_source(f"file://{tmp_path}/a%20model.gguf") == path


def test_a_package_is_found_without_importing_it(model_path):
    assert model_path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (LoadReason.NOT_FOUND, 3),
        (LoadReason.CORRUPT, 4),
        (LoadReason.UNSUPPORTED, 5),
        (LoadReason.OUT_OF_MEMORY, 6),
    ],
)
def test_each_reason_has_its_exit_code(reason, code):
    assert reason.exit_code == code
