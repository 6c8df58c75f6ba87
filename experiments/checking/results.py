"""``results.json``: the verdicts on a run, as data (docs/run-folder.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec

#: Jepsen's three answers to ``:valid?``.
Valid: TypeAlias = bool | Literal["unknown"]

SCHEMA = 1


class Check(msgspec.Struct, frozen=True):
    """One promise, kept or not. ``details``: what is needed to see a failure."""

    name: str
    valid: Valid
    summary: str
    details: dict[str, Any] = {}


class Believable(msgspec.Struct, frozen=True):
    """Whether the run shows what it was meant to show, and every reason why not."""

    valid: bool
    reasons: list[str]


class Availability(msgspec.Struct, frozen=True):
    """How clients were served; times in nanoseconds. ``refused``: compare-and-sets that found another value; served.

    By the fault's number: ``interruption``, from when the fault was applied to when service was steady again;
    ``recovery``, the same from its heal; ``new_leader``, from a fault that took the leader from the others to the
    election of the next. None where it did not come to that.
    """

    operations: int
    ok: int
    refused: int
    failed: int
    unknown: int
    share: float | None
    longest_outage: int | None = None
    outage_at: int | None = None
    interruption: dict[str, int | None] = {}
    recovery: dict[str, int | None] = {}
    new_leader: dict[str, int | None] = {}


class Leader(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}):
    """Who led a term and when, in nanoseconds from the start of the workload; ``end`` is None for the run's end."""

    node: str
    term: int
    start: int
    end: int | None


class Staleness(msgspec.Struct, frozen=True):
    """Of ``reads``, ``stale`` ones missed a write acknowledged before they began: half of them one acknowledged
    ``typical`` nanoseconds before or less, the worst ``oldest``. ``siblings`` found several values. ``example``: the
    write that the worst missed, and the read.
    """

    reads: int
    stale: int
    siblings: int
    typical: int | None
    oldest: int | None
    example: list[dict[str, Any]] = []


class Detected(msgspec.Struct, frozen=True):
    """What the others made of ``member`` when ``fault`` made it fail, in nanoseconds from then: when the ``first`` took
    it for failed, and the ``last``; and how long after it was ``back`` all took it for alive. None: not in the run.
    """

    fault: int
    member: str
    first: int | None
    last: int | None
    back: int | None


class Detection(msgspec.Struct, frozen=True):
    """How well failures were told from what is none. ``false_positives``: how often somebody who could be reached was
    taken for failed; ``longest_mistake``: for how long at most, of those put right, ``unresolved`` were not.
    ``unsettled``: for how long after the last heal somebody who was there was taken for failed until the end; None:
    nobody was. What a member sent: ``messages_per_second`` on average, and that of the busiest; ``bytes_per_second``
    where it was counted.
    """

    detected: list[Detected]
    false_positives: int
    longest_mistake: int | None
    unresolved: int
    unsettled: int | None
    messages_per_second: float
    most_messages_per_second: float
    bytes_per_second: float | None


class Fidelity(msgspec.Struct, frozen=True):
    """How well the machine served: how late the nodes' event loops ran, in nanoseconds; which share of the processors'
    time was left; what was obtained of each impaired direction before the workload began.
    """

    loop_lag_p99: int | None = None
    loop_lag_max: int | None = None
    cpu_headroom: float | None = None
    cpu_headroom_min: float | None = None
    calibration: dict[str, Any] = {}


class Rejection(msgspec.Struct, frozen=True):
    """What ``node`` turned away of ``peer``, ``count`` times: connections, ``code`` being the runtime's word for the
    reason, or messages, ``code`` being the kind of the first. ``peer``: the name it gave, or its address.
    """

    node: str
    peer: str
    what: Literal["connection", "message"]
    code: str
    why: str
    count: int


class Results(msgspec.Struct, frozen=True):
    """``valid``: false where a promise was broken, which it is on any machine; true where all were kept in a run that
    is to be believed; else unknown. ``exit_status``, in this order: 1, 0, 2. ``evidence_sha256``: of all evidence of a
    run in virtual time, the same whenever its seed is played.
    """

    schema: int
    valid: Valid
    exit_status: int
    summary: str
    checks: list[Check]
    believable: Believable
    availability: Availability | None = None
    leaders: list[Leader] = []
    fidelity: Fidelity = Fidelity()
    staleness: Staleness | None = None
    detection: Detection | None = None
    evidence_sha256: str | None = None
    rejections: list[Rejection] = []


def overall(checks: Sequence[Check]) -> Valid:
    """False if any check failed, else unknown if any is, else true."""
    if any(check.valid is False for check in checks):
        return False
    return "unknown" if any(check.valid == "unknown" for check in checks) else True


def exit_status(valid: Valid) -> int:
    return 2 if valid == "unknown" else 0 if valid else 1
