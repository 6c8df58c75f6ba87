"""The linearizability checker, against brute force, against known answers, and against time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from experiments.checking.history import Event, History, Operation, operations
from experiments.checking.linearizability import Search, check, search
from experiments.checking.models import NEVER, REGISTER, REGISTERS, Model, ModelError, model_for

# ---------------------------------------------------------------------------------------------------------------------
# Histories to judge


def history_of(*events: tuple[int, str, str, Any]) -> list[Operation]:
    """Operations of events given as (process, type, f, value)."""
    made = [
        Event(process, type_, f, value, time=at, index=at)  # type: ignore[arg-type]
        for at, (process, type_, f, value) in enumerate(events)
    ]
    return operations(History("made up", made, list(range(1, len(made) + 1))))


@st.composite
def small_histories(draw: st.DrawFn, values: int, longest: int) -> list[Operation]:
    """Up to ``longest`` operations of three threads on one register; their answers are anything at all."""
    events: list[tuple[int, str, str, Any]] = []
    running: dict[int, tuple[int, str, Any]] = {}
    process = {thread: thread for thread in range(3)}
    unique = draw(st.booleans())
    value = st.integers(0, values - 1)
    for number in range(draw(st.integers(1, 2 * longest))):
        thread = draw(st.integers(0, 2))
        if thread not in running:
            if number >= longest:
                continue
            f = draw(st.sampled_from(["read", "read", "write", "write", "cas", "delete"]))
            new = 10 + number if unique else draw(value)
            old = draw(st.sampled_from([10 + at for at in range(longest)])) if unique else draw(value)
            asked = {"write": new, "cas": [old, new]}.get(f)
            running[thread] = (process[thread], f, asked)
            events.append((process[thread], "invoke", f, asked))
            continue
        own, f, asked = running.pop(thread)
        kind = draw(st.sampled_from(["ok", "ok", "ok", "ok", "info", "fail"]))
        if f == "read" and kind == "ok":
            written = [event[3] for event in events if event[2] == "write" and event[1] == "invoke"]
            swapped = [event[3][1] for event in events if event[2] == "cas"]
            asked = draw(st.sampled_from([None, *written, *swapped]))
        events.append((own, kind, f, asked))
        if kind == "info":
            process[thread] += 3
    return history_of(*events)


def has_an_order(history: Sequence[Operation]) -> bool:
    """Linearizability straight from its definition: try every order of every choice of what took effect."""
    must = [one for one in history if one.type == "ok"]
    may = [one for one in history if one.type == "info" and one.f != "read"]
    for chosen in range(1 << len(may)):
        happened = must + [one for at, one in enumerate(may) if chosen >> at & 1]
        if any(_fits(order) for order in permutations(happened)):
            return True
    return False


def _fits(order: Sequence[Operation]) -> bool:
    value = None
    earliest = -1
    for one in order:
        earliest = max(earliest, one.called)
        if one.type == "ok" and one.returned is not None and one.returned < earliest:
            return False
        if one.f == "read":
            if one.result != value:
                return False
        elif one.f == "cas":
            if one.value[0] != value:
                return False
            value = one.value[1]
        else:
            value = one.value if one.f == "write" else None
    return True


def simulate(
    seed: int, *, count: int, clients: int, keys: int = 1, unknown: float = 0.0, values: int = 0
) -> list[Operation]:
    """What ``clients`` would see of a correct map of registers: every operation takes effect between its two ends."""
    random = Random(seed)
    moments: list[tuple[float, int, str, int]] = []
    made: list[dict[str, Any]] = []
    for thread in range(clients):
        now = random.random()
        for _ in range(count // clients):
            took = random.expovariate(1.0)
            f = random.choices(("read", "write", "cas"), (0.5, 0.4, 0.1))[0]
            one = {"thread": thread, "f": f, "key": f"k{random.randrange(keys)}", "type": "ok"}
            if random.random() < unknown:
                one["type"] = "info"
            number = len(made)
            made.append(one)
            moments.append((now, number, "invoke", thread))
            if one["type"] == "ok" or random.random() < 0.5:
                moments.append((now + took * random.random(), number, "effect", thread))
            moments.append((now + took, number, "return", thread))
            now += took + random.expovariate(10.0)
    moments.sort()
    state: dict[str, Any] = {}
    process = {thread: thread for thread in range(clients)}
    events: list[tuple[int, str, str, Any]] = []
    for _, number, what, thread in moments:
        one = made[number]
        key, f = one["key"], one["f"]
        if what == "invoke":
            new = random.randrange(values) if values else number
            old = state.get(key) if random.random() < 0.8 else -1
            one["value"] = {"read": None, "write": new, "cas": [old, new]}[f]
            events.append((process[thread], "invoke", f, [key, one["value"]]))
        elif what == "effect":
            if f == "read":
                one["value"] = state.get(key) if one["type"] == "ok" else None
            elif f == "write":
                state[key] = one["value"]
            elif state.get(key) == one["value"][0]:
                state[key] = one["value"][1]
            elif one["type"] == "ok":
                one["type"] = "fail"
        else:
            events.append((process[thread], one["type"], f, [key, one["value"]]))
            if one["type"] == "info":
                process[thread] += clients
    return history_of(*events)


def assert_is_an_order(model: Model, history: Sequence[Operation], found: Search) -> None:
    """``found.order`` is what was asked for: legal for the model, complete, and true to who came before whom."""
    problem = model.sharpen(model.problem(history))
    assert sorted(found.order) == sorted(set(found.order))
    assert {at for at, call in enumerate(problem.calls) if call.operation.type == "ok"} <= set(found.order)
    state, latest = model.initial, -1
    for at in found.order:
        call = problem.calls[at].operation
        latest = max(latest, call.called)
        if call.type == "ok":
            assert call.returned is not None
            assert call.returned > latest
        fits, state = model.step(state, model.action(call))
        assert fits


# ---------------------------------------------------------------------------------------------------------------------
# Properties


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(small_histories(values=3, longest=6))
def test_agrees_with_brute_force(history: list[Operation]) -> None:
    expected = has_an_order(history)
    event(f"linearizable: {expected}")
    assert check(REGISTER, history).valid is expected


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(small_histories(values=2, longest=7))
def test_what_makes_the_search_fast_never_changes_its_answer(history: list[Operation]) -> None:
    plain = msgspec.structs.replace(REGISTER, sharpen=lambda problem: problem, looks=lambda action: False)
    assert check(REGISTER, history).valid is check(plain, history).valid


def test_brute_force_sees_both_verdicts_often() -> None:
    """Guards the two properties above: histories that all get the same verdict would prove nothing."""
    verdicts: list[bool] = []

    @settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(small_histories(values=3, longest=6))
    def collect(history: list[Operation]) -> None:
        if len(history) > 2:
            verdicts.append(check(REGISTER, history).valid is True)

    collect()
    assert 0.15 < sum(verdicts) / len(verdicts) < 0.85


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(2, 10), st.sampled_from([0.0, 0.05, 0.3]), st.sampled_from([0, 3]), st.booleans()
)
def test_a_correct_register_passes_and_the_order_found_is_one(
    seed: int, clients: int, unknown: float, values: int, sharp: bool
) -> None:
    history = simulate(seed, count=60, clients=clients, unknown=unknown, values=values)
    model = REGISTERS if sharp else msgspec.structs.replace(REGISTERS, sharpen=lambda problem: problem)
    found = search(model, model.sharpen(model.problem(history)))
    assert found.valid is True
    assert_is_an_order(model, history, found)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(small_histories(values=3, longest=6))
def test_a_counterexample_fails_by_itself_and_nothing_in_it_can_go(history: list[Operation]) -> None:
    for found in check(REGISTER, history).counterexamples:
        core = found.operations
        assert all(one in history for one in core)
        assert not has_an_order(core)
        reads = [one for one in core if one.f == "read"]
        for read in reads:
            assert has_an_order([one for one in core if one is not read])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(small_histories(values=3, longest=6))
def test_the_paths_of_a_counterexample_are_orders_that_stop_short_of_the_operation_they_are_stuck_at(
    history: list[Operation],
) -> None:
    for found in check(REGISTER, history).counterexamples:
        assert found.final_paths
        for path in found.final_paths:
            taken = [found.operations[at] for at in path.order]
            assert _fits(taken)
            assert found.stuck not in path.order


# ---------------------------------------------------------------------------------------------------------------------
# Known answers


def test_herlihy_and_wings_queue_examples() -> None:
    """Figure 1 of "Linearizability: A Correctness Condition for Concurrent Objects" (1990): H1 to H4, a FIFO queue."""

    def step(state: tuple[Any, ...], action: tuple[str, Any]) -> tuple[bool, tuple[Any, ...]]:
        f, value = action
        if f == "enq":
            return True, (*state, value)
        return (True, state[1:]) if state and state[0] == value else (False, state)

    queue = Model("queue", (), lambda one: (one.f, one.value if one.f == "enq" else one.result), step)
    h1 = history_of(
        (1, "invoke", "enq", "x"),
        (2, "invoke", "enq", "y"),
        (2, "ok", "enq", "y"),
        (1, "ok", "enq", "x"),
        (2, "invoke", "deq", None),
        (2, "ok", "deq", "x"),
        (1, "invoke", "deq", None),
        (1, "ok", "deq", "y"),
        (1, "invoke", "enq", "z"),
    )
    h2 = history_of(
        (1, "invoke", "enq", "x"),
        (1, "ok", "enq", "x"),
        (2, "invoke", "enq", "y"),
        (1, "invoke", "deq", None),
        (2, "ok", "enq", "y"),
        (1, "ok", "deq", "y"),
    )
    h3 = history_of((1, "invoke", "enq", "x"), (2, "invoke", "deq", None), (2, "ok", "deq", "x"))
    h4 = history_of(
        (1, "invoke", "enq", "x"),
        (2, "invoke", "enq", "y"),
        (1, "ok", "enq", "x"),
        (2, "ok", "enq", "y"),
        (1, "invoke", "deq", None),
        (3, "invoke", "deq", None),
        (1, "ok", "deq", "y"),
        (3, "ok", "deq", "y"),
    )
    assert [check(queue, history).valid for history in (h1, h2, h3, h4)] == [True, False, True, False]


def test_states_need_not_be_hashable() -> None:
    def step(state: list[Any], action: tuple[str, Any]) -> tuple[bool, list[Any]]:
        f, value = action
        return (True, [*state, value]) if f == "append" else (list(value) == state, state)

    def action(one: Operation) -> tuple[str, Any] | None:
        if one.f == "append":
            return one.f, one.value
        return (one.f, tuple(one.result)) if one.type == "ok" else None

    log = Model("log", [], action, step)
    good = history_of(
        (0, "invoke", "append", 1),
        (1, "invoke", "append", 2),
        (0, "ok", "append", 1),
        (1, "ok", "append", 2),
        (0, "invoke", "read", None),
        (0, "ok", "read", [2, 1]),
    )
    assert check(log, good).valid is True
    assert check(log, [*good[:-1], msgspec.structs.replace(good[-1], result=[2])]).valid is False


def test_a_read_of_what_a_completed_write_replaced_is_a_violation_of_three_operations() -> None:
    history = [
        *simulate(3, count=200, clients=5),
        *(
            msgspec.structs.replace(one, called=one.called + 1000, returned=(one.returned or 0) + 1000)
            for one in history_of(
                (90, "invoke", "write", ["k0", "old"]),
                (90, "ok", "write", ["k0", "old"]),
                (91, "invoke", "write", ["k0", "new"]),
                (91, "ok", "write", ["k0", "new"]),
                (92, "invoke", "read", ["k0", None]),
                (92, "ok", "read", ["k0", "old"]),
            )
        ),
    ]
    verdict = check(REGISTERS, history)
    assert verdict.valid is False
    [found] = verdict.counterexamples
    assert found.key == "k0"
    assert [(one.process, one.f) for one in found.operations] == [(90, "write"), (91, "write"), (92, "read")]
    assert found.stuck == 2
    assert [(path.order, path.state) for path in found.final_paths] == [([0, 1], "new")]


def test_an_unknown_write_may_take_effect_late_but_only_once() -> None:
    late = [
        (0, "invoke", "write", 1),
        (0, "info", "write", 1),
        (1, "invoke", "write", 2),
        (1, "ok", "write", 2),
        (2, "invoke", "read", None),
        (2, "ok", "read", 2),
        (2, "invoke", "read", None),
        (2, "ok", "read", 1),
    ]
    again = [(1, "invoke", "write", 3), (1, "ok", "write", 3), (2, "invoke", "read", None), (2, "ok", "read", 1)]
    assert check(REGISTER, history_of(*late)).valid is True
    assert check(REGISTER, history_of(*late, *again)).valid is False


def test_true_is_not_one() -> None:
    history = history_of(
        (0, "invoke", "write", 1), (0, "ok", "write", 1), (0, "invoke", "read", None), (0, "ok", "read", True)
    )
    assert check(REGISTER, history).valid is False


def test_values_may_be_lists_and_maps() -> None:
    value = {"a": [1, {"b": None}]}
    history = history_of(
        (0, "invoke", "write", ["k", value]),
        (0, "ok", "write", ["k", value]),
        (0, "invoke", "read", ["k", None]),
        (0, "ok", "read", ["k", value]),
    )
    assert check(model_for(history), history).valid is True


def test_keys_are_judged_apart_and_each_failure_is_shown() -> None:
    def bad(process: int, key: str) -> list[tuple[int, str, str, Any]]:
        return [(process, "invoke", "read", [key, None]), (process, "ok", "read", [key, "nobody wrote this"])]

    history = history_of(*bad(0, "a"), (1, "invoke", "write", ["b", 1]), (1, "ok", "write", ["b", 1]), *bad(2, "c"))
    verdict = check(REGISTERS, history)
    assert verdict.keys == 3
    assert [found.key for found in verdict.counterexamples] == ["a", "c"]
    assert [len(found.operations) for found in verdict.counterexamples] == [1, 1]


# ---------------------------------------------------------------------------------------------------------------------
# Which model, and how much work


def test_the_model_is_found_from_the_values() -> None:
    keyed = history_of((0, "invoke", "read", ["k", None]), (1, "invoke", "cas", ["k", [1, 2]]))
    single = history_of((0, "invoke", "read", None), (1, "invoke", "cas", [1, 2]), (2, "invoke", "write", 3))
    assert model_for(keyed) is REGISTERS
    assert model_for(single) is REGISTER


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([(0, "invoke", "enqueue", 1), (1, "invoke", "txn", [])], "'enqueue', 'txn'; known are read, write"),
        ([(0, "invoke", "write", ["k", 1]), (7, "invoke", "write", 5)], r"process 0 did write .* process 7 write 5"),
        ([(0, "invoke", "cas", ["k", 1]), (1, "invoke", "cas", 5)], "neither all"),
    ],
)
def test_operations_no_model_fits_are_named(events: list[tuple[int, str, str, Any]], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        model_for(history_of(*events))


def test_running_out_of_time_is_unknown_and_says_on_which_key() -> None:
    history = simulate(1, count=3000, clients=3, keys=2)
    verdict = check(REGISTERS, history, expired=lambda: True)
    assert verdict.valid == "unknown"
    assert sorted(verdict.unfinished) == ["k0", "k1"]


def test_a_known_violation_counts_even_where_time_ran_out_elsewhere() -> None:
    bad = history_of((0, "invoke", "read", ["bad", None]), (0, "ok", "read", ["bad", 1]))
    history = [*simulate(1, count=3000, clients=3), *bad]
    verdict = check(REGISTERS, history, expired=lambda: True)
    assert verdict.valid is False
    assert verdict.unfinished == ["k0"]


def test_unknown_writes_do_not_multiply_the_work() -> None:
    """40 writes of unknown outcome would be 2^40 choices, were they not settled beforehand or interchangeable."""
    lost = [(process, kind, "write", process) for process in range(100, 140) for kind in ("invoke", "info")]
    same = [(process, kind, "write", 7) for process in range(200, 240) for kind in ("invoke", "info")]
    read = [(0, "invoke", "read", None), (0, "ok", "read", 139), (1, "invoke", "read", None), (1, "ok", "read", 12345)]
    looked = 0

    def patient() -> bool:
        nonlocal looked
        looked += 1
        return looked > 20

    assert check(REGISTER, history_of(*lost, *same, *read[:2]), patient).valid is True
    assert check(REGISTER, history_of(*lost, *same, *read), patient).valid is False


def test_two_thousand_operations_of_fifty_clients_on_one_key_take_little_work() -> None:
    history = simulate(5, count=2000, clients=50)
    looks = 0

    def counted() -> bool:
        nonlocal looks
        looks += 1
        return False

    assert check(REGISTERS, history, counted).valid is True
    assert looks < 20  # each is about a thousand configurations


def test_sharpening_leaves_no_unknown_outcome_where_every_write_has_its_own_value() -> None:
    history = simulate(9, count=400, clients=5, unknown=0.2)
    problem = REGISTERS.sharpen(REGISTERS.problem(history))
    assert any(call.operation.type == "info" for call in problem.calls)
    assert all(call.returned != NEVER for call in problem.calls)
