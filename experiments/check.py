"""The verdict on a run: every check put together, whether to believe it, and in one sentence what happened.

`judge` reads the folder of a run and nothing else, so it judges an old run as it does a new one; `check_path` does so
too, or judges a history of whatever origin. ``docs/run-folder.md`` has the shape of the results.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from experiments.acknowledged import acknowledged_writes
from experiments.availability import Service, served_at, service, steady_after, steady_gap
from experiments.fault_record import FaultRecord, read_faults
from experiments.history import History, HistoryError, Operation, merge_histories, operations, read_history
from experiments.linearizability import Counterexample, check
from experiments.models import Model, ModelError, model_for
from experiments.raft_properties import PROPERTIES, Property, RaftProperties, Violation
from experiments.results import (
    SCHEMA,
    Availability,
    Believable,
    Check,
    Fidelity,
    Leader,
    Results,
    Valid,
    exit_status,
    overall,
)
from experiments.scenario import Expect
from experiments.trace import Role, TraceError, Witness, in_order, read_traces

__all__ = ["Results", "check_path", "judge", "judge_history"]

#: How long the search for an order may take, in seconds; then the answer is "unknown".
PATIENCE = 10.0

#: A node's loop that is later than this share of the shortest election timeout may itself cost a leader its place.
MOST_LAG = 0.25

#: With less of the processors' time than this to spare, what took long need not have been the system's doing.
LEAST_HEADROOM = 0.02

#: How many faults the summary tells of.
MOST_FAULTS_TOLD = 2


class _System(msgspec.Struct, frozen=True):
    election_timeout: tuple[int, int] | None = None


class _Scenario(msgspec.Struct, frozen=True):
    system: _System = _System()
    faults: list[dict[str, Any]] = []
    expect: Expect = Expect()


class _Manifest(msgspec.Struct, frozen=True):
    """The part of ``manifest.json`` that a verdict depends on."""

    epoch: int = 0
    scenario: _Scenario = _Scenario()
    fidelity: dict[str, float] = {}
    calibration: dict[str, dict[str, Any]] = {}


def check_path(path: Path, ignore_torn_tail: bool = False) -> Results:
    """Judge the history in ``path``, or the run whose folder it is. Raises `HistoryError`, and `OSError` when it cannot
    be read."""
    return judge(path) if path.is_dir() else judge_history(read_history(path, ignore_torn_tail))


def judge_history(history: History, patience: float = PATIENCE) -> Results:
    """Judge what clients saw, knowing nothing of the system. ``patience``: seconds for the search for an order."""
    done = operations(history)
    if not done:
        raise HistoryError(f"{history.path}: no operation of a client in it")
    checks = _client_checks(history.path, done, patience, True)
    availability = _served(service(done)) if history.timed else None
    return _results(checks, [], availability=availability)


def judge(run: Path, patience: float = PATIENCE) -> Results:
    """Judge the run in the folder ``run``.

    Raises `HistoryError` for a record that cannot be read, and `OSError` for one that is not there.
    """
    manifest = _read_manifest(run / "manifest.json")
    expect = manifest.scenario.expect
    if not (run / "history.jsonl").exists():
        merge_histories(run)
    history = read_history(run / "history.jsonl")
    done = operations(history)
    faults = read_faults(run / "faults.jsonl")
    traced, trace_checks = _trace_checks(run)
    nodes = sorted({witness.node for witness in traced})
    leaders = _leaders(traced, faults, manifest.epoch)
    fidelity = _fidelity(run, manifest)

    availability = _timed(_served(service(done)), done, faults, leaders, nodes)
    reasons = [
        *(["no client did anything"] if not done else []),
        *(problem for fault in faults for problem in fault.problems()),
        *_never_asked(len(manifest.scenario.faults), faults),
        *_unfaithful(fidelity, manifest.scenario.system),
    ]
    timing = _timing_checks(expect, availability, leaders, faults, done)
    if reasons:
        timing = [_doubted(found) for found in timing]
    checks = [*_client_checks(history.path, done, patience, expect.linearizable), *trace_checks, *timing]
    told = [_tell(fault, availability) for fault in faults if fault.applied]
    return _results(checks, reasons, told, availability, leaders, fidelity)


def _read_manifest(path: Path) -> _Manifest:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Manifest)
    except msgspec.DecodeError as error:
        raise HistoryError(f"{path}: not the manifest of a run: {error}") from None


# ---------------------------------------------------------------------------------------------------------------------
# What clients saw


def _client_checks(path: str, done: Sequence[Operation], patience: float, promised: bool) -> list[Check]:
    try:
        model = model_for(done)
    except ModelError as error:
        raise HistoryError(f"{path}: {error}") from None
    found = _linearizable(model, done, patience)
    if not promised and found.valid is not True:
        found = msgspec.structs.replace(found, valid=True, summary=f"not promised: {found.summary}")
    return [found, _acknowledged(model, done)]


def _linearizable(model: Model, done: Sequence[Operation], patience: float) -> Check:
    began = time.monotonic()
    verdict = check(model, done, lambda: time.monotonic() - began > patience)
    over = f"{_count(verdict.operations, 'operation')} on {_count(verdict.keys, 'key')}"
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
    return f"process {one.process} {did} at {_seconds(one.complete or one.invoke)}"


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
            f"{_count(len(found.lost), 'acknowledged write')} lost, the first of {_value(first.write, first.key)} to "
            f"{_key(first.key)} at {_seconds(first.write.complete or 0)}: the last read found "
            f"{_value(first.read, first.key)}"
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


def _served(found: Service) -> Availability:
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


# ---------------------------------------------------------------------------------------------------------------------
# What nodes recorded

_HELD = {
    "ElectionSafety": "at most one leader in each of {terms}",
    "LeaderAppendOnly": "no leader of {terms} removed or replaced an entry of its own",
    "LogMatching": "{logs} agree wherever they have an entry in common",
    "LeaderCompleteness": "each leader of {terms} had all of {entries} committed before its term",
    "StateMachineSafety": "{logs} applied the same at every index",
}


def _trace_checks(run: Path) -> tuple[list[Witness], list[Check]]:
    """The events of all traces in order, and the five properties."""
    try:
        traces = read_traces(run)
    except TraceError as error:
        return [], [Check(name, "unknown", str(error)) for name in PROPERTIES]
    if not any(traces):
        return [], [Check(name, "unknown", "no node left a trace") for name in PROPERTIES]
    events = list(in_order(traces))
    properties = RaftProperties()
    violations: dict[Property, list[Violation]] = {}
    broken_off = ""
    try:
        for witness in events:
            for violation in properties.feed(witness):
                violations.setdefault(violation.property, []).append(violation)
    except TraceError as error:
        broken_off = str(error)
    facts = {
        "terms": _count(properties.terms, "term"),
        "logs": _count(len({witness.node for witness in events}), "log"),
        "entries": _count(properties.committed, "entry", "entries"),
    }
    checks: list[Check] = []
    for name in PROPERTIES:
        if found := violations.get(name):
            more = f", and {len(found) - 1:,} more" if len(found) > 1 else ""
            checks.append(Check(name, False, found[0].message + more, found[0].as_data()))
        elif broken_off:
            checks.append(Check(name, "unknown", broken_off))
        else:
            checks.append(Check(name, True, _HELD[name].format(**facts)))
    return events, checks


def _leaders(events: Iterable[Witness], faults: Sequence[FaultRecord], epoch: int) -> list[Leader]:
    """Who led, from the nodes' own traces; a node's lead ends with its role, or with its life."""
    leaders: list[Leader] = []
    leading: dict[str, Leader] = {}
    last_seen: dict[str, int] = {}

    def end(node: str, moment: int) -> None:
        if (led := leading.pop(node, None)) is not None:
            leaders.append(msgspec.structs.replace(led, end=moment))

    for witness in events:
        node, moment = witness.node, witness.t - epoch
        if witness.line == 1:
            end(node, _killed(node, faults, last_seen.get(node, moment), moment) or last_seen.get(node, moment))
        last_seen[node] = moment
        match witness.event:
            case Role(role="leader", term=term):
                if node not in leading or leading[node].term != term:
                    end(node, moment)
                    leading[node] = Leader(node, term, moment, None)
            case Role():
                end(node, moment)
    for node in list(leading):
        killed = _killed(node, faults, last_seen[node], None)
        if killed is not None:
            end(node, killed)
    return sorted([*leaders, *leading.values()], key=lambda led: (led.start, led.term))


def _killed(node: str, faults: Sequence[FaultRecord], after: int, before: int | None) -> int | None:
    """When a fault killed ``node``, last heard of at ``after`` and heard of again at ``before``."""
    for fault in faults:
        if fault.kind == "kill" and fault.applied and node in fault.applied.resolved.get("nodes", ()):
            moment = fault.applied.t
            if after <= moment and (before is None or moment <= before):
                return moment
    return None


# ---------------------------------------------------------------------------------------------------------------------
# What was expected, and in which time


def _timed(
    served: Availability,
    done: Sequence[Operation],
    faults: Sequence[FaultRecord],
    leaders: Sequence[Leader],
    nodes: Sequence[str],
) -> Availability:
    successes = served_at(done)
    gap = steady_gap(successes)
    end = max((operation.invoke for operation in done), default=0)
    interruption: dict[str, int | None] = {}
    recovery: dict[str, int | None] = {}
    new_leader: dict[str, int | None] = {}
    for fault in faults:
        name = str(fault.index)
        if fault.struck_at is not None:
            interruption[name] = steady_after(successes, fault.struck_at, end, gap)
            if fault.took_the_leader(nodes):
                new_leader[name] = _next_leader(leaders, fault)
        if fault.healed_at is not None:
            recovery[name] = steady_after(successes, fault.healed_at, end, gap)
    return msgspec.structs.replace(served, interruption=interruption, recovery=recovery, new_leader=new_leader)


def _next_leader(leaders: Sequence[Leader], fault: FaultRecord) -> int | None:
    """How long after the fault the first leader of a later term was elected."""
    struck = fault.struck_at or 0
    before = [led.term for led in leaders if led.node == fault.leader and led.start <= struck]
    after = [led.start for led in leaders if led.start >= struck and led.term > max(before, default=0)]
    return min(after) - struck if after else None


def _timing_checks(
    expect: Expect,
    availability: Availability,
    leaders: Sequence[Leader],
    faults: Sequence[FaultRecord],
    done: Sequence[Operation],
) -> list[Check]:
    """What ``[expect]`` of the scenario says beside safety."""
    checks: list[Check] = []
    if expect.recovery is not None:
        checks.append(_recovery(expect.recovery, availability, faults, done))
    if expect.election is not None:
        took = availability.new_leader
        slow = [name for name, span in took.items() if span is None or span > expect.election]
        said = ", ".join("none" if span is None else _span(span) for span in took.values())
        summary = f"a new leader after {said}; {_span(expect.election)} allowed" if took else "no fault took the leader"
        checks.append(Check("election", not slow, summary))
    if expect.availability is not None and availability.share is not None:
        summary = f"{availability.share:.1%} of operations were served; {expect.availability:.1%} expected"
        checks.append(Check("availability", availability.share >= expect.availability, summary))
    if expect.leader_changes is not None:
        changes = sum(led.start > 0 for led in leaders)
        summary = f"{_count(changes, 'change')} of leader; {expect.leader_changes} allowed"
        checks.append(Check("leader_changes", changes <= expect.leader_changes, summary))
    return checks


def _recovery(
    allowed: int, availability: Availability, faults: Sequence[FaultRecord], done: Sequence[Operation]
) -> Check:
    """After the last heal, whichever fault's it was."""
    healed = [(fault.healed_at, str(fault.index)) for fault in faults if fault.healed_at is not None]
    if not healed:
        return Check("recovery", "unknown" if faults else True, "nothing was healed")
    moment, name = max(healed)
    took = availability.recovery[name]
    if took is not None:
        return Check("recovery", took <= allowed, f"steady {_span(took)} after the heal; {_span(allowed)} allowed")
    left = max((operation.complete or operation.invoke for operation in done), default=0) - moment
    if left < allowed:
        summary = f"the workload ended {_span(max(left, 0))} after the heal; {_span(allowed)} allowed"
        return Check("recovery", "unknown", summary)
    return Check("recovery", False, f"no steady service after the heal; {_span(allowed)} allowed")


