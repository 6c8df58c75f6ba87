from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from apps.kv import Cas, Command, Delete, Done, Operation, Read, Refused, Store, Write

keys = st.sampled_from(["x", "y"])
values = st.none() | st.integers(0, 3)
operations = st.one_of(
    st.builds(Read, keys), st.builds(Write, keys, values), st.builds(Cas, keys, values, values), st.builds(Delete, keys)
)


def expected(model: dict[str, Any], operation: Operation) -> Any:
    """What a plain dictionary does with ``operation``."""
    match operation:
        case Read(key):
            return Done(model.get(key))
        case Write(key, value):
            model[key] = value
        case Cas(key, old, new):
            if model.get(key) != old:
                return Refused
            model[key] = new
        case Delete(key):
            model.pop(key, None)
    return Done()


@given(st.lists(operations))
def test_the_store_does_what_a_dictionary_does(script: list[Operation]) -> None:
    store, model = Store(), dict[str, Any]()
    for sequence, operation in enumerate(script):
        result = store.apply(Command("s", sequence, 0, operation))
        wanted = expected(model, operation)
        assert result == wanted or (wanted is Refused and isinstance(result, Refused))
    assert [store.read(key) for key in "xy"] == [model.get(key) for key in "xy"]


@given(st.lists(operations, min_size=1), st.data())
def test_a_command_sent_again_takes_effect_once_and_is_answered_as_before(
    script: list[Operation], data: st.DataObject
) -> None:
    once, again = Store(), Store()
    answers = {}
    for sequence, operation in enumerate(script):
        command = Command("s", sequence, 0, operation)
        answers[sequence] = once.apply(command)
        assert again.apply(command) == answers[sequence]
        repeated = data.draw(st.integers(0, sequence))
        assert again.apply(Command("s", repeated, 0, script[repeated])) == answers[repeated]
    assert [once.read(key) for key in "xy"] == [again.read(key) for key in "xy"]


def test_sessions_do_not_know_each_other() -> None:
    store = Store()
    store.apply(Command("a", 1, 0, Write("x", 1)))
    store.apply(Command("b", 1, 0, Write("x", 2)))
    assert store.read("x") == 2


def test_a_copy_of_what_was_acknowledged_long_ago_has_no_effect() -> None:
    store = Store()
    store.apply(Command("s", 1, 1, Write("x", "old")))
    store.apply(Command("s", 2, 2, Write("x", "new")))
    assert isinstance(store.apply(Command("s", 1, 1, Write("x", "old"))), Refused)
    assert store.read("x") == "new"


def test_only_what_the_client_has_not_acknowledged_is_remembered() -> None:
    store = Store()
    for sequence in range(1000):
        store.apply(Command("s", sequence, max(0, sequence - 10), Write("x", sequence)))
    assert len(store._sessions["s"].results) == 11


def test_a_client_that_leaps_costs_no_more_than_what_is_remembered() -> None:
    store = Store()
    store.apply(Command("s", 1, 0, Write("x", 1)))
    store.apply(Command("s", 2**60 + 1, 2**60, Write("x", 2)))
    assert list(store._sessions["s"].results) == [2**60 + 1]


@given(st.builds(Command, st.text(), st.integers(0, 2**60), st.integers(0, 2**60), operations))
def test_commands_survive_the_wire(command: Command) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(command), type=Command) == command
