"""Stale reads are told from histories alone, and nothing that can be explained otherwise is counted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.quorum import QuorumConfig
from experiments.checking.client_checks import stale_checks
from experiments.checking.history import Operation
from experiments.checking.models import REGISTERS
from experiments.checking.staleness import measure, staleness_check
from experiments.scenario import Expect, Quorum

S = 1_000_000_000

PARTIAL = QuorumConfig(quorum="partial", r=1, w=1)


def operation(f: str, value: Any, begin: int, end: int | None, key: str = "k0") -> Operation:
    """One that takes from ``begin`` to ``end``, in seconds that are also its positions in the history."""
    kind = "info" if end is None else "ok"
    asked = [key, None if f == "read" else value]
    done = None if end is None else end * S
    return Operation(begin, f, asked, kind, [key, value], begin * S, done, begin, end)  # type: ignore[arg-type]


def test_a_read_of_what_had_been_overwritten_is_stale_since_the_write_it_missed_was_acknowledged() -> None:
    history = [operation("write", 1, 0, 1), operation("write", 2, 2, 3), operation("read", 1, 7, 8)]
    found, acknowledged = measure(REGISTERS, history)
    assert (found.reads, found.stale, found.oldest) == (1, 1, 4 * S)
    assert [one["value"][1] for one in found.example] == [2, 1]
    assert acknowledged.valid is False  # and nobody has seen 2 since


def test_a_write_that_nobody_heard_of_may_take_effect_late() -> None:
    history = [operation("write", 1, 0, None), operation("write", 2, 2, 3), operation("read", 1, 7, 8)]
    assert measure(REGISTERS, history)[0].stale == 0


def test_a_write_under_way_when_the_read_begins_may_be_missed() -> None:
    history = [operation("write", 1, 0, 1), operation("write", 2, 2, 9), operation("read", 1, 7, 8)]
    assert measure(REGISTERS, history)[0].stale == 0


def test_a_read_of_nothing_is_stale_once_something_was_written_and_a_deleted_key_is_not() -> None:
    history = [operation("write", 1, 0, 1), operation("read", None, 2, 3)]
    assert measure(REGISTERS, history)[0].stale == 1
    history.insert(1, operation("delete", None, 4, 5))
    history.append(operation("read", None, 6, 7))
    assert measure(REGISTERS, history)[0].stale == 1


def test_siblings_are_each_as_good_as_the_other() -> None:
    history = [operation("write", 1, 0, 3), operation("write", 2, 1, 4), operation("read", [1, 2], 5, 6)]
    found, acknowledged = measure(REGISTERS, history)
    assert (found.stale, found.siblings) == (0, 1)
    assert acknowledged.valid is True


def test_a_read_that_tells_of_a_delete_beside_a_value_missed_neither() -> None:
    written = [operation("write", 1, 0, 1), operation("delete", None, 2, 3)]
    found, acknowledged = measure(REGISTERS, [*written, operation("read", [1, None], 4, 5)])
    assert (found.stale, found.siblings, acknowledged.valid) == (0, 1, True)
    assert measure(REGISTERS, [*written, operation("read", 1, 4, 5)])[0].stale == 1


def test_a_write_is_lost_only_if_none_of_the_last_reads_shows_it() -> None:
    history = [operation("write", 1, 0, 1), operation("write", 2, 2, 3)]
    stale, fresh = operation("read", 1, 7, 8), operation("read", 2, 4, 5)
    assert measure(REGISTERS, [*history, stale])[1].valid is False
    assert measure(REGISTERS, [*history, fresh, stale])[1].valid is True
    assert measure(REGISTERS, history)[1].valid == "unknown"


@pytest.mark.parametrize(
    ("config", "fault", "found"),
    [
        (PARTIAL, "kill", ("acknowledged_writes", False)),
        (PARTIAL, "drift", ("overtaken_writes", True)),
        (QuorumConfig(), "drift", ("acknowledged_writes", False)),
        (QuorumConfig(quorum="sloppy", versions="siblings"), "drift", ("acknowledged_writes", False)),
    ],
)
def test_a_lost_write_is_no_verdict_where_the_last_writer_is_told_by_clocks_that_were_set_apart(
    config: QuorumConfig, fault: str, found: tuple[str, object]
) -> None:
    history = [operation("write", 1, 0, 1), operation("write", 2, 2, 3), operation("read", 1, 7, 8)]
    _, checks = stale_checks("history", history, 1.0, Expect(), Quorum(5, config=config), [fault])
    assert found in [(check.name, check.valid) for check in checks]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), min_size=1, max_size=30))
def test_one_copy_read_and_written_in_turn_is_never_stale_and_loses_nothing(steps: list[tuple[bool, int]]) -> None:
    history, now, value = [], 0, None
    for number, (writes, lasts) in enumerate([*steps, (False, 1)]):
        value = number if writes else value
        history.append(operation("write" if writes else "read", value, now, now + lasts))
        now += lasts + 1
    found, acknowledged = measure(REGISTERS, history)
    assert found.stale == 0
    assert acknowledged.valid is True


def test_what_was_promised_or_expected_decides() -> None:
    found = measure(REGISTERS, [operation("write", 1, 0, 1), operation("write", 2, 2, 3), operation("read", 1, 7, 8)])[
        0
    ]
    assert staleness_check(found, Expect(), promised=False).valid is True
    assert staleness_check(found, Expect(), promised=True).valid is False
    assert staleness_check(found, Expect(stale_reads=1), promised=False).valid is True
    assert staleness_check(found, Expect(staleness=3 * S), promised=False).valid is False