def _doubted(found: Check) -> Check:
    """A run that is not to be believed breaks no promise about time."""
    if found.valid is not False:
        return found
    return msgspec.structs.replace(found, valid="unknown", summary=f"{found.summary} (the run is not to be believed)")


# ---------------------------------------------------------------------------------------------------------------------
# Whether to believe it


def _never_asked(wanted: int, faults: Sequence[FaultRecord]) -> list[str]:
    there = {fault.index for fault in faults}
    return [f"fault {index + 1} of the scenario never came" for index in range(wanted) if index not in there]


class _Lag(msgspec.Struct, frozen=True):
    t: int
    loop_lag_max: int


def _fidelity(run: Path, manifest: _Manifest) -> Fidelity:
    decode = msgspec.json.Decoder(_Lag).decode
    lags: list[int] = []
    for path in sorted(run.glob("nodes/*/trace/metrics.ndjson")):
        data = path.read_bytes()
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            figures = decode(line)
            if figures.t >= manifest.epoch:
                lags.append(figures.loop_lag_max)
    return Fidelity(
        # A line is a second, in which a loop is woken fifty times: the latest of them is its 98th percentile, and the
        # median of these over all seconds is the 99th of all.
        round(median(lags)) if lags else None,
        max(lags) if lags else None,
        manifest.fidelity.get("cpu_headroom"),
        manifest.fidelity.get("cpu_headroom_min"),
        manifest.calibration,
    )


