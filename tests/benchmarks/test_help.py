"""`--help` of every benchmark that takes arguments: a bare % in a text that argparse formats would be a traceback."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "ArgumentParser(" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_help_is_shown_and_nothing_is_measured_by(name, monkeypatch, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as raised:
        module.main()
    assert not raised.value.code
    assert capsys.readouterr().out.startswith(f"usage: {name}.py")
