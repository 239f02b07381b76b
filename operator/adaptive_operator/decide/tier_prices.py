"""Shadow prices of tiers (Λ): what a little more capacity of a tier would be worth to the model, with replicas as they
are.

Routers order unlike requests by them. The duals of the capacity rows of `optimize/milp.py`'s program with fixed
replicas; taken here from the fill, which is that program's solution for one class of requests, so that a pass needs no
solver. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from adaptive_operator.decide.fill import Fill
from adaptive_operator.decide.optimize.problem import UNSERVED

_STEP = 1e-4  # of the demand: how much more capacity is tried
_DIGITS = 4


def shadow_prices(
    demand: float, rates: Mapping[str, float], fill_with: Callable[[Mapping[str, float]], Fill]
) -> dict[str, float]:
    """Quality (1 = a full answer) per reference request that each tier could serve more; 0 of all when nothing is
    scarce.

    `rates`: requests/s of the tiers' replicas at their top levels; `fill_with`: how the demand (requests/s) is served
    with such rates.

    Example: 1/s on full .72 and int4 .6 (quality .78): .22 for full, which would take from int4, and 0 for int4.
    """
    if demand <= 0:
        return dict.fromkeys(rates, 0.0)
    step = demand * _STEP
    worth = _worth(fill_with(rates), demand)
    prices = {}
    for tier, rate in rates.items():
        gained = _worth(fill_with({**rates, tier: rate + step}), demand) - worth
        prices[tier] = max(round(gained / step, _DIGITS), 0.0)
    return prices


def _worth(outcome: Fill, demand: float) -> float:
    """As the planner counts it: a request that is not served costs as much as ten full answers."""
    served = demand - outcome.unserved
    return outcome.quality_permille / 1000 * served - UNSERVED * outcome.unserved
