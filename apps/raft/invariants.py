"""What must hold of a cluster at any moment: the safety properties of the paper's Figure 3, under their names there.

They look at the nodes' own state, so they serve whoever has the nodes at hand: tests, a simulator. What a run on the
fabric leaves is judged from its trace instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import msgspec

from apps.process import NodeId
from apps.raft.core import Raft, Role
from apps.raft.log import Log
from apps.raft.messages import Entry
from apps.raft.quorum import may_follow


class Violation(msgspec.Struct, frozen=True):
    property: str
    detail: str


def parting(one: Log, other: Log) -> int | None:
    """The first position at which two logs differ although they agree on the term of a later one, or of itself."""
    agreeing = min(one.last, other.last)
    while agreeing > max(one.base, other.base) and one.term(agreeing) != other.term(agreeing):
        agreeing -= 1
    first = max(one.base, other.base) + 1
    mine, theirs = one.slice(first, agreeing), other.slice(first, agreeing)
    if mine == theirs:
        return None
    return next(index for index, (a, b) in enumerate(zip(mine, theirs, strict=True), first) if a != b)


class Invariants:
    """Watches one cluster, through crashes and restarts, and remembers what no node may contradict later.

    ``committed``: the longest sequence of entries that was ever applied by any node.
    """

    def __init__(self) -> None:
        self.committed: list[Entry] = []
        self._committed_in: list[int] = []  # a term not before the one in which it was committed
        self._leaders: dict[int, NodeId] = {}
        self._last_of_leader: dict[int, tuple[int, int | None]] = {}
        self._complete: dict[int, int] = {}
        self._applied: dict[NodeId, tuple[Raft, int]] = {}

    def observe(self, node: Raft) -> list[Violation]:
        """What ``node`` violates as it stands; to be called after each of its steps. Costs what changed since."""
        found = [self.state_machine_safety(node)]
        found += [self.configuration_safety(node)]
        if node.role is Role.LEADER:
            found += [self.election_safety(node), self.leader_append_only(node), self.leader_completeness(node)]
        return [violation for violation in found if violation]

    def election_safety(self, leader: Raft) -> Violation | None:
        """At most one leader is elected in a term."""
        first = self._leaders.setdefault(leader.term, leader.node)
        if first == leader.node:
            return None
        return Violation("ElectionSafety", f"{first} and {leader.node} both lead in term {leader.term}")

    def leader_append_only(self, leader: Raft) -> Violation | None:
        """A leader never overwrites or removes entries of its log."""
        last, term = self._last_of_leader.get(leader.term, (0, 0))
        self._last_of_leader[leader.term] = leader.log.last, leader.log.last_term
        if last < leader.log.base or leader.log.term(last) == term:
            return None
        return Violation("LeaderAppendOnly", f"{leader.node} lost entry {last} while it led term {leader.term}")

    def leader_completeness(self, leader: Raft) -> Violation | None:
        """What was committed in earlier terms is in the log of every later leader."""
        known = max(self._complete.get(leader.term, 0), leader.log.base)
        self._complete[leader.term] = len(self.committed)
        here = leader.log.slice(known + 1, len(self.committed))
        for index in range(known, len(self.committed)):
            if self._committed_in[index] >= leader.term:
                continue
            if index - known >= len(here) or here[index - known] != self.committed[index]:
                return Violation("LeaderCompleteness", f"{leader.node}, term {leader.term}, lacks entry {index + 1}")
        return None

    def state_machine_safety(self, node: Raft) -> Violation | None:
        """No two nodes apply different entries at the same position."""
        seen, applied = self._applied.get(node.node, (node, 0))
        if seen is not node:
            applied = 0
        self._applied[node.node] = node, node.applied
        for entry in node.log.slice(applied + 1, node.applied):
            if entry.index > len(self.committed):
                self.committed.append(entry)
                self._committed_in.append(node.term)
            elif self.committed[entry.index - 1] != entry:
                return Violation("StateMachineSafety", f"{node.node} applied another entry {entry.index} than before")
        return None

    def configuration_safety(self, node: Raft) -> Violation | None:
        """One change at a time, each by way of a joint configuration, so that majorities never miss each other.

        Each configuration of a log may follow the one before it, and a leader begins none before the one before it and
        an entry of its own term are committed (thesis §4.1, and raft-dev, July 2015).
        """
        configurations = node._configurations
        for before, after in pairwise(configurations):
            if not may_follow(before, after):
                return Violation("ConfigurationSafety", f"{node.node} went from {before} to {after} in one step")
        if node.role is Role.LEADER and node.log.term(configurations[-1].index) == node.term:
            if node.commit < node._opening:
                return Violation("ConfigurationSafety", f"{node.node} began a change before its term had committed any")
            if len(configurations) > 1 and configurations[-2].index > node.commit:
                return Violation(
                    "ConfigurationSafety", f"{node.node} began a change before {configurations[-2]} was over"
                )
        return None

    def log_matching(self, nodes: Iterable[Raft]) -> list[Violation]:
        """If two logs have an entry with the same index and term, they are the same up to there. Compares all pairs."""
        nodes = list(nodes)
        return [
            Violation("LogMatching", f"{one.node} and {other.node} part at {index}, yet agree on a later entry's term")
            for position, one in enumerate(nodes)
            for other in nodes[position + 1 :]
            if (index := parting(one.log, other.log)) is not None
        ]
