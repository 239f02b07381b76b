"""What a rule proposes for one model. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adaptive_operator.api.status import GainOf
from adaptive_operator.decide.decision import Finding
from adaptive_operator.observe.observation import PolicyMemory
from adaptive_operator.reasons import Reason


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a change of replicas brings, and what it costs until it is done."""

    gain_permille: float  # below 0: a loss
    gain_of: GainOf
    dip_permille: float  # of the requests: they wait or are refused at the worst moment of the change


@dataclass(frozen=True, slots=True)
class Proposal:
    """Replicas by tier and why; `memory` where the rule remembers something beyond the change itself."""

    reason: Reason
    message: str
    replicas: Mapping[str, int]
    memory: PolicyMemory
    prediction: Prediction | None = None  # None: nothing changes, or demand or cards are not known
    begins_swap: bool = False  # though the replicas by tier stay: they become those of another revision
    findings: tuple[Finding, ...] = ()
