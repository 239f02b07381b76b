"""From a run to its figures. The first part of every run is left out for every policy: all start from nothing.

Definitions (docs/simulator.md): a request is attained when it finished within both objectives; violations are all the
others, refused and failed ones included; system accuracy counts what was not attained as zero.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from adaptive_operator.decide.flaps import count_flaps, flap_seconds
from adaptive_operator.simulate.requests import Outcome, Request
from adaptive_operator.simulate.run import RunResult
from adaptive_operator.simulate.scenario import Scenario

WARM_UP_SECONDS: Final = 600.0
WARM_UP_PART: Final = 1 / 6
LONG_FLAP_SECONDS: Final = 900.0
_WINDOW_SECONDS: Final = 10.0
_WINDOW_REQUESTS: Final = 20


@dataclass(frozen=True, slots=True)
class Scores:
    """One run in figures. Shares and qualities 0..1, times in seconds, NaN where there is nothing to count."""

    policy: str
    requests: int
    attainment: float  # within both objectives
    ttft_attainment: float
    tpot_attainment: float
    unserved: float  # never answered to the end
    effective_accuracy: float  # mean quality of what was attained
    system_accuracy: float  # the same over all arrivals
    quality_p5: float  # 5th percentile of the mean quality of 10 s windows
    worst_drop: float  # 1 - the worst of these windows
    ttft_p95: float
    tpot_p95: float
    accelerator_hours: float
    hours_not_ready: float  # part of it that loaded, drained or ended
    accelerator_hours_per_1000: float  # per 1,000 attained
    starts_per_hour: float
    changes: int
    flaps: int
    flaps_in_15_minutes: int
    most_held: int
    plan_p50: float
    plan_p95: float

    @property
    def violations(self) -> float:
        """1 - attainment."""
        return 1.0 - self.attainment


def warm_up_seconds(seconds: float) -> float:
    """What is left out of a run of so many seconds."""
    return min(WARM_UP_SECONDS, seconds * WARM_UP_PART)


def score(result: RunResult) -> Scores:
    """The figures of a run."""
    start = warm_up_seconds(result.seconds)
    counted = [request for request in result.requests if request.arrival >= start]
    attained = [request for request in counted if is_attained(request, result.scenario)]
    windows = quality_windows(attained)
    hours = result.ledger.held_seconds / 3600
    plans = sorted(result.plan_seconds)
    mixes = [(change.at, change.replicas) for change in result.changes]
    return Scores(
        policy=result.policy,
        requests=len(counted),
        attainment=_part(len(attained), len(counted)),
        ttft_attainment=_part(sum(_meets_ttft(r, result.scenario) for r in counted), len(counted)),
        tpot_attainment=_part(sum(_meets_tpot(r, result.scenario) for r in counted), len(counted)),
        unserved=_part(sum(r.outcome is not Outcome.FINISHED for r in counted), len(counted)),
        effective_accuracy=_part(math.fsum(r.quality for r in attained), len(attained)),
        system_accuracy=_part(math.fsum(r.quality for r in attained), len(counted)),
        quality_p5=percentile(windows, 0.05),
        worst_drop=1.0 - min(windows, default=math.nan),
        ttft_p95=percentile([r.ttft for r in counted if not math.isnan(r.first_token_at)], 0.95),
        tpot_p95=percentile([r.tpot for r in counted if r.outcome is Outcome.FINISHED], 0.95),
        accelerator_hours=hours,
        hours_not_ready=result.ledger.not_ready_seconds / 3600,
        accelerator_hours_per_1000=_part(1000 * hours, sum(is_attained(r, result.scenario) for r in result.requests)),
        starts_per_hour=_part(3600 * result.ledger.starts, result.seconds),
        changes=max(len(result.changes) - 1, 0),
        flaps=count_flaps(mixes, flap_seconds(tier.load_seconds for tier in result.scenario.tiers)),
        flaps_in_15_minutes=count_flaps(mixes, LONG_FLAP_SECONDS),
        most_held=result.ledger.most,
        plan_p50=percentile(plans, 0.5),
        plan_p95=percentile(plans, 0.95),
    )


def combine(by_model: Sequence[Scores], results: Sequence[RunResult]) -> Scores:
    """The figures of all models of a pool together; those of a single one are its own.

    Shares and qualities by requests, what is held and started in sum; of percentiles the worst model's.
    """
    if len(by_model) == 1:
        return by_model[0]
    counted = [(own, own.requests) for own in by_model if own.requests]
    served = [(own, own.requests * own.attainment) for own in by_model if own.requests and own.attainment]
    hours = math.fsum(own.accelerator_hours for own in by_model)
    done = sum(is_attained(request, result.scenario) for result in results for request in result.requests)
    return Scores(
        policy=by_model[0].policy,
        requests=sum(own.requests for own in by_model),
        attainment=_mean([(own.attainment, weight) for own, weight in counted]),
        ttft_attainment=_mean([(own.ttft_attainment, weight) for own, weight in counted]),
        tpot_attainment=_mean([(own.tpot_attainment, weight) for own, weight in counted]),
        unserved=_mean([(own.unserved, weight) for own, weight in counted]),
        effective_accuracy=_mean([(own.effective_accuracy, weight) for own, weight in served]),
        system_accuracy=_mean([(own.system_accuracy, weight) for own, weight in counted]),
        quality_p5=min(own.quality_p5 for own in by_model),
        worst_drop=max(own.worst_drop for own in by_model),
        ttft_p95=max(own.ttft_p95 for own in by_model),
        tpot_p95=max(own.tpot_p95 for own in by_model),
        accelerator_hours=hours,
        hours_not_ready=math.fsum(own.hours_not_ready for own in by_model),
        accelerator_hours_per_1000=_part(1000 * hours, done),
        starts_per_hour=math.fsum(own.starts_per_hour for own in by_model),
        changes=sum(own.changes for own in by_model),
        flaps=sum(own.flaps for own in by_model),
        flaps_in_15_minutes=sum(own.flaps_in_15_minutes for own in by_model),
        most_held=results[0].most_held_in_pool,
        plan_p50=by_model[0].plan_p50,  # a pass decides for all models
        plan_p95=by_model[0].plan_p95,
    )


def _mean(values: Sequence[tuple[float, float]]) -> float:
    """Of (value, weight) pairs; NaN of nothing."""
    return _part(math.fsum(v * weight for v, weight in values), math.fsum(weight for _, weight in values))


def is_attained(request: Request, scenario: Scenario) -> bool:
    """Finished, and within both objectives."""
    return _meets_ttft(request, scenario) and _meets_tpot(request, scenario)


def quality_windows(attained: Iterable[Request]) -> list[float]:
    """Mean quality of each 10 s of arrivals that have at least 20 attained requests."""
    windows: dict[int, list[float]] = {}
    for request in attained:
        windows.setdefault(int(request.arrival // _WINDOW_SECONDS), []).append(request.quality)
    return [statistics.fmean(found) for found in windows.values() if len(found) >= _WINDOW_REQUESTS]


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least this part of all does not exceed; NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[max(math.ceil(part * len(values)) - 1, 0)]


def as_record(scores: Scores) -> Mapping[str, float | int | str | None]:
    """For JSON: None in place of NaN."""
    fields = {name: getattr(scores, name) for name in Scores.__slots__}
    record = {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in fields.items()}
    return {**record, "violations": None if math.isnan(scores.violations) else scores.violations}


def _meets_ttft(request: Request, scenario: Scenario) -> bool:
    return request.outcome is Outcome.FINISHED and request.ttft <= scenario.ttft_seconds


def _meets_tpot(request: Request, scenario: Scenario) -> bool:
    return request.outcome is Outcome.FINISHED and request.tpot <= scenario.tpot_seconds


def _part(value: float, whole: float) -> float:
    return value / whole if whole else math.nan
