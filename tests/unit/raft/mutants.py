"""Raft with one rule broken each, to show that the checks can fail. Most of these bugs were shipped by a real system.

A mutant is named by its class path, ``tests.unit.raft.mutants:AcksEarly``, and so the runtime can run it on the fabric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from apps import kv
from apps.process import NodeId, Started
from apps.raft import Entry, Raft, Record
from apps.raft.messages import AppendReply, HardState, HeartbeatReply, ReadIndexReply, RequestVote, SnapshotRecord
from apps.raft.progress import Progress


class AcksEarly(Raft):
    """Answers a write once it is on the leader's own disk, before a majority has it."""

    def _majority_has(self) -> int:
        return self._durable


class ServesStaleReads(Raft):
    """Answers reads at once, without the round of heartbeats that shows it has not been deposed."""

    def _confirmed_round(self) -> int:
        return self._round


class ForgetsVote(Raft):
    """Remembers its term across a restart, but not whom it voted for in it."""

    def _recover(self, records: Iterable[Record]) -> None:
        super()._recover(
            HardState(record.term, None) if isinstance(record, HardState) else record for record in records
        )


class TruncatesWithoutConflict(Raft):
    """Removes whatever follows the leader's previous entry, as PySyncObj does, though the entries there may agree."""

    def _take(self, entries: Sequence[Entry]) -> None:
        if entries and entries[0].index <= self.log.last:
            self._truncate(entries[0].index)
        super()._take(entries)


class CommitsOldTerms(Raft):
    """Commits an entry of an earlier term because a majority has it (paper, Figure 8)."""

    def _may_commit(self, index: int) -> bool:
        return True


class AcksBeforeFsync(Raft):
    """Says it has an entry, to others and to itself, while the disk is still writing it."""

    def _append_to_log(self, entries: Sequence[Entry]) -> None:
        super()._append_to_log(entries)
        self._durable = self.log.last


class SpeaksBeforeItWrites(Raft):
    """Casts its vote before it is on disk."""

    def _save_state(self, term: int, vote: NodeId | None) -> None:
        super()._save_state(term, vote)
        self._state_token = self._synced


class VotesTwice(Raft):
    """Grants every candidate of the term its vote, as long as its log is up to date."""

    def _grants(self, candidate: NodeId, request: RequestVote) -> bool:
        if not request.pre and request.term == self.term:
            self.vote = None
        return super()._grants(candidate, request)


class VotesForAnyLog(Raft):
    """Does not compare logs before it votes (paper §5.4.1)."""

    def _grants(self, candidate: NodeId, request: RequestVote) -> bool:
        longest = RequestVote(request.term, 1 << 60, 1 << 60, request.pre)
        return super()._grants(candidate, longest)


class CountsOldHeartbeats(Raft):
    """Takes an answer to any earlier round of heartbeats for one to the round a read waits for."""

    def _on_heartbeat_reply(self, sender: NodeId, reply: HeartbeatReply) -> None:
        super()._on_heartbeat_reply(sender, HeartbeatReply(reply.term, self._round))


class ReadsBeforeItsTermCommits(Raft):
    """Answers reads before an entry of its term is committed: it may not know yet what its predecessors committed."""

    def _start_reads(self) -> None:
        if self._reads:
            opening, self._opening = self._opening, 0
            super()._start_reads()
            self._opening = opening


class CountsWhatWasSent(Raft):
    """Takes an acknowledgement for all that it has sent so far instead of for what was written."""

    def _on_append_reply(self, sender: NodeId, reply: AppendReply) -> None:
        progress = self._progress.get(sender)
        match = progress.next - 1 if progress and progress.streaming else reply.match
        super()._on_append_reply(sender, AppendReply(reply.term, match))


class _Forgetful(kv.Store):
    def apply(self, command: kv.Command) -> kv.Result:
        return self._execute(command.operation)


class AppliesRetriesAgain(Raft):
    """Has no sessions: a command that was sent twice takes effect twice."""

    def _on_started(self, event: Started) -> None:
        self.store = _Forgetful()
        super()._on_started(event)


