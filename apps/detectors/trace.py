"""The evidence a detector leaves, as ``docs/detectors.md`` has it; the driver adds the time."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from apps.process import Nanoseconds, NodeId


class Standing(enum.IntEnum):
    """What a member is taken for. The order is that of overriding within one incarnation (SWIM §4.2)."""

    ALIVE = 0
    SUSPECT = 1
    FAILED = 2


class Believed(msgspec.Struct, frozen=True, tag_field="ev", tag="believe", gc=False):
    """The node changed its mind about ``member``. ``standing``: the name of a `Standing`, in small letters.

    ``incarnation``: the member's, where the protocol has one, else 0. ``after``: for how long, by the node's own clock,
    that had lasted which made it give the member up: a silence, or a suspicion; None where it was told, or where
    nothing had to last.
    """

    member: NodeId
    standing: str
    incarnation: int
    after: Nanoseconds | None = None


class Incarnated(msgspec.Struct, frozen=True, tag_field="ev", tag="incarnation", gc=False):
    """The node is in ``incarnation`` of its own from now on: 0 when it comes up, later to refute what was said of
    incarnation ``accused``.
    """

    incarnation: int
    accused: int | None = None


class Asked(msgspec.Struct, frozen=True, tag_field="ev", tag="ask", gc=False):
    """``member`` did not answer, and the node had ``helpers`` ping it, too: none only where it takes none for alive."""

    member: NodeId
    helpers: Sequence[NodeId]


class Load(msgspec.Struct, frozen=True, tag_field="ev", tag="load", gc=False):
    """How many messages the node has sent and received in this incarnation so far."""

    sent: int
    received: int


#: Load is reported once in so many intervals or periods.
REPORT_EVERY = 10


def believed(member: NodeId, standing: Standing, incarnation: int = 0, after: Nanoseconds | None = None) -> Believed:
    return Believed(member, standing.name.lower(), incarnation, after)
