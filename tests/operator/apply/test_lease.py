"""The Lease: one acts, the epoch rises at every acquisition, and nobody acts on time he does not have."""

from __future__ import annotations

import pytest

from adaptive_operator.apply.lease import LeaseHolder, LeaseSettings, NotLeaderError
from adaptive_operator.kube import KubeError, UnavailableError
from stand_ins.fake_kube import FakeKube

KEY = ("Lease", "system", "lock")


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def build_holder(kube: FakeKube, identity: str, clock: Clock, wall: float = 1.7e9) -> LeaseHolder:
    settings = LeaseSettings("system", "lock", identity, duration_seconds=15.0)
    return LeaseHolder(kube, settings, monotonic=clock, wall_clock=lambda: wall)  # type: ignore[arg-type]


def fail_writes(kube: FakeKube) -> None:
    kube.fail = lambda verb, _kind, _name: UnavailableError(verb, "leases", 503, "away") if verb == "update" else None


async def test_a_free_lease_is_acquired_and_the_epoch_is_its_transitions() -> None:
    kube, clock = FakeKube(), Clock()
    holder = build_holder(kube, "a", clock)
    await holder.step()
    assert (holder.epoch, holder.is_leading, holder.acting_since) == (1, True, 1.7e9)
    assert kube.objects[KEY]["spec"]["leaseTransitions"] == 1


async def test_the_epoch_rises_even_when_the_same_holder_comes_back() -> None:
    kube, clock = FakeKube(), Clock()
    await build_holder(kube, "a", clock).step()
    again = build_holder(kube, "a", clock)
    await again.step()
    assert again.epoch == 2


async def test_the_former_life_of_the_same_identity_stops_at_its_next_renewal() -> None:
    kube, clock = FakeKube(), Clock()
    former, again = build_holder(kube, "a", clock), build_holder(kube, "a", clock)
    await former.step()
    await again.step()
    await former.step()
    assert not former.is_leading
    assert again.is_leading


async def test_a_held_lease_is_left_alone_until_it_was_not_seen_to_change_for_its_duration() -> None:
    kube, clock = FakeKube(), Clock()
    first, second = build_holder(kube, "a", clock), build_holder(kube, "b", clock)
    await first.step()
    for _ in range(10):
        clock.now += 5
        await first.step()
        await second.step()
        assert not second.is_leading
    clock.now += 15.0
    await second.step()
    assert not second.is_leading
    clock.now += 0.1
    await second.step()
    assert second.epoch == 2
    assert not first.is_leading


@pytest.mark.parametrize("skew", [-86_400.0, 86_400.0], ids=["a day behind", "a day ahead"])
async def test_clocks_that_disagree_change_nothing(skew: float) -> None:
    kube, clock = FakeKube(), Clock()
    first, second = build_holder(kube, "a", clock), build_holder(kube, "b", clock, wall=1.7e9 + skew)
    await first.step()
    await second.step()
    clock.now += 5
    await first.step()
    await second.step()
    assert first.is_leading
    assert not second.is_leading


async def test_a_holder_that_cannot_renew_stops_before_others_may_start() -> None:
    kube, clock = FakeKube(), Clock()
    holder = build_holder(kube, "a", clock)
    await holder.step()
    fail_writes(kube)
    clock.now += 9.9
    with pytest.raises(KubeError):
        await holder.step()
    assert holder.is_leading
    clock.now += 0.2
    assert not holder.is_leading
    with pytest.raises(NotLeaderError):
        holder.check(1)
    with pytest.raises(KubeError):
        await holder.step()
    kube.fail = lambda *_: None
    await holder.step()
    assert holder.epoch == 2


async def test_a_stopped_process_that_wakes_up_may_not_write() -> None:
    kube, clock = FakeKube(), Clock()
    holder = build_holder(kube, "a", clock)
    await holder.step()
    clock.now += 60  # SIGSTOP, SIGCONT
    with pytest.raises(NotLeaderError):
        holder.check(1)


async def test_a_write_may_take_until_others_may_start() -> None:
    kube, clock = FakeKube(), Clock()
    holder = build_holder(kube, "a", clock)
    await holder.step()
    clock.now += 4
    assert holder.check(1) == pytest.approx(11.0)


async def test_another_epoch_than_the_decisions_is_refused() -> None:
    kube, clock = FakeKube(), Clock()
    holder = build_holder(kube, "a", clock)
    await holder.step()
    with pytest.raises(NotLeaderError):
        holder.check(0)


async def test_a_reply_lost_after_its_commit_does_not_cost_the_lease() -> None:
    kube, clock = FakeKube(), Clock()
    holder = build_holder(kube, "a", clock)
    await holder.step()
    kube.touch(*KEY)  # the renewal went through, its answer did not come
    clock.now += 2
    await holder.step()
    assert holder.epoch == 1


async def test_a_released_lease_is_taken_over_at_once_under_a_new_epoch() -> None:
    kube, clock = FakeKube(), Clock()
    first, second = build_holder(kube, "a", clock), build_holder(kube, "b", clock)
    await first.step()
    await first.release()
    assert not first.is_leading
    await second.step()
    assert second.epoch == 2


async def test_releasing_what_is_not_held_writes_nothing() -> None:
    kube = FakeKube()
    await build_holder(kube, "a", Clock()).release()
    assert kube.calls == []


async def test_of_two_that_acquire_at_once_one_wins() -> None:
    kube, clock = FakeKube(), Clock()
    loser, winner = build_holder(kube, "a", clock), build_holder(kube, "b", clock)

    real_get = kube.get

    async def get_slowly(*key: str) -> object:
        lease = await real_get(*key)
        kube.get = real_get  # type: ignore[method-assign]
        await winner.step()  # between the loser's look and its write
        return lease

    await winner.step()
    await winner.release()
    kube.get = get_slowly  # type: ignore[method-assign,assignment]
    await loser.step()
    assert winner.is_leading
    assert not loser.is_leading


async def test_a_deleted_lease_is_lost_and_its_epoch_can_be_raised_over_the_childrens() -> None:
    kube, clock = FakeKube(), Clock()
    holder = build_holder(kube, "a", clock)
    for _ in range(3):
        await holder.step()
    del kube.objects[KEY]
    await holder.step()
    assert not holder.is_leading
    await holder.step()
    assert holder.epoch == 1
    await holder.raise_epoch(7)
    assert holder.epoch == 8
    assert kube.objects[KEY]["spec"]["leaseTransitions"] == 8


async def test_only_the_present_holder_can_raise_the_epoch() -> None:
    kube, clock = FakeKube(), Clock()
    holder = build_holder(kube, "a", clock)
    await holder.step()
    kube.touch(*KEY)
    with pytest.raises(NotLeaderError):
        await holder.raise_epoch(7)


async def test_winning_and_losing_is_told() -> None:
    kube, clock = FakeKube(), Clock()
    holder, told = build_holder(kube, "a", clock), []
    holder.call_on_change(told.append)
    await holder.step()
    del kube.objects[KEY]
    await holder.step()
    assert told == [True, False]
