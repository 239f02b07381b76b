"""Small and large random programs, the same for the same seed."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from adaptive_operator.decide.optimize.problem import (
    Column,
    Limit,
    PlannedModel,
    PlannedTier,
    Problem,
    RequestClass,
    Route,
)

# name, quality, speed, memory relative to the full tier: the order of magnitude of weight-only formats on a GPU
TIERS = (("full", 1.0, 1.0, 1.0), ("int8", 0.99, 1.6, 0.53), ("int4", 0.965, 2.2, 0.3), ("distilled", 0.85, 4.0, 0.3))
SHAPES = (("a100", 1.0, 80.0), ("h100", 1.8, 80.0), ("l40s", 0.5, 48.0))


def small_problem(seed: int, models: int = 3, shapes: int = 2, starts: bool = False, nested: bool = False) -> Problem:
    """A few models with a few tiers; demand around what the budget carries; some replicas present, prices set."""
    dice = random.Random(seed)
    planned = tuple(_model(dice, f"demo/m{i}", shapes, nested and i == 0) for i in range(models))
    budget = dice.randint(2, 6 * models)
    limits = [Limit(SHAPES[g][0], max(1, budget // shapes)) for g in range(shapes)]
    if starts:
        limits += [Limit(SHAPES[g][0], max(2, budget // 3), starts=True) for g in range(shapes)]
    if dice.random() < 0.3:
        limits.append(Limit(SHAPES[0][0], 2 * dice.randint(0, 4), least_replica=2))
    prices = {SHAPES[g][0]: dice.choice((0.0, 0.2, 3.0)) for g in range(shapes)}
    return Problem(planned, tuple(limits), prices)


def with_classes_and_a_cascade(problem: Problem) -> Problem:
    """The same models, half of their demand in a class that takes nothing below 0.95, and a cascade of two tiers."""
    return replace(problem, models=tuple(_divided(model) for model in problem.models))


def _divided(model: PlannedModel) -> PlannedModel:
    [whole] = model.classes
    cascade = Route("cascade", ((model.tiers[-1].name, 1.0), (model.tiers[0].name, 0.3)))
    qualities = (*whole.qualities, 0.94)
    half = RequestClass("careful", whole.demand / 2, qualities, floor=0.95)
    rest = RequestClass("any", whole.demand / 2, qualities)
    return replace(model, routes=(*model.routes, cascade), classes=(rest, half))


def _model(dice: random.Random, key: str, shapes: int, nested: bool) -> PlannedModel:
    size, demand = dice.choice((20.0, 60.0, 140.0)), dice.choice((0.0, 1.0, 4.0, 9.0, 25.0))
    tiers = TIERS[: dice.randint(2, 4)]
    columns = tuple(
        Column(
            tier=name,
            shape=shape,
            accelerators=max(1, math.ceil(size * memory / room)),
            rate=round(3 * speed * fast * 80 / size * dice.uniform(0.9, 1.1), 3),
            load_seconds=dice.choice((20.0, 60.0, 155.0)),
            present=dice.choice((0, 0, 0, 1, 2)),
        )
        for name, _, speed, memory in tiers
        for shape, fast, room in SHAPES[:shapes]
    )
    routes = [Route(name, ((name, 1.0),)) for name, *_ in tiers]
    qualities = [quality for _, quality, *_ in tiers]
    if nested:
        routes.append(Route("full/low", (("full", 0.6),)))
        qualities.append(0.93)
    return PlannedModel(
        key=key,
        tiers=tuple(PlannedTier(name, int(name == tiers[-1][0]), dice.choice((None, None, 3))) for name, *_ in tiers),
        columns=columns,
        routes=tuple(routes),
        classes=(RequestClass("all", demand, tuple(qualities)),),
        weight=dice.choice((1.0, 2.0, 4.0)),
        floor=dice.choice((0.0, 0.9, 0.96)),
        most_accelerators=dice.choice((None, None, 4)),
    )
