"""The Raft protocol: one node's part, as a `Process` that takes events and returns effects.

How it works through a step: `handle` takes each event into the state and answers what can be answered at once; what
gains from going out together waits for `Idle`. There a leader turns the requests that came in into entries, and every
node writes, sends, applies and answers, in this order, so that the disk works while the network does.

**What is on disk before what is said.** A term or vote is on disk before any message that follows from it is sent, the
node's vote for itself included; a follower acknowledges entries, and a leader counts itself among those who have them,
once they are on disk. A leader's own write and its followers' go on at the same time (thesis §10.2.1).

The names of terms, roles and rules are the paper's.
"""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from apps import kv
from apps.process import (
    CancelTimer,
    Effect,
    Event,
    Idle,
    Nanoseconds,
    NodeId,
    Persist,
    Persisted,
    Received,
    Reply,
    Requested,
    Send,
    SetTimer,
    Started,
    TimerFired,
    Trace,
)
from apps.raft import messages, quorum, trace
from apps.raft.config import RaftConfig
from apps.raft.log import Log
from apps.raft.messages import (
    Append,
    AppendRejected,
    AppendReply,
    Entry,
    HardState,
    Heartbeat,
    HeartbeatReply,
    RequestVote,
    VoteReply,
)
from apps.raft.progress import Progress
from apps.raft.quorum import Outcome

ELECTION = "election"
HEARTBEAT = "heartbeat"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(kv.Command).decode


