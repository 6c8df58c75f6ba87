"""What happened, from what was recorded: operations from events, faults from their steps, roles from traces.

Pure functions on `record`'s data. All times are integer nanoseconds from the start of the workload.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from experiments.checking.fault_record import FaultRecord, Step, gather
from experiments.checking.history import Event, Operation
from experiments.checking.results import Leader
from experiments.report.record import Record, TraceEvent

#: What a node is of whom nothing else is known, and what other nodes take it for where they watch each other.
UP, SUSPECT, FAILED = "up", "suspect", "failed"

#: What a node is that has so many shards of the work to serve, the number in the place of a term.
SERVING = "serving"

#: What a node is that does not run; the other roles are Raft's, as ``docs/trace.md`` names them.
DOWN = "down"


class Stretch(msgspec.Struct, frozen=True, gc=False):
    start: int
    end: int
    role: str
    term: int


class Lane(msgspec.Struct, frozen=True):
    """One node's roles, without gaps, from its first trace event on; and its commit index as (time, index)."""

    node: str
    stretches: list[Stretch]
    commits: list[tuple[int, int]]


def operations(history: Iterable[Event]) -> list[Operation]:
    """Invocations with their completions, in order of invocation; the nemesis is left out.

    Unlike `experiments.checking.history.operations` it takes what there is: this is to look at, not to judge.
    """
    made: list[Operation] = []
    pending: dict[int, int] = {}
    for at, event in enumerate(history):
        process = event.process
        if not isinstance(process, int):
            continue
        if event.type == "invoke":
            pending[process] = len(made)
            made.append(Operation(process, event.f, event.value, "info", None, event.time, None, at, None))
        elif (slot := pending.pop(process, None)) is not None:
            made[slot] = replace(
                made[slot],
                type=event.type,
                result=event.value,
                complete=event.time,
                returned=at,
                error=None if event.error is UNSET else event.error,
            )
    return made


def faults(steps: Iterable[Step], planned: Sequence[Mapping[str, Any]]) -> list[FaultRecord]:
    """Every fault of the scenario, also those that the run never came to."""
    found = {index: FaultRecord(index, str(fault.get("kind", "fault"))) for index, fault in enumerate(planned)}
    found |= {record.index: record for record in gather(steps)}
    return [found[index] for index in sorted(found)]


def last_moment(record: Record, made: Sequence[Operation]) -> int:
    """The end of the time axis: that of the scenario, or of what was recorded if the run ended before or after it."""
    recorded = [step.t for step in record.faults]
    recorded += [operation.complete or operation.invoke for operation in made]
    if record.results is not None:
        recorded.append(int(record.manifest.scenario.get("duration") or 0))
    if not recorded and record.manifest.epoch is not None:
        recorded = [file[-1].t - record.manifest.epoch for files in record.traces.values() for file in files if file]
    return max([*recorded, 1_000_000_000])


def lanes(
    traces: Mapping[str, Sequence[Sequence[TraceEvent]]], epoch: int, struck: Iterable[FaultRecord], end: int
) -> list[Lane]:
    """The role of every node at every time, until ``end``.

    A node is down from the moment it was killed until its next incarnation has started. Without a recorded kill, it
    is down from the last thing it said.
    """
    killed: dict[str, list[int]] = {}
    for fault in struck:
        if fault.kind == "kill" and fault.applied is not None:
            for node in fault.resolved.get("nodes", ()):
                killed.setdefault(node, []).append(fault.applied.t)
    judged = _judged(traces, epoch)
    return [_lane(node, files, epoch, killed.get(node, []), judged[node], end) for node, files in traces.items()]


