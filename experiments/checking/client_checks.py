"""What clients saw, judged: linearizability, acknowledged writes, availability."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from experiments.checking.acknowledged import acknowledged_writes
from experiments.checking.availability import Service, is_served
from experiments.checking.history import HistoryError, Operation
from experiments.checking.linearizability import Counterexample, check
from experiments.checking.models import Model, ModelError, model_for
from experiments.checking.results import Availability, Check, Staleness
from experiments.checking.staleness import measure, staleness_check
from experiments.phrases import count, seconds
from experiments.scenario import Expect, Quorum, System

#: How long the search for an order that nobody promised may take, in seconds.
UNPROMISED_PATIENCE = 1.0

#: Faults of these kinds set clocks apart.
CLOCK_FAULTS = frozenset({"drift", "skew"})


def stale_checks(
    path: str, done: Sequence[Operation], patience: float, expect: Expect, system: System, faults: Iterable[str]
) -> tuple[Staleness, list[Check]]:
    """For a system that promises no linearizability: how stale reads were, whether acknowledged writes were lost, and
    whether it was linearizable all the same. ``faults``: the kinds of those in the run. Raises as `client_checks`.
    """
    found = client_checks(path, done, min(patience, UNPROMISED_PATIENCE), promised=False)
    staleness, acknowledged = measure(model_for(done), done)
    if acknowledged.valid is False and _clocks_decide(system) and not CLOCK_FAULTS.isdisjoint(faults):
        # Which write the clients saw to be the later one decides nothing then. What is promised, that none is dropped
        # but for one with a later time, is judged by the nodes' traces (NothingLost).
        summary = f"{acknowledged.summary}; not promised where clocks differ, and say which write is the last"
        acknowledged = Check("overtaken_writes", True, summary, acknowledged.details)
    fresh = staleness_check(staleness, expect, _is_fresh(system))
    return staleness, if_any_succeeded(done, [fresh, acknowledged, found[0]])


def _is_fresh(system: System) -> bool:
    """Whether ``system`` promises that a read misses no write acknowledged before it began."""
    return isinstance(system, Quorum) and system.config.quorum == "strict"


def _clocks_decide(system: System) -> bool:
    """Whether ``system`` tells the later of two writes by its nodes' clocks."""
    return isinstance(system, Quorum) and system.config.clocks_decide


def client_checks(path: str, done: Sequence[Operation], patience: float, promised: bool) -> list[Check]:
    """Linearizability, which may not have been ``promised``, and acknowledged writes.

    Neither is known where no operation succeeded. ``patience``: seconds for the search for an order. Raises
    `HistoryError`, naming ``path``, for operations that no model fits.
    """
    try:
        model = model_for(done)
    except ModelError as error:
        raise HistoryError(f"{path}: {error}") from None
    found = _linearizable(model, done, patience)
    if not promised and found.valid is not True:
        found = msgspec.structs.replace(found, valid=True, summary=f"not promised: {found.summary}")
    return if_any_succeeded(done, [found, _acknowledged(model, done)])


def if_any_succeeded(done: Sequence[Operation], checks: Sequence[Check]) -> list[Check]:
    """``checks``, none of them passed where no operation of ``done`` was served: what never answers is never wrong."""
    if any(map(is_served, done)):
        return list(checks)
    summary = f"no operation succeeded, of {len(done):,}: there is nothing to judge by"
    return [
        msgspec.structs.replace(found, valid="unknown", summary=summary) if found.valid is True else found
        for found in checks
    ]


def _linearizable(model: Model, done: Sequence[Operation], patience: float) -> Check:
    began = time.monotonic()
    verdict = check(model, done, lambda: time.monotonic() - began > patience)
    over = f"{count(verdict.operations, 'operation')} on {count(verdict.keys, 'key')}"
    if verdict.counterexamples:
        first = verdict.counterexamples[0]
        others = [found.key for found in verdict.counterexamples[1:]]
        also = f"; nor have those on {', '.join(map(str, others))}" if others else ""
        summary = f"no order of the operations on {_key(first.key)} explains that {_said(first)}{also}"
        return Check("linearizable", False, summary, _shown(verdict.counterexamples))
    if verdict.unfinished:
        keys = ", ".join(map(_key, verdict.unfinished))
        summary = f"no answer for {keys} after {patience:g} s; {over} in all"
        return Check("linearizable", "unknown", summary, {"unfinished": verdict.unfinished})
    return Check("linearizable", True, f"{over}, checked in {time.monotonic() - began:.2f} s")


def _key(key: Any) -> str:
    return "the register" if key is None else str(key)


def _said(found: Counterexample) -> str:
    """The operation that cannot be explained, in words."""
    one = found.operations[found.stuck]
    value = _value(one, found.key)
    did = {
        "read": f"read {'nothing' if value is None else value}",
        "write": f"wrote {value}",
        "cas": f"replaced {value[0]} by {value[1]}" if one.f == "cas" else "",
        "delete": "deleted it",
    }[one.f]
    return f"process {one.process} {did}{_when(one)}"


def _when(one: Operation) -> str:
    moment = one.invoke if one.complete is None else one.complete
    return f" at {seconds(moment)}" if moment >= 0 else ""


def _shown(found: Sequence[Counterexample]) -> dict[str, Any]:
    """``details`` of the first, in full, and the other keys' beside it."""
    first, *others = [
        {
            "key": one.key,
            "operations": [_operation(operation, one.key) for operation in one.operations],
            "stuck": one.stuck,
            "final_paths": msgspec.to_builtins(one.final_paths),
        }
        for one in found
    ]
    return {**first, "others": others} if others else first


def _operation(one: Operation, key: Any) -> dict[str, Any]:
    times = {"invoke": one.invoke, "complete": one.complete if one.type != "info" else None}
    return {"process": one.process, "f": one.f, "value": _value(one, key), **times, "type": one.type}


def _value(one: Operation, key: Any) -> Any:
    """What a read returned, or what was to be written; without the key."""
    value = one.result if one.f == "read" and one.type == "ok" else one.value
    return value if key is None else value[1]


def _acknowledged(model: Model, done: Sequence[Operation]) -> Check:
    found = acknowledged_writes(model, done)
    if found.lost:
        first = found.lost[0]
        summary = (
            f"{count(len(found.lost), 'acknowledged write')} lost, the first of {_value(first.write, first.key)} to "
            f"{_key(first.key)}{_when(first.write)}: the last read found {_value(first.read, first.key)}"
        )
        evidence = [_operation(one, first.key) for one in (first.write, first.read)]
        return Check("acknowledged_writes", False, summary, {"key": first.key, "operations": evidence, "stuck": 1})
    if found.unread:
        keys = ", ".join(map(_key, found.unread))
        summary = f"{keys}: nothing was read after an acknowledged write; {found.confirmed:,} of {found.writes:,} seen"
        return Check("acknowledged_writes", "unknown", summary, {"unread": found.unread})
    late = found.writes - found.confirmed
    summary = f"none of {found.confirmed:,} lost"
    return Check("acknowledged_writes", True, summary + (f"; {late:,} more came after the last read" if late else ""))


def served(found: Service) -> Availability:
    outage = found.outage
    return Availability(
        found.operations,
        found.ok,
        found.refused,
        found.failed,
        found.unknown,
        found.share,
        outage.length if outage else None,
        outage.start if outage else None,
    )
