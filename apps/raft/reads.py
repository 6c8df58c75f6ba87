"""Linearizable reads that leave the log alone: ReadIndex and leases (thesis §6.4), at the leader or at a follower.

A read is answered from a state that holds all that was committed when it came in. The leader knows what that is, once
an entry of its term is committed, as long as nobody has been elected since; there are two ways to be sure:

- **ReadIndex**: a round of heartbeats sent after the read came in, answered by a majority. It costs a round trip and
  depends on no clock.
- **Lease** (thesis §6.4.1): who answered a heartbeat gives no other candidate its vote for the shortest election
  timeout. So no other leader can be elected within that time after the *sending* of a round that a majority answered,
  as long as no clock runs faster than another's by more than `RaftConfig.clock_drift_bound`; that much shorter is the
  lease. While it lasts reads are answered at once. A clock that drifts further makes them stale, and nothing warns.

Two things would break the promise not to vote, and are seen to: a voter that restarts forgets whom it has answered, so
it votes for nobody until a whole timeout has passed; and a node to which leadership is transferred gets votes in spite
of it, so a leader gives up its lease for the rest of its term before it says that somebody may take over.

A follower repeats a question that stays unanswered, as it or the answer may have been lost, with the heartbeats that
it hears. Reads that wait are counted at every node, and past `RaftConfig.max_waiting_reads` the next is told
`kv.Busy`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from apps import kv
from apps.process import Nanoseconds, NodeId, Requested
from apps.raft.config import RaftConfig
from apps.raft.messages import Heartbeat, HeartbeatReply, ReadIndex, ReadIndexReply
from apps.raft.node import Role
from apps.raft.snapshots import Snapshots

#: How many rounds may be unanswered before the oldest are forgotten; they could only have prolonged a lease.
_ROUNDS_REMEMBERED = 1024

_TOO_MANY = kv.Busy("too many reads are waiting")

_ROUND = attrgetter("round")


class _Round(NamedTuple):
    """What may be answered once heartbeat round ``number`` is confirmed: ``reads`` here, and ``asked`` of followers."""

    number: int
    reads: list[Requested]
    asked: dict[NodeId, int]


class _Forwarded(NamedTuple):
    """A follower's reads, which its leader was asked about under ``number``."""

    number: int
    reads: list[Requested]


