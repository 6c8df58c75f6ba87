"""What must hold of failure detectors: for whoever has the members at hand, tests and simulators.

`SwimInvariants.observe` looks at one member of `Swim` after each of its steps, `HeartbeatInvariants.observe` at one of
`Heartbeats`. That a detector is right is not among them: none can always be (Chandra & Toueg 1996). What each can
promise is that what it believes has come about by its own rules.
"""

from __future__ import annotations

import msgspec

from apps.detectors.heartbeat import Heartbeats
from apps.detectors.swim import Belief, Swim
from apps.detectors.trace import Standing
from apps.process import Nanoseconds, NodeId


class Violation(msgspec.Struct, frozen=True):
    property: str
    detail: str


class SwimInvariants:
    """Watches one group, through crashes and restarts (SWIM §4.2)."""

    def __init__(self) -> None:
        self._highest: dict[NodeId, int] = {}
        self._seen: dict[NodeId, tuple[Swim, int, dict[NodeId, Belief]]] = {}

    def observe(self, member: Swim) -> list[Violation]:
        """What ``member`` violates as it stands. Costs what it believes."""
        watched, own, beliefs = self._seen.get(member.node, (member, 0, {}))
        if watched is not member:
            own, beliefs = 0, {}  # a crash takes what it knew
        self._highest[member.node] = max(self._highest.get(member.node, 0), member.incarnation)
        found = [self.own_incarnation_rises(member, own)]
        for other, belief in member.beliefs.items():
            before = beliefs.get(other, Belief(0, Standing.ALIVE))
            if belief != before:
                found.append(self.incarnations_are_own(member, other, belief))
                found.append(self.beliefs_go_forward(member, other, before, belief))
        self._seen[member.node] = member, member.incarnation, dict(member.beliefs)
        return [violation for violation in found if violation]

    def incarnations_are_own(self, member: Swim, other: NodeId, belief: Belief) -> Violation | None:
        """Nobody is believed to be in an incarnation that it never was in: only it itself begins one."""
        highest = self._highest.get(other, 0)
        if belief.incarnation <= highest:
            return None
        detail = f"{member.node} has heard of incarnation {belief.incarnation} of {other}, which came to {highest}"
        return Violation("IncarnationsAreOwn", detail)

    def beliefs_go_forward(self, member: Swim, other: NodeId, before: Belief, after: Belief) -> Violation | None:
        """What overrides a belief is of a later incarnation, or of the same and worse."""
        if after > before:
            return None
        return Violation("BeliefsGoForward", f"{member.node} believed {before} of {other}, and now {after}")

    def own_incarnation_rises(self, member: Swim, before: int) -> Violation | None:
        """A member that runs never goes back to an incarnation that it has left."""
        if member.incarnation >= before:
            return None
        detail = f"{member.node} was in incarnation {before}, and now is in {member.incarnation}"
        return Violation("OwnIncarnationRises", detail)


class HeartbeatInvariants:
    """Watches one group, through crashes and restarts."""

    def __init__(self) -> None:
        self._seen: dict[NodeId, tuple[Heartbeats, set[NodeId]]] = {}

    def observe(self, now: Nanoseconds, member: Heartbeats) -> list[Violation]:
        """What ``member`` violates as it stands at ``now`` of its own clock, having just taken a step."""
        watched, failed = self._seen.get(member.node, (member, set()))
        if watched is not member:
            failed = set()
        present = {peer for peer in member.peers if member.standing(peer) is Standing.FAILED}
        found = [self.silence_has_lasted(now, member, peer) for peer in member.peers if peer in present - failed]
        self._seen[member.node] = member, present
        return [violation for violation in found if violation]

    def silence_has_lasted(self, now: Nanoseconds, member: Heartbeats, peer: NodeId) -> Violation | None:
        """Nobody is given up before its silence has lasted as long as the rule demands."""
        silence, limit = member.silence(now, peer), member.limit(peer)
        if silence >= limit:
            return None
        return Violation("SilenceHasLasted", f"{member.node} gave {peer} up after {silence} ns, and not after {limit}")
