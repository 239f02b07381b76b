"""How to get there: pure functions from a decision to ordered, idempotent steps and manifests."""

from adaptive_operator.plan.model import plan_model
from adaptive_operator.plan.settings import PlanSettings

__all__ = ["PlanSettings", "plan_model"]
