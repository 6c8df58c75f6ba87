"""Leadership given to another node on request (thesis §3.10): for maintenance, or to lead from a better place.

The leader takes no more writes (they are told `kv.Busy`), brings the other's log up to its own, and tells it to stand
for election at once; voters grant that one their vote although they still hear a leader. If it has not come to lead
within the longest election timeout, the old leader goes on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from apps import kv
from apps.process import CancelTimer, NodeId, Requested, SetTimer
from apps.raft.config import RaftConfig
from apps.raft.messages import TimeoutNow
from apps.raft.node import Role
from apps.raft.reads import Reads

TRANSFER = "transfer"


class Transfers(Reads):
    def __init__(self, node: NodeId, nodes: Sequence[NodeId], config: RaftConfig, random: random.Random) -> None:
        super().__init__(node, nodes, config, random)
        self._transfer: Requested | None = None
        self._told = False  # the other that it may take over, at least once
        self._tell = False  # it, or tell it again

    def _on_transfer_asked(self, event: Requested) -> None:
        to = event.command.to
        if to == self.node:
            self._reply(event, kv.Done())
        elif to not in self.configuration.voters:
            voters = ", ".join(self.configuration.voters)
            self._reply(event, kv.Refused(f"{to} is not a voter; the voters are {voters}"))
        elif self._transfer is not None:
            self._reply(event, kv.Refused(f"leadership is on its way to {self._transfer.command.to}"))
        else:
            self._transfer, self._told, self._tell = event, False, True
            self._effects.append(SetTimer(TRANSFER, self._config.election_timeout[1]))

    def _append_proposals(self) -> None:
        if self._transfer is not None:
            busy = kv.Busy(f"leadership is on its way to {self._transfer.command.to}")
            for request in self._proposals:
                self._reply(request, busy)
            self._proposals.clear()
        super()._append_proposals()

    def _hand_over(self) -> None:
        """Tell the other to take over as soon as it has the whole log, and again with every heartbeat."""
        if self._transfer is None or not self._tell:
            return
        to = self._transfer.command.to
        if self._progress[to].match == self.log.last:
            # From here on somebody may be elected in spite of it.
            self._lease_given_up = True
            self._told, self._tell = True, False
            self._say(to, TimeoutNow(self.term))

    def _on_heartbeat_due(self) -> None:
        super()._on_heartbeat_due()
        self._tell = True

    def _on_timeout_now(self, sender: NodeId, message: TimeoutNow) -> None:
        if self.role is Role.FOLLOWER and message.term == self.term:
            self._campaign(pre=False, handed_over=True)

    # ---- how it ends ---------------------------------------------------------------------------------------------

    def _follow(self, sender: NodeId, term: int) -> bool:
        follows = super()._follow(sender, term)
        if follows and self._transfer is not None:
            to = self._transfer.command.to
            self._end_transfer(kv.Done() if sender == to else kv.Refused(f"{sender} was elected, not {to}"))
        return follows

    def _become_leader(self) -> None:
        super()._become_leader()
        if self._transfer is not None:
            self._end_transfer(kv.Refused(f"{self.node} was elected again"))

    def _on_transfer_timeout(self) -> None:
        if self._transfer is not None:
            late = f"{self._transfer.command.to} has not come to lead within the longest election timeout"
            self._end_transfer(kv.Unsure(f"{late}, but may yet") if self._told else kv.Refused(late))

    def _end_transfer(self, result: kv.Result) -> None:
        assert self._transfer is not None
        self._reply(self._transfer, result)
        self._transfer = None
        self._effects.append(CancelTimer(TRANSFER))
