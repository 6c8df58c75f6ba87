"""What a correct object would do, as values that the linearizability checker steps through.

A `Model` says how an object starts and how it moves; `REGISTERS` and `REGISTER` are the objects of Jepsen's register
tests: a map of registers (values ``[key, v]``), and a single one. `model_for` finds out which a history is about.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import msgspec

from experiments.checking.history import Operation

State: TypeAlias = Any
Action: TypeAlias = Any

#: The deadline of an operation that may take effect at any later time, or never.
NEVER = 1 << 62


class ModelError(ValueError):
    """Operations that no model here knows; says which, and what is known."""


class Call(msgspec.Struct, frozen=True, gc=False):
    """An operation as the checker sees it: it takes effect once, at a moment after position ``called`` of the history
    and before position ``returned``; where that is `NEVER`, perhaps not at all. ``action`` is what it does.
    """

    operation: Operation
    action: Action
    called: int
    returned: int


class Problem(msgspec.Struct, frozen=True):
    """An object's first state and the calls on it, in the order they were made."""

    initial: State
    calls: list[Call]


def _same(problem: Problem) -> Problem:
    return problem


def _never(action: Action) -> bool:
    return False


def whole(operations: Sequence[Operation]) -> dict[Any, list[Operation]]:
    """One object, not to be taken apart."""
    return {None: list(operations)}


class Model(msgspec.Struct, frozen=True):
    """An object's sequential behaviour.

    ``action`` turns an operation into what ``step`` needs to know of it, hashable, and equal for operations that do
    the same; None for one that cannot matter. ``step(state, action)`` says whether the object could have done that,
    and the state after. ``partition`` splits operations among objects that do not touch each other, each judged by
    itself (linearizability is local: Herlihy & Wing 1990, §3.1).

    The rest only makes the checker fast, or its answer short. ``looks(action)``: it leaves the object as it is, so to
    take it as soon as it fits never loses an order. ``gives`` and ``takes`` name what an action leaves for others and
    what it cannot do without, None for nothing: an order stays one when a call goes, if all go that take what it gives;
    a history that fails is cut down by that. ``sharpen`` replaces a problem by one that is quicker to decide and has
    the same answer. ``show`` is a state as a reader of the report knows it.
    """

    name: str
    initial: State
    action: Callable[[Operation], Action | None]
    step: Callable[[State, Action], tuple[bool, State]]
    partition: Callable[[Sequence[Operation]], dict[Any, list[Operation]]] = whole
    looks: Callable[[Action], bool] = _never
    gives: Callable[[Action], Hashable | None] | None = None
    takes: Callable[[Action], Hashable | None] | None = None
    sharpen: Callable[[Problem], Problem] = _same
    show: Callable[[State], Any] = lambda state: state

    def problem(self, operations: Sequence[Operation]) -> Problem:
        """The calls among ``operations`` that count: what failed did not happen, what is unknown may happen late."""
        calls = [
            Call(operation, action, operation.called, _deadline(operation))
            for operation in operations
            if operation.type != "fail" and (action := self.action(operation)) is not None
        ]
        return Problem(self.initial, calls)


def _deadline(operation: Operation) -> int:
    return NEVER if operation.type == "info" or operation.returned is None else operation.returned


def freeze(value: Any) -> Hashable:
    """A hashable stand-in for a JSON value, equal for equal values. `True` is not 1, unlike in Python."""
    match value:
        case bool():
            return ("bool", value)
        case list() | tuple():
            return ("list", *map(freeze, value))
        case dict():
            return ("map", frozenset((key, freeze(item)) for key, item in value.items()))
        case set() | frozenset():
            return ("set", frozenset(map(freeze, value)))
    return value


# ---------------------------------------------------------------------------------------------------------------------
# Registers


