"""What a rule proposes for one model. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adaptive_operator.decide.decision import Finding
from adaptive_operator.observe.observation import PolicyMemory
from adaptive_operator.reasons import Reason


@dataclass(frozen=True, slots=True)
class Proposal:
    """Replicas by tier and why; `memory` where the rule remembers something beyond the change itself."""

    reason: Reason
    message: str
    replicas: Mapping[str, int]
    memory: PolicyMemory
    gain_permille: float = 0.0
    dip_permille: float = 0.0
    begins_swap: bool = False  # though the replicas by tier stay: they become those of another revision
    findings: tuple[Finding, ...] = ()
