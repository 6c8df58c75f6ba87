"""Who leads: terms, votes and timeouts (paper §5.2, §5.4.1), PreVote and CheckQuorum (thesis §9.6, §6.2)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from apps.process import CancelTimer, Nanoseconds, NodeId, SetTimer, Started
from apps.raft import quorum
from apps.raft.config import RaftConfig
from apps.raft.messages import Entry, RequestVote, VoteReply
from apps.raft.node import Node, Role
from apps.raft.progress import Progress
from apps.raft.quorum import Outcome

ELECTION = "election"
HEARTBEAT = "heartbeat"


class Elections(Node):
    def __init__(self, node: NodeId, nodes: Sequence[NodeId], config: RaftConfig, random: random.Random) -> None:
        super().__init__(node, nodes, config, random)
        self._contact: Nanoseconds = 0  # when the election timeout began to run
        self._timeout: Nanoseconds = 0
        self._heard: Nanoseconds | None = None  # when a leader was last heard
        self._votes: dict[NodeId, bool] = {}
        self._progress: dict[NodeId, Progress] = {}  # a leader's
        self._opening = 0  # the index of the entry that opened the leader's term

    def _on_started(self, event: Started) -> None:
        super()._on_started(event)
        if self._config.reads == "lease":
            self._heard = self._now  # an earlier incarnation may have answered a heartbeat just now
        self._restart_election_timer()

    # ---- standing for election -----------------------------------------------------------------------------------

    def _restart_election_timer(self) -> None:
        shortest, longest = self._config.election_timeout
        self._contact = self._now
        self._timeout = shortest + int(self._random.random() * (longest - shortest + 1))
        self._effects.append(SetTimer(ELECTION, self._timeout))

    def _may_stand(self) -> bool:
        """Whether this node has a vote in a configuration that may be in force.

        Who is left out by the last one stands all the same until that is committed: it may be the only one who can
        win (thesis §4.2.2), though its own vote does not count then.
        """
        return any(self.node in configuration.electorate for configuration in self._configurations[-2:])

    def _campaign(self, *, pre: bool, handed_over: bool = False) -> None:
        self.leader = None
        if not self._may_stand():
            self._restart_election_timer()
            return
        if pre:
            self._set_role(Role.PRE_CANDIDATE)
        else:
            self._enter_term(self.term + 1, self.node)
            self._set_role(Role.CANDIDATE)
        self._votes = {}
        self._restart_election_timer()
        request = RequestVote(self.term + pre, self.log.last, self.log.last_term, pre, handed_over)
        for peer in self.configuration.electorate:
            if peer != self.node:
                self._say(peer, request)
        self._say(self.node, VoteReply(self.term, request.term, True, pre))

    def _on_vote_reply(self, sender: NodeId, reply: VoteReply) -> None:
        campaign = self.term + 1 if reply.pre else self.term
        if self.role is not (Role.PRE_CANDIDATE if reply.pre else Role.CANDIDATE) or reply.campaign != campaign:
            return
        self._votes[sender] = reply.granted
        match quorum.outcome(self.configuration, self._votes):
            case Outcome.WON if reply.pre:
                self._campaign(pre=False)
            case Outcome.WON:
                self._become_leader()
            case Outcome.LOST:
                self._set_role(Role.FOLLOWER)

    # ---- voting --------------------------------------------------------------------------------------------------

    def _denies(self, request: RequestVote) -> bool:
        """Whether a leader is served by this node, or was until just now (thesis §4.2.3); leases rest on that."""
        if request.handed_over or not (self._config.pre_vote or self._config.reads == "lease"):
            return False
        if self.role is Role.LEADER:
            return True
        return self._heard is not None and self._now - self._heard < self._config.election_timeout[0]

    def _on_request_vote(self, sender: NodeId, request: RequestVote) -> None:
        granted = self._grants(sender, request)
        if granted and not request.pre:
            if self.vote is None:
                self._save_state(self.term, sender)
            self._contact = self._now
        self._say(sender, VoteReply(self.term, request.term, granted, request.pre))

    def _grants(self, candidate: NodeId, request: RequestVote) -> bool:
        if self._denies(request) or not self.log.is_up_to_date(request.last_index, request.last_term):
            return False
        if request.pre:
            return request.term > self.term
        return request.term == self.term and self.vote in (None, candidate)

    # ---- what an election changes --------------------------------------------------------------------------------

    def _become_leader(self) -> None:
        self.leader = self.node
        self._set_role(Role.LEADER)
        self._effects += (CancelTimer(ELECTION), SetTimer(HEARTBEAT, self._config.heartbeat_interval))
        self._progress = {
            peer: Progress(self.log.last + 1, self._now) for peer in self.configuration.members if peer != self.node
        }
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

    def _enter_term(self, term: int, vote: NodeId | None) -> None:
        self._save_state(term, vote)
        # Who has just joined a later term serves nobody yet; but what it owes to a lease of an earlier one it owes on.
        if self._config.reads != "lease":
            self._heard = None

    def _dismiss_requests(self) -> None:
        """Leadership is lost: whoever waits for this node as the leader is told so."""

    # ---- contact -------------------------------------------------------------------------------------------------

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
        progress = self._progress.get(sender)
        if progress is not None:
            progress.heard = self._now
        return progress

    def _majority(self, own: int, of: Callable[[Progress], int]) -> int:
        """How far a majority has come, of both sets of voters while there are two.

        ``own`` is how far this leader has; it counts only if it has a vote.
        """
        positions = {peer: of(progress) for peer, progress in self._progress.items()}
        positions[self.node] = own
        return quorum.reached(self.configuration, positions)