def _unfaithful(fidelity: Fidelity, system: _System) -> list[str]:
    reasons: list[str] = []
    lag, timeout = fidelity.loop_lag_p99, system.election_timeout
    if lag is not None and timeout is not None and lag > MOST_LAG * timeout[0]:
        reasons.append(
            f"the nodes' event loops ran {_span(lag)} late (99th percentile), too much beside an election timeout of "
            f"{_span(timeout[0])}: give the machine less to do, or the scenario a time_scale"
        )
    headroom = fidelity.cpu_headroom
    if headroom is not None and headroom < LEAST_HEADROOM:
        reasons.append(f"only {headroom:.1%} of the processors' time was left: fewer processes, or a time_scale")
    for direction, obtained in fidelity.calibration.items():
        for problem in obtained.get("disagreements", ()):
            reasons.append(f"{direction} did not do what was asked when it was calibrated: {problem}")
    return reasons


# ---------------------------------------------------------------------------------------------------------------------
# In one sentence


def _results(
    checks: list[Check],
    reasons: list[str],
    told: Sequence[str] = (),
    availability: Availability | None = None,
    leaders: Sequence[Leader] = (),
    fidelity: Fidelity | None = None,
) -> Results:
    valid = overall(checks)
    believable = Believable(not reasons, reasons)
    return Results(
        SCHEMA,
        valid,
        exit_status(valid, believable.valid),
        _summary(checks, valid, reasons, told),
        checks,
        believable,
        availability,
        list(leaders),
        fidelity or Fidelity(),
    )


