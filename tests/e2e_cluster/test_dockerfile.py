from pathlib import Path

import pytest

from e2e.cluster.dockerfile import hash_inputs, list_sources
from e2e.cluster.settings import ClusterError


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("COPY a b /x/", ["a", "b"]),
        ("ADD pyproject.toml /x", ["pyproject.toml"]),
        ('COPY ["with space", "/x"]', ["with space"]),
        ("COPY --chown=1:1 a /x", ["a"]),
        ("COPY a \\\n  b \\\n  /x", ["a", "b"]),
        ("# COPY a /x\nRUN echo COPY b /x", []),
        ("COPY --from=build /opt/kernels /opt/kernels", []),
        ("ADD https://example.invalid/file /x", []),
        ("copy a /x", ["a"]),
    ],
)
def test_sources_are_what_an_instruction_takes_from_the_context(text: str, sources: list[str]):
    assert list_sources(text) == sources


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "code" / "__pycache__").mkdir(parents=True)
    (tmp_path / "code" / "main.py").write_text("1")
    (tmp_path / "other.txt").write_text("1")
    (tmp_path / "Dockerfile").write_text("FROM x\nCOPY code /code\n")
    return tmp_path


def fingerprint(context: Path, *extra: str) -> str:
    return hash_inputs(context / "Dockerfile", context, extra)


def test_a_changed_copied_file_changes_the_hash(context: Path):
    before = fingerprint(context)
    (context / "code" / "main.py").write_text("2")
    assert fingerprint(context) != before


def test_a_renamed_copied_file_changes_the_hash(context: Path):
    before = fingerprint(context)
    (context / "code" / "main.py").rename(context / "code" / "app.py")
    assert fingerprint(context) != before


def test_files_that_are_not_copied_and_generated_ones_do_not_change_the_hash(context: Path):
    before = fingerprint(context)
    (context / "other.txt").write_text("2")
    (context / "code" / "__pycache__" / "main.pyc").write_text("x")
    assert fingerprint(context) == before


def test_the_stage_and_the_dockerfile_are_part_of_the_hash(context: Path):
    before = fingerprint(context, "router")
    assert fingerprint(context, "engine") != before
    (context / "Dockerfile").write_text("FROM x\nCOPY code /elsewhere\n")
    assert fingerprint(context, "router") != before


def test_a_missing_source_is_named(context: Path):
    (context / "Dockerfile").write_text("FROM x\nCOPY gone /x\n")
    with pytest.raises(ClusterError, match="'gone'"):
        fingerprint(context)
