"""What failing over promises, decided from the traces of its nodes: one owner a shard, and how long shards had none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from experiments.checking.fault_record import STOPPING, FaultRecord
from experiments.checking.raft_properties import Violation
from experiments.checking.results import Check
from experiments.checking.trace import Header, Lease, Weigh, Witness
from experiments.phrases import count, span
from experiments.scenario import Expect


class Held(msgspec.Struct, frozen=True):
    """``node`` serves ``shard`` from ``start`` to ``end``, unless it says otherwise before."""

    node: str
    shard: int
    start: int
    end: int


class OneOwner:
    """Fed with all nodes' events in the order of their time; ``held`` is who served what, as long as it may have."""

    def __init__(self) -> None:
        self.held: list[Held] = []
        self._holding: dict[str, dict[int, tuple[int, int, Witness]]] = {}

    def feed(self, witness: Witness) -> list[Violation]:
        """Two workers that serve one shard at the same time."""
        match witness.event:
            case Header():
                self._let_go(witness, ())
            case Lease(shards=shards, lasts=lasts):
                self._let_go(witness, shards)
                return self._take(witness, shards, witness.t + lasts)
        return []

    def finish(self) -> None:
        """No more events will come: what is held is held to the end of its lease."""
        for node, holding in self._holding.items():
            self.held += (Held(node, shard, start, end) for shard, (start, end, _) in holding.items())
        self._holding.clear()

    def _let_go(self, witness: Witness, but: Sequence[int]) -> None:
        holding = self._holding.get(witness.node, {})
        for shard in [shard for shard in holding if shard not in but]:
            start, end, _ = holding.pop(shard)
            self.held.append(Held(witness.node, shard, start, min(end, witness.t)))

    def _take(self, witness: Witness, shards: Sequence[int], end: int) -> list[Violation]:
        found: list[Violation] = []
        own = self._holding.setdefault(witness.node, {})
        for shard in shards:
            for node, holding in self._holding.items():
                if node != witness.node and shard in holding and holding[shard][1] > witness.t and not found:
                    message = f"{node} and {witness.node} both serve shard {shard}"
                    found.append(Violation("OneOwner", message, (holding[shard][2], witness)))
            start, until, _ = own.get(shard, (witness.t, witness.t, witness))
            if until < witness.t:  # its lease was over in between
                self.held.append(Held(witness.node, shard, start, until))
                start = witness.t
            own[shard] = start, end, witness
        return found


def running(held: Iterable[Held], faults: Iterable[FaultRecord], epoch: int) -> list[Held]:
    """Of ``held``, that in which the holder ran: who is killed or paused serves nothing, whatever its lease says."""
    left = list(held)
    for fault in faults:
        if fault.kind not in STOPPING or fault.struck_at is None:
            continue
        stopped = fault.resolved.get("nodes", ())
        start = epoch + fault.struck_at
        end = None if fault.healed_at is None else epoch + fault.healed_at
        parts: list[Held] = []
        for one in left:
            if one.node not in stopped:
                parts.append(one)
                continue
            before = msgspec.structs.replace(one, end=min(one.end, start))
            after = [] if end is None else [msgspec.structs.replace(one, start=max(one.start, end))]
            parts += (part for part in (before, *after) if part.start < part.end)
        left = parts
    return left


class Service(msgspec.Struct, frozen=True):
    """``longest``: the longest time in nanoseconds in which nobody served some ``shard``, from ``at`` on; ``share``: of
    all shards' time that was served; ``moves``: how often a shard was served by another than before; ``gaps``: every
    time in which nobody served one.
    """

    longest: int
    shard: int
    at: int
    share: float
    moves: int
    gaps: list[int] = []


class Reintegrated(msgspec.Struct, frozen=True):
    """``member`` came back to ``few`` shards, and ``took`` nanoseconds until it counted in full, with ``many``."""

    member: str
    few: int
    many: int
    took: int


