"""What can be set for the demo, and its defaults. Reads the environment; does nothing else."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class DemoError(Exception):
    """Something that ends the demo; the text names the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every knob of the demo."""

    context: str = ""  # kube context of an existing cluster (DEMO_CONTEXT); empty: the demo's own cluster
    cluster: str = "demo"  # name of the demo's own cluster (DEMO_CLUSTER)
    helm_arguments: tuple[str, ...] = ()  # more arguments for helm, e.g. the images of an own registry (DEMO_HELM_ARGS)
    out: Path = ROOT / "out" / "demo"  # where summary, records and plot go (DEMO_OUT)
    # Of the arrivals (DEMO_SEED). With this one windows of 15 s stay within an eighth of the second step's rate and a
    # sixth of the third's: the steps tell the story. With 20, a burst of 1.4 times the second step is taken for load.
    seed: int = 68
    example: Path = ROOT / "examples" / "smollm2.yaml"
    chart: Path = ROOT / "helm" / "adaptive-llm"
    namespace: str = "demo"
    model: str = "assistant"
    system_namespace: str = "adaptive-system"
    release: str = "adaptive-llm"
    ready_timeout_seconds: float = 600  # from apply to all replicas ready
    restore_timeout_seconds: float = 180  # beyond the last step, for quality to come back
    request_timeout_seconds: float = 150  # queue bound (60 s) + a slow answer + margin
    # The second is long enough for the operator to use the free accelerator before the third begins.
    step_seconds: tuple[float, float, float, float] = field(default=(30, 40, 90, 80))
    calibration_levels: tuple[int, ...] = (2, 4, 8)  # requests in flight
    calibration_level_seconds: float = 9.0
    settle_seconds: float = 15.0  # the operator's window of arrivals, so that calibration is not taken for load

    @property
    def is_own_cluster(self) -> bool:
        """Whether the demo runs in a cluster of its own making."""
        return not self.context

    @property
    def kube_context(self) -> str:
        """The context that every command names."""
        return self.context or f"adaptive-{self.cluster}"


def settings_from_environment() -> Settings:
    """Defaults overridden by DEMO_* variables; DemoError names a variable that cannot be used."""
    defaults = Settings()
    seed = os.environ.get("DEMO_SEED", str(defaults.seed))
    if not seed.isdigit():
        raise DemoError(f"DEMO_SEED={seed}: must be a whole number")
    return Settings(
        context=os.environ.get("DEMO_CONTEXT", ""),
        cluster=os.environ.get("DEMO_CLUSTER", defaults.cluster),
        helm_arguments=tuple(shlex.split(os.environ.get("DEMO_HELM_ARGS", ""))),
        out=Path(os.environ.get("DEMO_OUT") or defaults.out).absolute(),
        seed=int(seed),
    )
