"""Clients as processes: the one that uses a register as a test wants it, and the one that floods a cluster.

`RegisterClient` is one thread of a Jepsen workload: one operation at a time, every one recorded when it begins and when
it ends, with what is known of its outcome. That record is the history that the checkers judge, so it never claims
more than is known:

- ``ok``: it took effect, and this is the answer.
- ``fail``: it did not take effect and never will. A read without an answer counts here, since it changes nothing.
- ``info``: it may have taken effect, or may yet. The process (Jepsen's word for who does one thing after another) has
  thereby not ended its operation and never acts again; its thread goes on under the next process number.

Both are driven by `Start` and `Stop`, requests of whoever runs them; `Stop` is answered when nothing is under way, and
a `RegisterClient` has read every register once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Literal, TypeAlias

import msgspec

from apps import kv
from apps.backoff import full_jitter
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

_SECOND = 1_000_000_000

F: TypeAlias = Literal["read", "write", "cas", "delete"]
Outcome: TypeAlias = Literal["ok", "fail", "info"]

_OPERATIONS: tuple[F, ...] = ("read", "write", "cas", "delete")


class Start(msgspec.Struct, frozen=True):
    """Begin operations at ``at`` on the driver's clock."""

    at: Nanoseconds


class Stop(msgspec.Struct, frozen=True):
    """Begin none from ``at`` on. Answered when the last one has ended."""

    at: Nanoseconds


class RegisterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``thread`` of ``threads``: this client's number, from 0, among all of the workload.

    ``rate``: operations a second of this client, spaced exponentially (a Poisson process); one that is still under way
    delays the next. ``keys``: how many registers. ``mix``: shares of ``read``, ``write``, ``cas``, ``delete``.
    ``timeout``: nanoseconds after which an operation is given up; a node that has not answered by a quarter of that is
    passed over for the next. ``retry``: whether what was asked is then asked of that one too. It must not be where a
    request sent again is another one, as in a quorum store: a write is sent once, to any node, and is `info` without
    an answer; only a read is asked again. Raises `ValueError` when a value makes no sense.
    """

    thread: int
    threads: int
    rate: float
    keys: int
    mix: dict[F, float]
    timeout: Nanoseconds = _SECOND
    retry: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.thread < self.threads:
            raise ValueError(f"thread is {self.thread}; threads count from 0 to threads - 1 = {self.threads - 1}")
        if not (self.rate > 0 and self.keys > 0 and self.timeout > 0):
            raise ValueError(f"rate {self.rate}, keys {self.keys} and timeout {self.timeout} must all be above 0")
        if min(self.mix.values(), default=0) < 0 or not sum(self.mix.values()) > 0:
            raise ValueError(f"mix {self.mix}: shares must not be negative, and one must be above 0")


class HistoryEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the history (``docs/run-folder.md``); the driver puts the time in front, the merge the index."""

    process: int
    type: Literal["invoke"] | Outcome
    f: F | Literal["echo"]
    value: Any
    error: str | None = None


class _Operation:
    """What is under way, from its invocation to its outcome."""

    def __init__(self, f: F, key: str, argument: Any, command: kv.Command, deadline: Nanoseconds) -> None:
        self.f, self.key, self.argument, self.command, self.deadline = f, key, argument, command, deadline
        self.asked: dict[int, NodeId] = {}  # attempts that may still be answered, or may have taken effect unanswered
        self.unsure = False


