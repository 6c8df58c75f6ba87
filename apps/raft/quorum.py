"""The arithmetic of majorities. Any two majorities of the same voters share one voter: all of Raft rests on that."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping

from apps.process import NodeId


class Outcome(enum.Enum):
    WON = "won"
    LOST = "lost"
    PENDING = "pending"


def majority(voters: int) -> int:
    """How many of ``voters`` make a majority."""
    return voters // 2 + 1


def reached(positions: Iterable[int]) -> int:
    """The furthest position that a majority has reached, given how far each voter has come.

    Positions are whatever only grows: indexes of replicated entries, numbers of heartbeat rounds, times of contact.
    """
    ranked = sorted(positions)
    return ranked[len(ranked) - majority(len(ranked))]


def outcome(voters: Collection[NodeId], votes: Mapping[NodeId, bool]) -> Outcome:
    """How an election stands; ``votes`` holds the answers so far, those of strangers do not count."""
    granted = sum(votes.get(voter) is True for voter in voters)
    denied = sum(votes.get(voter) is False for voter in voters)
    if granted >= majority(len(voters)):
        return Outcome.WON
    if denied > len(voters) - majority(len(voters)):
        return Outcome.LOST
    return Outcome.PENDING
