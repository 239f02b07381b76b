"""Loop F and admission together, against toy engines with a batch and a FIFO queue, in virtual time.

What the router must hold: degrade before the objective is missed, refuse nobody that a tier could have served, and
give away no quality that the better tier had room for.
"""

from __future__ import annotations

import asyncio
import json
import random
import selectors
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

import pytest

from inference_pods.router.admission import Admission, Refused
from inference_pods.router.endpoints import EndpointSet, Replica
from inference_pods.router.fleet import Fleet
from inference_pods.router.places import Demand
from inference_pods.router.shares import PERIOD_SECONDS
from inference_pods.router.table import RouteKey, parse_table

pytestmark = pytest.mark.slow

TTFT_SECONDS, OUTPUT_TOKENS, BATCH = 3.0, 24, 8


class _JumpingSelector(selectors.SelectSelector):
    """Waits for nothing: the time that asyncio would have slept is over at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("the simulation waits for something that never comes")
        self.now += max(timeout, 0.0)
        return []


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer: minutes pass in milliseconds, always alike."""

    def __init__(self) -> None:
        self._jumps = _JumpingSelector()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.now


def run_virtually(main: Callable[[], Awaitable[object]]) -> object:
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main())


@dataclass(eq=False)
class _Sequence:
    on_first: Callable[[], None]
    done: asyncio.Future[None]
    tokens: int = 0


class ToyEngine:
    """Continuous batching: `BATCH` sequences decode together, the others wait in order, unseen from outside.

    A step takes longer the fuller the batch is; a full one completes `mu` requests/s.
    """

    def __init__(self, mu: float) -> None:
        full_step = 0.85 / mu * BATCH / OUTPUT_TOKENS
        self._step_seconds = lambda running: full_step * (0.35 + 0.65 * running / BATCH)
        self._prefill_seconds = 0.15 / mu
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []
        self._work = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def answer(self, on_first: Callable[[], None]) -> None:
        sequence = _Sequence(on_first, asyncio.get_running_loop().create_future())
        self._waiting.append(sequence)
        self._work.set()
        await sequence.done

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            seconds = 0.0
            while self._waiting and len(self._running) < BATCH:
                self._running.append(self._waiting.popleft())
                seconds += self._prefill_seconds
            await asyncio.sleep(seconds + self._step_seconds(len(self._running)))
            for sequence in self._running:
                sequence.tokens += 1
                if sequence.tokens == 1:
                    sequence.on_first()
                if sequence.tokens == OUTPUT_TOKENS:
                    sequence.done.set_result(None)
            self._running = [sequence for sequence in self._running if sequence.tokens < OUTPUT_TOKENS]
            if not self._running and not self._waiting:
                self._work.clear()


@dataclass(frozen=True)
class Tier:
    """`mu` as the table says it, `true_mu` as the engine does it."""

    name: str
    quality: int
    mu: float
    true_mu: float


@dataclass(frozen=True)
class Phase:
    seconds: float
    rate: float
    replicas: dict[str, int]


@dataclass
class Served:
    arrived: float
    tier: str = ""
    quality: int = 0
    ttft: float = float("inf")
    refused: bool = False


@dataclass
class Outcome:
    requests: list[Served] = field(default_factory=list)
    best_shares: list[tuple[float, float]] = field(default_factory=list)

    def between(self, start: float, end: float) -> list[Served]:
        return [request for request in self.requests if start <= request.arrived < end]

    @staticmethod
    def attainment(requests: Sequence[Served]) -> float:
        return fmean(request.ttft <= TTFT_SECONDS for request in requests)

    @staticmethod
    def quality(requests: Sequence[Served]) -> float:
        return fmean(request.quality for request in requests if not request.refused)

    @staticmethod
    def percentile(requests: Sequence[Served], part: float) -> float:
        ordered = sorted(request.ttft for request in requests)
        return ordered[int(part * (len(ordered) - 1))]


