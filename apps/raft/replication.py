"""What is agreed: the log on its way to the followers and onto the disks of a majority (paper §5.3, §5.4.2)."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from operator import attrgetter

import msgspec

from apps import kv
from apps.process import NodeId, Requested, SetTimer
from apps.raft import trace
from apps.raft.config import RaftConfig
from apps.raft.election import HEARTBEAT, Elections
from apps.raft.messages import (
    CONFIGURATION,
    UNDECODABLE,
    Append,
    AppendRejected,
    AppendReply,
    Entry,
    Heartbeat,
    HeartbeatReply,
)
from apps.raft.node import Contradiction, Unintelligible

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(kv.Command).decode

#: How an entry begins that the state machine has nothing to do with; of an empty one that is empty.
_NO_COMMAND = (b"", CONFIGURATION)

_HEARD = attrgetter("heard")
_MATCH = attrgetter("match")

_TOO_MUCH = kv.Busy("too much is waiting to be committed")


class Replication(Elections):
    def __init__(self, node: NodeId, nodes: Sequence[NodeId], config: RaftConfig, random: random.Random) -> None:
        super().__init__(node, nodes, config, random)
        # A follower's answer to its leader.
        self._matched = 0  # the log agrees with the leader's up to here
        self._answered = 0  # the leader was told so up to here
        self._answer_to: NodeId | None = None  # the leader who waits to be told

        # A leader's work.
        self._round = 0  # of heartbeats
        self._proposals: list[Requested] = []  # not in the log yet
        self._uncommitted_bytes = 0  # of those that wait
        self._waiting: deque[Requested] = deque()  # those of the entries from max(applied, _opening) + 1 on

    def _enter_term(self, term: int, vote: NodeId | None) -> None:
        super()._enter_term(term, vote)
        self._matched, self._answered, self._answer_to = 0, 0, None

    def _become_leader(self) -> None:
        self._round = 0
        super()._become_leader()

    def _dismiss_requests(self) -> None:
        super()._dismiss_requests()
        unsure = kv.Unsure(f"{self.node} is no longer the leader; the entry was not committed when it was deposed")
        for request in self._waiting:
            self._reply(request, unsure)
        for request in self._proposals:
            self._reply(request, kv.NotLeader(self.leader))
        self._waiting.clear()
        self._uncommitted_bytes = 0
        self._proposals.clear()

    # ---- heartbeats (thesis §6.2) --------------------------------------------------------------------------------

    def _on_heartbeat_due(self) -> None:
        last_contact = self._majority(self._now, _HEARD)
        if self._config.check_quorum and self._now - last_contact > self._config.election_timeout[1]:
            self._become_follower(self.term, None)
            return
        self._effects.append(SetTimer(HEARTBEAT, self._config.heartbeat_interval))
        self._send_heartbeats()
        for peer, progress in self._progress.items():
            if progress.has_stalled() and progress.next > self.log.base:
                self._say(peer, self._append_message(progress.next, []))

    def _send_heartbeats(self) -> None:
        self._round += 1
        for peer, progress in self._progress.items():
            # A heartbeat does not compare logs, so it must not vouch for more than this follower is known to have.
            self._say(peer, Heartbeat(self.term, min(progress.match, self.commit), self._round))

    def _on_heartbeat(self, sender: NodeId, heartbeat: Heartbeat) -> None:
        if not self._follow(sender, heartbeat.term):
            self._say(sender, HeartbeatReply(self.term, 0))
            return
        # Not more than there is: a disk that forgot what it had confirmed must not take the node down with it.
        self._learn_commit(min(heartbeat.commit, self.log.last))
        self._say(sender, HeartbeatReply(self.term, heartbeat.round))

    def _on_heartbeat_reply(self, sender: NodeId, reply: HeartbeatReply) -> None:
        progress = self._follower(sender, reply.term)
        if progress is None:
            return
        if reply.round > self._round:
            self._reject(sender, reply, f"it has heard round {reply.round}, and {self._round} was the last")
            return
        progress.round = max(progress.round, reply.round)
        if progress.answered_heartbeat():
            self._settled = False

    # ---- the leader's log to its followers (thesis §10.2) --------------------------------------------------------

    def _append_proposals(self) -> None:
        if not self._proposals:
            return
        term, last = self.term, self.log.last
        room = self.commit + self._config.max_uncommitted_entries
        entries: list[Entry] = []
        for request in self._proposals:
            if last >= room or self._uncommitted_bytes >= self._config.max_uncommitted_bytes:
                self._reply(request, _TOO_MUCH)
                continue
            last += 1
            command = _encode(request.command)
            self._uncommitted_bytes += len(command)
            entries.append(Entry(last, term, command))
            self._waiting.append(request)
        self._proposals.clear()
        if entries:
            self._append_to_log(entries)

    def _replicate(self) -> None:
        """Send each follower what it lacks, as far as its window lets; those at the same place get the same message."""
        last = self.log.last
        shared: dict[int, Append] = {}
        for peer, progress in self._progress.items():
            while self.log.base < progress.next <= last and progress.may_send(self._config.max_inflight):
                message = shared.get(progress.next)
                if message is None:
                    message = shared[progress.next] = self._append_message(progress.next, self._batch(progress.next))
                self._say(peer, message)
                progress.sent(message.entries[-1].index)

    def _append_message(self, first: int, entries: Sequence[Entry]) -> Append:
        previous_term = self.log.term(first - 1)
        assert previous_term is not None
        return Append(self.term, first - 1, previous_term, self.commit, entries)

    def _batch(self, first: int) -> list[Entry]:
        entries = self.log.slice(first, first + self._config.max_batch_entries - 1)
        size = 0
        for count, entry in enumerate(entries):
            size += len(entry.command)
            if size > self._config.max_batch_bytes:
                return entries[: max(count, 1)]
        return entries

    def _on_append_reply(self, sender: NodeId, reply: AppendReply) -> None:
        progress = self._follower(sender, reply.term)
        if progress is None:
            return
        if reply.match > self.log.last:
            self._reject(sender, reply, f"it has entry {reply.match}, and {self.log.last} is the last of its leader's")
            return
        progress.accepted(reply.match)

    def _on_append_rejected(self, sender: NodeId, rejection: AppendRejected) -> None:
        progress = self._follower(sender, rejection.term)
        if progress is not None:
            agreeing, _ = self.log.last_agreeing(rejection.hint_index, rejection.hint_term)
            progress.rejected(rejection.previous_index, agreeing)

    # ---- a follower's log ----------------------------------------------------------------------------------------

    def _on_append(self, sender: NodeId, append: Append) -> None:
        if not self._follow(sender, append.term):
            self._say(sender, AppendRejected(self.term, append.previous_index, 0, 0))
        elif append.previous_index < self.log.base:
            # What the snapshot stands for was committed, so every leader has it; of its terms nothing is known here.
            self._matched = max(self._matched, self.log.base)
            self._answer_to = sender
        elif self.log.term(append.previous_index) != append.previous_term:
            hint = self.log.last_agreeing(append.previous_index, append.previous_term)
            self._say(sender, AppendRejected(self.term, append.previous_index, *hint))
        else:
            self._take(append.entries)
            agreed = append.previous_index + len(append.entries)
            self._matched = max(self._matched, agreed)
            self._learn_commit(min(append.commit, agreed))
            self._answer_to = sender

    def _take(self, entries: Sequence[Entry]) -> None:
        """Bring the log in line with the leader's, which has ``entries`` behind a place where both agree."""
        held = self.log.held(entries)
        if held == len(entries):
            return
        fresh = entries[held:] if held else entries
        # Only a conflict removes anything: a message that was overtaken must not take back what followed it.
        first = fresh[0].index
        if first <= self.log.last:
            if first <= self.commit:
                raise Contradiction(f"{self.node}: entry {first} is committed, but {self.leader} leads with another")
            self._truncate(first)
        self._append_to_log(fresh)

    def _acknowledge(self) -> None:
        """Tell the leader how much of what it sent is on disk, if that is all it waits for or more than it knows."""
        if self._answer_to is None:
            return
        written = min(self._matched, self._durable)
        if written == self._matched or written > self._answered:
            self._say(self._answer_to, AppendReply(self.term, written))
            self._answered = written
        if written == self._matched:
            self._answer_to = None

    # ---- commitment and the state machine ------------------------------------------------------------------------

    def _advance_commit(self) -> None:
        index = self._majority_has()
        if index > self.commit and self._may_commit(index):
            self._learn_commit(index)

    def _majority_has(self) -> int:
        """The last entry that is on the disks of a majority."""
        return self._majority(self._durable, _MATCH)

    def _may_commit(self, index: int) -> bool:
        # An entry of an earlier term that a majority has can still be overwritten (paper, Figure 8).
        return index >= self._opening

    def _learn_commit(self, index: int) -> None:
        if index > self.commit:
            self._settled = False
            self.commit = index
            self._trace(trace.Committed(index, self.term))

    def _apply(self) -> None:
        if self.applied == self.commit:
            return
        entries = self.log.slice(self.applied + 1, self.commit)
        self._trace(trace.applied(entries))
        apply = self.store.apply
        for entry in entries:
            if entry.command[:1] in _NO_COMMAND:
                continue
            try:
                command = _decode(entry.command)
            except UNDECODABLE as error:
                raise Unintelligible(
                    f"{self.node}: entry {entry.index} of term {entry.term} is committed, and is no command that this "
                    f"program knows: {error}. Another one wrote it, or it was damaged before it was committed."
                ) from None
            result = apply(command)
            if self._waiting and entry.index > self._opening:
                self._uncommitted_bytes -= len(entry.command)
                self._reply(self._waiting.popleft(), result)
        self.applied = self.commit
        self._settled = False  # a snapshot may be due
        while len(self._configurations) > 1 and self._configurations[1].index <= self.applied:
            del self._configurations[0]
