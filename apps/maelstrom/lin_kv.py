"""The lin-kv workload on Raft: every node answers, and asks whoever leads.

Maelstrom's clients speak to one node and do not look for a leader. So each node here is a client of the cluster, too,
with a session of its own (Ongaro's thesis, §6.3): what it asks again, because nobody led or nobody answered, takes
effect once. Keys and values may be any JSON; they are kept as its text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias

import msgspec

from apps import kv
from apps.maelstrom.protocol import Code
from apps.maelstrom.simple import Body
from apps.process import (
    Effect,
    Event,
    Nanoseconds,
    NodeId,
    Received,
    Reply,
    Requested,
    Send,
    SetTimer,
    Started,
    TimerFired,
)
from apps.raft import Message, Raft, RaftConfig

#: How often is looked for a leader on behalf of those who wait, when an unanswered question is put again, and when
#: the client is told that it came to nothing.
LOOK, ASK_AGAIN, GIVE_UP = 50_000_000, 500_000_000, 3_000_000_000

_TIMER = "lin-kv"


class Read(Body, frozen=True, tag="read"):
    key: Any


class Write(Body, frozen=True, tag="write"):
    key: Any
    value: Any


class Cas(Body, frozen=True, tag="cas", rename={"old": "from", "new": "to"}):
    key: Any
    old: Any
    new: Any


class ReadOk(Body, frozen=True, tag="read_ok"):
    value: Any


class WriteOk(Body, frozen=True, tag="write_ok"):
    pass


class CasOk(Body, frozen=True, tag="cas_ok"):
    pass


class Error(Body, frozen=True, tag="error"):
    code: int
    text: str


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """A node's question to the one that it takes for the leader."""

    command: kv.Command


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    sequence: int
    result: kv.Result


LinKvMessage: TypeAlias = Message | Ask | Answer

_text = msgspec.json.Encoder(order="deterministic").encode


class _Waiting:
    """A client's request. ``open``: questions that may still have an effect unanswered."""

    def __init__(self, asked: Requested, command: kv.Command, begun: Nanoseconds) -> None:
        self.asked, self.command, self.begun = asked, command, begun
        self.last_asked: Nanoseconds | None = None
        self.open = 0

    @property
    def is_read(self) -> bool:
        return isinstance(self.command.operation, kv.Read)


class LinKv:
    """A voter of the Raft cluster of ``nodes``, and what clients of this node talk to."""

    def __init__(self, node: NodeId, nodes: Sequence[NodeId], config: RaftConfig, random: Random) -> None:
        self._node = node
        self._session = f"{node}-{int(random.random() * 2**52):x}"
        self._raft = Raft(node, nodes, config, random)
        self._sequence = 0
        self._waiting: dict[int, _Waiting] = {}

    @property
    def raft(self) -> Raft:
        """The voter; to be looked at only."""
        return self._raft

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        match event:
            case Started():
                return [*self._step(now, event), SetTimer(_TIMER, LOOK)]
            case Requested(command=Read() | Write() | Cas()):
                return self._begin(now, event)
            case Received(sender=sender, message=Ask(command=command)):
                return self._step(now, Requested(sender, command.sequence, command))
            case Received(message=Answer(sequence=sequence, result=result)):
                return self._answered(now, sequence, result)
            case TimerFired(timer=timer) if timer == _TIMER:
                return [*self._look(now), SetTimer(_TIMER, LOOK)]
        return self._step(now, event)

    def _step(self, now: Nanoseconds, event: Event) -> list[Effect]:
        """Let Raft take a step; its clients are nodes, this one among them."""
        effects: list[Effect] = []
        for effect in self._raft.handle(now, event):
            if not isinstance(effect, Reply):
                effects.append(effect)
            elif effect.client == self._node:
                effects += self._answered(now, effect.request, effect.result)
            else:
                effects.append(Send(effect.client, Answer(effect.request, effect.result)))
        return effects

    # ---- asking --------------------------------------------------------------------------------------------------

    def _begin(self, now: Nanoseconds, asked: Requested) -> list[Effect]:
        self._sequence += 1
        oldest = min(self._waiting, default=self._sequence)
        command = kv.Command(self._session, self._sequence, oldest, _operation(asked.command))
        waiting = self._waiting[self._sequence] = _Waiting(asked, command, now)
        return self._ask(now, waiting)

    def _ask(self, now: Nanoseconds, waiting: _Waiting) -> list[Effect]:
        leader = self._raft.leader
        if leader is None:
            return []
        waiting.last_asked = now
        waiting.open += 1
        if leader == self._node:
            return self._step(now, Requested(self._node, waiting.command.sequence, waiting.command))
        return [Send(leader, Ask(waiting.command))]

    def _look(self, now: Nanoseconds) -> list[Effect]:
        effects: list[Effect] = []
        for waiting in list(self._waiting.values()):
            if now - waiting.begun >= GIVE_UP:
                effects += self._end(waiting, _given_up(waiting))
            elif waiting.last_asked is None or now - waiting.last_asked >= ASK_AGAIN:
                effects += self._ask(now, waiting)
        return effects

    def _answered(self, now: Nanoseconds, sequence: int, result: kv.Result) -> list[Effect]:
        waiting = self._waiting.get(sequence)
        if waiting is None:
            return []
        match result:
            case kv.Done(value=value):
                return self._end(waiting, _ANSWERS[type(waiting.asked.command)](value))
            case kv.Refused(reason=reason):
                code = Code.KEY_DOES_NOT_EXIST if reason == kv.ABSENT else Code.PRECONDITION_FAILED
                return self._end(waiting, Error(code, reason))
            case kv.NotLeader() | kv.Busy():
                waiting.open -= 1
        waiting.last_asked = None  # again at the next look, of whoever leads by then
        return []

    def _end(self, waiting: _Waiting, answer: Body) -> list[Effect]:
        del self._waiting[waiting.command.sequence]
        return [Reply(waiting.asked.client, waiting.asked.request, answer)]


def _operation(asked: Read | Write | Cas) -> kv.Operation:
    key = _text(asked.key).decode()
    match asked:
        case Read():
            return kv.Read(key)
        case Write():
            return kv.Write(key, _text(asked.value).decode())
        case Cas():
            return kv.Cas(key, _text(asked.old).decode(), _text(asked.new).decode())


def _given_up(waiting: _Waiting) -> Error:
    if waiting.open and not waiting.is_read:
        return Error(Code.TIMEOUT, "nobody has answered; it may have happened")
    return Error(Code.TEMPORARILY_UNAVAILABLE, "there is no leader that a majority follows")


def _found(value: str | None) -> Body:
    if value is None:
        return Error(Code.KEY_DOES_NOT_EXIST, kv.ABSENT)
    return ReadOk(msgspec.json.decode(value))


_ANSWERS: dict[type[Body], Callable[[Any], Body]] = {
    Read: _found,
    Write: lambda _: WriteOk(),
    Cas: lambda _: CasOk(),
}
