"""The command that runs the end-to-end tests: what it takes, and that asking for it starts nothing."""

from __future__ import annotations

import pytest

from e2e import run


@pytest.fixture
def started(monkeypatch):
    """The arguments of each run that was started, by kind."""
    calls = []
    monkeypatch.setattr(run, "run_on_own", lambda arguments: calls.append(("own", *arguments)) or 0)
    monkeypatch.setattr(run, "run_on_existing", lambda context, arguments: calls.append((context, *arguments)) or 0)
    monkeypatch.delenv("DEMO_CONTEXT", raising=False)
    return calls


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_shown_and_no_cluster_is_started(option, started, capsys):
    with pytest.raises(SystemExit) as raised:
        run.main([option])
    assert not raised.value.code
    told = capsys.readouterr().out
    for part in ("usage: python -m e2e.run", "go to pytest", "DEMO_CONTEXT", "E2E_KEEP", "-k exchange"):
        assert part in told
    assert started == []


def test_all_arguments_go_to_pytest_as_they_are(started, monkeypatch):
    assert run.main(["-k", "exchange or pool", "-x", "--lf", "e2e/tests/test_pool.py"]) == 0
    monkeypatch.setenv("DEMO_CONTEXT", "kind")
    assert run.main(["-k", "a"]) == run.main([]) == 0
    assert started == [
        ("own", "-k", "exchange or pool", "-x", "--lf", "e2e/tests/test_pool.py"),
        ("kind", "-k", "a"),
        ("kind",),
    ]
