"""The entry point: which commands there are, and what happens without one."""

from __future__ import annotations

import pytest

from adaptive_operator.cli.__main__ import main


def test_the_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["--help"])
    assert raised.value.code == 0
    told = capsys.readouterr().out
    assert all(command in told for command in ("explain", "replay", "simulate"))


def test_without_a_command_the_usage_is_told(capsys):
    with pytest.raises(SystemExit) as raised:
        main([])
    assert raised.value.code == 2
    assert "COMMAND" in capsys.readouterr().err
