"""lin-kv on Raft, at whatever node a client asks."""

from __future__ import annotations

from typing import Any

import pytest

from apps.maelstrom.lin_kv import Cas, CasOk, Error, LinKv, Read, ReadOk, Write, WriteOk
from apps.raft import RaftConfig
from apps.raft.invariants import Invariants
from experiments.simulation.group import Group

MS = 1_000_000
SECOND = 1_000 * MS
NAMES = ["n1", "n2", "n3", "n4", "n5"]


@pytest.fixture
def nodes() -> Group:
    group = Group(NAMES, lambda name, random: LinKv(name, NAMES, RaftConfig(), random), seed=3)
    group.run(2 * SECOND)
    return group


def ask(nodes: Group, name: str, command: Any, patience: int = 4 * SECOND) -> Any:
    number = nodes.request(name, command)
    nodes.run(patience)
    return nodes.replies.get(number)


def test_every_node_answers_and_they_all_have_one_register(nodes: Group) -> None:
    for value, name in enumerate(NAMES):
        assert ask(nodes, name, Write("x", value)) == WriteOk()
        assert [ask(nodes, other, Read("x")) for other in NAMES] == [ReadOk(value)] * 5
    assert ask(nodes, "n2", Cas("x", 4, {"any": [None, 1.5]})) == CasOk()
    assert ask(nodes, "n3", Read("x")) == ReadOk({"any": [None, 1.5]})


def test_keys_and_values_are_any_json_and_null_is_a_value(nodes: Group) -> None:
    assert ask(nodes, "n1", Write({"a": 1, "b": [2]}, None)) == WriteOk()
    assert ask(nodes, "n2", Read({"b": [2], "a": 1})) == ReadOk(None)
    assert ask(nodes, "n2", Write("1", "text")) == WriteOk()
    assert ask(nodes, "n2", Write(1, 10**30)) == WriteOk()
    assert ask(nodes, "n3", Read("1")) == ReadOk("text")
    assert ask(nodes, "n3", Read(1)) == ReadOk(10**30)


def test_refusals_have_maelstroms_codes(nodes: Group) -> None:
    assert ask(nodes, "n1", Read("nothing")).code == 20
    assert ask(nodes, "n2", Cas("nothing", 1, 2)).code == 20
    ask(nodes, "n3", Write("x", 1))
    assert ask(nodes, "n4", Cas("x", 2, 3)).code == 22


def test_a_minority_says_that_it_may_have_happened_or_that_it_did_not(nodes: Group) -> None:
    nodes.partition(["n1", "n2"], ["n3", "n4", "n5"])
    write, read = nodes.request("n1", Write("x", 1)), nodes.request("n1", Read("x"))
    nodes.run(5 * SECOND)
    assert isinstance(nodes.replies[write], Error)
    assert nodes.replies[write].code in (0, 11)  # asked of a leader that was cut off, or of nobody
    assert nodes.replies[read].code == 11
    assert ask(nodes, "n4", Write("x", 2)) == WriteOk()
    nodes.heal()
    nodes.run(2 * SECOND)
    assert ask(nodes, "n1", Read("x")) == ReadOk(2)


def test_what_is_asked_while_the_leader_changes_takes_effect_once(nodes: Group) -> None:
    watched, found = Invariants(), list[Any]()
    nodes.on_step = lambda name: found.extend(watched.observe(nodes.process(name).raft))
    leader = max(NAMES, key=lambda name: nodes.process(name)._raft.role == "leader")
    asker = next(name for name in NAMES if name != leader)
    assert ask(nodes, asker, Write("x", 0)) == WriteOk()
    nodes.partition([leader], [name for name in NAMES if name != leader])
    numbers = [nodes.request(asker, Cas("x", value, value + 1)) for value in range(3)]
    nodes.run(2500 * MS)
    nodes.heal()
    nodes.run(3 * SECOND)
    answered = [nodes.replies[number] for number in numbers]
    assert CasOk() in answered
    value = ask(nodes, asker, Read("x")).value
    assert value >= sum(answer == CasOk() for answer in answered) > 0
    assert found == []
    assert watched.committed
