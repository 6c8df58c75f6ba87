"""Who takes part is changed while all goes on: joint consensus, with learners (paper §6, thesis ch. 4).

A configuration is an entry of the log, and in force wherever it is appended, committed or not; if the entry is
overwritten, so is the configuration. Asked for other voters, the leader goes three steps, one at a time:

1. Those who have no vote yet are sent the log until they are near its end, so that their votes do not hold up what
   waits to be committed (§4.2.1). Nothing is changed so far, and nothing is if one of them does not get there.
2. A *joint* configuration: all that is decided needs a majority of the old voters and one of the new.
3. When that is committed, the new voters alone. A leader that is not among them goes on until this is committed too,
   without counting itself, and then steps aside (§4.2.2). A leader that finds a committed joint configuration in its
   log takes this step as well, whoever was asked.

Those who are left out are sent the log for a while longer, so that most of them learn of it and stand for no election;
of one that does not, `pre_vote` keeps the others undisturbed (§4.2.3).

No change begins before an entry of the leader's term is committed, nor while another is under way.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from apps import kv
from apps.process import Nanoseconds, NodeId, Requested
from apps.raft.config import RaftConfig
from apps.raft.messages import ChangeMembership, TimeoutNow, configuration_entry
from apps.raft.node import Role
from apps.raft.progress import CatchUp, Progress
from apps.raft.quorum import Configuration
from apps.raft.transfer import Transfers

#: A node that is to vote and keeps silent for so many longest election timeouts is not waited for.
PATIENCE = 10


class _Change:
    """What this leader was asked for. ``begun``: a configuration of it is in the log."""

    def __init__(self, request: Requested, catching_up: dict[NodeId, CatchUp]) -> None:
        self.request = request
        self.wanted: ChangeMembership = request.command
        self.catching_up = catching_up
        self.begun = False


class MembershipChanges(Transfers):
    def __init__(self, node: NodeId, nodes: Sequence[NodeId], config: RaftConfig, random: random.Random) -> None:
        super().__init__(node, nodes, config, random)
        self._change: _Change | None = None
        self._parting: Nanoseconds | None = None  # since when some are sent the log who are no members any more

    def _become_leader(self) -> None:
        super()._become_leader()
        self._parting = None

    # ---- what is asked for ---------------------------------------------------------------------------------------

    def _on_change_asked(self, event: Requested) -> None:
        wanted: ChangeMembership = event.command
        if problem := self._problem(wanted):
            self._reply(event, kv.Refused(problem))
            return
        if reason := self._unready():
            self._reply(event, kv.Busy(reason))
            return
        new = [voter for voter in wanted.voters if voter not in self.configuration.voters and voter != self.node]
        for node in new:
            self._add(node)
        self._change = _Change(event, {node: CatchUp(self.log.last, self._now) for node in new})

    def _problem(self, wanted: ChangeMembership) -> str:
        """Why there can be no such membership, if so."""
        named = [*wanted.voters, *wanted.learners]
        if not wanted.voters:
            return "a cluster needs at least one voter"
        if strangers := [name for name in named if name not in self._nodes]:
            return f"{', '.join(strangers)}: no such node; there are {', '.join(self._nodes)}"
        if repeated := sorted({name for name in named if named.count(name) > 1}):
            return f"{', '.join(repeated)} is named twice; a member is a voter or a learner, once"
        return ""

    def _unready(self) -> str:
        """Why no change can begin just now, if so."""
        if self._transfer is not None:
            return f"leadership is on its way to {self._transfer.command.to}"
        if not self._has_committed_in_its_term():
            return f"no entry of term {self.term} is committed yet"
        if self._change is not None or self.configuration.outgoing or self.configuration.index > self.commit:
            return "another change of membership is under way"
        return ""

    def _has_committed_in_its_term(self) -> bool:
        return self.commit >= self._opening

    # ---- its steps -----------------------------------------------------------------------------------------------

    def _advance_change(self) -> None:
        """Take the next step, if the last one is committed."""
        present, change = self.configuration, self._change
        if present.index > self.commit or not self._has_committed_in_its_term():
            return
        if present.outgoing:
            self._put_into_force(present.voters, present.learners)
        elif change is None:
            return
        elif change.begun:
            self._change = None
            self._reply(change.request, kv.Done())
        elif self._has_caught_up(change):
            change.begun = True
            wanted = change.wanted
            same_voters = set(wanted.voters) == set(present.voters)
            self._put_into_force(wanted.voters, wanted.learners, () if same_voters else present.voters)

    def _put_into_force(
        self, voters: tuple[NodeId, ...], learners: tuple[NodeId, ...], outgoing: tuple[NodeId, ...] = ()
    ) -> None:
        configuration = Configuration(self.log.last + 1, voters, learners, outgoing)
        self._append_to_log([configuration_entry(self.term, configuration)])
        for node in configuration.members:
            self._add(node)

    def _has_caught_up(self, change: _Change) -> bool:
        """Whether all who are to vote are near the end of the log. Gives the change up if one does not get there."""
        shortest, longest = self._config.election_timeout
        for node, catch_up in change.catching_up.items():
            progress = self._progress[node]
            catch_up.update(progress.match, self.log.last, self._now, shortest)
            silent = self._now - progress.heard > PATIENCE * longest
            if silent or catch_up.has_failed:
                why = "does not answer" if silent else f"is still behind after {catch_up.rounds} rounds"
                self._abandon(change, f"{node} {why}; nothing was changed")
                return False
        return all(catch_up.is_near for catch_up in change.catching_up.values())

    def _abandon(self, change: _Change, why: str) -> None:
        self._change = None
        self._reply(change.request, kv.Refused(why))
        for node in change.catching_up:
            if node not in self.configuration.members:
                self._remove(node)

    def _dismiss_requests(self) -> None:
        super()._dismiss_requests()
        if self._change is not None:
            unsure = kv.Unsure(f"{self.node} is no longer the leader; the change was under way when it was deposed")
            self._reply(self._change.request, unsure if self._change.begun else kv.NotLeader(self.leader))
            self._change = None

    # ---- who comes and who goes ----------------------------------------------------------------------------------

    def _add(self, node: NodeId) -> None:
        if node != self.node and node not in self._progress:
            # The last entry is sent at once, so that it turns out how far the node has come.
            self._progress[node] = Progress(self.log.last, self._now)

    def _remove(self, node: NodeId) -> None:
        del self._progress[node]
        self._outgoing.pop(node, None)

    def _on_heartbeat_due(self) -> None:
        super()._on_heartbeat_due()
        if self.role is Role.LEADER:
            self._part()

    def _part(self) -> None:
        """Send nothing more to those who have been left out for long enough to have learnt of it."""
        present = self.configuration
        staged = self._change.catching_up if self._change is not None else ()
        left = [node for node in self._progress if node not in present.members and node not in staged]
        if not left or present.index > self.commit:
            self._parting = None
        elif self._parting is None:
            self._parting = self._now
        elif self._now - self._parting > self._config.election_timeout[1]:
            for node in left:
                self._remove(node)

    def _step_aside(self) -> None:
        """A leader without a vote has led as long as it was needed: the one who has all of its log may take over."""
        present = self.configuration
        if present.outgoing or present.index > self.commit or self.node in present.voters:
            return
        self._send_heartbeats()  # so that all know what is committed
        heirs = [voter for voter in present.voters if self._progress[voter].match == self.log.last]
        if heirs:
            self._say(heirs[0], TimeoutNow(self.term))
        self._become_follower(self.term, None)