class Simulation:
    """One model with `tiers`, through `phases` of Poisson load and ready replicas."""

    def __init__(self, tiers: Sequence[Tier], phases: Sequence[Phase], seed: int, streams: float = 1.0) -> None:
        self._tiers = tiers
        self._phases = phases
        self._random = random.Random(seed)
        self._streams = streams  # part of the requests that are streamed
        self._engines: dict[str, ToyEngine] = {}
        self._outcome = Outcome()

    def run(self) -> Outcome:
        run_virtually(self._main)
        return self._outcome

    async def _main(self) -> None:
        clock = asyncio.get_running_loop().time
        self._fleet = Fleet(clock)
        self._admission = Admission(self._fleet, clock)
        self._fleet.offer_table(parse_table(json.dumps(self._table()), "assistant"))
        loop_f = asyncio.get_running_loop().create_task(self._rebalance_forever())
        users = []
        for phase in self._phases:
            self._offer(phase.replicas)
            users += [asyncio.create_task(self._use()) async for _ in self._arrivals(phase)]
        await asyncio.gather(*users)
        for task in (loop_f, *(engine.task for engine in self._engines.values())):
            task.cancel()

    async def _arrivals(self, phase: Phase) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        end = loop.time() + phase.seconds
        while (pause := self._random.expovariate(phase.rate)) < end - loop.time():
            await asyncio.sleep(pause)
            yield
        await asyncio.sleep(end - loop.time())

    async def _use(self) -> None:
        clock = asyncio.get_running_loop().time
        served = Served(clock())
        self._outcome.requests.append(served)
        self._fleet.arrivals.record(clock())
        streams = self._random.random() < self._streams
        try:
            placement = await self._admission.acquire(Demand(streams=streams), clock() + 60)
        except Refused:
            served.refused = True
            return
        served.tier = placement.route.key.tier
        served.quality = placement.route.quality_permille or 0

        def first() -> None:
            served.ttft = clock() - served.arrived
            if streams:
                self._admission.note_first_token(placement)

        await self._engines[placement.replica.uid].answer(first)
        self._admission.release(placement)

    async def _rebalance_forever(self) -> None:
        best = RouteKey(self._tiers[0].name)
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            self._fleet.rebalance()
            self._outcome.best_shares.append((asyncio.get_running_loop().time(), self._fleet.plan.of(best)))

    def _offer(self, counts: dict[str, int]) -> None:
        replicas = {
            tier.name: tuple(Replica(f"{tier.name}-{i}", tier.name, "") for i in range(counts.get(tier.name, 0)))
            for tier in self._tiers
        }
        for tier in self._tiers:
            for replica in replicas[tier.name]:
                if replica.uid not in self._engines:
                    self._engines[replica.uid] = ToyEngine(tier.true_mu)
        self._fleet.offer_endpoints(EndpointSet(replicas, 1))

    def _table(self) -> dict[str, object]:
        routes = [
            {"tier": tier.name, "qualityPermille": tier.quality, "mu": tier.mu, "weight": 1.0 if i == 0 else 1e-3}
            for i, tier in enumerate(self._tiers)
        ]
        return {
            "schemaVersion": 1, "generation": 1, "epoch": 1, "model": "assistant", "floorPermille": 750,
            "slo": {"ttftMilliseconds": TTFT_SECONDS * 1000, "tpotMilliseconds": 300, "attainmentPercent": 90},
            "maxQueueSeconds": 60, "reference": {"promptTokens": 16, "outputTokens": OUTPUT_TOKENS}, "routes": routes,
        }  # fmt: skip


FULL, INT4 = Tier("full", 1000, 2.79, 2.79), Tier("int4", 780, 2.24, 2.24)
SLOW_FULL = Tier("full", 1000, 2.79, 2.2)  # the table promises more than the engine does
SLOW_INT8 = Tier("int8", 950, 2.24, 1.9)
SEEDS = range(8)


def play(tiers: Sequence[Tier], phases: Sequence[Phase], streams: float = 1.0) -> list[Outcome]:
    return [Simulation(tiers, phases, seed, streams).run() for seed in SEEDS]


def ideal_attainment(requests: Sequence[Served], capacity: float, start: float) -> float:
    """What one FIFO queue in front of all engines would attain from `start` on: no router is faster than its engines.

    Lindley's recursion in requests; a tenth of the objective goes to the prefill.
    """
    backlog, before, in_time = 0.0, 0.0, []
    for request in requests:
        backlog = max(backlog - (request.arrived - before) * capacity, 0.0)
        before = request.arrived
        if request.arrived >= start:
            in_time.append(backlog / capacity <= 0.9 * TTFT_SECONDS)
        backlog += 1
    return fmean(in_time)