class RegisterClient:
    """See the module's and `RegisterConfig`'s docs. ``first_request``: its requests are numbered from there.

    Writes and successful compare-and-sets never use a value twice in the whole workload, so that a read tells which
    write it saw.
    """

    def __init__(
        self, name: NodeId, nodes: Sequence[NodeId], config: RegisterConfig, random: Random, first_request: int = 0
    ) -> None:
        self._name, self._nodes, self._config, self._random = name, list(nodes), config, random
        self._process = config.thread
        self._request = first_request
        self._sequence = 0
        self._written = 0
        self._presumed = config.thread % len(self._nodes)
        self._known: dict[str, Any] = {}
        self._stop_at: Nanoseconds | None = None
        self._stop_request: tuple[NodeId, int] | None = None
        self._next_at: Nanoseconds = 0
        self._operation: _Operation | None = None
        self._refusals = 0
        self._last_reads = 0
        shares = [config.mix.get(f, 0.0) for f in _OPERATIONS]
        self._shares = [(f, sum(shares[: i + 1]) / sum(shares)) for i, f in enumerate(_OPERATIONS)]

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        if isinstance(event, Received):
            return self._answered(now, event.sender, event.message)
        if isinstance(event, TimerFired):
            return self._timers[event.timer](self, now)
        if isinstance(event, Requested):
            return self._told(now, event)
        return []

    # When operations begin, and when no more do.

    def _told(self, now: Nanoseconds, event: Requested) -> list[Effect]:
        if isinstance(event.command, Start):
            self._next_at = event.command.at + self._gap()
            return [SetTimer("next", max(0, self._next_at - now))]
        self._stop_at = event.command.at
        self._stop_request = (event.client, event.request)
        return [SetTimer("stop", max(0, self._stop_at - now))]

    def _stopped(self, now: Nanoseconds) -> bool:
        return self._stop_at is not None and now >= self._stop_at

    def _finish(self, now: Nanoseconds) -> list[Effect]:
        """When the time of `Stop` has come and nothing is under way: read every register once more, then answer.

        The last reads are the witnesses that no acknowledged write has been lost since.
        """
        if self._operation is not None or self._stop_request is None or not self._stopped(now):
            return []
        if self._last_reads < self._config.keys:
            key = f"k{self._last_reads}"
            self._last_reads += 1
            return [CancelTimer("next"), *self._invoke(now, "read", key, None, kv.Read(key))]
        (client, request), self._stop_request = self._stop_request, None
        return [CancelTimer("next"), Reply(client, request, kv.Done())]

    def _gap(self) -> Nanoseconds:
        return round(-math.log(1.0 - self._random.random()) / self._config.rate * _SECOND)

    def _begin(self, now: Nanoseconds) -> list[Effect]:
        if self._operation is not None or self._stopped(now):
            return []
        self._schedule_next(now)
        return self._invoke(now, *self._draw())

    def _schedule_next(self, now: Nanoseconds) -> None:
        """The gap counts from when this one was due, or the clients would fall behind their rate by every operation's
        duration; but what a long outage kept from happening is not made up for in one burst.
        """
        late = now - self._next_at
        self._next_at = (self._next_at if late < _SECOND / self._config.rate else now) + self._gap()

    def _invoke(self, now: Nanoseconds, f: F, key: str, argument: Any, operation: kv.Operation) -> list[Effect]:
        self._sequence += 1
        # The session's earlier operations have all ended, so their answers need not be kept.
        command = kv.Command(f"{self._name}/{self._process}", self._sequence, self._sequence, operation)
        self._operation = _Operation(f, key, argument, command, now + self._config.timeout)
        self._refusals = 0
        return [self._record("invoke", argument), SetTimer("deadline", self._config.timeout), *self._ask()]

    def _draw(self) -> tuple[F, str, Any, kv.Operation]:
        """The next operation: its name, its key, its value in the history, and what is asked of the system."""
        draw = self._random.random()
        f = next(f for f, upto in self._shares if draw < upto or upto >= 1.0)
        key = f"k{int(self._random.random() * self._config.keys)}"
        if f == "read":
            return f, key, None, kv.Read(key)
        if f == "delete":
            return f, key, None, kv.Delete(key)
        value = self._written * self._config.threads + self._config.thread
        self._written += 1
        if f == "write":
            return f, key, value, kv.Write(key, value)
        old = self._known.get(key)
        return f, key, [old, value], kv.Cas(key, old, value)

    # Asking, until there is an answer.

    def _ask(self) -> list[Effect]:
        operation = self._operation
        assert operation is not None
        self._request += 1
        node = self._nodes[self._presumed]
        operation.asked[self._request] = node
        return [
            CancelTimer("pause"),
            SetTimer("attempt", self._config.timeout // 4),
            Send(node, Request(self._request, operation.command)),
        ]

    def _ask_again(self, now: Nanoseconds) -> list[Effect]:
        return self._ask()

    def _pass_over(self, now: Nanoseconds) -> list[Effect]:
        """The node asked last has not answered in time: try the next. It may yet do as it was asked."""
        self._presumed = (self._presumed + 1) % len(self._nodes)
        return self._ask() if self._may_ask_again() else []

    def _may_ask_again(self) -> bool:
        assert self._operation is not None
        return self._config.retry or self._operation.f == "read"

    def _answered(self, now: Nanoseconds, node: NodeId, response: Response) -> list[Effect]:
        operation = self._operation
        if operation is None or response.request not in operation.asked:
            return []  # of an operation that has ended
        result: kv.Result = response.result
        if isinstance(result, kv.Done | kv.Refused):
            self._presumed = self._nodes.index(node)
        if isinstance(result, kv.Done):
            return self._end(now, "ok", result.value)
        if isinstance(result, kv.Refused):
            return self._end(now, "fail", error=result.reason)
        del operation.asked[response.request]
        if isinstance(result, kv.Unsure):
            if not self._may_ask_again():
                return self._end(now, "info", error=result.reason)
            operation.unsure = True
        if response.request != self._request:
            return []  # another node has been asked since
        hint = result.leader if isinstance(result, kv.NotLeader) else None
        return self._redirect(operation, node, hint)

    def _redirect(self, operation: _Operation, node: NodeId, hint: NodeId | None) -> list[Effect]:
        """Ask another node: the leader if ``node`` named one, at once the first time; else the next, after a pause."""
        self._refusals += 1
        # A leader that was asked and keeps silent is not asked again on the word of those who have yet to notice.
        if hint in self._nodes and hint != node and hint not in operation.asked.values():
            self._presumed = self._nodes.index(hint)
            if self._refusals == 1:
                return self._ask()
        else:
            self._presumed = (self._nodes.index(node) + 1) % len(self._nodes)
        # Without a leader all would send us round in circles: a pause of up to a sixteenth of the timeout.
        base = self._config.timeout // 256
        pause = full_jitter(self._refusals - 1, base, 16 * base, self._random)
        return [CancelTimer("attempt"), SetTimer("pause", pause)]

    def _give_up(self, now: Nanoseconds) -> list[Effect]:
        operation = self._operation
        assert operation is not None
        if operation.f == "read":
            return self._end(now, "fail", error="timeout")
        if not operation.asked and not operation.unsure:
            return self._end(now, "fail", error="no leader")  # every node that was asked declined
        return self._end(now, "info", error="timeout")

    def _end(self, now: Nanoseconds, outcome: Outcome, value: Any = None, error: str | None = None) -> list[Effect]:
        operation = self._operation
        assert operation is not None
        if outcome == "ok":
            self._learn(operation, value)
        done = self._record(outcome, value if (operation.f, outcome) == ("read", "ok") else operation.argument, error)
        self._operation = None
        if outcome != "ok" and self._last_reads:
            self._last_reads = self._config.keys  # who does not answer one last read will not answer the others
        if outcome == "info":
            self._process += self._config.threads
            self._sequence = 0
        cancelled = [CancelTimer(timer) for timer in ("attempt", "pause", "deadline")]
        if finished := self._finish(now):
            return [done, *cancelled, *finished]
        return [done, *cancelled, SetTimer("next", max(0, self._next_at - now))]

    def _learn(self, operation: _Operation, value: Any) -> None:
        if operation.f == "cas":
            value = operation.argument[1]
        elif operation.f != "read":
            value = operation.argument
        self._known[operation.key] = value

    def _record(self, type: Literal["invoke"] | Outcome, value: Any, error: str | None = None) -> Trace:
        operation = self._operation
        assert operation is not None
        return Trace(HistoryEvent(self._process, type, operation.f, [operation.key, value], error))

    _timers: dict[str, Callable[[RegisterClient, Nanoseconds], list[Effect]]] = {
        "next": _begin,
        "stop": _finish,
        "attempt": _pass_over,
        "pause": _ask_again,
        "deadline": _give_up,
    }


class FloodConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``outstanding``: so many sessions, each with one operation under way and a key of its own.

    ``operation``: what they do, having written their key once. ``value_bytes``: how long what they write is.
    ``warm_up``: nanoseconds after the start during which nothing is counted. ``timeout``: an operation without an
    answer for so long is sent again.
    """

    outstanding: int
    operation: Literal["write", "read"] = "write"
    value_bytes: int = 256
    warm_up: Nanoseconds = _SECOND
    timeout: Nanoseconds = 2 * _SECOND

    def __post_init__(self) -> None:
        if min(self.outstanding, self.value_bytes, self.timeout) < 1 or self.warm_up < 0:
            raise ValueError("outstanding, value_bytes and timeout must be at least 1, warm_up at least 0")


class FloodSummary(msgspec.Struct, frozen=True):
    """What a `Flood` measured: ``operations`` answered in ``duration``, and how long each took. Times in ns."""

    operations: int
    duration: Nanoseconds
    p50: Nanoseconds
    p99: Nanoseconds
    max: Nanoseconds

    @classmethod
    def of(cls, latencies: Sequence[Nanoseconds], duration: Nanoseconds) -> FloodSummary:
        """``latencies``: of each operation that counts."""
        ordered = sorted(latencies) or [0]
        last = len(ordered) - 1
        return cls(
            operations=len(latencies),
            duration=max(0, duration),
            p50=ordered[last // 2],
            p99=ordered[last * 99 // 100],
            max=ordered[last],
        )


class Flood:
    """Keeps a number of operations under way, each in a session of its own, and leaves a `FloodSummary` at the end."""

    def __init__(self, name: NodeId, nodes: Sequence[NodeId], config: FloodConfig, first_request: int = 0) -> None:
        self._name, self._nodes, self._config = name, list(nodes), config
        self._leader = 0
        self._value = "x" * config.value_bytes
        self._request = first_request
        self._sequences = [0] * config.outstanding
        self._under_way: dict[int, tuple[int, Nanoseconds, Nanoseconds]] = {}  # request: (session, begun, last sent)
        self._latencies: list[Nanoseconds] = []
        self._counted_from: Nanoseconds = 0
        self._stop: Requested | None = None

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        if isinstance(event, Received):
            return self._answered(now, event.sender, event.message)
        if isinstance(event, TimerFired):
            return self._timers[event.timer](self, now)
        if isinstance(event, Requested):
            if isinstance(event.command, Start):
                self._counted_from = event.command.at + self._config.warm_up
                return [SetTimer("begin", max(0, event.command.at - now))]
            self._stop = event
            return [SetTimer("end", max(0, event.command.at - now))]
        return []

    def _begin(self, now: Nanoseconds) -> list[Effect]:
        effects: list[Effect] = [SetTimer("check", self._config.timeout)]
        for session in range(self._config.outstanding):
            effects.append(self._begin_next(now, session))
        return effects

    def _begin_next(self, now: Nanoseconds, session: int) -> Effect:
        self._sequences[session] += 1
        return self._send(now, session, now)

    def _send(self, now: Nanoseconds, session: int, begun: Nanoseconds) -> Effect:
        self._request += 1
        self._under_way[self._request] = (session, begun, now)
        sequence = self._sequences[session]
        key = f"k{session}"
        reads = self._config.operation == "read" and sequence > 1
        operation = kv.Read(key) if reads else kv.Write(key, self._value)
        command = kv.Command(f"{self._name}/{session}", sequence, sequence, operation)
        return Send(self._nodes[self._leader], Request(self._request, command))

    def _answered(self, now: Nanoseconds, node: NodeId, response: Response) -> list[Effect]:
        asked = self._under_way.pop(response.request, None)
        if asked is None:
            return []
        session, begun, _ = asked
        result = response.result
        if isinstance(result, kv.Done):
            if now >= self._counted_from:
                self._latencies.append(now - begun)
            return [self._begin_next(now, session)]
        if isinstance(result, kv.NotLeader) and result.leader in self._nodes:
            self._leader = self._nodes.index(result.leader)
            return [self._send(now, session, begun)]
        # Nobody leads, or not any more: sent again at the next check.
        self._under_way[response.request] = (session, begun, now - self._config.timeout)
        return []

    def _check(self, now: Nanoseconds) -> list[Effect]:
        effects: list[Effect] = [SetTimer("check", self._config.timeout // 8)]
        overdue = [
            (request, session, begun)
            for request, (session, begun, sent) in self._under_way.items()
            if now - sent >= self._config.timeout
        ]
        if overdue:
            self._leader = (self._leader + 1) % len(self._nodes)
        for request, session, begun in overdue:
            del self._under_way[request]
            effects.append(self._send(now, session, begun))
        return effects

    def _end(self, now: Nanoseconds) -> list[Effect]:
        assert self._stop is not None
        summary = FloodSummary.of(self._latencies, now - self._counted_from)
        self._under_way.clear()
        return [CancelTimer("check"), Trace(summary), Reply(self._stop.client, self._stop.request, kv.Done())]

    _timers: dict[str, Callable[[Flood, Nanoseconds], list[Effect]]] = {"begin": _begin, "check": _check, "end": _end}
