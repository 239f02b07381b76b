import hashlib
import subprocess

import pytest

from inference_pods.engine.digest import DigestCheck, compute_digest
from inference_pods.engine.errors import LoadError, LoadReason


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("model-1.safetensors", "model-2.safetensors")]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 1000)
    return paths


def test_one_file_has_its_own_digest(files):
    assert compute_digest(files[:1]) == hashlib.sha256(bytes(1000)).hexdigest()


def test_shards_have_the_digest_of_their_listing_in_any_order(files):
    command = "sha256sum model-*.safetensors | sha256sum"
    said = subprocess.run(command, shell=True, cwd=files[0].parent, capture_output=True, text=True, check=True)  # noqa: S602
    assert compute_digest(files) == compute_digest(files[::-1]) == said.stdout.split()[0]


def test_another_digest_than_promised_is_a_corrupt_model(files):
    good = hashlib.sha256(bytes(1000)).hexdigest()
    assert DigestCheck(files[:1], good).finish() == DigestCheck(files[:1], None).finish() == good
    with pytest.raises(LoadError, match=f"^model-2.safetensors: sha256 is .*expected {good}") as caught:
        DigestCheck(files[1:], good).finish()
    assert caught.value.reason is LoadReason.CORRUPT
    assert "model.sha256" in caught.value.message


def test_the_files_of_a_large_model_leave_room_for_cause_and_remedy(files):
    with pytest.raises(LoadError, match=r"^model-1\.safetensors and 1 more: sha256 is"):
        DigestCheck(files, "0" * 64).finish()