@pytest.mark.parametrize(
    ("tiers", "rate", "replicas", "capacity", "least_quality"),
    [
        # 3 x 1.9 of int8 and the rest of 7.3 by int4 would be 950 · .781 + 780 · .219 = 913
        ((SLOW_INT8, INT4), 7.3, {"int8": 3, "int4": 1}, 3 * 1.9 + 2.24, 905),
        # 2.79 of 3.48 by full at best: 1000 · .8 + 780 · .2 = 956; planned are .9 of it, and noise costs the rest
        ((FULL, INT4), 3.48, {"full": 1, "int4": 1}, 2.79 + 2.24, 925),
        # 2.2 of 3.48 by full at best: 1000 · .632 + 780 · .368 = 919
        ((SLOW_FULL, INT4), 3.48, {"full": 1, "int4": 1}, 2.2 + 2.24, 910),
    ],
    ids=["int8 x3 slower than its card and int4", "full and int4", "full slower than its card and int4"],
)
def test_the_objective_is_met_while_the_tiers_together_carry_the_load(tiers, rate, replicas, capacity, least_quality):
    outcomes = play(tiers, [Phase(180, rate, replicas)])
    settled = [outcome.between(30, 180) for outcome in outcomes]
    together = [request for requests in settled for request in requests]
    assert not any(request.refused for outcome in outcomes for request in outcome.requests)
    assert Outcome.attainment(together) >= 0.9
    assert Outcome.quality(together) >= least_quality
    for outcome, requests in zip(outcomes, settled, strict=True):
        # Chance brings up to 7.8/s over the whole run to some seeds, against 7.94/s: compare with what is possible.
        assert Outcome.attainment(requests) >= ideal_attainment(outcome.requests, capacity, 30) - 0.06


def test_a_load_that_the_best_tier_carries_stays_there():
    outcomes = play((FULL, INT4), [Phase(180, 1.39, {"full": 1, "int4": 1})])
    requests = [request for outcome in outcomes for request in outcome.between(30, 180)]
    assert Outcome.attainment(requests) >= 0.99
    assert Outcome.quality(requests) >= 998


def test_a_backlog_from_before_a_swap_is_worked_off_by_all_tiers():
    """While int8 x1 + int4 x1 carry 4.5/s of 7.3/s for 20 s, 56 requests gather; afterwards nobody idles beside it."""
    int8 = Tier("int8", 950, 2.24, 2.24)
    phases = [Phase(20, 7.3, {"int8": 1, "int4": 1}), Phase(60, 7.3, {"int8": 3, "int4": 1})]
    for outcome in play((int8, INT4), phases):
        assert not any(request.refused for request in outcome.requests)
        for tier in ("int8", "int4"):
            waits = [request.ttft for request in outcome.between(25, 60) if request.tier == tier]
            late = sum(wait > TTFT_SECONDS for wait in waits) / len(waits)
            overall = 1 - Outcome.attainment(outcome.between(25, 60))
            assert abs(late - overall) < 0.25, "one tier keeps its requests waiting while another has room"


def test_a_steady_overload_of_the_best_tier_does_not_make_its_share_swing():
    """The engine serves less than the table says; queue and share close a circle, and it has to come to rest."""
    for outcome in play((SLOW_FULL, INT4), [Phase(240, 3.48, {"full": 1, "int4": 1})]):
        shares = [share for at, share in outcome.best_shares if at > 60]
        means = [fmean(shares[start : start + 40]) for start in range(0, len(shares) - 40, 40)]  # of 20 s each
        turns = sum(abs(later - earlier) > 0.25 for earlier, later in pairwise(means))
        assert turns <= 1


def test_the_same_seed_gives_the_same_run():
    phases = [Phase(60, 3.48, {"full": 1, "int4": 1})]
    first, second = (Simulation((FULL, INT4), phases, 3).run() for _ in range(2))
    assert [(r.arrived, r.tier, r.ttft) for r in first.requests] == [
        (r.arrived, r.tier, r.ttft) for r in second.requests
    ]
