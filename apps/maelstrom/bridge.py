"""Stands for a binary that speaks Maelstrom's protocol: any such program becomes a node of ours.

The driver keeps the binary as a child. To this process the child is a client of its own, `CHILD`: each line it prints
comes as a request, `Heard`, and what is to be written to it goes out as replies. What it says to peers travels, as it
was said, from bridge to bridge, across whatever network the driver has; what it says to the services of Maelstrom goes
to the bridge of the first node, which has them.

The binary is not trusted. What is no message, comes under another's name, or answers what nobody asked is rejected,
counted and left as evidence; the binary that does not answer ``init``, floods or exits is given up, and its clients
are told so. The bridge lives on, and so do the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any, Literal, TypeAlias

import msgspec

from apps.maelstrom.protocol import SHOWN, Code, LineError, Message, decode, encode, error_body, shown
from apps.maelstrom.services import SERVICES, Services
from apps.process import (
    CancelTimer,
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
    Trace,
)

#: The client's name of the binary: no node or client of a scenario can have it.
CHILD: NodeId = "\0child"

#: A binary that prints more lines than this within a second is given up.
FLOOD = 20_000

#: Messages kept for a binary that has not answered ``init`` yet, and requests of clients that may still be answered.
HELD, PENDING = 1_000, 10_000

#: What an answer must have besides its type, in the workloads that clients here have.
FIELDS = {"read_ok": "value", "echo_ok": "echo"}

#: Rejected lines of a kind told of one by one; after that at every doubling of their number.
TOLD = 5

_SECOND = 1_000_000_000
_INIT = "init"

#: Who sends ``init``: a client that no workload has.
_STARTER = "c0"
_INIT_ID = 0


class BridgeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``command``: the binary and its arguments. ``init_timeout``: how long it may take to answer ``init``, in ns.

    ``own_timers``: whether it does things by itself when time passes. Only a simulation wants to know.
    """

    command: tuple[str, ...]
    init_timeout: Nanoseconds = 10 * _SECOND
    own_timers: bool = True

    def __post_init__(self) -> None:
        if not self.command or self.init_timeout <= 0:
            raise ValueError("command must name a program, and init_timeout be above 0")


# ---- between the driver's child and the bridge


class Heard(msgspec.Struct, frozen=True):
    """A line of the binary's. ``oversized``: it was longer than is taken, and is cut off."""

    line: bytes
    oversized: bool = False


class Ended(msgspec.Struct, frozen=True):
    """The binary is no more. ``why``: in words."""

    why: str


class Tell(msgspec.Struct, frozen=True):
    """Write ``line`` to the binary."""

    line: bytes


class End(msgspec.Struct, frozen=True):
    """Kill the binary, and listen no more."""


# ---- between clients and the bridge; bodies are JSON, since they may hold numbers that msgpack has no form for


class Call(msgspec.Struct, frozen=True, array_like=True):
    """A body for the binary; the bridge gives it its ``msg_id``."""

    body: bytes


class Called(msgspec.Struct, frozen=True, array_like=True, tag="ok"):
    """The body that the binary answered."""

    body: bytes


class Declined(msgspec.Struct, frozen=True, array_like=True, tag="no"):
    """The binary was not asked, since it is not there."""

    reason: str


class Lost(msgspec.Struct, frozen=True, array_like=True, tag="??"):
    """The binary was asked, and will not answer any more."""

    reason: str


CallResult: TypeAlias = Called | Declined | Lost


# ---- between bridges


class Carried(msgspec.Struct, frozen=True, array_like=True):
    """A line, as the binary, or a service, said it."""

    line: bytes


# ---- evidence


class Ready(msgspec.Struct, frozen=True, tag_field="ev", tag="ready"):
    """The binary has answered ``init``."""

    command: tuple[str, ...]


class Rejected(msgspec.Struct, frozen=True, tag_field="ev", tag="rejected"):
    """Something of the binary's was not taken; ``line`` counts what it printed from 1. ``count``: so many by now."""

    code: str
    line: int
    said: str
    count: int


