"""What every node does whatever its role: it keeps its state, writes it down, and speaks when that is on disk.

**What is on disk before what is said.** A term or vote is on disk before any message that follows from it is sent, the
node's vote for itself included; a follower acknowledges entries, and a leader counts itself among those who have them,
once they are on disk. A leader's own write and its followers' go on at the same time (thesis §10.2.1).
"""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from crc32c import crc32c

from apps import kv
from apps.process import (
    Effect,
    Halt,
    Nanoseconds,
    NodeId,
    Persist,
    Persisted,
    Reply,
    Requested,
    Send,
    Snapshot,
    Started,
    Trace,
)
from apps.raft import messages, trace
from apps.raft.config import RaftConfig
from apps.raft.log import Log
from apps.raft.messages import UNDECODABLE, Entry, HardState, SnapshotRecord, VoteReply
from apps.raft.quorum import Configuration


class Role(enum.StrEnum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class RecoveryError(Halt):
    """The durable records do not make a log: one of them is missing, or a snapshot's checksum differs."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}. The node does not start, since it may have voted or acknowledged by what is lost. Restore its "
            "data_dir from a copy, or give the machine a new node name and an empty one."
        )


class Contradiction(Halt):
    """What is committed here is denied by a leader: a promise of the cluster is broken already.

    No correct cluster gets there. A node that does must stop, for whatever it says next may be wrong.
    """


class Unintelligible(Halt):
    """What is committed here is no command that this program knows.

    A node that left it out would part from those that can carry it out, so it must stop.
    """


#: Rejected messages of a node that are told of one by one; after that at every doubling of their number.
_TOLD = 5


class _Held(NamedTuple):
    """A message that waits until the records up to ``token`` are on disk."""

    token: int
    to: NodeId
    message: messages.Message


class Node:
    """See `apps.raft.core.Raft`, which is this with all that is built on it."""

    Message: TypeAlias = messages.Message
    Record: TypeAlias = messages.Record

    def __init__(self, node: NodeId, nodes: Sequence[NodeId], config: RaftConfig, random: random.Random) -> None:
        if node not in nodes or len(set(nodes)) != len(nodes):
            raise ValueError(f"nodes {list(nodes)} must name each node once, {node!r} among them")
        voters = config.voters or tuple(nodes)
        if not set(voters) <= set(nodes) or len(set(voters)) != len(voters):
            raise ValueError(f"voters {list(voters)} must name each once, and none but nodes {list(nodes)}")
        self.node = node
        self._nodes = tuple(nodes)
        self._config = config
        self._random = random

        # On disk (paper, Figure 2), but for what is still being written.
        self.term = 0
        self.vote: NodeId | None = None
        self.log = Log()
        # The last configuration that is applied, and all behind it: the last one counts, committed or not (paper §6).
        self._configurations = [Configuration(0, voters)]

        self.role = Role.FOLLOWER
        self.leader: NodeId | None = None
        self.commit = 0
        self.applied = 0
        self.store = kv.Store()

        # What of it has reached the disk.
        self._records: list[messages.Record] = []  # to be written at the end of this step
        self._snapshot: SnapshotRecord | None = None  # the latest
        self._anew = False  # all of the state is to be written at the end of this step, in place of what is there
        self._token = 0  # of the last Persist
        self._synced = 0  # the last one that was confirmed
        self._state_token = 0  # the one that carries the present term and vote
        self._writing: deque[tuple[int, int]] = deque()  # (token, last entry with it)
        self._durable = 0  # entries up to here are on disk
        self._held: deque[_Held] = deque()

        self.rejected: dict[NodeId, int] = {}  # messages that no correct node can have sent, by sender

        self._settled = False  # nothing has happened since the last Idle that it would find work in

        self._now: Nanoseconds = 0
        self._effects: list[Effect] = []
        self._messages: dict[type[Any], Callable[[NodeId, Any], None]] = {}

    @property
    def configuration(self) -> Configuration:
        """Who takes part, as far as this node's log says."""
        return self._configurations[-1]

    # ---- recovery and the disk -----------------------------------------------------------------------------------

    def _on_started(self, event: Started) -> None:
        self._recover(event.records)
        self._durable = self.log.last
        self._trace(trace.Started(self.term, self.vote, self.log.last, self.log.last_term))
        self._trace(trace.configured(self.configuration))

    def _recover(self, records: Iterable[messages.Record]) -> None:
        for record in records:
            if isinstance(record, HardState):
                self.term, self.vote = record.term, record.vote
                continue
            if isinstance(record, SnapshotRecord):
                self._load(record)
                continue
            if record.index > self.log.last + 1:
                raise RecoveryError(f"{self.node}: entry {record.index} was recovered, but none at {self.log.last + 1}")
            if record.index <= self.log.last:
                self.log.truncate(record.index)
                self._configure(record.index)
            self.log.extend((record,))
            # Up to where the snapshot ends, it has told already.
            if record.index > self.applied:
                self._configurations += self._recovered(record)

    def _recovered(self, entry: Entry) -> list[Configuration]:
        try:
            return messages.configurations((entry,))
        except UNDECODABLE as error:
            raise RecoveryError(f"{self.node}: entry {entry.index} is no configuration: {error}") from None

    def _load(self, record: SnapshotRecord) -> None:
        if crc32c(record.data) != record.checksum:
            raise RecoveryError(f"{self.node}: the checksum of the snapshot at {record.index} differs")
        try:
            self.store = kv.Store.load(record.data)
        except UNDECODABLE as error:
            raise RecoveryError(f"{self.node}: the snapshot at {record.index} cannot be read: {error}") from None
        self.log.restart(record.base, record.base_term)
        self.commit = self.applied = record.index
        self._configurations = [record.configuration]
        self._snapshot = record

    def _on_persisted(self, event: Persisted) -> None:
        self._synced = event.token
        while self._writing and self._writing[0][0] <= self._synced:
            self._durable = self._writing.popleft()[1]
        while self._held and self._held[0].token <= self._synced:
            _, to, message = self._held.popleft()
            self._send(to, message)

    def _save_state(self, term: int, vote: NodeId | None) -> None:
        """Take on a term and a vote; what is said from now on waits until they are on disk."""
        self._settled = False
        self.term, self.vote = term, vote
        self._records.append(HardState(term, vote))
        self._state_token = self._token + 1

    def _append_to_log(self, entries: Sequence[Entry]) -> None:
        self.log.extend(entries)
        self._records += entries
        self._trace(trace.appended(entries))
        for configuration in messages.configurations(entries):
            self._configurations.append(configuration)
            self._trace(trace.configured(configuration))

    def _truncate(self, first: int) -> None:
        self.log.truncate(first)
        self._trace(trace.Truncated(first))
        if self._configure(first):
            self._trace(trace.configured(self.configuration))
        # What was written or is being written of the removed entries says nothing about those that replace them.
        self._durable = min(self._durable, first - 1)
        self._writing = deque((token, min(last, first - 1)) for token, last in self._writing)

    def _configure(self, first: int) -> bool:
        """Go back to the configuration before position ``first``; whether that changes anything."""
        kept = [one for one in self._configurations if one.index < first]
        changes = len(kept) < len(self._configurations)
        self._configurations = kept
        return changes

    def _write(self) -> None:
        if not (self._records or self._anew):
            return
        self._token += 1
        if self._anew:
            assert self._snapshot is not None
            entries = self.log.slice(self.log.base + 1, self.log.last)
            state = HardState(self.term, self.vote)
            self._effects.append(Snapshot(self._token, [state, self._snapshot, *entries]))
            self._anew = False
        else:
            self._effects.append(Persist(self._token, self._records))
        self._writing.append((self._token, self.log.last))
        self._records = []

    # ---- what is said --------------------------------------------------------------------------------------------

    def _say(self, to: NodeId, message: messages.Message) -> None:
        """Send ``message`` as soon as the present term and vote are on disk (paper, Figure 2)."""
        if self._state_token > self._synced:
            self._held.append(_Held(self._state_token, to, message))
        else:
            self._send(to, message)

    def _send(self, to: NodeId, message: messages.Message) -> None:
        if isinstance(message, VoteReply):
            if message.granted and not message.pre:
                self._trace(trace.Voted(message.campaign, to))
            if to == self.node:
                self._messages[VoteReply](to, message)
                return
        self._effects.append(Send(to, message))

    def _reply(self, request: Requested, result: kv.Result) -> None:
        self._effects.append(Reply(request.client, request.request, result))

    def _reject(self, sender: NodeId, message: messages.Message, why: str) -> None:
        """Drop what ``sender`` cannot have meant, count it, and leave evidence."""
        count = self.rejected[sender] = self.rejected.get(sender, 0) + 1
        if count <= _TOLD or count.bit_count() == 1:
            self._trace(trace.Rejected(sender, type(message).__name__, why, count))

    def _set_role(self, role: Role) -> None:
        self._settled = False
        self.role = role
        self._trace(trace.RoleChanged(role, self.term, self.log.last, self.log.last_term))

    def _trace(self, event: Any) -> None:
        self._effects.append(Trace(event))
