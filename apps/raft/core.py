"""The Raft protocol: one node's part, as a `Process` that takes events and returns effects.

How it works through a step: `handle` takes each event into the state and answers what can be answered at once; what
gains from going out together waits for `Idle`. There a leader turns the requests that came in into entries, and every
node writes, sends, applies and answers, in this order, so that the disk works while the network does.

The protocol is built in layers, each a module that knows those below it: `node`, what is on disk before what is said;
`election`; `replication`; `snapshots`; `reads`; `transfer`; `membership`. Here events and messages are handed to them.

The names of terms, roles and rules are the paper's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from apps import kv
from apps.process import (
    Effect,
    Event,
    Idle,
    Nanoseconds,
    NodeId,
    Persisted,
    Received,
    Requested,
    SetTimer,
    Started,
    TimerFired,
)
from apps.raft import messages, validity
from apps.raft.config import RaftConfig
from apps.raft.election import ELECTION, HEARTBEAT
from apps.raft.membership import MembershipChanges
from apps.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    ChangeMembership,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    SnapshotReply,
    TimeoutNow,
    TransferLeadership,
    VoteReply,
)
from apps.raft.node import Contradiction, RecoveryError, Role, Unintelligible
from apps.raft.transfer import TRANSFER

__all__ = ["Contradiction", "Raft", "RecoveryError", "Role", "Unintelligible"]


class Raft(MembershipChanges):
    """One node of a cluster, in one incarnation. After a crash, a new one recovers from the records in `Started`.

    ``nodes``: all that are or may become members, this one included; whom it can reach. ``random``: a generator of this
    node's own; only its ``random()`` is used. Raises `ValueError` for nodes that cannot be a cluster.

    The read-only state for observers is ``node``, ``configuration``, ``role``, ``term``, ``vote``, ``leader`` (whom
    this node takes for it, or None), ``log``, ``commit``, ``applied`` and ``store``, the state machine.
    """

    def __init__(self, node: NodeId, nodes: Sequence[NodeId], config: RaftConfig, random: random.Random) -> None:
        super().__init__(node, nodes, config, random)
        self._events: dict[type[Any], Callable[[Any], None]] = {
            Started: self._on_started,
            Received: self._on_received,
            TimerFired: self._on_timer,
            Requested: self._on_request,
            Persisted: self._on_persisted,
            Idle: self._on_idle,
        }
        self._messages = {
            RequestVote: self._on_request_vote,
            VoteReply: self._on_vote_reply,
            Append: self._on_append,
            AppendReply: self._on_append_reply,
            AppendRejected: self._on_append_rejected,
            Heartbeat: self._on_heartbeat,
            HeartbeatReply: self._on_heartbeat_reply,
            ReadIndex: self._on_read_index,
            ReadIndexReply: self._on_read_index_reply,
            InstallSnapshot: self._on_install_snapshot,
            SnapshotReply: self._on_snapshot_reply,
            TimeoutNow: self._on_timeout_now,
        }

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        self._now = now
        effects: list[Effect] = []
        self._effects = effects
        kind = type(event)
        if kind is not Received and kind is not Idle:
            self._settled = False
        self._events[kind](event)
        return effects

    def _on_timer(self, event: TimerFired) -> None:
        if event.timer == TRANSFER:
            self._on_transfer_timeout()
            return
        leads = self.role is Role.LEADER
        if (event.timer == HEARTBEAT) is not leads:
            return  # it fired in the very step that cancelled it
        if leads:
            self._on_heartbeat_due()
            return
        # Hearing from a leader does not touch the timer, only the time from which it counts.
        remaining = self._contact + self._timeout - self._now
        if remaining > 0:
            self._effects.append(SetTimer(ELECTION, remaining))
        else:
            self._campaign(pre=self._config.pre_vote)

    def _on_request(self, event: Requested) -> None:
        command = event.command
        is_read = type(command) is kv.Command and type(command.operation) is kv.Read
        if self.role is not Role.LEADER and not (is_read and self._config.follower_reads):
            self._reply(event, kv.NotLeader(self.leader))
        elif is_read:
            self._on_read_asked(event)
        elif type(command) is TransferLeadership:
            self._on_transfer_asked(event)
        elif type(command) is ChangeMembership:
            self._on_change_asked(event)
        else:
            self._proposals.append(event)

    def _on_received(self, event: Received) -> None:
        sender, message = event.sender, event.message
        if sender == self.node or sender not in self._nodes:
            return
        kind = type(message)
        if kind is not Heartbeat and kind is not HeartbeatReply:  # most of these change nothing; what does says so
            self._settled = False
            if flaw := validity.flaw(message, self._nodes):
                self._reject(sender, message, flaw)
                return
        if message.term > self.term and self._raises_term(message):
            is_leaders = kind is Append or kind is Heartbeat
            self._become_follower(message.term, sender if is_leaders else None)
        self._messages[kind](sender, message)

    def _raises_term(self, message: messages.Message) -> bool:
        """Whether a later term in ``message`` is one to join: a candidate's may be only asked for, or unwelcome."""
        return type(message) is not RequestVote or not (message.pre or self._denies(message))

    def _on_idle(self, _: Idle) -> None:
        if self._settled:
            return
        self._settled = True
        if self.role is Role.LEADER:
            self._append_proposals()
            self._advance_commit()
            self._advance_change()
            self._start_reads()
        else:
            self._forward_reads()
        self._compact()
        self._write()
        if self.role is Role.LEADER:
            self._replicate()
            self._hand_over()
        else:
            self._acknowledge()
        self._apply()
        self._answer_reads()
        self._answer_forwarded()
        if self.role is Role.LEADER:
            self._step_aside()
