"""``[expect]``: what a run must show, beside safety."""

from __future__ import annotations

import msgspec

from experiments.scenario.reading import Table, flag, positive_duration, whole
from topologies.units import parse_share


class Expect(msgspec.Struct, frozen=True):
    """What the run must show, beside safety. Times in nanoseconds, ``None`` where nothing is expected.

    ``recovery``: after the last heal, operations succeed again within this time. ``election``: after a fault that
    hit the leader, the rest have a new one within this time. ``availability``: the least share of operations that
    succeed. ``leader_changes``: the most changes of leader from start to end.
    """

    linearizable: bool = True
    recovery: int | None = None
    election: int | None = None
    availability: float | None = None
    leader_changes: int | None = None

    def stretched(self, factor: float) -> Expect:
        """Every duration times ``factor``."""
        return msgspec.structs.replace(
            self,
            recovery=None if self.recovery is None else round(self.recovery * factor),
            election=None if self.election is None else round(self.election * factor),
        )


def read_expect(table: Table) -> Expect:
    """``[expect]``. What is wrong with it is noted in the table."""
    expect = Expect(
        linearizable=table.take("linearizable", flag, default=True),
        recovery=table.take("recovery", positive_duration, default=None),
        election=table.take("election", positive_duration, default=None),
        availability=table.take("availability", parse_share, default=None),
        leader_changes=table.take("leader_changes", whole(0), default=None),
    )
    table.finish()
    return expect
