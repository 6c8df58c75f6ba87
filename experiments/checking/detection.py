"""How good a failure detector was in a run: how fast, how often wrong, at what load, from what its members left.

The measures are those of Chen, Toueg & Aguilera, On the Quality of Service of Failure Detectors (2002). What was true
when comes from the record of the faults: a member is *silent* while it is killed, paused or cut off from all others,
and two are *parted* while one cannot hear the other. Everything else is no excuse: that a link loses some of its
packets, or that a host is slow, is what a detector has to tell from a failure. A pause that is shorter than the time in
which the scenario expects failures to be found is such a slowness.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import msgspec

from experiments.checking.fault_record import STOPPING, FaultRecord
from experiments.checking.history import HistoryError
from experiments.checking.results import Check, Detected, Detection
from experiments.checking.trace import Believe, Header, Load, Witness
from experiments.phrases import count, span
from experiments.scenario import Expect


class Silence(msgspec.Struct, frozen=True):
    """``observer`` cannot hear ``member``, or be answered by it, from ``start`` to ``end`` (None: to the run's end).

    ``whole``: nobody hears the member, or it does not run: it has failed, as far as anyone can know.
    """

    observer: str
    member: str
    start: int
    end: int | None
    fault: int
    whole: bool


def silences(
    faults: Iterable[FaultRecord], members: Sequence[str], placement: Mapping[str, str], least_pause: int = 0
) -> list[Silence]:
    """Who could not hear whom, and when, by the faults' record; not who was paused for less than ``least_pause``.

    A node that refused to start again, its log being damaged, is silent for good.
    """
    found: list[Silence] = []
    for fault in faults:
        if fault.struck_at is None or (fault.kind == "pause" and _lasted(fault) < least_pause):
            continue
        parted = _parted(fault, members, placement)
        for member in members:
            deaf = [other for other in members if (other, member) in parted]
            whole = len(deaf) == len(members) - 1
            end = None if member in fault.refused else fault.healed_at
            found += [Silence(other, member, fault.struck_at, end, fault.index, whole) for other in deaf]
    return found


def _lasted(fault: FaultRecord) -> float:
    return float("inf") if fault.healed_at is None else fault.healed_at - (fault.struck_at or 0)


def _parted(fault: FaultRecord, members: Sequence[str], placement: Mapping[str, str]) -> set[tuple[str, str]]:
    """Pairs (observer, member) between which nothing gets through, or nothing one way."""
    pairs = [(one, other) for one in members for other in members if one != other]
    if fault.kind in (*STOPPING, "bit-flip"):
        return {pair for pair in pairs if pair[1] in fault.resolved.get("nodes", ())}
    if fault.kind == "impair":
        ends = {
            end
            for direction, asked in fault.resolved.get("directions", {}).items()
            if asked.get("loss", 0) >= 1
            for end in direction.split(">")
        }
        return {pair for pair in pairs if placement.get(pair[0]) in ends or placement.get(pair[1]) in ends}
    expected = fault.proved.expected if fault.proved else {}
    return {
        (one, other)
        for one, other in pairs
        if not (expected.get(one, {}).get(other, True) and expected.get(other, {}).get(one, True))
    }


class _Belief(msgspec.Struct, frozen=True):
    """``observer`` took ``member`` for failed from ``start`` to ``end``, or to the end of the run."""

    observer: str
    member: str
    start: int
    end: int | None


def measure(
    events: Iterable[Witness],
    silent: Sequence[Silence],
    members: Sequence[str],
    epoch: int,
    memory: int,
    bytes_per_second: float | None = None,
) -> Detection:
    """``events``: of all traces, in order. ``memory``: how long after a silence it may still be what is judged by."""
    seen = list(events)
    beliefs, rates = _read(seen, epoch)
    wrong = [belief for belief in beliefs if not _is_excused(belief, silent, memory)]
    return Detection(
        [_detected(fault, member, silent, beliefs) for fault, member in _failures(silent)],
        len(wrong),
        max((belief.end - belief.start for belief in wrong if belief.end is not None), default=None),
        sum(belief.end is None for belief in wrong),
        _unsettled(beliefs, silent, max((witness.t - epoch for witness in seen), default=0)),
        fmean(rates.values()) if rates else 0.0,
        max(rates.values(), default=0.0),
        bytes_per_second,
    )


def _read(events: Iterable[Witness], epoch: int) -> tuple[list[_Belief], dict[str, float]]:
    """Who was taken for failed, by whom and when; and how many messages a second every member sent."""
    beliefs: list[_Belief] = []
    under_way: dict[tuple[str, str], int] = {}
    began: dict[str, int] = {}
    rates: dict[str, float] = {}

    def end(pair: tuple[str, str], moment: int) -> None:
        if (start := under_way.pop(pair, None)) is not None:
            beliefs.append(_Belief(*pair, start, moment))

    for witness in events:
        node, moment = witness.node, witness.t - epoch
        match witness.event:
            case Header():
                began[node] = witness.t
                for pair in [pair for pair in under_way if pair[0] == node]:
                    end(pair, moment)
            case Believe(member=member, standing="failed"):
                under_way.setdefault((node, member), moment)
            case Believe(member=member):
                end((node, member), moment)
            case Load(sent=sent) if witness.t > began[node]:
                rates[node] = sent * 1e9 / (witness.t - began[node])
    beliefs += (_Belief(*pair, start, None) for pair, start in under_way.items())
    return sorted(beliefs, key=lambda belief: belief.start), rates


def _unsettled(beliefs: Iterable[_Belief], silent: Sequence[Silence], end: int) -> int | None:
    """For how long, at the ``end`` of the run, somebody was still taken for failed though no silence was left."""
    over = max((one.end for one in silent if one.end is not None), default=0)
    for_ever = {(one.observer, one.member) for one in silent if one.end is None}
    gone = {member for _, member in for_ever}
    left = [
        end - max(over, belief.start)
        for belief in beliefs
        if belief.end is None and (belief.observer, belief.member) not in for_ever and belief.observer not in gone
    ]
    return max(left, default=None)


def _failures(silent: Iterable[Silence]) -> list[tuple[int, str]]:
    return list(dict.fromkeys((one.fault, one.member) for one in silent if one.whole))


def _is_excused(belief: _Belief, silent: Iterable[Silence], memory: int) -> bool:
    return any(
        (one.observer, one.member) == (belief.observer, belief.member)
        and one.start <= belief.start
        and (one.end is None or belief.start <= one.end + memory)
        for one in silent
    )


def _detected(fault: int, member: str, silent: Sequence[Silence], beliefs: Sequence[_Belief]) -> Detected:
    """What the others made of the failure of ``member``; those that had themselves failed then do not count."""
    about = [one for one in silent if (one.fault, one.member) == (fault, member)]
    start, end = about[0].start, about[0].end
    failed = {other for index, other in _failures(silent) if index == fault}
    observers = [one.observer for one in about if one.observer not in failed]
    took: dict[str, int] = {}
    back: list[int | None] = []
    for belief in beliefs:
        if belief.member != member or belief.observer not in observers:
            continue
        during = (belief.end is None or belief.end > start) and (end is None or belief.start < end)
        if during:
            took.setdefault(belief.observer, max(0, belief.start - start))
        if end is not None and (belief.end is None or belief.end > end) and during:
            back.append(None if belief.end is None else belief.end - end)
    known = [moment for moment in back if moment is not None]
    return Detected(
        fault,
        member,
        min(took.values(), default=None),
        max(took.values()) if took and len(took) == len(observers) else None,
        max(known, default=0) if end is not None and len(known) == len(back) else None,
    )


def detection_checks(found: Detection, expect: Expect, faults: Sequence[FaultRecord] = ()) -> list[Check]:
    """What ``[expect]`` says of the detector; where it says nothing, what was measured.

    Nobody need be taken back while another of ``faults`` is in the way, nor who refused to start after one.
    """
    checks: list[Check] = []
    gone = {member for fault in faults for member in fault.refused}
    if found.detected:
        told = [
            f"{one.member} by the first after {_after(one.first)}, by all after {_after(one.last)}"
            for one in found.detected
        ]
        slow = [
            one for one in found.detected if expect.detection is not None and not _within(one.last, expect.detection)
        ]
        allowed = "" if expect.detection is None else f"; {span(expect.detection)} allowed"
        checks.append(Check("detection", not slow, "; ".join(told) + allowed))
    if expect.reinstatement is not None:
        late = [
            one
            for one in found.detected
            if one.last is not None
            and one.member not in gone
            and not _within(one.back, expect.reinstatement)
            and _is_calm(one.fault, faults, expect.reinstatement)
        ]
        told = [f"{one.member} was back for all after {_after(one.back)}" for one in found.detected]
        summary = "; ".join(told) or "nobody had failed"
        left = found.unsettled
        if left is not None:
            summary += f"; somebody who was there was taken for failed {span(left)} after the last heal"
        settled = left is None or left <= expect.reinstatement
        summary += f"; {span(expect.reinstatement)} allowed"
        checks.append(Check("reinstatement", settled and not late, summary))
    summary = "nobody who could be reached was taken for failed"
    if found.false_positives:
        summary = f"{count(found.false_positives, 'time')} somebody who could be reached was taken for failed"
    if found.longest_mistake is not None:
        summary += f", for {span(found.longest_mistake)} at the longest"
    if found.unresolved:
        summary += f"; {found.unresolved:,} of them to the end"
    most = expect.false_positives
    summary += "; not promised" if most is None else f"; {most:,} allowed"
    checks.append(Check("false_positives", most is None or found.false_positives <= most, summary))
    return checks


def _is_calm(index: int, faults: Sequence[FaultRecord], span: int) -> bool:
    """Whether for a ``span`` after fault ``index`` was over there was no other."""
    over = next((fault.healed_at for fault in faults if fault.index == index), None)
    return over is None or not any(
        fault.struck_at is not None
        and fault.struck_at <= over + span
        and (fault.healed_at is None or fault.healed_at >= over)
        for fault in faults
        if fault.index != index
    )


def _within(took: int | None, allowed: int) -> bool:
    return took is not None and took <= allowed


def _after(took: int | None) -> str:
    return "no time in this run" if took is None else span(took)


class _Sent(msgspec.Struct, frozen=True):
    t: int
    bytes_out: int


def sent_bytes(run: Path) -> float | None:
    """Bytes a second that a node's process gave to its sockets, on average; None where nobody counted them."""
    decode = msgspec.json.Decoder(_Sent).decode
    rates: list[float] = []
    for path in sorted(run.glob("nodes/*/trace/metrics.ndjson")):
        data = path.read_bytes()
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        try:
            first, last = (decode(lines[0]), decode(lines[-1])) if lines else (None, None)
        except msgspec.DecodeError as error:
            raise HistoryError(f"{path}: not a node's metrics: {error}") from None
        if first and last and last.t > first.t and last.bytes_out >= first.bytes_out:
            rates.append((last.bytes_out - first.bytes_out) * 1e9 / (last.t - first.t))
    return fmean(rates) if rates else None