class Role(enum.StrEnum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class RecoveryError(ValueError):
    """The durable records do not make a log: one of them is missing."""


class Contradiction(RuntimeError):  # noqa: N818 - the name says what it is
    """What is committed here is denied by a leader: a promise of the cluster is broken already.

    No correct cluster gets there. A node that does must stop, for whatever it says next may be wrong.
    """


class _Held(NamedTuple):
    """A message that waits until the records up to ``token`` are on disk."""

    token: int
    to: NodeId
    message: messages.Message


class _Read(NamedTuple):
    """Reads that may be answered once heartbeat round ``round`` has shown that the leader still was one."""

    round: int
    requests: list[Requested]


class Raft:
    """One voter of a cluster, in one incarnation. After a crash, a new one recovers from the records in `Started`.

    ``voters``: all nodes of the cluster, this one included, the same on each. ``random``: a generator of this node's
    own; only its ``random()`` is used. Raises `ValueError` for voters that cannot be a cluster.

    The read-only state for observers is ``node``, ``voters``, ``role``, ``term``, ``vote``, ``leader`` (whom this node
    takes for it, or None), ``log``, ``commit``, ``applied`` and ``store``, the state machine.
    """

    Message: TypeAlias = messages.Message
    Record: TypeAlias = messages.Record

    def __init__(self, node: NodeId, voters: Sequence[NodeId], config: RaftConfig, random: random.Random) -> None:
        if node not in voters or len(set(voters)) != len(voters):
            raise ValueError(f"voters {list(voters)} must name each node once, {node!r} among them")
        self.node = node
        self.voters = tuple(voters)
        self._peers = tuple(voter for voter in voters if voter != node)
        self._config = config
        self._random = random

        # On disk (paper, Figure 2), but for what is still being written.
        self.term = 0
        self.vote: NodeId | None = None
        self.log = Log()

        self.role = Role.FOLLOWER
        self.leader: NodeId | None = None
        self.commit = 0
        self.applied = 0
        self.store = kv.Store()

        # What of it has reached the disk.
        self._records: list[messages.Record] = []  # to be written at the end of this step
        self._token = 0  # of the last Persist
        self._synced = 0  # the last one that was confirmed
        self._state_token = 0  # the one that carries the present term and vote
        self._writing: deque[tuple[int, int]] = deque()  # (token, last entry with it)
        self._durable = 0  # entries up to here are on disk
        self._held: deque[_Held] = deque()

        # Elections.
        self._contact: Nanoseconds = 0  # when the election timeout began to run
        self._timeout: Nanoseconds = 0
        self._heard: Nanoseconds | None = None  # when a leader of this term was last heard
        self._votes: dict[NodeId, bool] = {}

        # A follower's answer to its leader.
        self._matched = 0  # the log agrees with the leader's up to here
        self._answered = 0  # the leader was told so up to here
        self._answer_to: NodeId | None = None  # the leader who waits to be told

        # A leader's work.
        self._progress: dict[NodeId, Progress] = {}
        self._round = 0
        self._opening = 0  # the index of the entry that opened the term
        self._proposals: list[Requested] = []  # not in the log yet
        self._waiting: deque[Requested] = deque()  # those of the entries from max(applied, _opening) + 1 on
        self._reads: list[Requested] = []  # not given to a round yet
        self._read_rounds: deque[_Read] = deque()

        self._now: Nanoseconds = 0
        self._effects: list[Effect] = []
        self._events: dict[type[Any], Callable[[Any], None]] = {
            Started: self._on_started,
            Received: self._on_received,
            TimerFired: self._on_timer,
            Requested: self._on_request,
            Persisted: self._on_persisted,
            Idle: self._on_idle,
        }
        self._messages: dict[type[Any], Callable[[NodeId, Any], None]] = {
            RequestVote: self._on_request_vote,
            VoteReply: self._on_vote_reply,
            Append: self._on_append,
            AppendReply: self._on_append_reply,
            AppendRejected: self._on_append_rejected,
            Heartbeat: self._on_heartbeat,
            HeartbeatReply: self._on_heartbeat_reply,
        }

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        self._now = now
        effects: list[Effect] = []
        self._effects = effects
        self._events[type(event)](event)
        return effects

    # ---- events --------------------------------------------------------------------------------------------------

    def _on_started(self, event: Started) -> None:
        self._recover(event.records)
        self._durable = self.log.last
        self._trace(trace.Started(self.term, self.vote, self.log.last, self.log.last_term))
        self._restart_election_timer()

    def _recover(self, records: Iterable[messages.Record]) -> None:
        for record in records:
            if isinstance(record, HardState):
                self.term, self.vote = record.term, record.vote
                continue
            if record.index > self.log.last + 1:
                raise RecoveryError(f"{self.node}: entry {record.index} was recovered, but none at {self.log.last + 1}")
            if record.index <= self.log.last:
                self.log.truncate(record.index)
            self.log.extend((record,))

    def _on_timer(self, event: TimerFired) -> None:
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
        if self.role is not Role.LEADER:
            self._reply(event, kv.NotLeader(self.leader))
        elif type(event.command.operation) is kv.Read:
            self._reads.append(event)
        else:
            self._proposals.append(event)

    def _on_persisted(self, event: Persisted) -> None:
        self._synced = event.token
        while self._writing and self._writing[0][0] <= self._synced:
            self._durable = self._writing.popleft()[1]
        while self._held and self._held[0].token <= self._synced:
            _, to, message = self._held.popleft()
            self._send(to, message)

    def _on_received(self, event: Received) -> None:
        sender, message = event.sender, event.message
        if sender not in self._peers:
            return
        if message.term > self.term and self._raises_term(message):
            is_leaders = type(message) is Append or type(message) is Heartbeat
            self._become_follower(message.term, sender if is_leaders else None)
        self._messages[type(message)](sender, message)

    def _raises_term(self, message: messages.Message) -> bool:
        """Whether a later term in ``message`` is one to join: a candidate's may be only asked for, or unwelcome."""
        return type(message) is not RequestVote or not (message.pre or self._denies_candidates())

    def _on_idle(self, _: Idle) -> None:
        if self.role is Role.LEADER:
            self._append_proposals()
            self._advance_commit()
            self._start_reads()
        self._write()
        if self.role is Role.LEADER:
            self._replicate()
        else:
            self._acknowledge()
        self._apply()
        self._answer_reads()

    # ---- elections (paper §5.2, §5.4.1; thesis §9.6) -------------------------------------------------------------

    def _restart_election_timer(self) -> None:
        shortest, longest = self._config.election_timeout
        self._contact = self._now
        self._timeout = shortest + int(self._random.random() * (longest - shortest + 1))
        self._effects.append(SetTimer(ELECTION, self._timeout))

    def _denies_candidates(self) -> bool:
        """Whether a leader is served by this node, or was until just now (thesis §4.2.3)."""
        if not self._config.pre_vote:
            return False
        if self.role is Role.LEADER:
            return True
        return self._heard is not None and self._now - self._heard < self._config.election_timeout[0]

    def _campaign(self, *, pre: bool) -> None:
        self.leader = None
        if pre:
            self._set_role(Role.PRE_CANDIDATE)
        else:
            self._enter_term(self.term + 1, self.node)
            self._set_role(Role.CANDIDATE)
        self._votes = {}
        self._restart_election_timer()
        request = RequestVote(self.term + pre, self.log.last, self.log.last_term, pre)
        for peer in self._peers:
            self._say(peer, request)
        self._say(self.node, VoteReply(self.term, request.term, True, pre))

    def _on_request_vote(self, sender: NodeId, request: RequestVote) -> None:
        granted = self._grants(sender, request)
        if granted and not request.pre:
            if self.vote is None:
                self._save_state(self.term, sender)
            self._contact = self._now
        self._say(sender, VoteReply(self.term, request.term, granted, request.pre))

    def _grants(self, candidate: NodeId, request: RequestVote) -> bool:
        if self._denies_candidates() or not self.log.is_up_to_date(request.last_index, request.last_term):
            return False
        if request.pre:
            return request.term > self.term
        return request.term == self.term and self.vote in (None, candidate)

    def _on_vote_reply(self, sender: NodeId, reply: VoteReply) -> None:
        campaign = self.term + 1 if reply.pre else self.term
        if self.role is not (Role.PRE_CANDIDATE if reply.pre else Role.CANDIDATE) or reply.campaign != campaign:
            return
        self._votes[sender] = reply.granted
        match quorum.outcome(self.voters, self._votes):
            case Outcome.WON if reply.pre:
                self._campaign(pre=False)
            case Outcome.WON:
                self._become_leader()
            case Outcome.LOST:
                self._set_role(Role.FOLLOWER)

    def _become_leader(self) -> None:
        self.leader = self.node
        self._set_role(Role.LEADER)
        self._effects += (CancelTimer(ELECTION), SetTimer(HEARTBEAT, self._config.heartbeat_interval))
        self._progress = {peer: Progress(self.log.last + 1, self._now) for peer in self._peers}
        self._round = 0
        # Entries of earlier terms are committed only together with one of this term (paper §5.4.2, §8).
        self._opening = self.log.last + 1
        self._append_to_log([Entry(self._opening, self.term, b"")])

    def _become_follower(self, term: int, leader: NodeId | None) -> None:
        was_leader = self.role is Role.LEADER
        self.leader = leader
        if term > self.term:
            self._enter_term(term, None)
            self._set_role(Role.FOLLOWER)
        elif self.role is not Role.FOLLOWER:
            self._set_role(Role.FOLLOWER)
        if was_leader:
            self._effects.append(CancelTimer(HEARTBEAT))
            self._restart_election_timer()
            self._dismiss_requests()

    def _dismiss_requests(self) -> None:
        unsure = kv.Unsure(f"{self.node} is no longer the leader; the entry was not committed when it was deposed")
        for request in self._waiting:
            self._reply(request, unsure)
        never_taken = [*self._proposals, *self._reads]
        never_taken += [request for read in self._read_rounds for request in read.requests]
        for request in never_taken:
            self._reply(request, kv.NotLeader(self.leader))
        self._waiting.clear()
        self._proposals.clear()
        self._reads.clear()
        self._read_rounds.clear()

    def _enter_term(self, term: int, vote: NodeId | None) -> None:
        self._save_state(term, vote)
        self._heard = None
        self._matched, self._answered, self._answer_to = 0, 0, None

    def _save_state(self, term: int, vote: NodeId | None) -> None:
        """Take on a term and a vote; what is said from now on waits until they are on disk."""
        self.term, self.vote = term, vote
        self._records.append(HardState(term, vote))
        self._state_token = self._token + 1

    def _set_role(self, role: Role) -> None:
        self.role = role
        self._trace(trace.RoleChanged(role, self.term, self.log.last, self.log.last_term))

    # ---- heartbeats and contact (thesis §6.2, §6.4) --------------------------------------------------------------

    def _on_heartbeat_due(self) -> None:
        last_contact = quorum.reached([self._now, *(progress.heard for progress in self._progress.values())])
        if self._config.check_quorum and self._now - last_contact > self._config.election_timeout[1]:
            self._become_follower(self.term, None)
            return
        self._effects.append(SetTimer(HEARTBEAT, self._config.heartbeat_interval))
        self._send_heartbeats()
        for peer, progress in self._progress.items():
            if progress.has_stalled():
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
        progress.round = max(progress.round, reply.round)
        progress.answered_heartbeat()

    def _follow(self, sender: NodeId, term: int) -> bool:
        """Take ``sender`` for the leader of ``term``, unless that is over."""
        if term < self.term or self.role is Role.LEADER:  # never two leaders in a term: this guards the state only
            return False
        if self.role is not Role.FOLLOWER:
            self._become_follower(term, sender)
        self.leader = sender
        self._contact = self._heard = self._now
        return True

    def _follower(self, sender: NodeId, term: int) -> Progress | None:
        """What this leader knows of ``sender``, who has just answered it; ``None`` if the answer is an old one."""
        if self.role is not Role.LEADER or term < self.term:
            return None
        progress = self._progress[sender]
        progress.heard = self._now
        return progress

    # ---- replication (paper §5.3; thesis §10.2) ------------------------------------------------------------------

    def _append_proposals(self) -> None:
        if not self._proposals:
            return
        term = self.term
        first = self.log.last + 1
        self._append_to_log(
            [Entry(index, term, _encode(request.command)) for index, request in enumerate(self._proposals, first)]
        )
        self._waiting += self._proposals
        self._proposals.clear()

    def _append_to_log(self, entries: Sequence[Entry]) -> None:
        self.log.extend(entries)
        self._records += entries
        self._trace(trace.appended(entries))

    def _replicate(self) -> None:
        """Send each follower what it lacks, as far as its window lets; those at the same place get the same message."""
        last = self.log.last
        shared: dict[int, Append] = {}
        for peer, progress in self._progress.items():
            while progress.next <= last and progress.may_send(self._config.max_inflight):
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

    def _on_append(self, sender: NodeId, append: Append) -> None:
        if not self._follow(sender, append.term):
            self._say(sender, AppendRejected(self.term, append.previous_index, 0, 0))
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

    def _truncate(self, first: int) -> None:
        self.log.truncate(first)
        self._trace(trace.Truncated(first))
        # What was written or is being written of the removed entries says nothing about those that replace them.
        self._durable = min(self._durable, first - 1)
        self._writing = deque((token, min(last, first - 1)) for token, last in self._writing)

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

    def _on_append_reply(self, sender: NodeId, reply: AppendReply) -> None:
        progress = self._follower(sender, reply.term)
        if progress is not None:
            progress.accepted(reply.match)

    def _on_append_rejected(self, sender: NodeId, rejection: AppendRejected) -> None:
        progress = self._follower(sender, rejection.term)
        if progress is not None:
            agreeing, _ = self.log.last_agreeing(rejection.hint_index, rejection.hint_term)
            progress.rejected(rejection.previous_index, agreeing)

    # ---- commitment and the state machine (paper §5.3, §5.4.2) ---------------------------------------------------

    def _advance_commit(self) -> None:
        index = self._majority_has()
        if index > self.commit and self._may_commit(index):
            self._learn_commit(index)

    def _majority_has(self) -> int:
        """The last entry that is on the disks of a majority."""
        return quorum.reached([self._durable, *(progress.match for progress in self._progress.values())])

    def _may_commit(self, index: int) -> bool:
        # An entry of an earlier term that a majority has can still be overwritten (paper, Figure 8).
        return index >= self._opening

    def _learn_commit(self, index: int) -> None:
        if index > self.commit:
            self.commit = index
            self._trace(trace.Committed(index, self.term))

    def _apply(self) -> None:
        if self.applied == self.commit:
            return
        entries = self.log.slice(self.applied + 1, self.commit)
        self._trace(trace.applied(entries))
        apply = self.store.apply
        for entry in entries:
            if not entry.command:
                continue
            result = apply(_decode(entry.command))
            if self._waiting and entry.index > self._opening:
                self._reply(self._waiting.popleft(), result)
        self.applied = self.commit

    # ---- linearizable reads without the log (thesis §6.4) --------------------------------------------------------

    def _start_reads(self) -> None:
        """Send out a round of heartbeats that vouches for the reads that have come in before it.

        They will be answered from a state not older than the present commit index, which is only known to be the
        cluster's once an entry of this term is committed.
        """
        if self._reads and self.commit >= self._opening:
            self._send_heartbeats()
            self._read_rounds.append(_Read(self._round, self._reads))
            self._reads = []

    def _confirmed_round(self) -> int:
        """The last round that a majority answered: when it was sent, no later leader had been elected."""
        return quorum.reached([self._round, *(progress.round for progress in self._progress.values())])

    def _answer_reads(self) -> None:
        """Answer the reads whose round is confirmed; `_apply` has just carried out all that was committed."""
        if not self._read_rounds:
            return
        confirmed = self._confirmed_round()
        while self._read_rounds and self._read_rounds[0].round <= confirmed:
            for request in self._read_rounds.popleft().requests:
                self._reply(request, kv.Done(self.store.read(request.command.operation.key)))

    # ---- effects -------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        if self._records:
            self._token += 1
            self._effects.append(Persist(self._token, self._records))
            self._writing.append((self._token, self.log.last))
            self._records = []

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
                self._on_vote_reply(to, message)
                return
        self._effects.append(Send(to, message))

    def _reply(self, request: Requested, result: kv.Result) -> None:
        self._effects.append(Reply(request.client, request.request, result))

    def _trace(self, event: Any) -> None:
        self._effects.append(Trace(event))
