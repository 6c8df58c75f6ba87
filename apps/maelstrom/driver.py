"""Runs a process as a Maelstrom binary: one thread, `select` for its timers, everything else on its three streams.

Standard error is its log. What nodes of ours say to each other travels in bodies of type `PEER`. Bad lines are
rejected, counted and told about on standard error; the others go on.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from apps.journal import Identity, Journal
from apps.maelstrom.nodes import Node
from apps.maelstrom.protocol import Code, Line, LineError, LineReader, Message, decode, encode, error_body
from apps.process import (
    CancelTimer,
    Effect,
    Event,
    NodeId,
    Persist,
    Persisted,
    Process,
    Received,
    Reply,
    Requested,
    Send,
    SetTimer,
    Snapshot,
    Started,
    TimerFired,
    Trace,
    step,
)
from apps.runtime.timers import Timers

#: The type of bodies that carry messages of a process to its peers.
PEER = "splitbrain"

#: The request number of a client that wants no answer.
_UNANSWERED = -1

#: Rejected lines told of one by one.
_TOLD = 20

_READ = 1 << 16


class Driver:
    """``name`` and ``node``: what runs, from `apps.maelstrom.nodes`. ``data``: where its log is, if it keeps one.

    `run` returns when standard input ends. Raises `JournalError` for a log that cannot be used.
    """

    def __init__(self, name: str, node: Node, seed: str, data: Path | None) -> None:
        self._name, self._node, self._seed, self._data = name, node, seed, data
        self._id: NodeId = ""
        self._nodes: Sequence[NodeId] = ()
        self._process: Process | None = None
        self._journal: Journal[Any] | None = None
        self._timers = Timers()
        self._out: list[bytes] = []
        self._next: list[Event] = []
        self.rejected: Counter[str] = Counter()

    def run(self, stdin: int, stdout: int) -> None:
        """Serve until ``stdin``, a file descriptor, ends."""
        reader = LineReader()
        while True:
            ready, _, _ = select.select([stdin], [], [], self._patience())
            events: list[Event] = []
            data = b""
            if ready:
                data = os.read(stdin, _READ)
                for line in reader.feed(data) if data else reader.close():
                    events += self._take(line)
            self._step(events)
            self._flush(stdout)
            if ready and not data:
                return

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def _patience(self) -> float | None:
        """Seconds until something is due."""
        if self._next:
            return 0.0
        deadline = self._timers.next
        return None if deadline is None else max(0, deadline - time.monotonic_ns()) / 1e9

    # ---- what comes in -------------------------------------------------------------------------------------------

    def _take(self, line: Line) -> list[Event]:
        try:
            if line.oversized:
                raise LineError("oversized", "a line longer than is taken")
            message = decode(line.text)
            if self._process is None:
                return self._start(message)
            if message.src in self._nodes:
                return self._from_peer(message)
            return self._from_client(message)
        except LineError as error:
            self.rejected[error.code] += 1
            if self.rejected.total() <= _TOLD:
                _log(f"line {line.number}: {error}")
            return []

    def _start(self, message: Message) -> list[Event]:
        self._id = message.dest  # as it is called, until `init` says who it is
        if message.type != "init":
            self._refuse(message, Code.TEMPORARILY_UNAVAILABLE, "init comes first")
            return []
        try:
            init = msgspec.convert(message.body, _Init)
        except msgspec.ValidationError as error:
            self._refuse(message, Code.MALFORMED_REQUEST, str(error))
            return []
        if init.node_ids.count(init.node_id) != 1 or len(set(init.node_ids)) < len(init.node_ids):
            problem = f"node_ids {init.node_ids} must name each node once, {init.node_id!r} among them"
            self._refuse(message, Code.MALFORMED_REQUEST, problem)
            return []
        self._id, self._nodes = init.node_id, init.node_ids
        records: Sequence[Any] = ()
        if self._data is not None and self._node.record is not None:
            self._journal = Journal(self._data / self._id, Identity("maelstrom", self._id), self._node.record)
            records, self._journal.records = self._journal.records, []
        self._process = self._node.make(self._id, self._nodes, Random(f"{self._seed} {self._id}"))
        self._answer(message.src, message.msg_id, {"type": "init_ok"})
        _log(f"{self._id} runs {self._name} among {', '.join(self._nodes)}")
        return [Started(records)]

    def _from_peer(self, message: Message) -> list[Event]:
        if message.type != PEER or self._node.message is None:
            raise LineError("unexpected", f"{message.src} says {message.type!r}, which peers of this node do not")
        try:
            said = msgspec.convert(message.body.get("messages"), list[self._node.message])  # type: ignore[name-defined]
        except msgspec.ValidationError as error:
            raise LineError("shape", f"from {message.src}: {error}") from None
        return [Received(message.src, one) for one in said]

    def _from_client(self, message: Message) -> list[Event]:
        if message.in_reply_to is not None:
            raise LineError("unexpected", f"an answer of {message.src} to what was not asked")
        try:
            asked = msgspec.convert(message.body, self._node.requests)
        except msgspec.ValidationError as error:
            known = _types(self._node.requests)
            if message.type in known:
                self._refuse(message, Code.MALFORMED_REQUEST, str(error))
            else:
                said = f"{self._name} has no {message.type!r}; it has {', '.join(known)}"
                self._refuse(message, Code.NOT_SUPPORTED, said)
            return []
        request = _UNANSWERED if message.msg_id is None else message.msg_id
        return [Requested(message.src, request, asked)]

    # ---- what goes out -------------------------------------------------------------------------------------------

    def _step(self, events: list[Event]) -> None:
        if self._process is None:
            return
        now = time.monotonic_ns()
        events, self._next = self._next + events, []
        events += map(TimerFired, self._timers.due(now))
        if events:
            self._carry_out(now, step(self._process, now, events))

    def _carry_out(self, now: int, effects: Sequence[Effect]) -> None:
        to_peers: dict[NodeId, list[Any]] = {}
        for effect in effects:
            match effect:
                case Send(to=to, message=said):
                    to_peers.setdefault(to, []).append(said)
                case Reply(client=client, request=request, result=body):
                    if request != _UNANSWERED:
                        self._answer(client, request, msgspec.to_builtins(body))
                case SetTimer(timer=timer, after=after):
                    self._timers.set(timer, now + after)
                case CancelTimer(timer=timer):
                    self._timers.cancel(timer)
                case Persist(token=token, records=records) | Snapshot(token=token, records=records):
                    if self._journal is not None:
                        self._journal.commit(records, anew=isinstance(effect, Snapshot))
                    self._next.append(Persisted(token))
                case Trace(event):
                    # Maelstrom records every message itself; what was wrong with one only its receiver can say.
                    if type(event).__struct_config__.tag == "reject":
                        _log(f"{event.sender}: {event.message} number {event.count} that is rejected: {event.why}")
        for peer, messages in to_peers.items():
            body = {"type": PEER, "messages": msgspec.to_builtins(messages)}
            self._out.append(encode(self._id, peer, body))

    def _refuse(self, message: Message, code: Code, why: str) -> None:
        self._answer(message.src, message.msg_id, error_body(code, why))

    def _answer(self, client: NodeId, msg_id: int | None, body: dict[str, Any]) -> None:
        if msg_id is not None:
            self._out.append(encode(self._id, client, {**body, "in_reply_to": msg_id}))

    def _flush(self, stdout: int) -> None:
        data = memoryview(b"".join(self._out))
        self._out.clear()
        while data:
            data = data[os.write(stdout, data) :]


class _Init(msgspec.Struct):
    node_id: NodeId
    node_ids: list[NodeId]


def _types(requests: Any) -> list[str]:
    """The types of the bodies in a union of structs."""
    kinds = getattr(requests, "__args__", (requests,))
    return [str(kind.__struct_config__.tag) for kind in kinds]


def _log(said: str) -> None:
    print(said, file=sys.stderr, flush=True)
