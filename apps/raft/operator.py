"""Who asks a Raft cluster for other members or another leader, as an administrator's tool does: until it is so."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from apps import kv
from apps.process import (
    CancelTimer,
    Effect,
    Event,
    Nanoseconds,
    NodeId,
    Received,
    Reply,
    Request,
    Requested,
    Response,
    Send,
    SetTimer,
    TimerFired,
    Trace,
)
from apps.raft.messages import ChangeMembership, TransferLeadership
from apps.workload import Start

_ASK = "ask"


class OperatorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The members wanted, or ``leader``: who is to lead, where one is named.

    ``timeout``: a node that has not answered for so long is passed over for the next.

    ``pause``: how long to wait before asking again after an answer that was none.

    ``dialling``: how long to wait before asking at all. What is said before connections are made is lost, and a
    whole ``timeout`` with it.
    """

    voters: tuple[NodeId, ...] = ()
    learners: tuple[NodeId, ...] = ()
    leader: NodeId | None = None
    timeout: Nanoseconds = 1_000_000_000
    pause: Nanoseconds = 50_000_000
    dialling: Nanoseconds = 20_000_000


class Answered(msgspec.Struct, frozen=True, tag_field="ev", tag="answered"):
    """What a node said, the last of which is the end of it."""

    node: NodeId
    answer: kv.Result


class Operator:
    """Driven by `apps.workload.Start` and `Stop`; the latter is answered at once."""

    def __init__(self, nodes: Sequence[NodeId], config: OperatorConfig, first_request: int = 0) -> None:
        self._nodes, self._config = list(nodes), config
        self._wanted: ChangeMembership | TransferLeadership
        if config.leader is None:
            self._wanted = ChangeMembership(config.voters, config.learners)
        else:
            self._wanted = TransferLeadership(config.leader)
        self._request = first_request
        self._asked = 0  # a position in nodes
        self.done = False

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        match event:
            case Requested(command=Start(at=at)):
                return [SetTimer(_ASK, max(self._config.dialling, at - now))]
            case Requested(client=client, request=request):
                self.done = True
                return [CancelTimer(_ASK), Reply(client, request, kv.Done())]
            case TimerFired() if not self.done:
                return self._ask()
            case Received(sender=node, message=Response(request=request, result=result)) if request == self._request:
                return [Trace(Answered(node, result)), *self._heed(node, result)]
        return []

    def _ask(self) -> list[Effect]:
        self._request += 1
        node = self._nodes[self._asked]
        self._asked = (self._asked + 1) % len(self._nodes)
        return [Send(node, Request(self._request, self._wanted)), SetTimer(_ASK, self._config.timeout)]

    def _heed(self, node: NodeId, result: kv.Result) -> list[Effect]:
        if isinstance(result, kv.Done | kv.Refused):
            self.done = True
            return [CancelTimer(_ASK)]
        if not isinstance(result, kv.NotLeader):
            self._asked = self._nodes.index(node)
        elif result.leader in self._nodes:
            self._asked = self._nodes.index(result.leader)
        return [SetTimer(_ASK, self._config.pause)]
