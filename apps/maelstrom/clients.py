"""Clients of bridges: what a workload asks, in Maelstrom's words, and what is known from the answer.

An error of Maelstrom's that is definite means that the operation did not happen (``fail``); any other, and no answer,
that it may have (``info``).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

from apps import kv
from apps.maelstrom.bridge import Call, Called, CallResult, Declined
from apps.maelstrom.protocol import Code, is_definite
from apps.process import Effect, Event, Nanoseconds, NodeId, Received, Request, Response, Send
from apps.workload import RegisterClient, RegisterConfig


class LinKvClient:
    """A `RegisterClient` that speaks lin-kv. It asks for nothing twice but for reads: there are no sessions.

    Its registers ``k0``, ``k1``… are the keys 0, 1… of lin-kv, which binaries in typed languages expect.
    """

    def __init__(
        self, name: NodeId, nodes: Sequence[NodeId], config: RegisterConfig, random: Random, first_request: int = 0
    ) -> None:
        once = msgspec.structs.replace(config, retry=False)
        self._client = RegisterClient(name, nodes, once, random, first_request)
        self._command: kv.Command | None = None  # one at a time
        self._asked: set[int] = set()

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        match event:
            case Received(sender=sender, message=Response(request=request, result=result)):
                if self._command is None or request not in self._asked:
                    return []
                event = Received(sender, Response(request, read_answer(self._command.operation, result)))
        effects: list[Effect] = []
        for effect in self._client.handle(now, event):
            if isinstance(effect, Send):
                request, command = effect.message.request, effect.message.command
                if command is not self._command:
                    self._command, self._asked = command, set()
                self._asked.add(request)
                body = request_body(command.operation)
                if body is None:
                    refusal = Response(request, kv.Refused("lin-kv cannot say that"))
                    effects += self._client.handle(now, Received(effect.to, refusal))
                else:
                    effects.append(Send(effect.to, Request(request, Call(body))))
            else:
                effects.append(effect)
        return effects


def request_body(operation: kv.Operation) -> bytes | None:
    """An operation in lin-kv's words; None for what it has none for: a deletion, and a cas of an absent key."""
    key = int(operation.key[1:])
    body: dict[str, Any]
    match operation:
        case kv.Read():
            body = {"type": "read", "key": key}
        case kv.Write(value=value):
            body = {"type": "write", "key": key, "value": value}
        case kv.Cas(old=old, new=new) if old is not None:
            body = {"type": "cas", "key": key, "from": old, "to": new}
        case _:
            return None
    return msgspec.json.encode(body)


def read_answer(operation: kv.Operation, result: CallResult) -> kv.Result:
    """What an answer says of ``operation``. One that cannot be understood says nothing."""
    if isinstance(result, Declined):
        return kv.Refused(result.reason)
    if not isinstance(result, Called):
        return kv.Unsure(result.reason)
    body = msgspec.json.decode(result.body)
    match operation, body:
        case kv.Read(), {"type": "read_ok", "value": value}:
            return kv.Done(value)
        case (kv.Write(), {"type": "write_ok"}) | (kv.Cas(), {"type": "cas_ok"}):
            return kv.Done()
        case kv.Read(), {"type": "error", "code": Code.KEY_DOES_NOT_EXIST}:
            return kv.Done(None)
        case _, {"type": "error", "code": int(code)}:
            reason = f"{code} {body.get('text', '')}".rstrip()
            return kv.Refused(reason) if is_definite(code) else kv.Unsure(reason)
    return kv.Unsure(f"answered with {body['type']!r}")
