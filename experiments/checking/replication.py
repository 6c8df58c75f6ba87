"""How a quorum store got along while replicas were out of reach, counted from what its nodes left."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from experiments.checking.quorum_properties import QuorumProperties
from experiments.checking.trace import Handoff, Keep, Repair, Short, Witness


class Replication(msgspec.Struct, frozen=True):
    """``hinted``: versions kept for a replica out of reach, ``handed_over``: given to it later; ``repairs``: replicas
    that a read found behind, and brought up to date; ``refused_reads``, ``refused_writes``: operations given up since
    too few nodes answered. Of ``keys``, ``differing`` ones had replicas that kept different versions at the end.
    """

    hinted: int
    handed_over: int
    repairs: int
    refused_reads: int
    refused_writes: int
    keys: int
    differing: int


def replication(events: Iterable[Witness], properties: QuorumProperties) -> Replication:
    """``properties`` were fed all of ``events``."""
    hinted = handed_over = repairs = reads = writes = 0
    for witness in events:
        match witness.event:
            case Keep(owner=owner) if owner is not None:
                hinted += 1
            case Handoff():
                handed_over += 1
            case Repair():
                repairs += 1
            case Short(write=True):
                writes += 1
            case Short():
                reads += 1
    differing = len(properties.differing())
    return Replication(hinted, handed_over, repairs, reads, writes, len(properties.keys), differing)