class Reads(Snapshots):
    def __init__(self, node: NodeId, nodes: Sequence[NodeId], config: RaftConfig, random: random.Random) -> None:
        super().__init__(node, nodes, config, random)
        self._reads: list[Requested] = []  # come in, and nothing done about them yet
        self._unanswered = 0  # of them, and of those that something was done about

        # A leader's.
        self._asked: dict[NodeId, int] = {}  # by followers, likewise: the last question of each
        self._read_rounds: deque[_Round] = deque()
        self._sent_rounds: deque[tuple[int, Nanoseconds]] = deque(maxlen=_ROUNDS_REMEMBERED)
        self._lease_ends: Nanoseconds = 0
        self._lease_given_up = False

        # A follower's.
        self._last_number = 0
        self._last_asked: Nanoseconds = 0
        self._forwarded: deque[_Forwarded] = deque()
        self._ready: list[tuple[int, list[Requested]]] = []  # to be answered when so much is applied

    def _become_leader(self) -> None:
        super()._become_leader()
        self._sent_rounds.clear()
        self._lease_ends = 0
        self._lease_given_up = False

    def _dismiss_requests(self) -> None:
        super()._dismiss_requests()
        for reads in (self._reads, *(round.reads for round in self._read_rounds)):
            self._turn_away(reads)
        self._reads = []
        self._asked = {}
        self._read_rounds.clear()

    def _on_read_asked(self, event: Requested) -> None:
        if self._unanswered >= self._config.max_waiting_reads:
            self._reply(event, _TOO_MANY)
        else:
            self._unanswered += 1
            self._reads.append(event)

    def _answer(self, reads: Sequence[Requested]) -> None:
        self._unanswered -= len(reads)
        for request in reads:
            self._reply(request, kv.Done(self.store.read(request.command.operation.key)))

    def _turn_away(self, reads: Sequence[Requested]) -> None:
        self._unanswered -= len(reads)
        for request in reads:
            self._reply(request, kv.NotLeader(self.leader))

    # ---- at the leader -------------------------------------------------------------------------------------------

    def _on_heartbeat_reply(self, sender: NodeId, reply: HeartbeatReply) -> None:
        super()._on_heartbeat_reply(sender, reply)
        if self._read_rounds:
            self._settled = False

    def _start_reads(self) -> None:
        """See to it that the reads that came in will be vouched for: by the lease, or by a round of heartbeats.

        They will be answered from a state not older than the present commit index, which is only known to be the
        cluster's once an entry of this term is committed.
        """
        if not (self._reads or self._asked) or self.commit < self._opening:
            return
        if self._holds_lease():
            self._read_rounds.appendleft(_Round(0, self._reads, self._asked))
        else:
            self._send_heartbeats()
            self._read_rounds.append(_Round(self._round, self._reads, self._asked))
        self._reads, self._asked = [], {}

    def _send_heartbeats(self) -> None:
        super()._send_heartbeats()
        if self._config.reads == "lease":
            self._sent_rounds.append((self._round, self._now))

    def _confirmed_round(self) -> int:
        """The last round that a majority answered: when it was sent, no later leader had been elected."""
        return self._majority(self._round, _ROUND)

    def _holds_lease(self) -> bool:
        if self._config.reads != "lease" or self._lease_given_up:
            return False
        confirmed = self._confirmed_round()
        while self._sent_rounds and self._sent_rounds[0][0] <= confirmed:
            self._lease_ends = self._sent_rounds.popleft()[1] + self._config.lease
        return self._now < self._lease_ends

    def _answer_reads(self) -> None:
        """Answer the reads whose round is confirmed; `_apply` has just carried out all that was committed."""
        if not self._read_rounds:
            return
        confirmed = self._confirmed_round()
        while self._read_rounds and self._read_rounds[0].number <= confirmed:
            _, reads, asked = self._read_rounds.popleft()
            self._answer(reads)
            for follower, number in asked.items():
                self._say(follower, ReadIndexReply(self.term, number, self.commit))

    def _on_read_index(self, sender: NodeId, message: ReadIndex) -> None:
        # With too many rounds unanswered this is as good as lost, and will be asked again.
        room = len(self._read_rounds) < self._config.max_waiting_reads
        if self.role is Role.LEADER and message.term == self.term and room:
            self._asked[sender] = message.number

    # ---- at a follower -------------------------------------------------------------------------------------------

    def _forward_reads(self) -> None:
        """Ask the leader how far to apply before the reads that came in may be answered here."""
        if not self._reads:
            return
        if self.leader is None:
            self._turn_away(self._reads)
        else:
            self._forwarded.append(_Forwarded(self._next_number(), self._reads))
            self._ask_leader(self.leader)
        self._reads = []

    def _ask_leader(self, leader: NodeId) -> None:
        self._last_asked = self._now
        self._say(leader, ReadIndex(self.term, self._last_number))

    def _on_heartbeat(self, sender: NodeId, heartbeat: Heartbeat) -> None:
        super()._on_heartbeat(sender, heartbeat)
        overdue = self._now - self._last_asked >= self._config.heartbeat_interval
        if self._forwarded and overdue and sender == self.leader:
            self._ask_leader(sender)  # the last question: its answer is one to all before it

    def _next_number(self) -> int:
        # Begun at random: an answer to what an earlier incarnation asked must not vouch for a read of this one.
        self._last_number = (self._last_number or int(self._random.random() * 2**52)) + 1
        return self._last_number

    def _on_read_index_reply(self, sender: NodeId, reply: ReadIndexReply) -> None:
        asked = any(one.number == reply.number for one in self._forwarded)
        if sender != self.leader or reply.term < self.term or not asked:
            return  # of an earlier leader, answered before, or to a question of this node's earlier incarnation
        # What was asked before this, and whose question or answer got lost, came in before it as well.
        while self._forwarded and self._forwarded[0].number <= reply.number:
            self._ready.append((reply.index, self._forwarded.popleft().reads))

    def _answer_forwarded(self) -> None:
        if self._ready:
            waiting = self._ready
            self._ready = [read for read in waiting if read[0] > self.applied]
            for index, reads in waiting:
                if index <= self.applied:
                    self._answer(reads)

    def _set_role(self, role: Role) -> None:
        super()._set_role(role)
        # With the leader or its term, the hope for an answer is gone.
        for reads in [*(one.reads for one in self._forwarded), *(reads for _, reads in self._ready)]:
            self._turn_away(reads)
        self._forwarded.clear()
        self._ready.clear()
