"""How long the hold window is: twice as long after an upgrade that was undone soon, shorter again after a quiet time.

A window of fixed length resonates: a load that comes back a little after it has ended is answered with an upgrade and
its undoing in every wave. What was given back too early once is given back later the next time. Pure.
"""

from __future__ import annotations

from dataclasses import replace

from adaptive_operator.observe.observation import PolicyMemory


def after_growth(memory: PolicyMemory, now: float, hold: int, least_life: float, most: int) -> PolicyMemory:
    """Memory when capacity is added: with a window of twice `hold` seconds, up to `most`, if that undoes an upgrade.

    It does when the last upgrade or smaller plan lived for less than `least_life` seconds. Each is counted once: more
    capacity after the first addition answers a load that grows on. Example: restored at 1,575 s, swapped back at
    1,845 s; with a least life of 300 s a window of 300 s becomes 600 s.
    """
    restored, added = memory.last_restore_at, memory.last_add_at
    if restored is None or now - restored >= least_life or (added is not None and added >= restored):
        return memory
    longer = max(hold, min(2 * hold, most))
    if longer == hold and memory.hold_seconds is None:
        return memory
    return replace(memory, hold_seconds=longer, hold_changed_at=float(int(now)))


def after_quiet(memory: PolicyMemory, now: float, own: int, quiet_holds: float) -> PolicyMemory:
    """Memory with half the window, down to the spec's `own` (s), when it has not changed for `quiet_holds` windows.

    The longer it became, the longer it stays: a load that goes on in waves is tried again more and more rarely.
    """
    hold, since = memory.hold_seconds, memory.hold_changed_at
    if hold is None or (since is not None and now - since < quiet_holds * hold):
        return memory
    if hold // 2 <= own:
        return replace(memory, hold_seconds=None, hold_changed_at=None)
    return replace(memory, hold_seconds=hold // 2, hold_changed_at=float(int(now)))