class Gone(msgspec.Struct, frozen=True, tag_field="ev", tag="gone"):
    """The binary exited, or was given up."""

    why: str


_json = msgspec.json.Encoder().encode


def _wrong_answer(asked: str, body: dict[str, Any]) -> str:
    """What is wrong with ``body`` as an answer to a request of type ``asked``, by Maelstrom's protocol; else empty."""
    kind = str(body["type"])
    if kind == "error":
        code = body.get("code")
        if isinstance(code, int) and not isinstance(code, bool):
            return ""
        return f"{asked} was answered with an error whose code is {_short(code)}, and no whole number"
    if kind != f"{asked}_ok":
        return f"{asked} was answered with {_short(kind)}, neither {asked}_ok nor error"
    field = FIELDS.get(kind)
    return f"{kind} came without {field!r}" if field and field not in body else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text[:SHOWN] + "…" if len(text) > SHOWN else text


class Bridge:
    """One node. ``nodes``: all of the cluster, sorted, the same on each. ``random``: for the services."""

    def __init__(self, node: NodeId, nodes: Sequence[NodeId], config: BridgeConfig, random: Random) -> None:
        self._node, self._nodes, self._config = node, list(nodes), config
        self._server = self._nodes[0]
        self._services = Services(random) if node == self._server else None
        self._state: Literal["starting", "ready", "gone"] = "starting"
        self._why = ""
        self._held: list[bytes] = []
        self._last_id = _INIT_ID
        self._pending: dict[int, tuple[Requested, str]] = {}  # with the type of what was asked
        self._rejected: Counter[str] = Counter()
        self._second: Nanoseconds = 0
        self._lines = 0
        self._effects: list[Effect] = []

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        effects = self._effects = []
        match event:
            case Started() if self._state == "starting":
                body = {"type": "init", "msg_id": _INIT_ID, "node_id": self._node, "node_ids": self._nodes}
                self._write(encode(_STARTER, self._node, body))
                effects.append(SetTimer(_INIT, self._config.init_timeout))
            case Requested(client=client, request=number, command=Heard() as heard) if client == CHILD:
                self._on_heard(now, number, heard)
            case Requested(client=client, command=Ended(why=why)) if client == CHILD:
                self._give_up(why)
            case Requested(command=Call() as call):
                self._on_call(event, call)
            case Received(sender=sender, message=Carried(line=line)):
                self._on_carried(sender, line)
            case TimerFired():
                self._give_up(f"it did not answer init within {self._config.init_timeout / _SECOND:g} s")
        return effects

    # ---- the binary ----------------------------------------------------------------------------------------------

    def _write(self, line: bytes) -> None:
        self._effects.append(Reply(CHILD, 0, Tell(line)))

    def _hand(self, line: bytes) -> None:
        """Write a peer's or service's message to the binary, after its ``init`` if that is still to be answered."""
        if self._state == "ready":
            self._write(line)
        elif self._state == "starting" and len(self._held) < HELD:
            self._held.append(line)

    def _give_up(self, why: str) -> None:
        if self._state == "gone":
            return
        self._state, self._why = "gone", why
        self._held.clear()
        self._effects += [CancelTimer(_INIT), Reply(CHILD, 0, End()), Trace(Gone(why))]
        for asked, _ in self._pending.values():
            self._effects.append(Reply(asked.client, asked.request, Lost(why)))
        self._pending.clear()

    def _reject(self, number: int, code: str, said: str) -> None:
        self._rejected[code] += 1
        count = self._rejected[code]
        if count <= TOLD or count & (count - 1) == 0:
            self._effects.append(Trace(Rejected(code, number, said, count)))

    def _on_heard(self, now: Nanoseconds, number: int, heard: Heard) -> None:
        if self._state == "gone":
            return
        if now - self._second >= _SECOND:
            self._second, self._lines = now, 0
        self._lines += 1
        if self._lines > FLOOD:
            self._give_up(f"it printed more than {FLOOD} lines within a second")
            return
        if heard.oversized:
            self._reject(number, "oversized", f"a line longer than is taken: {shown(heard.line)}")
            return
        try:
            message = decode(heard.line)
        except LineError as error:
            self._reject(number, error.code, str(error))
            return
        if message.src != self._node:
            self._reject(number, "forged", f"a message of {message.src!r}; this is {self._node}")
        else:
            self._pass_on(number, message, heard.line)

    def _pass_on(self, number: int, message: Message, line: bytes) -> None:
        to = message.dest
        if to == self._node:
            self._hand(line + b"\n")
        elif to in SERVICES:
            if self._services is not None:
                self._serve(self._services, message)
            else:
                self._effects.append(Send(self._server, Carried(line)))
        elif to in self._nodes:
            self._effects.append(Send(to, Carried(line)))
        elif to == _STARTER and message.in_reply_to == _INIT_ID and self._state == "starting":
            self._on_init_answered(number, message)
        else:
            self._on_answer(number, message)

    def _on_init_answered(self, number: int, message: Message) -> None:
        if message.type != "init_ok":
            self._reject(number, "shape", f"init was answered with {message.type!r}, not init_ok")
            self._give_up(f"it answered init with {message.type!r}")
            return
        self._state = "ready"
        self._effects += [CancelTimer(_INIT), Trace(Ready(self._config.command))]
        for line in self._held:
            self._write(line)
        self._held.clear()

    # ---- its clients ---------------------------------------------------------------------------------------------

    def _on_call(self, asked: Requested, call: Call) -> None:
        if self._state != "ready":
            why = self._why or "it has not answered init yet"
            self._effects.append(Reply(asked.client, asked.request, Declined(why)))
            return
        try:
            body = msgspec.json.decode(call.body, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._effects.append(Reply(asked.client, asked.request, Declined(f"not a body: {error}")))
            return
        self._last_id += 1
        self._pending[self._last_id] = asked, str(body.get("type"))
        if len(self._pending) > PENDING:
            del self._pending[next(iter(self._pending))]  # its client gave up long ago
        self._write(encode(asked.client, self._node, {**body, "msg_id": self._last_id}))

    def _on_answer(self, number: int, message: Message) -> None:
        number_asked = -1 if message.in_reply_to is None else message.in_reply_to
        asked, kind = self._pending.get(number_asked, (None, ""))
        if asked is not None and asked.client == message.dest:
            del self._pending[number_asked]
            wrong = _wrong_answer(kind, message.body)
            if wrong:
                self._reject(number, "shape", wrong)
            # Whose request was answered with nonsense knows nothing, as if it had not been.
            result: CallResult = Lost(wrong) if wrong else Called(_json(message.body))
            self._effects.append(Reply(asked.client, asked.request, result))
        elif message.in_reply_to is not None:
            self._reject(number, "unasked", f"an answer to {message.dest!r}, who asked nothing of that number")
        else:
            self._reject(number, "unknown", f"a message to {message.dest!r}; there is nobody of that name")
            if message.msg_id is not None:
                body = error_body(Code.NODE_NOT_FOUND, f"there is no {message.dest!r}")
                self._write(encode(message.dest, self._node, {**body, "in_reply_to": message.msg_id}))

    # ---- its peers, and the services -----------------------------------------------------------------------------

    def _on_carried(self, sender: NodeId, line: bytes) -> None:
        try:
            message = decode(line)
        except LineError:
            return  # no bridge sends such a thing
        if self._services is not None and message.dest in SERVICES:
            if message.src == sender:
                self._serve(self._services, message)
        elif message.dest == self._node and (message.src == sender or sender == self._server):
            self._hand(line + b"\n")

    def _serve(self, services: Services, message: Message) -> None:
        if message.msg_id is None:
            return
        body = {**services.answer(message), "in_reply_to": message.msg_id}
        line = encode(message.dest, message.src, body)
        if message.src == self._node:
            self._hand(line)
        else:
            self._effects.append(Send(message.src, Carried(line.rstrip(b"\n"))))
