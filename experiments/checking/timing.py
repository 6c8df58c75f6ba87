"""How soon things went on after faults and heals, and whether that is what the scenario expects."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from experiments.checking.availability import served_at, steady_after, steady_gap
from experiments.checking.fault_record import FaultRecord
from experiments.checking.history import Operation
from experiments.checking.results import Availability, Check, Leader
from experiments.phrases import count, span
from experiments.scenario import Expect


def timed(
    served: Availability,
    done: Sequence[Operation],
    faults: Sequence[FaultRecord],
    leaders: Sequence[Leader],
    nodes: Sequence[str],
) -> Availability:
    """``served``, with how long each of ``faults`` interrupted service, and how long after it and its heal that and a
    leader were back. ``nodes``: all nodes of the system.
    """
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


def timing_checks(
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
        in_time = all(time is not None and time <= expect.election for time in took.values())
        said = ", ".join("never" if time is None else f"after {span(time)}" for time in took.values())
        summary = f"a new leader {said}; {span(expect.election)} allowed" if took else "no fault took the leader"
        checks.append(Check("election", in_time, summary))
    if expect.availability is not None and availability.share is not None:
        summary = f"{availability.share:.1%} of operations were served; {expect.availability:.1%} expected"
        checks.append(Check("availability", availability.share >= expect.availability, summary))
    if expect.leader_changes is not None:
        changes = sum(led.start > 0 for led in leaders)
        summary = f"{count(changes, 'change')} of leader; {expect.leader_changes} allowed"
        checks.append(Check("leader_changes", changes <= expect.leader_changes, summary))
    return checks


def _recovery(
    allowed: int, availability: Availability, faults: Sequence[FaultRecord], done: Sequence[Operation]
) -> Check:
    """After the last heal, whichever fault's it was."""
    healed = [(fault.healed_at, str(fault.index)) for fault in faults if fault.healed_at is not None]
    if not healed:
        return Check("recovery", "unknown" if faults else True, "no fault was healed")
    moment, name = max(healed)
    took = availability.recovery[name]
    if took is not None:
        return Check("recovery", took <= allowed, f"steady {span(took)} after the heal; {span(allowed)} allowed")
    left = max((operation.complete or operation.invoke for operation in done), default=0) - moment
    if left < allowed:
        summary = f"the workload ended {span(max(left, 0))} after the heal; {span(allowed)} allowed"
        return Check("recovery", "unknown", summary)
    return Check("recovery", False, f"no steady service after the heal; {span(allowed)} allowed")


def doubted(found: Check) -> Check:
    """A run that is not to be believed breaks no promise about time."""
    if found.valid is not False:
        return found
    return msgspec.structs.replace(found, valid="unknown", summary=f"{found.summary} (the run is not to be believed)")
