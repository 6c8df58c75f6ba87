"""``[expect]``: what a run must show, beside safety."""

from __future__ import annotations

import msgspec

from experiments.scenario.reading import Table, flag, positive_duration, whole
from experiments.scenario.systems import System
from topologies.units import parse_share

#: What is expected within a time.
SPANS = ("recovery", "election", "staleness", "detection", "reinstatement", "takeover")


class Expect(msgspec.Struct, frozen=True):
    """What the run must show, beside safety. Times in nanoseconds, ``None`` where nothing is expected.

    ``recovery``: after the last heal, operations succeed again within this time. ``election``: after a fault that
    hit the leader, the rest have a new one within this time. ``availability``: the least share of operations that
    succeed. ``leader_changes``: the most changes of leader from start to end. ``stale_reads``: the most reads that
    miss a write acknowledged before they began; ``staleness``: how long ago that may have been. ``detection``: a node
    that falls silent is taken for failed by all that can tell within this time; ``reinstatement``: and for alive again
    after it is back; ``false_positives``: the most judgements that a node which can be reached has failed;
    ``takeover``: the longest time that a shard of the work is served by nobody.
    """

    linearizable: bool = True
    recovery: int | None = None
    election: int | None = None
    availability: float | None = None
    leader_changes: int | None = None
    stale_reads: int | None = None
    staleness: int | None = None
    detection: int | None = None
    reinstatement: int | None = None
    false_positives: int | None = None
    takeover: int | None = None

    def stretched(self, factor: float) -> Expect:
        """Every duration times ``factor``."""
        spans = {name: span for name in SPANS if (span := getattr(self, name)) is not None}
        return msgspec.structs.replace(self, **{name: round(span * factor) for name, span in spans.items()})


def read_expect(table: Table, system: System) -> Expect:
    """``[expect]`` of ``system``. What is wrong with it is noted in the table."""
    expect = Expect(
        linearizable=table.take("linearizable", flag, default=system.linearizable),
        recovery=table.take("recovery", positive_duration, default=None),
        election=table.take("election", positive_duration, default=None),
        availability=table.take("availability", parse_share, default=None),
        leader_changes=table.take("leader_changes", whole(0), default=None),
        stale_reads=table.take("stale_reads", whole(0), default=None),
        staleness=table.take("staleness", positive_duration, default=None),
        detection=table.take("detection", positive_duration, default=None),
        reinstatement=table.take("reinstatement", positive_duration, default=None),
        false_positives=table.take("false_positives", whole(0), default=None),
        takeover=table.take("takeover", positive_duration, default=None),
    )
    if expect.linearizable and not system.linearizable:
        table.wrong(
            "linearizable",
            "the system does not promise that; say false, or for a quorum store [system] linearizable = true",
        )
    if not system.elects and (expect.election is not None or expect.leader_changes is not None):
        table.wrong(
            "election" if expect.election is not None else "leader_changes", "the system's nodes elect no leader"
        )
    table.finish()
    return expect
