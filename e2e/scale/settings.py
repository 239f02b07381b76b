"""What can be set for the scale run. Parses the command line; does nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CLUSTER = "scale"
SYSTEM_NAMESPACE = "adaptive-system"
EXPORTER_PORT = 9400
_FEWEST_PODS = 3  # of a model: a router and a replica of each tier


@dataclass(frozen=True, slots=True)
class ScaleSettings:
    """Sizes and times of one run."""

    models: int
    pods: int
    nodes: int
    scrape_seconds: int
    ready_seconds: float  # longest wait until all models are Ready
    quiet_seconds: float  # how long writes are counted when nothing happens
    settle_seconds: float  # longest wait for that quiet
    changes: int  # specs edited, one after the other
    out: Path
    program: bool = False  # too few accelerators for the best tiers, so that the pool's program divides them

    @property
    def pods_per_model(self) -> int:
        return self.pods // self.models

    @property
    def stepped(self) -> int:
        """Models whose load rises: a tenth."""
        return max(1, self.models // 10)


def parse_settings(arguments: Sequence[str] | None = None) -> ScaleSettings:
    """The command line; ends the process with a message when it makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m e2e.scale", description=__doc__)
    parser.add_argument("--models", type=positive_int, default=300)
    parser.add_argument("--pods", type=positive_int, default=3000, help="of all models together")
    parser.add_argument("--nodes", type=positive_int, default=100)
    parser.add_argument("--scrape-seconds", type=positive_int, default=15, help="Prometheus' interval")
    parser.add_argument("--ready-seconds", type=positive_float, default=420.0, help="longest wait for Ready models")
    parser.add_argument("--quiet-seconds", type=positive_float, default=90.0, help="writes are counted so long")
    parser.add_argument("--settle-seconds", type=positive_float, default=120.0, help="longest wait for quiet")
    parser.add_argument("--changes", type=positive_int, default=10, help="specs to edit, one after the other")
    parser.add_argument("--out", type=Path, default=Path("out/scale"))
    parser.add_argument("--program", action="store_true", help="scarce accelerators: the pool's program divides them")
    given = parser.parse_args(arguments)
    if given.pods % given.models or given.pods // given.models < _FEWEST_PODS:
        parser.error(
            f"--pods {given.pods}: must be a multiple of --models {given.models}, at least {_FEWEST_PODS} each"
        )
    if given.changes > given.models:
        parser.error(f"--changes {given.changes}: there are only {given.models} models")
    return ScaleSettings(**vars(given))


def positive_int(text: str) -> int:
    """A whole number above zero."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def positive_float(text: str) -> float:
    """A finite number above zero."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value