class _Mark:
    """A value that no register holds."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


ANY, SAME = _Mark("ANY"), _Mark("SAME")


class Access(msgspec.Struct, frozen=True, gc=False):
    """What a call does to a register: it needs the value ``requires`` (or `ANY`) and leaves ``leaves`` (or the `SAME`).

    ``wanted`` and ``counted`` are `_sharpen`'s: how many calls are certain to need the value that this one, and no
    other, leaves; and whether this call is among those that are certain.
    """

    requires: Any
    leaves: Any
    wanted: int = 0
    counted: int = 0


def _access(operation: Operation, value: Any, result: Any) -> Access | None:
    match operation.f:
        case "read":
            # Nothing is known of what an unfinished read saw, and it changed nothing.
            return Access(freeze(result), SAME) if operation.type == "ok" else None
        case "write":
            return Access(ANY, freeze(value))
        case "cas":
            return Access(freeze(value[0]), freeze(value[1]))
        case _:
            return Access(ANY, None)


def _step(state: tuple[Any, int], access: Access) -> tuple[bool, tuple[Any, int]]:
    """``state`` is the value, and how many calls that still need it no other call could serve."""
    value, wanted = state
    if access.requires is ANY:
        if wanted:
            return False, state
    elif access.requires != value:
        return False, state
    elif access.leaves is SAME:
        return True, (value, wanted - 1) if wanted else state
    elif wanted > access.counted:
        return False, state
    return True, (access.leaves, access.wanted)


def _looks(access: Access) -> bool:
    return access.leaves is SAME


def _gives(access: Access) -> Hashable | None:
    return None if access.leaves is SAME else (access.leaves,)


def _takes(access: Access) -> Hashable | None:
    return None if access.requires is ANY else (access.requires,)


def _sharpen(problem: Problem) -> Problem:
    """Decide about calls of unknown outcome before the search does, and say where a register must not move on.

    Each step keeps the answer:

    1. A call that may never have happened, and whose value no other call needs, is left out. Without it, some order
       with the others is one that may be given; and in an order that has it, nothing between it and the next call that
       sets the register can look at the register, so that it can be taken out.
    2. The only call that leaves some value happened before any call that is certain to have needed this value: it gets
       that call's deadline if its own is later. So an unknown write that somebody read from is unknown no more.
    3. If only one call leaves a value, the register cannot come back to it: as long as calls are still to come that are
       certain to need it, no other may replace it. `_step` counts them down.

    Where every write has a value of its own nothing unknown is left; calls that repeat a value stay as they were.
    """
    calls = problem.calls
    returned = [call.returned for call in calls]
    sources: dict[Any, set[int]] = {problem.initial[0]: {-1}}  # -1 is the initial value
    needs: dict[Any, set[int]] = {}
    for number, call in enumerate(calls):
        if call.action.leaves is not SAME:
            sources.setdefault(call.action.leaves, set()).add(number)
        if call.action.requires is not ANY:
            needs.setdefault(call.action.requires, set()).add(number)
    # What needs a value mostly comes after what leaves it: backwards, most is settled in the first round.
    movers = [number for number in reversed(range(len(calls))) if calls[number].action.leaves is not SAME]
    changed = True
    while changed:
        changed = False
        for number in movers:
            action = calls[number].action
            needing = needs.get(action.leaves, set())
            if returned[number] == NEVER and not needing - {number}:
                sources[action.leaves].discard(number)
                needs.get(action.requires, set()).discard(number)
                movers = [other for other in movers if other != number]
                changed = True
            elif needing and len(sources[action.leaves]) == 1:
                due = min(returned[other] for other in needing)
                if calls[number].called < due < returned[number]:
                    returned[number] = due
                    changed = True

    def wanted(value: Any) -> int:
        only = len(sources[value]) == 1
        return sum(returned[number] != NEVER for number in needs.get(value, ())) if only else 0

    kept: list[Call] = []
    left = set(movers)
    for number, call in enumerate(calls):
        action = call.action
        if action.leaves is SAME:
            kept.append(call)
        elif number in left:
            counted = int(returned[number] != NEVER)
            sharper = Access(action.requires, action.leaves, wanted(action.leaves), counted)
            kept.append(Call(call.operation, sharper, call.called, returned[number]))
    value = problem.initial[0]
    return Problem((value, wanted(value)), kept)


def _by_key(operations: Sequence[Operation]) -> dict[Any, list[Operation]]:
    parts: dict[Any, list[Operation]] = {}
    names: dict[Hashable, Any] = {}
    for operation in operations:
        key = names.setdefault(freeze(operation.value[0]), operation.value[0])
        parts.setdefault(key if isinstance(key, Hashable) else freeze(key), []).append(operation)
    return parts


REGISTER = Model(
    name="register",
    initial=(None, 0),
    action=lambda operation: _access(operation, operation.value, operation.result),
    step=_step,
    looks=_looks,
    gives=_gives,
    takes=_takes,
    sharpen=_sharpen,
    show=lambda state: state[0],
)

REGISTERS = msgspec.structs.replace(
    REGISTER,
    name="registers",
    action=lambda operation: _access(operation, operation.value[1], operation.result and operation.result[1]),
    partition=_by_key,
)


def model_for(operations: Sequence[Operation]) -> Model:
    """`REGISTERS` if every value is a pair of key and value, `REGISTER` if none is. Raises `ModelError`."""
    known = ("read", "write", "cas", "delete")
    unknown = sorted({operation.f for operation in operations if operation.f not in known})
    if unknown:
        raise ModelError(f"no model for {', '.join(map(repr, unknown))}; known are {', '.join(known)} of registers")
    odd = [operation for operation in operations if not _is_keyed(operation)]
    if not odd:
        return REGISTERS
    plain = [operation for operation in operations if not _is_single(operation)]
    if not plain:
        return REGISTER
    first = min(odd[0], plain[0], key=lambda operation: operation.called)
    other = max(odd[0], plain[0], key=lambda operation: operation.called)
    raise ModelError(
        "values are neither all [key, value] nor all of one register: "
        f"process {first.process} did {first.f} {first.value!r}, process {other.process} {other.f} {other.value!r}"
    )


def _is_keyed(operation: Operation) -> bool:
    match operation.f, operation.value:
        case "cas", [_, [_, _]]:
            return operation.type != "ok" or operation.result is None or _is_pair(operation.result)
        case (("read" | "write" | "delete"), [_, _]):
            return operation.f != "read" or operation.type != "ok" or _is_pair(operation.result)
    return False


def _is_single(operation: Operation) -> bool:
    match operation.f:
        case "read":
            return operation.value is None
        case "cas":
            return _is_pair(operation.value) and not _is_pair(operation.value[1])
    return not _is_pair(operation.value)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2
