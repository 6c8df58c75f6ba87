"""Is there an order? Deciding whether a history is linearizable (Herlihy & Wing 1990), and showing why when it is not.

The search is Wing & Gong's (1993) with Lowe's memory of configurations already seen ("Testing for linearizability",
2017), over one object at a time: calls are tried at the front of a doubly linked list of calls and returns, taken out
when they fit, and put back when what is left has no order. A configuration is which calls were taken and the state they
left; one that was reached before is not tried again. Beyond the papers:

- calls that fit are tried by deadline, the most urgent first;
- a call that only looks is taken as soon as it fits, without an alternative;
- calls of unknown outcome that do the same are interchangeable, and taken in the order they were made: in any order
  that takes a later one first, the two can change places.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import msgspec

from experiments.checking.history import Operation
from experiments.checking.models import NEVER, Model, Problem, freeze

Valid: TypeAlias = bool | Literal["unknown"]

#: How many ways to get as far as possible a `Counterexample` shows.
SHOWN_PATHS = 4

#: How many configurations are tried between two looks at the time.
_PATIENCE = 1024


class Path(msgspec.Struct, frozen=True):
    """An order that fits as far as it goes: operations of a `Counterexample` by number, and the state they leave."""

    order: list[int]
    state: Any


class Counterexample(msgspec.Struct, frozen=True):
    """Operations on one object that have no order, as few as were found to be enough.

    ``stuck`` is the number of the operation at whose completion the last of all ways ends: each of ``final_paths``,
    the longest there are, reaches this moment without it.
    """

    key: Any
    operations: list[Operation]
    stuck: int
    final_paths: list[Path]


class Verdict(msgspec.Struct, frozen=True):
    """``valid`` is "unknown" when time ran out on the objects in ``unfinished`` and no other failed."""

    valid: Valid
    operations: int
    keys: int
    counterexamples: list[Counterexample] = []
    unfinished: list[Any] = []


class Search(msgspec.Struct, frozen=True):
    """What a search found: an order of the problem's calls (by number), or how far it got.

    ``stuck`` is the furthest position of the history that no order gets past, and ``paths`` the ways to it, each with
    the state it leaves.
    """

    valid: Valid
    order: list[int] = []
    stuck: int = -1
    paths: list[tuple[list[int], Any]] = []


def never() -> bool:
    return False


def check(model: Model, operations: Sequence[Operation], expired: Callable[[], bool] = never) -> Verdict:
    """Whether every object in ``operations`` behaved like ``model``. ``expired`` says when to give up."""
    parts = model.partition(operations)
    counterexamples: list[Counterexample] = []
    unfinished: list[Any] = []
    for key, part in parts.items():
        found = search(model, model.sharpen(model.problem(part)), expired)
        if found.valid == "unknown":
            unfinished.append(key)
        elif not found.valid:
            counterexamples.append(explain(model, key, part, expired))
    valid: Valid = False if counterexamples else "unknown" if unfinished else True
    return Verdict(valid, sum(map(len, parts.values())), len(parts), counterexamples, unfinished)


def search(model: Model, problem: Problem, expired: Callable[[], bool] = never) -> Search:
    """Look for an order of ``problem``'s calls that ``model`` allows and that respects who returned before whom called.

    Without recursion; memory grows with the number of configurations, of which a history of n calls, of which at most
    c run at any moment, has n·2^c times the states at most, and far fewer in practice.
    """
    # Calls that return are numbered before those that may not: then what was taken of them is a run of ones that only
    # the few that are running fray at its end, and a configuration is short however long the history is.
    calls = problem.calls
    numbers = sorted(range(len(calls)), key=lambda at: (calls[at].returned == NEVER, calls[at].called))
    certain = sum(call.returned != NEVER for call in calls)
    called = [calls[at].called for at in numbers]
    deadline = [calls[at].returned for at in numbers]
    actions = [calls[at].action for at in numbers]
    looks = [model.looks(action) for action in actions]
    step = model.step
    twin = _twins(actions, certain)
    size = len(calls)

    # The list: node 0 is its head, node 1 + i call i, node 1 + size + i the return of call i, the last one its tail.
    tail = 1 + size + certain
    nodes = [(called[call], 1 + call) for call in range(size)]
    nodes += [(deadline[call], 1 + size + call) for call in range(certain)]
    line = [0, *(node for _, node in sorted(nodes)), tail]
    after = [0] * (tail + 1)
    before = [0] * (tail + 1)
    for left, right in pairwise(line):
        after[left], before[right] = right, left

    state = problem.initial
    taken, maybe = 0, 0  # bit sets, of the calls that return and of those that may not
    todo = certain
    seen: set[Any] = set()
    order: list[int] = []
    frames: list[list[tuple[int, Any]]] = []  # for every call taken, and the next one, what else could be
    stuck = -1
    paths: list[tuple[list[int], Any]] = []
    patience = _PATIENCE
    while todo:
        fits: list[tuple[int, Any]] = []
        node = after[0]
        while node <= size:
            call = node - 1
            if call < certain or twin[call] < 0 or maybe >> (twin[call] - certain) & 1:
                allowed, then = step(state, actions[call])
                if allowed:
                    if looks[call]:
                        fits = [(call, then)]
                        break
                    fits.append((call, then))
            node = after[node]
        if not fits:
            position = deadline[node - 1 - size]
            if position > stuck:
                stuck, paths = position, []
            if position == stuck and len(paths) < SHOWN_PATHS:
                paths.append(([numbers[at] for at in order], state))
        elif len(fits) > 1:
            fits.sort(key=lambda fit: -deadline[fit[0]])
        frames.append(fits)
        while True:
            if not (patience := patience - 1):
                if expired():
                    return Search("unknown")
                patience = _PATIENCE
            fits = frames[-1]
            if not fits:
                frames.pop()
                if not frames:
                    return Search(False, [], stuck, paths)
                call = order.pop()
                if call < certain:
                    taken ^= 1 << call
                    todo += 1
                    node = 1 + size + call
                    after[before[node]] = before[after[node]] = node
                else:
                    maybe ^= 1 << (call - certain)
                node = 1 + call
                after[before[node]] = before[after[node]] = node
                continue
            call, state = fits.pop()
            if call < certain:
                now, perhaps = taken | 1 << call, maybe
            else:
                now, perhaps = taken, maybe | 1 << (call - certain)
            full = (~now & now + 1).bit_length() - 1
            configuration = (full, now >> full, perhaps, state)
            try:
                if configuration in seen:
                    continue
            except TypeError:
                configuration = (full, now >> full, perhaps, freeze(state))
                if configuration in seen:
                    continue
            seen.add(configuration)
            taken, maybe = now, perhaps
            order.append(call)
            node = 1 + call
            after[before[node]], before[after[node]] = after[node], before[node]
            if call < certain:
                todo -= 1
                node = 1 + size + call
                after[before[node]], before[after[node]] = after[node], before[node]
            break
    return Search(True, [numbers[call] for call in order])


def _twins(actions: list[Any], certain: int) -> list[int]:
    """For every call, the one before it that may not happen either and does the same, or -1."""
    twins = [-1] * len(actions)
    last: dict[Any, int] = {}
    for call in range(certain, len(actions)):
        twins[call] = last.get(actions[call], -1)
        last[actions[call]] = call
    return twins


# ---------------------------------------------------------------------------------------------------------------------
# Why not


def explain(
    model: Model, key: Any, operations: Sequence[Operation], expired: Callable[[], bool] = never
) -> Counterexample:
    """Cut the history of one object that has no order down to what is needed to see it.

    First to the shortest beginning that has none (what begins a linearizable history is linearizable), then, where the
    model says what calls give and take, by whole groups of calls that can go.
    """

    def fails(part: Sequence[Operation]) -> bool:
        return search(model, model.sharpen(model.problem(part)), expired).valid is False

    whole = {call.called: call.operation for call in model.problem(operations).calls}
    core = list(whole.values())
    ends = sorted(operation.returned for operation in core if operation.type == "ok" and operation.returned)
    shortest = bisect_left(ends, True, key=lambda end: fails(_until(core, end)))
    if shortest < len(ends):
        core = [whole[operation.called] for operation in _until(core, ends[shortest])]
    if model.gives and model.takes:
        core = _shrink(model, core, fails)
    problem = model.problem(core)
    found = search(model, problem, expired)
    stuck = next((at for at, call in enumerate(problem.calls) if call.returned == found.stuck), len(core) - 1)
    paths = [Path(order, model.show(state)) for order, state in found.paths]
    return Counterexample(key, [call.operation for call in problem.calls], stuck, paths)


def _until(operations: Sequence[Operation], end: int) -> list[Operation]:
    """The history up to and with position ``end``: what returned later is still under way."""
    return [
        operation
        if operation.returned is not None and operation.returned <= end
        else msgspec.structs.replace(operation, type="info", result=None, complete=None, returned=None)
        for operation in operations
        if operation.called < end
    ]


def _shrink(model: Model, operations: list[Operation], fails: Callable[[Sequence[Operation]], bool]) -> list[Operation]:
    """Leave out ever smaller groups of calls, with all that takes what they give, as long as the rest still fails.

    So what is left fails by itself: no call of it misses what a call left out gave.
    """
    size = len(operations)
    while size := size // 2:
        start = 0
        while start < len(operations):
            rest = _without(model, operations, start, start + size)
            if fails(rest):
                operations = rest
            else:
                start += size
    return operations


def _without(model: Model, operations: list[Operation], start: int, end: int) -> list[Operation]:
    assert model.gives
    assert model.takes
    calls = model.problem(operations).calls
    takers: dict[Any, list[int]] = {}
    for at, call in enumerate(calls):
        takers.setdefault(model.takes(call.action), []).append(at)
    going = list(range(start, min(end, len(calls))))
    gone = set(going)
    while going:
        given = model.gives(calls[going.pop()].action)
        if given is not None:
            taken = [at for at in takers.pop(given, ()) if at not in gone]
            gone.update(taken)
            going += taken
    return [call.operation for at, call in enumerate(calls) if at not in gone]
