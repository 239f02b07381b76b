"""The entry point: which commands there are, and what happens without one."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import adaptive_operator
from adaptive_operator.cli.__main__ import main


def test_the_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["--help"])
    assert raised.value.code == 0
    told = capsys.readouterr().out
    assert all(command in told for command in ("explain", "replay", "simulate"))


def test_the_version_is_told_as_reports_tell_it(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"adaptive-llm {version('adaptive-llm')}\n"


def test_without_a_command_the_usage_is_told(capsys):
    with pytest.raises(SystemExit) as raised:
        main([])
    assert raised.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def forget_the_simulator(monkeypatch):
    """As in a new process: what another test imported is not there yet."""
    for name in ("simulate", "progress"):
        monkeypatch.delitem(sys.modules, f"adaptive_operator.cli.{name}", raising=False)


@pytest.mark.parametrize("package", ["rich", "matplotlib"])
@pytest.mark.parametrize("arguments", [[], ["-f", "model.yaml", "--trace", "steady:rate=2"], ["--help"]])
def test_without_its_packages_the_simulator_says_how_to_install_them(arguments, package, capsys, monkeypatch):
    forget_the_simulator(monkeypatch)
    monkeypatch.setitem(sys.modules, package, None)
    if package == "rich":
        monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["simulate", *arguments]) == 1
    told = capsys.readouterr().err
    remedy = "which is not installed: run pip install '.[cli]' in the checkout"
    assert told == f"error: simulate needs {package}, {remedy}\n"


def test_the_help_names_a_command_whose_packages_are_missing_with_the_remedy(capsys, monkeypatch):
    forget_the_simulator(monkeypatch)
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "run pip install '.[cli]' in the checkout" in " ".join(capsys.readouterr().out.split())


def modules_after(*arguments: str) -> set[str]:
    """What a new process has loaded when the command has said its help."""
    code = "import sys; from adaptive_operator.cli.__main__ import main\n"
    code += "try:\n    main()\nfinally:\n    sys.stderr.write('\\n'.join(sys.modules))"
    root = str(Path(adaptive_operator.__file__).parents[1])
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": root},
    )
    assert "usage: " in found.stdout
    return set(found.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"]])
def test_neither_the_help_nor_explain_loads_the_solver_or_the_simulator(arguments):
    loaded = modules_after(*arguments)
    assert "adaptive_operator.cli.summaries" in loaded
    heavy = ("scipy", "numpy", "matplotlib", "rich", "adaptive_operator.simulate", "adaptive_operator.decide")
    assert loaded.isdisjoint(heavy)


def test_a_command_without_its_arguments_says_which_ones_it_needs(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["explain"])
    assert raised.value.code == 2
    assert "model" in capsys.readouterr().err
