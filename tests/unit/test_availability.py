"""Shares, outages and recovery, and acknowledged writes that the last reads no longer show."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from experiments.checking.acknowledged import acknowledged_writes
from experiments.checking.availability import (
    STEADY,
    is_served,
    longest_outage,
    served_at,
    service,
    steady_after,
    steady_gap,
)
from experiments.checking.history import Operation
from experiments.checking.linearizability import check
from experiments.checking.models import REGISTER, REGISTERS
from tests.unit.test_linearizability import small_histories

MS = 1_000_000
SECOND = 1_000 * MS


def operation(
    invoke: int, complete: int | None, type: str = "ok", f: str = "write", value: Any = None, **more: Any
) -> Operation:
    """Times stand for positions too."""
    process = more.pop("process", invoke)
    result = more.pop("result", value)
    return Operation(process, f, value, type, result, invoke, complete, invoke, complete, **more)  # type: ignore[arg-type]


@st.composite
def workloads(draw: st.DrawFn) -> list[Operation]:
    times = st.integers(0, 40)
    made = []
    for _ in range(draw(st.integers(1, 8))):
        invoke, length = draw(times), draw(st.integers(1, 15))
        made.append(operation(invoke, invoke + length, draw(st.sampled_from(["ok", "ok", "fail", "info"]))))
    return made


@settings(max_examples=400)
@given(workloads())
def test_the_longest_outage_is_the_longest_run_of_moments_in_which_clients_waited_and_none_was_served(
    workload: list[Operation],
) -> None:
    """Against a direct count, in which an outage goes on for as long as no operation is served, from when one waits."""
    end = max(one.complete or 0 for one in workload)
    served = set(served_at(workload))
    longest, start = 0, None
    for moment in range(end + 1):
        if start is not None:
            longest = max(longest, moment - start)
        if moment in served:
            start = None
        if start is None and any(one.invoke <= moment < (one.complete or 0) for one in workload):
            start = moment
    found = longest_outage(workload)
    assert found is not None
    assert found.length == longest


def test_a_pause_in_which_nobody_asks_is_no_outage() -> None:
    found = longest_outage([operation(0, 5), operation(1000, 1030, "info"), operation(1040, 1050)])
    assert found is not None
    assert (found.start, found.length) == (1000, 50)


def test_without_operations_there_is_no_outage() -> None:
    assert service([]).outage is None
    assert service([]).share is None


def test_a_refused_compare_and_set_was_served_and_one_without_an_answer_was_not() -> None:
    cas = {"f": "cas", "value": ["k", [1, 2]]}
    done = [
        operation(0, 1),
        operation(1, 2, "fail", **cas, error="k has another value"),
        operation(2, 3, "fail", **cas),
        operation(3, 4, "fail", **cas, error="no leader"),
        operation(4, 5, "fail", f="read", error="timeout"),
        operation(5, 6, "info", error="timeout"),
        operation(6, None, "info"),
    ]
    assert [is_served(one) for one in done] == [True, True, True, False, False, False, False]
    found = service(done)
    assert (found.operations, found.ok, found.refused, found.failed, found.unknown) == (7, 1, 2, 2, 2)
    assert found.share == 3 / 7


def test_recovery_is_the_first_success_after_which_they_keep_coming() -> None:
    heal, gap = 10 * SECOND, 200 * MS
    steady = [heal + 700 * MS + at * 50 * MS for at in range(60)]
    flicker = [heal + 20 * MS, heal + 60 * MS]
    assert steady_after([*flicker, *steady], heal, steady[-1], gap) == 700 * MS
    assert steady_after(steady, heal, steady[-1], gap) == 700 * MS
    assert steady_after(flicker, heal, heal + 5 * SECOND, gap) is None
    assert steady_after([heal - 1], heal, heal + 5 * SECOND, gap) is None


def test_a_workload_that_ends_soon_after_its_heal_counts_as_steady_if_it_was_to_the_end() -> None:
    successes = [100 * MS, 150 * MS, 200 * MS]
    assert steady_after(successes, 90 * MS, 220 * MS, 60 * MS) == 10 * MS
    assert steady_after(successes, 90 * MS, 900 * MS, 60 * MS) is None


@given(
    st.lists(st.integers(0, 50), max_size=40).map(sorted), st.integers(0, 50), st.integers(1, 8), st.integers(50, 60)
)
def test_service_is_steady_from_the_first_success_that_enough_others_follow_closely(
    tenths: list[int], moment: int, gap: int, end: int
) -> None:
    """Times in tenths of a second, so that the whole of a second matters."""
    tenth = STEADY // 10

    def is_steady(start: int) -> bool:
        last = start
        for success in [one for one in tenths if one >= start]:
            if success - last > gap:
                return False
            last = success
            if last - start >= 10:
                return True
        return end - last <= gap

    expected = next((start - moment for start in tenths if start >= moment and is_steady(start)), None)
    found = steady_after([one * tenth for one in tenths], moment * tenth, end * tenth, gap * tenth)
    assert found == (None if expected is None else expected * tenth)


def test_slow_clients_are_allowed_longer_gaps() -> None:
    assert steady_gap(list(range(0, 10 * SECOND, 5 * MS))) == 100 * MS
    assert steady_gap(list(range(0, 10 * SECOND, 500 * MS))) == 5 * SECOND
    assert steady_gap([]) == 100 * MS


# ---------------------------------------------------------------------------------------------------------------------
# Acknowledged writes


def write(invoke: int, complete: int | None, value: Any, type: str = "ok") -> Operation:
    return operation(invoke, complete, type, "write", ["k", value])


def read(invoke: int, complete: int, value: Any) -> Operation:
    return operation(invoke, complete, "ok", "read", ["k", None], result=["k", value])


def test_a_write_that_the_last_read_goes_back_behind_is_lost() -> None:
    found = acknowledged_writes(REGISTERS, [write(0, 5, 1), write(10, 15, 2), write(16, 19, 3), read(20, 25, 1)])
    assert [(one.key, one.write.value[1], one.read.result[1]) for one in found.lost] == [("k", 2, 1), ("k", 3, 1)]
    assert (found.writes, found.confirmed) == (3, 1)


def test_a_register_that_is_empty_again_has_lost_its_writes_unless_something_emptied_it() -> None:
    assert len(acknowledged_writes(REGISTERS, [write(0, 5, 1), read(20, 25, None)]).lost) == 1
    gone = operation(6, 9, "info", "delete", ["k", None])
    assert acknowledged_writes(REGISTERS, [write(0, 5, 1), gone, read(20, 25, None)]).lost == []


def test_nothing_is_lost_where_writes_overlapped_or_one_of_unknown_outcome_may_have_come_last() -> None:
    assert acknowledged_writes(REGISTERS, [write(0, 12, 1), write(10, 15, 2), read(20, 25, 1)]).lost == []
    assert acknowledged_writes(REGISTERS, [write(0, 5, 1, "info"), write(10, 15, 2), read(20, 25, 1)]).lost == []
    assert acknowledged_writes(REGISTERS, [write(10, 15, 2), write(16, 18, 3, "fail"), read(20, 25, 2)]).lost == []


def test_a_compare_and_set_counts_as_a_write_of_its_new_value() -> None:
    swapped = operation(10, 15, "ok", "cas", ["k", [1, 2]])
    assert len(acknowledged_writes(REGISTERS, [write(0, 5, 1), swapped, read(20, 25, 1)]).lost) == 1
    assert acknowledged_writes(REGISTERS, [write(0, 5, 1), swapped, read(20, 25, 2)]).lost == []


def test_writes_after_the_last_read_are_not_vouched_for_and_unread_registers_are_named() -> None:
    late = acknowledged_writes(REGISTERS, [write(0, 5, 1), read(6, 9, 1), write(10, 15, 2)])
    assert (late.writes, late.confirmed, late.unread, late.lost) == (2, 1, [], [])
    never = acknowledged_writes(REGISTERS, [read(0, 4, None), write(5, 8, 1)])
    assert (never.writes, never.confirmed, never.unread) == (1, 0, ["k"])


def test_a_value_that_nobody_wrote_accuses_no_write() -> None:
    assert acknowledged_writes(REGISTERS, [write(0, 5, 1), read(20, 25, 99)]).lost == []


@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(small_histories(values=3, longest=6))
def test_a_history_with_a_lost_write_is_never_linearizable(history: list[Operation]) -> None:
    lost = acknowledged_writes(REGISTER, history).lost
    event(f"lost: {bool(lost)}")
    if lost:
        assert check(REGISTER, history).valid is False


def test_a_single_register_is_judged_as_one_of_many() -> None:
    done = [
        operation(0, 5, value=1),
        operation(6, 9, value=2),
        operation(10, 12, f="read", value=None, result=1),
    ]
    assert [one.write.value for one in acknowledged_writes(REGISTER, done).lost] == [2]
