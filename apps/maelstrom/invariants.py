"""What must hold of our Maelstrom nodes: for whoever has them at hand, tests and simulators.

`Invariants.observe` looks at one `apps.maelstrom.crdt.Replica` after each of its steps; `convergence` is asked for when
the network has been whole and quiet for a while. A lin-kv node is a Raft node, whose invariants are Raft's
(`apps.raft.invariants`, given its ``raft``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec

from apps.maelstrom.crdt import PNCounter, Replica, State
from apps.process import NodeId


class Violation(msgspec.Struct, frozen=True):
    property: str
    detail: str


class Invariants:
    """Watches the replicas of one set or counter, through crashes and restarts."""

    def __init__(self) -> None:
        self._before: dict[NodeId, tuple[Replica, Any]] = {}
        self._own: dict[NodeId, tuple[int, int]] = {}

    def observe(self, replica: Replica) -> list[Violation]:
        """What ``replica`` violates as it stands. Costs its state."""
        watched, before = self._before.get(replica.node, (replica, None))
        found = []
        if before is not None and watched is replica:  # a crash takes all, as nothing is on disk
            found.append(self.state_grows(replica, before))
        if isinstance(replica.state, PNCounter):
            found.append(self.sums_are_own(replica.node, replica.state))
        self._before[replica.node] = replica, replica.state.dump()
        return [violation for violation in found if violation]

    def state_grows(self, replica: Replica, before: Any) -> Violation | None:
        """A step only ever adds to a state: what it was is below what it is in the semilattice."""
        if _holds(replica.state, before):
            return None
        return Violation("StateGrows", f"{replica.node} had {before}, and now has {replica.state.dump()}")

    def sums_are_own(self, node: NodeId, counter: PNCounter) -> Violation | None:
        """Nobody knows of more that a node has added or taken away than this itself."""
        sums = counter.dump()
        if node in sums:
            highest = self._own.get(node, (0, 0))
            self._own[node] = max(highest[0], sums[node][0]), max(highest[1], sums[node][1])
        for other, (up, down) in sums.items():
            most = self._own.get(other, (0, 0))
            if up > most[0] or down > most[1]:
                return Violation("SumsAreOwn", f"{node} has {(up, down)} of {other}, which came to {most}")
        return None


def convergence(replicas: Sequence[Replica]) -> list[Violation]:
    """All replicas hold the same (strong eventual consistency, Shapiro et al. 2011, Definition 2.3)."""
    found = []
    for one, other in pairwise(replicas):
        if not (_holds(one.state, other.state.dump()) and _holds(other.state, one.state.dump())):
            detail = f"{one.node} has {one.state.dump()}, and {other.node} {other.state.dump()}"
            found.append(Violation("Convergence", detail))
    return found


def _holds(state: State, other: Any) -> bool:
    """Whether ``other``, as dumped, is all in ``state``, which is left as it is."""
    copy = type(state)()
    copy.merge(state.dump())
    return copy.merge(other) is None