def _judged(traces: Mapping[str, Sequence[Sequence[TraceEvent]]], epoch: int) -> dict[str, list[tuple[int, str, int]]]:
    """When what the others take each node for has changed, to what, and how many of them do."""
    said = sorted(
        (event.t, node, event.member, event.standing)
        for node, files in traces.items()
        for events in files
        for event in events
        if event.ev in ("believe", "trace")
    )
    turns: dict[str, list[tuple[int, str, int]]] = {node: [] for node in traces}
    standing: dict[str, dict[str, str]] = {node: {} for node in traces}

    def turn(t: int, member: str) -> None:
        about = standing[member].values()
        worst = next((one for one in (FAILED, SUSPECT) if one in about), UP)
        many = sum(one == worst for one in about) if worst != UP else 0
        turns.setdefault(member, []).append((t - epoch, worst, many))

    for t, node, member, taken_for in said:
        if member:
            standing.setdefault(member, {})[node] = taken_for
            turn(t, member)
            continue
        for other, about in standing.items():  # it has come up, and thinks well of everybody
            if about.pop(node, None) is not None:
                turn(t, other)
    return turns


def _lane(
    node: str,
    files: Sequence[Sequence[TraceEvent]],
    epoch: int,
    killed: Sequence[int],
    judged: Sequence[tuple[int, str, int]],
    end: int,
) -> Lane:
    turns: list[tuple[int, str, int]] = list(judged)
    commits: list[tuple[int, int]] = []
    for number, events in enumerate(files):
        if not events:
            continue
        began = events[0].t - epoch
        later = next((file[0].t - epoch for file in files[number + 1 :] if file), None)
        deaths = [t for t in killed if began < t and (later is None or t < later)]
        died = deaths[0] if deaths else events[-1].t - epoch if later is not None else None
        for event in events:
            at = event.t - epoch
            if died is not None and at > died:
                break  # said while the kill was being written down
            if event.ev == "role":
                turns.append((at, event.role, event.term))
            elif event.ev == "trace" and event.protocol not in ("", "raft") and not (number and judged):
                turns.append((at, UP, 0))  # until the others have noticed, they judge it as before
            elif event.ev == "lease":
                turns.append((at, SERVING if event.shards else UP, len(event.shards)))
            elif event.ev == "started":
                turns.append((at, "follower", event.term))
            elif event.ev == "commit":
                commits.append((at, event.index))
        if died is not None:
            turns.append((died, DOWN, 0))
    turns.sort(key=lambda turn: turn[0])
    stretches: list[Stretch] = []
    for (start, role, term), (following, _, _) in pairwise([*turns, (end, "", 0)]):
        until = min(following, end)
        if until <= start:
            continue
        if stretches and (stretches[-1].role, stretches[-1].term) == (role, term):
            stretches[-1] = replace(stretches[-1], end=until)
        else:
            stretches.append(Stretch(start, until, role, term))
    return Lane(node, stretches, commits)


def leaders(judged: Sequence[Leader], drawn: Iterable[Lane]) -> list[Leader]:
    """Who led when: as the verdict has it, or where there is none, as the nodes themselves said."""
    if judged:
        return sorted(judged, key=lambda leader: leader.start)
    found = [
        Leader(lane.node, stretch.term, stretch.start, stretch.end)
        for lane in drawn
        for stretch in lane.stretches
        if stretch.role == "leader"
    ]
    return sorted(found, key=lambda leader: leader.start)


def leader_at(led: Iterable[Leader], t: int) -> Leader | None:
    """The leader of the highest term that led at ``t``."""
    leading = [one for one in led if one.start <= t and (one.end is None or one.end > t)]
    return max(leading, key=lambda one: one.term, default=None)


def succession(led: Sequence[Leader], fault: FaultRecord) -> tuple[str | None, Leader | None]:
    """The leader whom ``fault`` found, and the first one to lead after it struck (None: there was none)."""
    if fault.applied is None:
        return None, None
    struck = fault.applied.t
    standing = leader_at(led, struck - 1)
    before = fault.resolved.get("leader") or (standing.node if standing else None)
    return before, min((one for one in led if one.start >= struck), key=lambda one: one.start, default=None)