class CountsLeaseFromTheAnswer(Raft):
    """Takes its lease to begin when a majority's answers come, not when it asked."""

    def _on_heartbeat_reply(self, sender: NodeId, reply: HeartbeatReply) -> None:
        before = self._confirmed_round()
        super()._on_heartbeat_reply(sender, reply)
        if self._confirmed_round() > before:
            self._holds_lease()
            self._lease_ends = self._now + self._config.lease


class KeepsLeaseInTransfer(Raft):
    """Goes on answering from its lease when it has told another node to take over."""

    def _hand_over(self) -> None:
        super()._hand_over()
        self._lease_given_up = False


class ForgetsLeaseOnRestart(Raft):
    """Votes as soon as it is back, though it may have answered a heartbeat just before it went."""

    def _on_started(self, event: Started) -> None:
        super()._on_started(event)
        self._heard = None


class ReadsBeforeItApplies(Raft):
    """A follower that answers a read as soon as it knows how far it must apply, without doing so."""

    def _answer_forwarded(self) -> None:
        self._ready = [(0, reads) for _, reads in self._ready]
        super()._answer_forwarded()


class NumbersReadsFromOne(Raft):
    """A follower that numbers its questions to the leader from 1 in every incarnation."""

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number


class BelievesLaterAnswers(Raft):
    """A follower that takes an answer to a question of any later number for its own, as our Raft itself did once."""

    def _on_read_index_reply(self, sender: NodeId, reply: ReadIndexReply) -> None:
        if self._forwarded and reply.number > self._forwarded[-1].number:
            reply = msgspec.structs.replace(reply, number=self._forwarded[-1].number)
        super()._on_read_index_reply(sender, reply)


class InstallsOverALongerLog(Raft):
    """Begins its log anew behind a snapshot, though what it has after it was acknowledged."""

    def _install(self, snapshot: SnapshotRecord, store: kv.Store) -> None:
        self.log.truncate(self.log.base + 1)
        super()._install(snapshot, store)


class KeepsAConflictingLog(Raft):
    """Installs a snapshot in front of a log that has another entry where the snapshot ends."""

    def _install(self, snapshot: SnapshotRecord, store: kv.Store) -> None:
        if snapshot.index <= self.log.last:
            snapshot = msgspec.structs.replace(snapshot, term=self.log.term(snapshot.index))
        super()._install(snapshot, store)


class ChangesVotersAtOnce(Raft):
    """Goes from the old voters to the new ones in one step, without a joint configuration between (paper §6)."""

    def _put_into_force(
        self, voters: tuple[NodeId, ...], learners: tuple[NodeId, ...], outgoing: tuple[NodeId, ...] = ()
    ) -> None:
        super()._put_into_force(voters, learners)


class ChangesBeforeItsTermCommits(Raft):
    """Begins a change of membership before an entry of its term is committed (Ongaro on raft-dev, July 2015)."""

    def _has_committed_in_its_term(self) -> bool:
        return True


class CountsOneMajority(Raft):
    """Takes a majority of the new voters to be enough while a change is under way."""

    def _majority(self, own: int, of: Callable[[Progress], int]) -> int:
        configurations = self._configurations
        self._configurations = [msgspec.structs.replace(configurations[-1], outgoing=())]
        try:
            return super()._majority(own, of)
        finally:
            self._configurations = configurations


MUTANTS: tuple[type[Raft], ...] = (
    AcksEarly,
    ServesStaleReads,
    ForgetsVote,
    TruncatesWithoutConflict,
    CommitsOldTerms,
    AcksBeforeFsync,
    SpeaksBeforeItWrites,
    VotesTwice,
    VotesForAnyLog,
    CountsOldHeartbeats,
    ReadsBeforeItsTermCommits,
    CountsWhatWasSent,
    AppliesRetriesAgain,
    CountsLeaseFromTheAnswer,
    KeepsLeaseInTransfer,
    ForgetsLeaseOnRestart,
    ReadsBeforeItApplies,
    NumbersReadsFromOne,
    BelievesLaterAnswers,
    InstallsOverALongerLog,
    KeepsAConflictingLog,
    ChangesVotersAtOnce,
    ChangesBeforeItsTermCommits,
    CountsOneMajority,
)
