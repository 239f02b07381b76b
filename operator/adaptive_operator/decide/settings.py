"""What can be tuned in the policy, with the reason for each default. Knows no environment variables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CorrectionSettings:
    """When a measurement counts, and how much. With equal bounds of 1000 cards are taken at their word."""

    least_permille: int = 600
    most_permille: int = 1200
    step_permille: int = 50
    # At once, whatever the gap: one measurement tells of two minutes only.
    most_steps: int = 3
    # A gap is closed in about this time: a tenth of it may be moved after a tenth of the time since the last move.
    memory_seconds: float = 300.0
    least_requests: int = 50
    # Replicas that were ready for less are cold: caches are empty, kernels are being tuned.
    warm_seconds: float = 120.0
    # Part of the objective within which 95 % are while there is room for more: where it is to be kept by 99 %, the 99th
    # percentile of waiting is half as much again.
    comfortable: float = 0.5
    # Part of what is planned with that has to be used to say so: a tier that hardly works is always fast.
    used: float = 0.8
    # More is tried when the factor has stood for memory_seconds, doubled after each try that left replicas busy, so
    # often at most: 80 minutes. Without that the factor went up and down for ever under a steady load.
    most_doublings: int = 4
    # At a bound for this long the card is wrong, not the weather.
    stale_after_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class DecideSettings:
    """The policy's knobs that are not in a model's spec. Times in seconds, ratios as fractions."""

    # Share of a replica's card capacity that is planned with (rho). The rest absorbs bursts and errors of the card:
    # plans without it break at 1.5 x parameter error.
    utilisation: float = 0.9
    # An addition is sized for demand x this, so that noise of a few per cent does not ask for another one at once.
    growth_headroom: float = 1.15
    # An upgrade or a smaller plan has to carry the hold window's maximum x this. At 1.0 a steady load of +-5 % caused
    # 22 changes in 4 h, at 1.15 none but the first two.
    shrink_headroom: float = 1.15
    # Where more capacity needs an exchange that drains a replica first, it does not wait until demand passes what is
    # wanted: from demand x this on, it begins when the load is about to be more than what stays carries.
    exchange_headroom: float = 1.25
    # A sample older than this many scrapes is stale: demand may then only drift up.
    stale_after_scrapes: float = 2.0
    scrape_interval_seconds: float = 15.0
    # A sample older than this holds all replicas.
    hold_after_stale_seconds: float = 120.0
    # What waits is to be worked off within this time: it counts as queue / backlog_seconds of extra demand.
    backlog_seconds: float = 30.0
    # The panic window counts when it sees more than this many times the stable window's rate: weights follow at once,
    # replicas when it lasts (plans in agreement, and at least one panic window).
    panic_ratio: float = 2.0
    # A tier whose replicas did not start is left out for this long; twice as long after each further failure, for a
    # retry may cost a replica that serves.
    quarantine_seconds: float = 900.0
    most_quarantine_seconds: float = 7200.0
    # Planner period of models that do not set one; agreement is counted at most once per period.
    planner_period_seconds: float = 15.0
    # Dwell of models that do not set one: max(least, factor x load time).
    least_dwell_seconds: float = 300.0
    dwell_load_factor: float = 5.0
    # The hold window doubles, up to this, when an upgrade lived shorter than the dwell; after so many windows without
    # that it is halved. A fixed one of 300 s had 5 flaps in two hours of a square wave with half-periods of 600 s.
    most_hold_seconds: int = 3600
    quiet_holds: float = 12.0
    # Start deadline of models that do not set one: max(least, factor x load time).
    least_start_deadline_seconds: float = 120.0
    start_deadline_load_factor: float = 3.0
    # Load time of a tier whose card does not say.
    default_load_seconds: float = 60.0
    # A better plan has to raise the served quality by this much, or to need fewer accelerators.
    least_gain_permille: float = 1.0
    # Arrivals are counted over a window, so at low rates most of their movement is chance: sqrt(rate / window). What is
    # optional (an upgrade) has to show beyond this many standard deviations. Beyond one, capacity is added at once and
    # a limit is reported; less than that has to be seen by plans in a row. At 0.5/s and 15 s one deviation is 0.18/s.
    significance: float = 2.0
    # Weights move when some tier's share would change by this much: fewer routing tables, same traffic (the routers
    # follow their own arrivals anyway).
    weight_step: float = 0.1
    # The same on the way back to better tiers.
    weight_restore_step: float = 0.2
    # What was told last of a model at rest stands while it is true of a demand within this part of the present one. A
    # load of +-5 % goes from one end to the other by 10.5 %. 0: told anew in each pass.
    standing_band: float = 0.12
    # Share that an open tier gets at least: a weight of 0 would close it, and nothing could be shed onto it in seconds.
    open_weight: float = 0.01
    # Plans that are enumerated completely; beyond that a local search takes over.
    exact_plans: int = 2000
    correction: CorrectionSettings = CorrectionSettings()

    @property
    def arrivals_window_seconds(self) -> float:
        """Window of the stable arrivals: the query takes at least four scrapes."""
        return max(15.0, 4 * self.scrape_interval_seconds)

    @property
    def recent_window_seconds(self) -> float:
        """The panic window: the query takes at least three scrapes."""
        return max(6.0, 3 * self.scrape_interval_seconds)
