"""Who takes part, and the arithmetic of their majorities.

Any two majorities of the same voters share one voter: all of Raft rests on that. Majorities of two different sets of
voters need share none, so between one set and the next there is a time in which everything needs a majority of both
(joint consensus; paper §6, thesis §4.3).
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping

import msgspec

from apps.process import NodeId


class Configuration(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who takes part from log position ``index`` on, 0 for those a cluster begins with.

    ``voters`` elect and commit. ``learners`` are sent the log and have no say. ``outgoing``, where there are any, makes
    it *joint*: they are the voters of the configuration before, and a majority of them is needed too.
    Raises `ValueError` when nobody has a vote, or somebody is named twice in one set of voters or beside it.
    """

    index: int
    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...] = ()
    outgoing: tuple[NodeId, ...] = ()

    def __post_init__(self) -> None:
        if not self.voters:
            raise ValueError("a configuration without voters")
        for named in ((*self.voters, *self.learners), self.outgoing):
            if len(set(named)) < len(named):
                raise ValueError(f"a configuration that names somebody twice: {', '.join(named)}")

    @property
    def electorate(self) -> tuple[NodeId, ...]:
        """All who have a vote, each once."""
        return tuple(dict.fromkeys((*self.voters, *self.outgoing)))

    @property
    def members(self) -> tuple[NodeId, ...]:
        """All who are sent the log, each once."""
        return tuple(dict.fromkeys((*self.voters, *self.outgoing, *self.learners)))


class Outcome(enum.Enum):
    WON = "won"
    LOST = "lost"
    PENDING = "pending"


def majority(voters: int) -> int:
    """How many of ``voters`` make a majority."""
    return voters // 2 + 1


def reached(configuration: Configuration, positions: Mapping[NodeId, int]) -> int:
    """The furthest position that a majority has reached, of each set of voters, given how far each voter has come.

    Positions are whatever only grows: indexes of replicated entries, numbers of heartbeat rounds, times of contact. Who
    has none is at 0.
    """
    furthest = _reached(configuration.voters, positions)
    return min(furthest, _reached(configuration.outgoing, positions)) if configuration.outgoing else furthest


def _reached(voters: Collection[NodeId], positions: Mapping[NodeId, int]) -> int:
    ranked = sorted([positions.get(voter, 0) for voter in voters])
    return ranked[len(ranked) - majority(len(ranked))]


def outcome(configuration: Configuration, votes: Mapping[NodeId, bool]) -> Outcome:
    """How an election stands; ``votes`` holds the answers so far, those of strangers do not count."""
    outcomes = {_outcome(voters, votes) for voters in (configuration.voters, configuration.outgoing) if voters}
    if Outcome.LOST in outcomes:
        return Outcome.LOST
    return Outcome.PENDING if Outcome.PENDING in outcomes else Outcome.WON


def _outcome(voters: Collection[NodeId], votes: Mapping[NodeId, bool]) -> Outcome:
    granted = sum(votes.get(voter) is True for voter in voters)
    denied = sum(votes.get(voter) is False for voter in voters)
    if granted >= majority(len(voters)):
        return Outcome.WON
    if denied > len(voters) - majority(len(voters)):
        return Outcome.LOST
    return Outcome.PENDING


def may_follow(before: Configuration, after: Configuration) -> bool:
    """Whether every majority of ``before`` shares a voter with every one of ``after``, by the rules of joint consensus.

    Voters change only by way of a joint configuration: into one that keeps the old ones as outgoing, and out of it into
    one of its new ones alone. Learners may come and go with any step.
    """
    if before.outgoing:
        return not after.outgoing and set(after.voters) == set(before.voters)
    return set(after.outgoing or after.voters) == set(before.voters)
