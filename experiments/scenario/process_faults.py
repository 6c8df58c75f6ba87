"""Faults of processes, disks and clocks, and the bad transport: each with its reader.

`Mute` and `Pause` strike in every world. The others are the simulator's: on the fabric, nodes share the machine's one
clock and disk, and TCP spares them the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from experiments.scenario.reading import Table, choice, number, positive_duration
from topologies.units import UnitError, parse_duration, parse_share


class Mute(msgspec.Struct, frozen=True, tag="mute", tag_field="kind"):
    """Nobody hears these nodes, while they hear everybody: a one-way partition."""

    nodes: tuple[str, ...]
    at: int
    lasts: int


class Pause(msgspec.Struct, frozen=True, tag="pause", tag_field="kind"):
    """These nodes take no step, as between SIGSTOP and SIGCONT; their hosts go on acknowledging what comes in."""

    nodes: tuple[str, ...]
    at: int
    lasts: int


class SlowDisk(msgspec.Struct, frozen=True, tag="slow-disk", tag_field="kind"):
    """Every sync of these nodes takes ``factor`` times as long."""

    nodes: tuple[str, ...]
    factor: float
    at: int
    lasts: int


class FullDisk(msgspec.Struct, frozen=True, tag="full-disk", tag_field="kind"):
    """The next write of these nodes fails, and ends them; when there is room again they are started from their logs."""

    nodes: tuple[str, ...]
    at: int
    lasts: int


class BitFlip(msgspec.Struct, frozen=True, tag="bit-flip", tag_field="kind"):
    """These nodes are killed, and one bit of each one's log changes before it is started again."""

    nodes: tuple[str, ...]
    at: int
    lasts: int


class Drift(msgspec.Struct, frozen=True, tag="drift", tag_field="kind"):
    """The clocks of these nodes run ``rate`` times as fast as time. What the monotonic ones gained or lost by that
    stays; the time of day is set right when the fault ends.
    """

    nodes: tuple[str, ...]
    rate: float
    at: int
    lasts: int


class Skew(msgspec.Struct, frozen=True, tag="skew", tag_field="kind"):
    """The time of day of these nodes jumps by ``offset``, forth or back, and is set right when the fault ends (Jepsen's
    bump and reset); with a ``period`` above 0 it jumps there and back, once in each (strobe). Monotonic clocks go on.
    """

    nodes: tuple[str, ...]
    offset: int
    period: int
    at: int
    lasts: int

    def stretched(self, factor: float) -> Skew:
        """Its own durations times ``factor``."""
        return msgspec.structs.replace(self, offset=round(self.offset * factor), period=round(self.period * factor))


class Disorder(msgspec.Struct, frozen=True, tag="disorder", tag_field="kind"):
    """Messages are lost, repeated and disordered one by one, as if there were no connections between processes.

    ``loss``, ``repeat`` and ``stray`` are shares of all messages; those that stray come up to ``late`` later.
    """

    loss: float
    repeat: float
    stray: float
    late: int
    at: int
    lasts: int


class CrashPoint(msgspec.Struct, frozen=True, tag="crash-point", tag_field="kind"):
    """A ``share`` of the nodes that do ``event``, named as in their traces, die right then: before, while or after
    it is written and told. They are started again within ``down``.
    """

    event: str
    share: float
    down: int
    at: int
    lasts: int


#: What nodes can die of at a `CrashPoint`: events of Raft's, quorum stores', failure detectors' and failover's traces.
MOMENTS = ("vote", "role", "append", "commit", "apply", "put", "keep", "ack", "handoff", "believe", "lease", "weigh")

#: Faults of the log that a node keeps on its disk; one that keeps none cannot have them.
LOG_FAULTS = (SlowDisk, FullDisk, BitFlip)

ProcessFault: TypeAlias = Mute | Pause | SlowDisk | FullDisk | BitFlip | Drift | Skew | Disorder | CrashPoint

#: ``read(table, nodes, at, lasts)``, where ``nodes()`` takes the nodes that the table names.
Reader: TypeAlias = Callable[[Table, Callable[[], tuple[str, ...]], int, int], ProcessFault]


def _slow_disk(table: Table, nodes: Callable[[], tuple[str, ...]], at: int, lasts: int) -> SlowDisk:
    return SlowDisk(nodes(), table.take("factor", number(1.0), default=1.0, required=True), at, lasts)


def _drift(table: Table, nodes: Callable[[], tuple[str, ...]], at: int, lasts: int) -> Drift:
    return Drift(nodes(), table.take("rate", _rate, default=1.0, required=True), at, lasts)


def _skew(table: Table, nodes: Callable[[], tuple[str, ...]], at: int, lasts: int) -> Skew:
    offset = table.take("offset", _offset, default=1, required=True)
    return Skew(nodes(), offset, table.take("period", parse_duration, default=0), at, lasts)


def _disorder(table: Table, nodes: Callable[[], tuple[str, ...]], at: int, lasts: int) -> Disorder:
    del nodes
    loss, repeat, stray = (table.take(name, _partly, default=0.0) for name in ("loss", "repeat", "stray"))
    late = table.take("late", positive_duration, default=0, required=stray > 0)
    if not (loss or repeat or stray):
        table.wrong("kind", "disorders nothing; give it loss, repeat or stray")
    return Disorder(loss, repeat, stray, late, at, lasts)


def _crash_point(table: Table, nodes: Callable[[], tuple[str, ...]], at: int, lasts: int) -> CrashPoint:
    del nodes
    event = table.take("event", choice(*MOMENTS), default="", required=True)
    share = table.take("share", parse_share, default=1.0)
    down = table.take("down", positive_duration, default=0, required=True)
    return CrashPoint(event, share, down, at, lasts)


def _rate(value: object) -> float:
    rate = number(0.01)(value)
    if rate > 100:
        raise UnitError(f"{value!r} is not a rate from 0.01 to 100; 1 is a clock that is right")
    return rate


def _offset(value: object) -> int:
    back = isinstance(value, str) and value.startswith("-")
    offset = parse_duration(value[1:] if back and isinstance(value, str) else value)
    if not offset:
        raise UnitError(f"{value!r} sets no clock off; a clock that is ahead has '200ms', one that is behind '-200ms'")
    return -offset if back else offset


def _partly(value: object) -> float:
    share = parse_share(value)
    if share >= 1:
        raise UnitError(f"{value!r}: some messages must get through; for silence there are partitions")
    return share


READERS: Mapping[str, Reader] = {
    "mute": lambda table, nodes, at, lasts: Mute(nodes(), at, lasts),
    "pause": lambda table, nodes, at, lasts: Pause(nodes(), at, lasts),
    "slow-disk": _slow_disk,
    "full-disk": lambda table, nodes, at, lasts: FullDisk(nodes(), at, lasts),
    "bit-flip": lambda table, nodes, at, lasts: BitFlip(nodes(), at, lasts),
    "drift": _drift,
    "skew": _skew,
    "disorder": _disorder,
    "crash-point": _crash_point,
}
