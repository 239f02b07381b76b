"""What changed in a large pool since its last plan: those models are planned anew, the others keep their replicas.

A number counts as changed when it is far from what it was when its model was last planned anew, not in the pass before:
small steps add up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from adaptive_operator.decide.optimize.problem import Limit, PlannedModel, Problem
from adaptive_operator.decide.optimize.solve import Method, PoolPlan, SolveSettings
from adaptive_operator.observe.observation import LastPlan, ModelBefore

# A demand, a rate or their ratio within this share of what it was is the same: plans have 10 % to spare (the cards'
# rate x 0.9).
_SAME: Final = 0.1
# More than this share of the models changed: all are planned. A part of that size saves little and misses more.
_MOST_CHANGED: Final = 0.5
# Every so many plans is one of all models, so that what parts of the pool miss does not add up.
PLANS_PER_WHOLE: Final = 20


def find_changed(problem: Problem, last: LastPlan | None, budget: int) -> frozenset[str] | None:
    """Keys of the models to plan anew; None: all, because too much changed, or it is time.

    `budget`: accelerators of the pool, whoever holds them. The program's own limit is what other models leave: it moves
    when one of them begins or ends a swap, which is told from that model, and from the room that there is.
    """
    if last is None or last.parts + 1 >= PLANS_PER_WHOLE or last.frame != _frame(problem, budget):
        return None
    changed = {model.key for model in problem.models if _has_changed(model, last.models.get(model.key))}
    if any(now > then for now, then in zip(_rooms(problem, last.models), last.rooms, strict=True)):
        # What became free is for those that lack it.
        changed |= {model.key for model in problem.models if _lacks(model, _numbers(model))}
    return frozenset(changed) if len(changed) <= _MOST_CHANGED * len(problem.models) else None


def remember(
    problem: Problem,
    plan: PoolPlan,
    changed: frozenset[str] | None,
    last: LastPlan | None,
    budget: int,
    settings: SolveSettings,
) -> LastPlan | None:
    """What the next plan is compared with; None where it has to be one of all models.

    `changed` and `last` are what this plan was made with.
    """
    if len(problem.models) <= settings.incremental_models or plan.gap > settings.accepted_gap:
        return None
    part = last if changed is not None and plan.method is not Method.MASTER else None
    keys = changed or frozenset()
    before = {} if part is None else {key: m.numbers for key, m in part.models.items() if key not in keys}
    models = {
        model.key: _before(problem, model, plan.counts[model.key], before.get(model.key)) for model in problem.models
    }
    parts = 0 if part is None else part.parts + 1
    return LastPlan(_frame(problem, budget), _rooms(problem, models), parts, models)


def _before(
    problem: Problem, model: PlannedModel, counts: Sequence[int], numbers: tuple[float, ...] | None
) -> ModelBefore:
    """`numbers`: what the model was last planned anew for; None: just now, for its own."""
    own = numbers if numbers is not None else _numbers(model)
    return ModelBefore(own, _digest(model, counts), _uses(problem, model, counts))


def _has_changed(model: PlannedModel, before: ModelBefore | None) -> bool:
    """New, of another make, not (yet) with the replicas that the last plan gave it, or planned for other numbers.

    Other numbers: a demand, a rate or their ratio moved, or its replicas carry it no longer.
    """
    if before is None or before.digest != _digest(model, model.present):
        return True
    now, then = _numbers(model), before.numbers
    pairs = list(zip(now, then, strict=True))
    demands, rates = pairs[: len(model.classes)], pairs[len(model.classes) :]
    # As products: a rate may be 0.
    ratios = [(demand * rate[1], was * rate[0]) for demand, was in demands for rate in rates]
    moved = any(abs(a - b) > _SAME * max(a, b) for a, b in (*pairs, *ratios))
    return moved or (_lacks(model, now) and not _lacks(model, then))


def _lacks(model: PlannedModel, numbers: Sequence[float]) -> bool:
    """Whether the replicas that are there carry less than the demand, with these demands and rates."""
    demands, rates = numbers[: len(model.classes)], numbers[len(model.classes) :]
    return sum(rate * n for rate, n in zip(rates, model.present, strict=True)) < sum(demands)


def _rooms(problem: Problem, before: Mapping[str, ModelBefore]) -> tuple[int, ...]:
    """Accelerators of each limit on what may be held that the last plan promised to nobody, and no new model holds."""
    uses = [before[m.key].uses if m.key in before else _uses(problem, m, m.present) for m in problem.models]
    return tuple(limit.accelerators - sum(used) for limit, *used in zip(_held(problem), *uses, strict=True))


def _uses(problem: Problem, model: PlannedModel, counts: Sequence[int]) -> tuple[int, ...]:
    """Accelerators that these replicas of a model take of each limit on what may be held."""
    pairs = list(zip(model.columns, counts, strict=True))
    return tuple(sum(limit.use_of(column) * n for column, n in pairs) for limit in _held(problem))


def _held(problem: Problem) -> list[Limit]:
    return [limit for limit in problem.limits if not limit.starts]


def _numbers(model: PlannedModel) -> tuple[float, ...]:
    """Demands and rates, in so many digits as it takes to compare them."""
    exact = (*(item.demand for item in model.classes), *(column.rate for column in model.columns))
    return tuple(float(f"{number:.4g}") for number in exact)


def _digest(model: PlannedModel, counts: Sequence[int]) -> str:
    """Of what a model is besides its numbers, and of replicas by column."""
    columns = [(c.tier, c.shape, c.accelerators, f"{c.load_seconds:.2g}") for c in model.columns]
    routes = [(r.name, [(tier, f"{load:.3g}") for tier, load in r.loads]) for r in model.routes]
    classes = [(c.name, [f"{q:.4g}" for q in c.qualities], c.floor) for c in model.classes]
    own = (model.weight, model.floor, model.most_accelerators, [(t.name, t.low, t.high) for t in model.tiers])
    return _hash((columns, routes, classes, own, tuple(counts)))


def _frame(problem: Problem, budget: int) -> str:
    kinds = [(limit.shape, limit.least_replica, limit.starts) for limit in problem.limits]
    return _hash((budget, kinds, sorted(problem.costs.items())))


def _hash(value: object) -> str:
    """Not `names.short_hash`: decision logs keep these, and with others a replay plans anew what did not change."""
    return hashlib.blake2b(repr(value).encode(), digest_size=6).hexdigest()
