"""How far reads lagged behind: told from what clients saw alone, whatever the system.

A read is stale when it misses a write that was acknowledged before it began: what it found had been overwritten in real
time, as the write it shows was over before that one began. It is stale since that one's acknowledgement (the Δ of
Golab, Li & Shah, Analyzing Consistency Properties for Fun and Profit, PODC 2011, as seen by the clients). What may be
explained otherwise is not counted: a write with an unknown outcome may take effect at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from experiments.checking.history import Operation
from experiments.checking.models import NEVER, SAME, Call, Model
from experiments.checking.results import Check, Staleness
from experiments.phrases import count, seconds, span
from experiments.scenario import Expect


def measure(model: Model, operations: Sequence[Operation]) -> tuple[Staleness, Check]:
    """How stale the reads were, and whether acknowledged writes are lost: no read that began after all writes did shows
    them, or any later one. ``model`` is one of registers; a read may have found several values, siblings, in a list.
    """
    reads = stale = siblings = confirmed = 0
    worst: tuple[int, Operation, Operation] | None = None
    ages: list[int] = []
    lost: list[Operation] = []
    unread: list[Any] = []
    for key, part in model.partition(operations).items():
        calls = model.problem(part).calls
        made = [call for call in calls if call.action.leaves is not SAME]
        certain = [call for call in made if call.operation.type == "ok"]
        last_called = max((call.called for call in made), default=-1)
        shown: set[int] | None = None
        for read in (call for call in calls if call.action.leaves is SAME):
            reads += 1
            values = _values(read)
            siblings += len(values) > 1
            since = _over_by(made, values, read.returned)
            missed = [call for call in certain if call.returned < read.called and call.called > since]
            if read.called > last_called:
                there = {id(call) for call in certain if call.returned < read.called} - {id(call) for call in missed}
                shown = there if shown is None else shown | there
            if missed:
                stale += 1
                first = min(missed, key=lambda call: call.returned).operation
                age = read.operation.invoke - (first.complete or 0)
                ages.append(age)
                if worst is None or age > worst[0]:
                    worst = age, read.operation, first
        if shown is None:
            unread += [key] if certain else []
        else:
            confirmed += len(shown)
            lost += [call.operation for call in certain if id(call) not in shown and call.returned < NEVER]
    ages.sort()
    example = [] if worst is None else [_shown(one) for one in (worst[2], worst[1])]
    found = Staleness(
        reads, stale, siblings, ages[len(ages) // 2] if ages else None, ages[-1] if ages else None, example
    )
    return found, _acknowledged(confirmed, lost, unread)


def _values(read: Call) -> tuple[Any, ...]:
    found = read.action.requires
    return found[1:] if isinstance(found, tuple) and found[:1] == ("list",) else (found,)


def _over_by(made: Sequence[Call], values: Iterable[Any], before: int) -> int:
    """The position by which whatever may have left ``values`` was over."""
    sources = [-1 if value is None else NEVER for value in values if not any(_left(made, value, before))]
    return max([*sources, *(call.returned for value in values for call in _left(made, value, before))], default=-1)


def _left(made: Sequence[Call], value: Any, before: int) -> list[Call]:
    return [call for call in made if call.action.leaves == value and call.called < before]


def _acknowledged(confirmed: int, lost: Sequence[Operation], unread: Sequence[Any]) -> Check:
    if lost:
        summary = f"{count(len(lost), 'acknowledged write')} lost: no last read shows them or what replaced them"
        return Check("acknowledged_writes", False, summary, {"operations": [_shown(one) for one in lost[:10]]})
    if unread:
        keys = ", ".join(map(str, unread))
        return Check("acknowledged_writes", "unknown", f"{keys}: nothing was read after the last write")
    return Check("acknowledged_writes", True, f"none of {confirmed:,} lost")


def _shown(one: Operation) -> dict[str, Any]:
    value = one.result if one.f == "read" else one.value
    return {"process": one.process, "f": one.f, "value": value, "invoke": one.invoke, "complete": one.complete}


def staleness_check(found: Staleness, expect: Expect, promised: bool) -> Check:
    """``promised``: that no read is stale, whatever the scenario expects."""
    most = 0 if promised else expect.stale_reads
    summary = f"{found.stale:,} of {count(found.reads, 'read')} missed an acknowledged write"
    if found.oldest is not None and found.typical is not None:
        summary += f", the oldest one {seconds(found.oldest)} ago, half of them {span(found.typical)} or less"
    if found.siblings:
        summary += f"; {found.siblings:,} found siblings"
    kept = (most is None or found.stale <= most) and (
        expect.staleness is None or found.oldest is None or found.oldest <= expect.staleness
    )
    allowed = [] if most is None else [f"{most:,} allowed"]
    allowed += [] if expect.staleness is None else [f"none may have missed one for {span(expect.staleness)}"]
    summary += f"; {', '.join(allowed)}" if allowed else "; not promised"
    return Check("stale_reads", kept, summary, {} if kept else {"operations": found.example})
