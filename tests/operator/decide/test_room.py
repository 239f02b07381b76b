"""Room on nodes: a replica fits on one node or nowhere, and a change is gone through step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.decide.room import Change, Coming, Room, capacity_for, find_coming, find_room, take_room
from adaptive_operator.observe.observation import NodeRoom, PodPhase
from stand_ins.plant import demo_spec, metrics, observe_one


def start(size: int, count: int = 1) -> Change:
    return Change("new", size, 1.0, 0, count)


def leave(size: int, before: int, after: int = 0) -> Change:
    return Change("old", size, 0.5, before, after)


@pytest.mark.parametrize(
    ("free", "changes", "fits"),
    [
        pytest.param((1, 1), [start(2)], False, id="what is free lies one by one"),
        pytest.param((0, 2), [start(2)], True, id="on one node"),
        pytest.param((0, 2), [start(2, 2)], False, id="one fits, the second does not"),
        pytest.param((3, 3), [start(2, 2)], True, id="one on each"),
        pytest.param((3, 3), [start(2, 3)], False, id="6 are free and hold two of 2"),
        pytest.param((0, 0), [start(1, 4)], True, id="replicas of one accelerator are for the budget to allow"),
        pytest.param((0, 0), [leave(4, 2)], True, id="nothing is started"),
        pytest.param((0, 0), [], True, id="nothing changes"),
        pytest.param((), [start(2)], False, id="no node"),
    ],
)
def test_what_a_change_starts_has_to_fit_where_it_is_free(free: tuple[int, ...], changes: list[Change], fits: bool):
    assert Room(free, spare=99).holds(changes) is fits


def homes(*nodes: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return (("old", nodes),)


@pytest.mark.parametrize(
    ("free", "spare", "nodes", "fits"),
    [
        pytest.param((0, 0), 0, (0, 0), True, id="both that drain are on one node"),
        pytest.param((0, 0), 0, (0, 1), False, id="on two nodes they leave 1 and 1"),
        pytest.param((1, 0), 1, (0, 1), False, id="the highest ordinal drains, on the full node"),
        pytest.param((1, 0), 1, (1, 0), True, id="the highest ordinal drains, beside what is free"),
        pytest.param((1, 1), 2, (0, 1), False, id="with accelerators to spare nothing drains first"),
        pytest.param((0, 0), 0, (-1, -1), False, id="replicas on no node leave room on none"),
        pytest.param((0, 0), 0, (), False, id="replicas that do not exist yet neither"),
    ],
)
def test_what_drains_first_makes_room_on_its_node(
    free: tuple[int, ...], spare: int, nodes: tuple[int, ...], fits: bool
):
    assert Room(free, homes(*nodes), spare).holds([start(2), leave(1, 2)]) is fits


def test_of_those_that_start_together_the_largest_is_placed_first():
    assert Room((2, 1), spare=3).holds([start(2), Change("small", 1, 1.0, 0, 1)])


def test_what_starts_in_turn_takes_room_from_what_comes_after_it():
    """With nothing to spare int4 is exchanged first, for a small one that goes where most is free."""
    small = Change("small", 1, 1.0, 0, 1)
    room = Room((0, 0), (("old", (1, 0, 0)),))
    assert room.holds([small, leave(1, 3)])
    assert room.holds([start(2), leave(1, 3)])
    assert not room.holds([small, start(2), leave(1, 3)])


def test_what_the_budget_does_not_hold_is_no_question_of_room():
    assert Room((0, 0), spare=1).holds([start(2)])


def test_two_models_that_start_share_what_is_free():
    room = Room((2, 0), spare=4)
    assert room.after([start(2)]).free == (0, 0)
    assert not room.after([start(2)]).holds([start(2)])
    assert room.after([start(4)]).free == (2, 0), "what does not fit takes nothing"


def test_a_tier_may_have_what_is_free_and_what_the_models_other_tiers_hold():
    room = Room((1, 1, 2), (("full", (2,)), ("int4", (0, 1, -1))))
    assert room.most_more("full", {"full": 2, "int4": 1}) == 3
    assert room.most_more("int4", {"full": 2, "int4": 1}) == 6


def test_capacity_for_larger_replicas_leaves_out_the_rest_of_each_node():
    nodes = [NodeRoom("a", 3, 0), NodeRoom("b", 3, 3), NodeRoom("c", 1, 1)]
    assert [capacity_for(nodes, size) for size in (1, 2, 3, 4)] == [7, 4, 6, 0]


NODES = (NodeRoom("a", 2, 0), NodeRoom("b", 2, 1), NodeRoom("c", 2, 2))


def seen(*nodes: str, phase: PodPhase = PodPhase.READY):
    model = observe_one(demo_spec(), {"int4": len(nodes)}, metrics(0.5))
    pods = tuple(replace(pod, node=node, phase=phase) for pod, node in zip(model.pods, nodes, strict=True))
    return replace(model, pods=pods)


def test_replicas_are_where_their_pods_are_and_a_node_that_is_not_counted_is_nowhere():
    model = seen("b", "a", "elsewhere")
    found = find_room([model], NODES, {model.key: {"int4": 4}})[model.key]
    assert found == Room((0, 1, 1), (("int4", (1, 0, -1)),)), "the fourth is to come, where most is free"


def test_what_leaves_a_node_that_takes_no_new_pods_makes_no_room():
    model, closed = seen("a"), [replace(NODES[0], is_open=False), *NODES[1:]]
    assert find_room([model], closed, {model.key: {"int4": 1}})[model.key].homes == (("int4", (-1,)),)
    assert capacity_for(closed, 2) == 4


def test_pods_that_wait_for_a_node_come_first():
    model = seen("", phase=PodPhase.PENDING)
    assert find_room([model], NODES, {model.key: {"int4": 1}})[model.key].free == (0, 1, 1)


def wants(*nodes: str, asked: int = 0, phase: PodPhase = PodPhase.READY, **wanted: int) -> tuple[int, ...]:
    """What is free for others, on three nodes of 2 with one accelerator left on b and c, where a model wants this."""
    model = seen(*nodes, phase=phase)
    if asked:
        model = replace(model, stateful_sets=(replace(model.stateful_sets[0], replicas=asked),))
    rooms = (NodeRoom("a", 2, 0), NodeRoom("b", 2, 1), NodeRoom("c", 2, 1, is_open=True))
    return find_room([model], rooms, {model.key: wanted})[model.key].free


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        pytest.param(wants("a", int4=2), (0, 0, 1), id="one that is wanted and not asked for yet"),
        pytest.param(wants("a", asked=2, int4=2), (0, 0, 1), id="one that is asked for and not made yet"),
        pytest.param(wants("a", "b", int4=1, full=1), (0, 0, 1), id="what its model leaves and what is free beside it"),
        pytest.param(wants("a", "a", full=1), (0, 1, 1), id="what its model leaves, if that is enough"),
        pytest.param(wants("a", "a", int4=1, full=1), (0, 1, 1), id="one that fits nowhere has no place"),
        pytest.param(wants("b", phase=PodPhase.TERMINATING, int4=1), (0, 1, 1), id="one that restarts has its own"),
        pytest.param(wants("gone", phase=PodPhase.TERMINATING, int4=1), (0, 0, 1), id="not where its node is gone"),
        pytest.param(wants("b", phase=PodPhase.FAILED, int4=1), (0, 1, 1), id="one that fails is there"),
        pytest.param(wants("a", int4=1, left=3), (0, 1, 1), id="of a tier that left the spec nothing comes"),
    ],
)
def test_replicas_that_are_wanted_and_not_there_yet_have_their_place_before_others(
    free: tuple[int, ...], expected: tuple[int, ...]
):
    assert free == expected


def test_however_many_replicas_somebody_asks_for_they_are_counted_and_not_gone_through():
    model = seen("a")
    many = replace(model, stateful_sets=(replace(model.stateful_sets[0], replicas=2**31 - 1),))
    wanted = {"int4": 2**31 - 1}
    assert find_coming(many, wanted, {"a"}) == [Coming(1, "int4", 2**31 - 2)]
    found = find_room([many], NODES, {many.key: wanted})[many.key]
    assert (found.free, found.homes, found.unplaced) == ((0, 0, 0), (("int4", (0,)),), {"int4"})
    assert [node.free for node in take_room(NODES, find_coming(many, wanted, {"a"}))] == [0, 0, 0]


def test_pods_that_leave_are_nobodys_home():
    model = seen("b", phase=PodPhase.TERMINATING)
    assert find_room([model], NODES, {model.key: {"int4": 1}})[model.key].homes == (("int4", ()),)


@pytest.mark.parametrize("nodes", [(), NODES[:1]], ids=["not known", "one node"])
def test_where_nodes_are_not_known_or_there_is_one_room_is_no_question(nodes: tuple[NodeRoom, ...]):
    model = seen("a")
    assert find_room([model], nodes, {model.key: {}}) == {}


@given(
    free=st.lists(st.integers(0, 8), min_size=2, max_size=6).map(tuple),
    sizes=st.lists(st.integers(1, 8), max_size=6),
)
def test_what_is_held_could_be_placed_by_hand(free: tuple[int, ...], sizes: list[int]):
    """Whatever `holds` allows beside what is free fits there: `after` takes exactly as much as is started."""
    changes = [Change(f"t{i}", size, 1.0, 0, 1) for i, size in enumerate(sizes)]
    room = Room(free, spare=sum(sizes))
    if room.holds(changes) and max(sizes, default=0) > 1:
        assert sum(sizes) <= sum(free)
        assert all(left >= 0 for left in room.after(changes).free)