def _summary(checks: Sequence[Check], valid: Valid, reasons: Sequence[str], told: Sequence[str]) -> str:
    """The verdict, then what happened."""
    worst = next((found for found in checks if found.valid == valid), checks[0])
    if valid is False:
        verdict = f"{_BROKEN.get(worst.name, f'{worst.name} was broken')}: {worst.summary}"
    elif reasons:
        verdict = f"Not to be believed: {reasons[0]}"
    elif valid == "unknown":
        verdict = f"Unknown: {worst.name}: {worst.summary}"
    else:
        verdict = f"Linearizable: {checks[0].summary.partition(', checked')[0]}"
    events = list(told[:MOST_FAULTS_TOLD])
    if len(told) > MOST_FAULTS_TOLD:
        events.append(f"{_count(len(told) - MOST_FAULTS_TOLD, 'more fault')} followed")
    if any(found.name == "acknowledged_writes" and found.valid is True for found in checks):
        events.append("no acknowledged write was lost" if events else "No acknowledged write was lost")
    return f"{verdict}. {'; '.join(events)}." if events else f"{verdict}."


_BROKEN = {
    "linearizable": "Not linearizable",
    "acknowledged_writes": "Acknowledged writes were lost",
    "recovery": "Recovery took too long",
    "election": "No new leader in time",
    "availability": "Too few operations were served",
    "leader_changes": "The leader changed too often",
}


def _tell(fault: FaultRecord, availability: Availability) -> str:
    """``n3 was cut off at 6.0 s; a new leader led after 0.31 s``."""
    said = f"{fault.told()} at {_seconds(fault.struck_at or 0)}"
    name = str(fault.index)
    if name in availability.new_leader:
        took = availability.new_leader[name]
        said += "; nobody led after that" if took is None else f"; a new leader led after {_span(took)}"
    return said


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:.1f} s"


def _span(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:.2f} s"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
