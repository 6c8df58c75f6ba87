"""Logical clocks: what happened before what, without trusting anybody's time of day.

- `Lamport`: numbers that agree with causality; a smaller number proves nothing (Lamport, Time, Clocks, and the Ordering
  of Events in a Distributed System, 1978).
- vectors, `join` and `compare`: numbers that *are* causality (Mattern, Virtual Time and Global States of Distributed
  Systems, 1989).
- `HybridClock`: Lamport's, kept as close to a physical clock as causality allows (Kulkarni et al., Logical Physical
  Clocks, 2014, Figure 5).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, TypeAlias

import msgspec

from apps.process import Nanoseconds, NodeId

#: How much of each node's doing is known: its events up to that number. A node that is not named counts 0.
Vector: TypeAlias = Mapping[NodeId, int]


class Lamport:
    """``time`` rises with every event, and beyond every time that was received.

    For an order that agrees with causality where no clock can be trusted and nobody asks what time it is: queues for a
    lock, the numbers of ABD's writes. Our quorum stores have `HybridClock` do it, with a reading that stands still, so
    that their timestamps are of one type whether clocks count or not.
    """

    __slots__ = ("time",)

    def __init__(self, time: int = 0) -> None:
        self.time = time

    def tick(self) -> int:
        """The time of an event here, a message that is sent for one."""
        self.time += 1
        return self.time

    def receive(self, time: int) -> int:
        """The time at which a message that was sent at ``time`` is received."""
        self.time = max(self.time, time)
        return self.tick()


class Order(enum.Enum):
    BEFORE = "before"
    AFTER = "after"
    EQUAL = "equal"
    CONCURRENT = "concurrent"


def join(one: Vector, other: Vector) -> dict[NodeId, int]:
    """The least vector that has seen what either has, its nodes in order, so that equal vectors are encoded alike."""
    return {node: max(one.get(node, 0), other.get(node, 0)) for node in sorted({*one, *other})}


def compare(one: Vector, other: Vector) -> Order:
    """How ``one`` stands to ``other``: `Order.BEFORE` when all it has seen, and less, is what the other has seen.

    For whole vectors. A store's versions have dots, of which `apps.quorum.versions.covers` needs to look at one only.
    """
    less = any(count < other.get(node, 0) for node, count in one.items()) or any(
        count > 0 for node, count in other.items() if node not in one
    )
    more = any(count > other.get(node, 0) for node, count in one.items())
    if less and more:
        return Order.CONCURRENT
    if less:
        return Order.BEFORE
    return Order.AFTER if more else Order.EQUAL


#: The latest time there is, in both its parts; what is decoded is refused beyond it.
_LATEST = 2**63 - 1
_Part: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_LATEST)]


class HybridTime(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """``physical``: the latest clock reading anyone it depends on had. ``logical``: orders what shares it."""

    physical: _Part
    logical: _Part


class HybridClock:
    """``time`` is never below the physical clock's reading when it was last asked, and rises with every event, also if
    the physical clock is set back. With a reading that stands still, it is Lamport's clock.

    It runs ahead of its own physical clock by as much as that of the fastest node it has heard of, but hears of no time
    that is more than ``max_offset`` ahead (None: of any), lest one clock that is far off carry everybody with it
    (Kulkarni et al., §5; CockroachDB's ``--max-offset``). ``refused`` counts the times that were further ahead.
    """

    __slots__ = ("max_offset", "refused", "time")

    def __init__(self, max_offset: Nanoseconds | None = None) -> None:
        self.max_offset = max_offset
        self.time = HybridTime(0, 0)
        self.refused = 0

    def tick(self, now: Nanoseconds) -> HybridTime:
        """The time of an event here, when the physical clock shows ``now``."""
        self._pass(now, self.time)
        return self.time

    def observe(self, now: Nanoseconds, other: HybridTime) -> bool:
        """Take note of ``other``, from a message received when the physical clock shows ``now``; itself an event.

        False for a time that is too far ahead: no note was taken, and the message must be, neither.
        """
        if self.is_ahead(now, other):
            self.refused += 1
            return False
        self._pass(now, other)
        return True

    def restore(self, time: HybridTime) -> None:
        """Go on from a ``time`` of this clock's own, or one it has taken note of, from before a restart."""
        self.time = max(self.time, time)

    def is_ahead(self, now: Nanoseconds, time: HybridTime) -> bool:
        """Whether ``time`` is further ahead of a physical clock that shows ``now`` than clocks may differ."""
        return self.max_offset is not None and time.physical - now > self.max_offset

    def _pass(self, now: Nanoseconds, other: HybridTime) -> None:
        latest = max(self.time, other)
        if now > latest.physical:
            self.time = HybridTime(now, 0)
        else:
            # Only nonsense from elsewhere comes near the end, and it must not be carried on beyond it.
            self.time = HybridTime(latest.physical, min(latest.logical + 1, _LATEST))
