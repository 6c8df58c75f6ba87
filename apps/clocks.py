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
    """``time`` rises with every event, and beyond every time that was received."""

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
    """How ``one`` stands to ``other``: `Order.BEFORE` when all it has seen, and less, is what the other has seen."""
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
    """``time`` is never below the physical clock's reading when it was last asked, and rises with every event.

    It runs ahead of its own physical clock by as much as that of the fastest node it has heard of, and no more.
    """

    __slots__ = ("time",)

    def __init__(self) -> None:
        self.time = HybridTime(0, 0)

    def tick(self, now: Nanoseconds) -> HybridTime:
        """The time of an event here, when the physical clock shows ``now``."""
        self.observe(now, self.time)
        return self.time

    def observe(self, now: Nanoseconds, other: HybridTime) -> None:
        """Take note of ``other``, from a message received when the physical clock shows ``now``; itself an event."""
        latest = max(self.time, other)
        if now > latest.physical:
            self.time = HybridTime(now, 0)
        else:
            # Only nonsense from elsewhere comes near the end, and it must not be carried on beyond it.
            self.time = HybridTime(latest.physical, min(latest.logical + 1, _LATEST))
