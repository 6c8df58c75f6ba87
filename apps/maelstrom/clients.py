"""Clients of bridges: what a workload asks, in Maelstrom's words, and what is known from the answer.

`LinKvClient` is for lin-kv, `EchoClient` for echo. An error of Maelstrom's that is definite means that the operation
did not happen (``fail``); any other, and no answer, that it may have (``info``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

from apps import kv
from apps.maelstrom.bridge import Call, Called, CallResult, Declined
from apps.maelstrom.protocol import Code, is_definite
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
from apps.workload import HistoryEvent, Outcome, RegisterClient, RegisterConfig, Start, Stop


class LinKvClient:
    """A `RegisterClient` that speaks lin-kv: the i-th always to the i-th node, as Maelstrom's do, and what changes
    something only once, since there are no sessions.

    Its registers ``k0``, ``k1``… are the keys 0, 1… of lin-kv, which binaries in typed languages expect.
    """

    def __init__(
        self, name: NodeId, nodes: Sequence[NodeId], config: RegisterConfig, random: Random, first_request: int = 0
    ) -> None:
        once = msgspec.structs.replace(config, retry=False)
        node = nodes[config.thread % len(nodes)]
        self._client = RegisterClient(name, [node], once, random, first_request)
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


class EchoConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``thread`` of ``threads``, ``rate`` and ``timeout`` as in `RegisterConfig`."""

    thread: int
    threads: int
    rate: float
    timeout: Nanoseconds = 1_000_000_000

    def __post_init__(self) -> None:
        if not (0 <= self.thread < self.threads and self.rate > 0 and self.timeout > 0):
            raise ValueError("thread counts from 0 to threads - 1, and rate and timeout are above 0")


class EchoClient:
    """Calls a number that nobody else calls, and waits for its echo; always at the same node, as Maelstrom's do."""

    def __init__(self, nodes: Sequence[NodeId], config: EchoConfig, random: Random, first_request: int = 0) -> None:
        self._node = nodes[config.thread % len(nodes)]
        self._config, self._random = config, random
        self._request = first_request
        self._called = 0
        self._under_way = False
        self._next_at: Nanoseconds = 0
        self._stop: Requested | None = None

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        match event:
            case Requested(command=Start(at=at)):
                self._next_at = at
                return self._wait(now)
            case Requested(command=Stop(at=at)):
                self._stop = event
                return [SetTimer("stop", max(0, at - now))]
            case TimerFired(timer="next"):
                return self._call()
            case TimerFired(timer="stop"):
                return self._finish()
            case TimerFired():
                return self._end(now, "fail", self._number, "timeout")
            case Received(message=Response(request=request, result=result)) if request == self._request:
                return self._answered(now, result) if self._under_way else []
        return []

    @property
    def _number(self) -> int:
        return self._called * self._config.threads + self._config.thread

    def _wait(self, now: Nanoseconds) -> list[Effect]:
        # What an outage kept from being called is not made up for.
        gap = round(-math.log(1.0 - self._random.random()) / self._config.rate * 1e9)
        self._next_at = max(self._next_at, now) + gap
        return [SetTimer("next", self._next_at - now)]

    def _call(self) -> list[Effect]:
        self._request += 1
        self._called += 1
        self._under_way = True
        body = msgspec.json.encode({"type": "echo", "echo": self._number})
        return [
            Trace(HistoryEvent(self._config.thread, "invoke", "echo", self._number)),
            SetTimer("deadline", self._config.timeout),
            Send(self._node, Request(self._request, Call(body))),
        ]

    def _answered(self, now: Nanoseconds, result: CallResult) -> list[Effect]:
        if not isinstance(result, Called):
            return self._end(now, "fail", self._number, result.reason)
        match msgspec.json.decode(result.body):
            case {"type": "echo_ok", "echo": heard}:
                return self._end(now, "ok", heard)
            case {"type": "error", "code": int(code), **rest}:
                return self._end(now, "fail", self._number, f"{code} {rest.get('text', '')}".rstrip())
            case body:
                return self._end(now, "fail", self._number, f"answered with {body['type']!r}")

    def _end(self, now: Nanoseconds, outcome: Outcome, value: Any, error: str | None = None) -> list[Effect]:
        self._under_way = False
        done = Trace(HistoryEvent(self._config.thread, outcome, "echo", value, error))
        return [done, CancelTimer("deadline"), *(self._finish() or self._wait(now))]

    def _finish(self) -> list[Effect]:
        """The end of the work, if it was asked for and nothing is under way."""
        if self._stop is None or self._under_way:
            return []
        return [CancelTimer("next"), Reply(self._stop.client, self._stop.request, kv.Done())]
