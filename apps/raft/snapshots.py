"""What lets the log be forgotten: snapshots of the state machine, kept, sent and installed (paper §7, thesis §5).

A node that has applied `RaftConfig.snapshot_entries` entries since its log begins puts the state in their place, on
disk and in memory; of the log it keeps a tenth of that for followers who are a little behind. A follower who lacks what
is gone gets the snapshot, a piece at a time, and installs it when it is whole and its checksum is right.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

from crc32c import crc32c

from apps import kv
from apps.process import NodeId
from apps.raft import trace
from apps.raft.config import RaftConfig
from apps.raft.messages import UNDECODABLE, AppendReply, InstallSnapshot, SnapshotRecord, SnapshotReply
from apps.raft.replication import Replication


class _Outgoing:
    """A snapshot on its way to one follower, who has the first ``offset`` bytes. One piece is under way at a time."""

    def __init__(self, snapshot: SnapshotRecord) -> None:
        self.snapshot = snapshot
        self.offset = 0
        self.awaiting = False


class Snapshots(Replication):
    def __init__(self, node: NodeId, nodes: Sequence[NodeId], config: RaftConfig, random: random.Random) -> None:
        super().__init__(node, nodes, config, random)
        self._outgoing: dict[NodeId, _Outgoing] = {}
        self._incoming = bytearray()
        self._incoming_key: tuple[int, int, int] | None = None

    def _compact(self) -> None:
        """Let a snapshot stand for what was applied, when that is enough of the log."""
        every = self._config.snapshot_entries
        if self.applied - self.log.base < every:
            return
        term = self.log.term(self.applied)
        assert term is not None
        self.log.compact(self.applied - every // 10)
        data = self.store.dump()
        self._snapshot = SnapshotRecord(
            self.applied, term, self.log.base, self.log.base_term, crc32c(data), data, self._configurations[0]
        )
        self._anew = True

    # ---- at the leader -------------------------------------------------------------------------------------------

    def _become_leader(self) -> None:
        super()._become_leader()
        self._outgoing.clear()

    def _replicate(self) -> None:
        super()._replicate()
        for peer, progress in self._progress.items():
            if progress.next <= self.log.base and peer not in self._outgoing:
                assert self._snapshot is not None
                self._outgoing[peer] = _Outgoing(self._snapshot)
        for peer, out in self._outgoing.items():
            if not out.awaiting:
                out.awaiting = True
                self._say(peer, self._piece(out))

    def _piece(self, out: _Outgoing) -> InstallSnapshot:
        snapshot = out.snapshot
        data = snapshot.data[out.offset : out.offset + self._config.max_batch_bytes]
        return InstallSnapshot(
            self.term,
            snapshot.index,
            snapshot.term,
            snapshot.checksum,
            len(snapshot.data),
            out.offset,
            data,
            snapshot.configuration,
        )

    def _on_heartbeat_due(self) -> None:
        super()._on_heartbeat_due()
        for out in self._outgoing.values():
            out.awaiting = False  # it may have been lost

    def _on_snapshot_reply(self, sender: NodeId, reply: SnapshotReply) -> None:
        out = self._outgoing.get(sender)
        if self._follower(sender, reply.term) is None or out is None or out.snapshot.index != reply.index:
            return
        received = min(reply.received, len(out.snapshot.data))
        # Who got no further begins again, or hears old news: with the next heartbeat, lest a snapshot that is refused
        # be sent without end as fast as the network carries it.
        if received > out.offset:
            out.awaiting = False
        out.offset = received

    def _on_append_reply(self, sender: NodeId, reply: AppendReply) -> None:
        super()._on_append_reply(sender, reply)
        out = self._outgoing.get(sender)
        if out is not None and reply.term == self.term and reply.match >= out.snapshot.index:
            del self._outgoing[sender]

    # ---- at a follower -------------------------------------------------------------------------------------------

    def _on_install_snapshot(self, sender: NodeId, piece: InstallSnapshot) -> None:
        if not self._follow(sender, piece.term):
            self._say(sender, SnapshotReply(self.term, piece.index, 0))
            return
        if piece.index > self.commit and not self._collect(sender, piece):
            self._say(sender, SnapshotReply(self.term, piece.index, len(self._incoming)))
            return
        self._matched = max(self._matched, piece.index)
        self._answer_to = sender

    def _collect(self, sender: NodeId, piece: InstallSnapshot) -> bool:
        """Install the snapshot if ``piece`` is the last that it lacked. One that is broken is begun again."""
        key = (piece.index, piece.checksum, piece.total)
        if key != self._incoming_key:
            self._incoming_key = key
            self._incoming.clear()
        if piece.offset == len(self._incoming):
            self._incoming += piece.data
        if len(self._incoming) < piece.total:
            return False
        data = bytes(self._incoming)
        self._incoming.clear()
        if crc32c(data) != piece.checksum:
            self._reject(sender, piece, f"the checksum of the snapshot at {piece.index} differs")
            return False
        try:
            store = kv.Store.load(data)
        except UNDECODABLE as error:
            self._reject(sender, piece, f"the snapshot at {piece.index} cannot be read: {error}")
            return False
        self._incoming_key = None
        index, term = piece.index, piece.last_term
        self._install(SnapshotRecord(index, term, index, term, piece.checksum, data, piece.configuration), store)
        return True

    def _install(self, snapshot: SnapshotRecord, store: kv.Store) -> None:
        # What follows the snapshot in a log that agrees with it may have been acknowledged: it stays.
        configurations = [snapshot.configuration]
        if self.log.term(snapshot.index) == snapshot.term:
            self.log.compact(snapshot.index)
            configurations += [one for one in self._configurations if one.index > snapshot.index]
        else:
            self.log.restart(snapshot.index, snapshot.term)
            # Of what was or is being written, only what was committed is surely part of the snapshot.
            self._durable = min(self._durable, self.commit)
            self._writing = deque((token, min(last, self.commit)) for token, last in self._writing)
        self.store = store
        self.commit = self.applied = snapshot.index
        self._snapshot = snapshot
        self._anew = True
        self._trace(trace.Installed(snapshot.index, snapshot.term))
        self._configurations = configurations
        self._trace(trace.configured(self.configuration))
