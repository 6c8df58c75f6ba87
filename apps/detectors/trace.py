"""The evidence a detector leaves, as ``docs/detectors.md`` has it; the driver adds the time."""

from __future__ import annotations

import enum

import msgspec

from apps.process import NodeId


class Standing(enum.IntEnum):
    """What a member is taken for. The order is that of overriding within one incarnation (SWIM §4.2)."""

    ALIVE = 0
    SUSPECT = 1
    FAILED = 2


class Believed(msgspec.Struct, frozen=True, tag_field="ev", tag="believe", gc=False):
    """The node changed its mind about ``member``. ``standing``: the name of a `Standing`, in small letters.

    ``incarnation``: the member's, where the protocol has one, else 0.
    """

    member: NodeId
    standing: str
    incarnation: int


class Load(msgspec.Struct, frozen=True, tag_field="ev", tag="load", gc=False):
    """How many messages the node has sent and received in this incarnation so far."""

    sent: int
    received: int


#: Load is reported once in so many intervals or periods.
REPORT_EVERY = 10


def believed(member: NodeId, standing: Standing, incarnation: int = 0) -> Believed:
    return Believed(member, standing.name.lower(), incarnation)
