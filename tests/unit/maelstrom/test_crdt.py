"""Replicas that take writes on every side of a partition, and agree once it has healed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.maelstrom import crdt
from apps.maelstrom.invariants import Invariants, convergence
from apps.process import NodeId, Process, Received, Requested, Started, step
from experiments.simulation.group import Conditions, Group

MS = 1_000_000
SECOND = 1_000 * MS
NAMES = ["n1", "n2", "n3", "n4", "n5"]
UNRELIABLE = Conditions(delay=(1 * MS, 30 * MS), loss=0.2, duplicate=0.1)

Make = Callable[[NodeId, Sequence[NodeId]], Process]


def group(make: Make, seed: int = 0, conditions: Conditions = UNRELIABLE) -> Group:
    return Group(NAMES, lambda name, random: make(name, NAMES), seed=seed, conditions=conditions)


def read(nodes: Group, name: NodeId) -> Any:
    number = nodes.request(name, crdt.Read())
    nodes.run(1 * MS)
    return nodes.replies[number]


#: What happens: a write at a node, or a partition along a line through the nodes, or a heal; then some time passes.
steps = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["write", "cut", "heal"]), st.integers(0, 300)))


def played(make: Make, seed: int, happened: list[tuple[int, str, int]], write: Callable[[int], Any]) -> Group:
    """Whoever takes a step is looked at for what it violates, and all at the end: nothing may be found."""
    nodes = group(make, seed)
    watched, found = Invariants(), list[Any]()
    nodes.on_step = lambda name: found.extend(watched.observe(nodes.process(name)))
    for number, (at, what, pause) in enumerate(happened):
        if what == "write":
            nodes.request(NAMES[at], write(number))
        elif what == "cut":
            nodes.partition(NAMES[:at], NAMES[at:])
        else:
            nodes.heal()
        nodes.run(pause * MS)
    nodes.heal()
    nodes.run(20 * SECOND)
    assert found + convergence([nodes.process(name) for name in NAMES]) == []
    return nodes


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), steps)
def test_after_the_heal_every_node_has_every_element_ever_added(
    seed: int, happened: list[tuple[int, str, int]]
) -> None:
    added = [number for number, (_, what, _) in enumerate(happened) if what == "write"]
    nodes = played(crdt.GSetNode, seed, happened, crdt.AddElement)
    for name in NAMES:
        assert sorted(read(nodes, name).value) == added


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), steps)
def test_after_the_heal_every_node_counts_the_same_sum_up_and_down(
    seed: int, happened: list[tuple[int, str, int]]
) -> None:
    deltas = [number * (-1) ** number for number, (_, what, _) in enumerate(happened) if what == "write"]
    nodes = played(crdt.CounterNode, seed, happened, lambda number: crdt.AddDelta(number * (-1) ** number))
    assert {read(nodes, name).value for name in NAMES} == {sum(deltas)}


class KeepsTheLatest(crdt.CounterNode):
    """Takes what comes for the whole truth."""

    def _learn(self, source: NodeId, state: Any) -> None:
        self._counter._sums.clear()
        super()._learn(source, state)


class CountsTwice(crdt.CounterNode):
    """Adds what a neighbour tells it to what it had, as if sums were changes."""

    def _learn(self, source: NodeId, state: Any) -> None:
        had = self._counter.dump()
        sums = {node: (up + had.get(node, (0, 0))[0], down) for node, (up, down) in state.items()}
        super()._learn(source, sums if source != self.node else state)


class TellsNobody(crdt.CounterNode):
    def _tell(self) -> None: ...


@pytest.mark.parametrize(
    ("make", "broken"), [(KeepsTheLatest, "StateGrows"), (CountsTwice, "SumsAreOwn"), (TellsNobody, "Convergence")]
)
def test_a_mutant_breaks_the_invariant_that_is_about_its_rule(make: Make, broken: str) -> None:
    watched, found = Invariants(), list[Any]()
    one, other = (make(name, NAMES[:2]) for name in NAMES[:2])
    assert isinstance(one, crdt.Replica)
    assert isinstance(other, crdt.Replica)
    for replica in (one, other):
        step(replica, 0, [Started(), Requested("c1", 1, crdt.AddDelta(5))])
        found += watched.observe(replica)
    for sums in ({"n2": (5, 0)}, {"n2": (5, 0)}, {}):
        step(one, 0, [Received("n2", crdt.Delta(1, sums))])
        found += watched.observe(one)
    found += convergence([one, other])
    assert broken in {violation.property for violation in found}


def test_a_broadcast_crosses_a_line_of_nodes_that_only_know_their_neighbours() -> None:
    nodes = group(crdt.BroadcastNode)
    line = {name: [NAMES[at - 1] if at else NAMES[1], *NAMES[at + 1 : at + 2]] for at, name in enumerate(NAMES)}
    for name in NAMES:
        nodes.request(name, crdt.Topology(line))
    nodes.request("n1", crdt.Broadcast(7))
    nodes.run(5 * SECOND)
    assert [read(nodes, name).messages for name in NAMES] == [[7]] * 5


def test_when_all_is_known_everywhere_nobody_says_anything() -> None:
    nodes = group(crdt.BroadcastNode, conditions=Conditions())
    for number in range(50):
        nodes.request(NAMES[number % 5], crdt.Broadcast(number))
    nodes.run(2 * SECOND)
    before = dict(nodes.sent)
    nodes.run(10 * SECOND)
    assert nodes.sent == before


def test_what_was_told_by_a_neighbour_is_not_told_to_it_again() -> None:
    nodes = Group(["n1", "n2"], lambda name, random: crdt.BroadcastNode(name, ["n1", "n2"]))
    nodes.request("n1", crdt.Broadcast("x"))
    nodes.run(3 * SECOND)
    assert nodes.sent == {"n1": 1, "n2": 1}  # the change, and its acknowledgement


def test_a_neighbour_that_is_too_far_behind_gets_the_whole_state() -> None:
    names = ["n1", "n2"]
    nodes = Group(names, lambda name, random: crdt.GSetNode(name, names))
    nodes.run(1 * MS)
    nodes.partition(["n1"], ["n2"])
    for number in range(crdt.REMEMBERED + 5):
        nodes.request("n1", crdt.AddElement(number))
    nodes.run(1 * SECOND)
    nodes.heal()
    nodes.run(2 * SECOND)
    assert len(read(nodes, "n2").value) == crdt.REMEMBERED + 5
    assert sorted(read(nodes, "n2").value) == list(range(crdt.REMEMBERED + 5))


def test_elements_that_are_equal_json_are_one_and_others_are_not() -> None:
    state = crdt.GSet()
    assert state.merge([1, {"a": 1, "b": 2}, {"b": 2, "a": 1}, "1", [1], [1]]) == [1, {"a": 1, "b": 2}, "1", [1]]
    assert state.merge([[1]]) is None