class Takeover(msgspec.Struct, frozen=True):
    """How work was taken over in a run, and how those that came back were eased in."""

    service: Service
    reintegrated: list[Reintegrated]


def service(held: Iterable[Held], shards: int, start: int, end: int) -> Service:
    """How the shards were served between two moments of the traces' clock."""
    by_shard: dict[int, list[Held]] = {shard: [] for shard in range(shards)}
    for one in held:
        by_shard[one.shard].append(one)
    longest, where, at, moves = 0, 0, start, 0
    gaps: list[int] = []
    for shard, turns in by_shard.items():
        turns.sort(key=lambda one: one.start)
        until, last = start, ""
        for one in [*turns, Held("", shard, end, end)]:
            gap = min(one.start, end) - until
            if gap > 0:
                gaps.append(gap)
                if gap > longest:
                    longest, where, at = gap, shard, until - start
            moves += bool(last and one.node and last != one.node)
            last, until = one.node or last, max(until, one.end)
    return Service(longest, where, at, 1 - sum(gaps) / (shards * (end - start)), moves, gaps)


def takeover_checks(
    events: Sequence[Witness], shards: int, epoch: int, expect: Expect, faults: Iterable[FaultRecord]
) -> list[Check]:
    """What `judge_takeover` found to be kept and broken."""
    return judge_takeover(events, shards, epoch, expect, faults)[1]


def judge_takeover(
    events: Sequence[Witness], shards: int, epoch: int, expect: Expect, faults: Iterable[FaultRecord]
) -> tuple[Takeover | None, list[Check]]:
    """Of a run whose workload would have begun at ``epoch``, from the events of all traces, in order: what was
    measured, None where nobody said anything, and the checks.
    """
    properties = OneOwner()
    violations = [violation for witness in events for violation in properties.feed(witness)]
    properties.finish()
    end = max((witness.t for witness in events), default=epoch)
    if end <= epoch:
        return None, [Check("takeover", "unknown", "nobody said anything after the run began")]
    if violations:
        owner = Check("OneOwner", False, violations[0].message, violations[0].as_data())
    else:
        owner = Check("OneOwner", True, f"no two nodes served one of {count(shards, 'shard')} at the same time")
    found = service(running(properties.held, faults, epoch), shards, epoch, end)
    checks = [_takeover(found, expect), owner]
    eased = eased_in(events, properties.held)
    if eased:
        told = (
            f"{one.member} came back to {one.few} shards, and had {one.many} {span(one.took)} later" for one in eased
        )
        checks.append(Check("reintegration", True, "; ".join(told)))
    return Takeover(found, eased), checks


def _takeover(found: Service, expect: Expect) -> Check:
    summary = f"shards were served {found.share:.2%} of the time"
    if found.longest:
        summary += f", shard {found.shard} for {span(found.longest)} by nobody from {span(found.at)} on"
    summary += f"; {count(found.moves, 'time')} one went to another node"
    kept = expect.takeover is None or found.longest <= expect.takeover
    summary += "; not promised" if expect.takeover is None else f"; {span(expect.takeover)} without allowed"
    return Check("takeover", kept, summary)


def eased_in(events: Iterable[Witness], held: Sequence[Held]) -> list[Reintegrated]:
    """How many shards each worker that came back had soon after, and once it counted in full."""
    found: list[Reintegrated] = []
    failed: set[str] = set()
    back: dict[str, int] = {}
    for witness in events:
        if not isinstance(witness.event, Weigh):
            continue
        member, weight = witness.event.member, witness.event.weight
        if weight == 0:
            failed.add(member)
        elif weight < 1 and member in failed:
            failed.discard(member)
            back[member] = witness.t
        elif weight == 1 and member in back:
            began = back.pop(member)
            early = began + (witness.t - began) // 5
            few, many = _serving(held, member, early), _serving(held, member, witness.t)
            found.append(Reintegrated(member, few, many, witness.t - began))
    return found


def _serving(held: Iterable[Held], node: str, moment: int) -> int:
    return sum(one.node == node and one.start <= moment < one.end for one in held)
