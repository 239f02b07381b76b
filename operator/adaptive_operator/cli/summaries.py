"""What each command does, in a line: `--help` names all commands, and loads none of them."""

from __future__ import annotations

from typing import Final

SUMMARIES: Final = {
    "explain": "Show the last decisions for a model: why, what binds, and what the best other mix would have given.",
    "replay": "Decide again what a decision log tells, with this version, and name what comes out differently.",
    "simulate": "Run policies on a trace without a cluster, and compare them.",
}
