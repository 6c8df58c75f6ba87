"""A cluster in virtual time: the process contract's driver for tests, with everything that may go wrong between nodes.

Deterministic in its seed. Time is counted in nanoseconds from 0 and moves only in `Cluster.run`.
"""

from __future__ import annotations

import heapq
import random
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from apps import kv
from apps.process import (
    CancelTimer,
    Event,
    Persist,
    Persisted,
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
from apps.raft import ChangeMembership, Command, Raft, RaftConfig, Role, TransferLeadership
from apps.raft.invariants import Invariants, Violation
from apps.raft.trace import Rejected

MS = 1_000_000


@dataclass(frozen=True)
class Conditions:
    """What the network and the disks do to every message and write. Spans are (shortest, longest) nanoseconds.

    ``stray``: the share of messages that arrive long after the others, delayed by up to ``stray_delay``.
    """

    delay: tuple[int, int] = (1 * MS, 1 * MS)
    stray: float = 0.0
    stray_delay: int = 0
    loss: float = 0.0
    duplicate: float = 0.0
    write: tuple[int, int] = (1 * MS, 1 * MS)


@dataclass
class Node:
    core: Raft
    incarnation: int
    durable: list[Any]
    alive: bool = True
    writing: deque[Persist | Snapshot] = field(default_factory=deque)
    written_at: int = 0
    timers: dict[str, int] = field(default_factory=dict)
    trace: list[Any] = field(default_factory=list)


class Cluster:
    """``make`` builds a node's core, `Raft` or a mutant of it. ``records``: what is on the nodes' disks at the start.

    ``rates``: how fast a node's clock runs, 1 where none is named.
    ``passes(sender, to, message)``: a test's own say in what the network takes, besides partitions and conditions.
    ``violations`` collects what `Invariants` found, ``replies`` what clients were answered, by request number.
    """

    def __init__(
        self,
        names: Sequence[str],
        config: RaftConfig | None = None,
        *,
        seed: int = 0,
        make: type[Raft] = Raft,
        conditions: Conditions = Conditions(),
        records: dict[str, Sequence[Any]] | None = None,
        rates: dict[str, float] | None = None,
    ) -> None:
        self.names = list(names)
        self.config = config or RaftConfig()
        self.random = random.Random(seed)
        self.conditions = conditions
        self.now = 0
        self.rates = rates or {}
        self.invariants = Invariants()
        self.violations: list[Violation] = []
        self.replies: dict[int, kv.Result] = {}
        self.on_reply: Callable[[Reply], None] | None = None
        self.passes: Callable[[str, str, Any], bool] = lambda sender, to, message: True
        self.steps = 0
        self._make = make
        self._blocked: set[tuple[str, str]] = set()
        self._heap: list[tuple[int, int, str | None, int, Any]] = []
        self._sequence = 0
        self._requests = 0
        self.nodes: dict[str, Node] = {}
        for name in self.names:
            self._boot(name, 0, list((records or {}).get(name, ())))

    # ---- what tests look at

    def core(self, name: str) -> Raft:
        return self.nodes[name].core

    @property
    def cores(self) -> list[Raft]:
        return [node.core for node in self.nodes.values() if node.alive]

    @property
    def leader(self) -> str | None:
        """The living leader of the latest term."""
        leaders = [core for core in self.cores if core.role is Role.LEADER]
        return max(leaders, key=lambda core: core.term).node if leaders else None

    def terms(self, name: str) -> list[int]:
        """The terms of a node's entries, as the paper draws logs."""
        core = self.core(name)
        return [entry.term for entry in core.log.slice(1, core.log.last)]

    def trace(self, name: str, kind: type[Any]) -> list[Any]:
        """What the present incarnation of ``name`` left of one kind of evidence."""
        return [event for event in self.nodes[name].trace if isinstance(event, kind)]

    # ---- what tests do

    def run(self, milliseconds: float) -> None:
        """Let time pass."""
        until = self.now + int(milliseconds * MS)
        while self._heap and self._heap[0][0] <= until:
            self._turn()
        self.now = until

    def run_until(self, condition: Callable[[], bool], milliseconds: float = 10_000) -> None:
        """Let time pass until ``condition`` holds; fails if it does not within ``milliseconds``."""
        until = self.now + int(milliseconds * MS)
        while not condition():
            assert self._heap[0][0] <= until, f"not within {milliseconds} ms"
            self._turn()

    def elect(self, name: str) -> None:
        """Let the election timeout of ``name`` run out now."""
        core = self.core(name)
        core._contact = self.clock(name) - core._timeout
        self.nodes[name].timers["election"] = self._at(self.now, name, TimerFired("election"))

    def clock(self, name: str) -> int:
        """What the time is for a node, in nanoseconds."""
        return int(self.now * self.rates.get(name, 1.0))

    def transfer(self, name: str, to: str) -> int:
        """Ask a node to give its leadership to another; the answer will be in ``replies``."""
        return self.request(name, TransferLeadership(to))

    def change(self, name: str, voters: Iterable[str], learners: Iterable[str] = ()) -> int:
        """Ask a node for another membership; the answer will be in ``replies``."""
        return self.request(name, ChangeMembership(tuple(voters), tuple(learners)))

    def request(self, name: str, command: Command) -> int:
        """Hand ``command`` to a node; the answer will be in ``replies`` under the number returned."""
        self._requests += 1
        self.deliver(name, Requested("client", self._requests, command))
        return self._requests

    def deliver(self, name: str, event: Event) -> None:
        """Hand ``event`` to a node now, if it lives."""
        self._at(self.now, name, event)

    def receive(self, name: str, sender: str, message: Any) -> None:
        """Hand ``message`` to a node now: the network had kept it, or a copy of it."""
        self.deliver(name, Received(sender, message))

    def write(self, name: str, key: str, value: Any) -> int:
        return self.request(name, kv.Command(f"s{self._requests}", 1, 0, kv.Write(key, value)))

    def read(self, name: str, key: str) -> int:
        return self.request(name, kv.Command(f"s{self._requests}", 1, 0, kv.Read(key)))

    def block(self, senders: Iterable[str], receivers: Iterable[str]) -> None:
        """Nothing from ``senders`` reaches ``receivers`` any more."""
        receivers = list(receivers)
        self._blocked |= {(sender, to) for sender in senders for to in receivers if sender != to}

    def cut(self, one: str, other: str) -> None:
        self.block([one], [other])
        self.block([other], [one])

    def partition(self, *groups: Iterable[str]) -> None:
        """Only nodes of the same group reach each other; a node that no group names is alone."""
        self.block(self.names, self.names)
        for group in map(list, groups):
            self._blocked -= {(sender, to) for sender in group for to in group}

    def isolate(self, name: str) -> None:
        self.partition([other for other in self.names if other != name])

    def heal(self) -> None:
        self._blocked.clear()

    def crash(self, name: str, kept: int | None = None) -> None:
        """As by a power cut: of the records being written, the first ``kept`` are on disk, or some random prefix."""
        node = self.nodes[name]
        node.alive = False
        unsynced = sum(1 if isinstance(write, Snapshot) else len(write.records) for write in node.writing)
        left = int(self.random.random() * (unsynced + 1)) if kept is None else kept
        for write in node.writing:
            if isinstance(write, Snapshot):
                if left:
                    node.durable = list(write.records)
                left -= 1
            else:
                node.durable += write.records[: max(left, 0)]
                left -= len(write.records)
            if left <= 0:
                break

    def restart(self, name: str) -> None:
        node = self.nodes[name]
        self._boot(name, node.incarnation + 1, node.durable)

    def call(self, milliseconds: float, action: Callable[[], None]) -> None:
        """Do ``action`` after ``milliseconds``."""
        self._at(self.now + int(milliseconds * MS), None, action)

    # ---- the driver

    def _boot(self, name: str, incarnation: int, durable: list[Any]) -> None:
        core = self._make(name, self.names, self.config, random.Random(self.random.random()))
        node = self.nodes[name] = Node(core, incarnation, durable)
        self._step(name, node, [Started(tuple(durable))])

    def _span(self, span: tuple[int, int]) -> int:
        """A time from ``span``, to a tenth of a millisecond: what is at hand together then happens in one step."""
        shortest, longest = span
        return round((shortest + self.random.random() * (longest - shortest)) / 100_000) * 100_000

    def _at(self, time: int, name: str | None, event: Any) -> int:
        self._sequence += 1
        incarnation = self.nodes[name].incarnation if name else 0
        heapq.heappush(self._heap, (time, self._sequence, name, incarnation, event))
        return self._sequence

    def _turn(self) -> None:
        """One step of the node whose event is the next, with all that is at hand for it."""
        self.now, sequence, name, incarnation, event = heapq.heappop(self._heap)
        if name is None:
            event()
            return
        events = [(sequence, incarnation, event)]
        while self._heap and self._heap[0][0] == self.now and self._heap[0][2] == name:
            _, sequence, _, incarnation, event = heapq.heappop(self._heap)
            events.append((sequence, incarnation, event))
        node = self.nodes[name]
        due = [event for sequence, incarnation, event in events if self._is_due(node, sequence, incarnation, event)]
        if due:
            self._step(name, node, due)

    def _is_due(self, node: Node, sequence: int, incarnation: int, event: Event) -> bool:
        if not node.alive:
            return False
        if isinstance(event, Received):
            return (event.sender, node.core.node) not in self._blocked
        if isinstance(event, Requested):
            return True
        if incarnation != node.incarnation:
            return False
        if isinstance(event, TimerFired):
            return node.timers.get(event.timer) == sequence
        if isinstance(event, Persisted):
            write = node.writing.popleft()
            node.durable = [*([] if isinstance(write, Snapshot) else node.durable), *write.records]
        return True

    def _step(self, name: str, node: Node, events: list[Event]) -> None:
        self.steps += 1
        try:
            effects = step(node.core, self.clock(name), events)
        except Exception as error:  # whatever a core raises is a finding, and the end of its process
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.violations.append(Violation(type(error).__name__, f"{error}, in {place.name}"))
            self.crash(name)
            return
        for effect in effects:
            match effect:
                case Send(to, message):
                    self._send(name, to, message)
                case SetTimer(timer, after):
                    node.timers[timer] = self._at(
                        self.now + ceil(after / self.rates.get(name, 1.0)), name, TimerFired(timer)
                    )
                case CancelTimer(timer):
                    node.timers[timer] = -1
                case Persist(token, _) | Snapshot(token, _):
                    node.writing.append(effect)
                    node.written_at = max(node.written_at, self.now + self._span(self.conditions.write))
                    self._at(node.written_at, name, Persisted(token))
                case Reply(_, request, result):
                    self.replies[request] = result
                    if self.on_reply:
                        self.on_reply(effect)
                case Trace(event):
                    node.trace.append(event)
                    if isinstance(event, Rejected):  # no node here says what none can mean
                        self.violations.append(Violation("Rejected", f"{name} rejected of {event.sender}: {event.why}"))
        self.violations += self.invariants.observe(node.core)
        if self.steps % 50 == 0:
            self.violations += self.invariants.log_matching(self.cores)

    def _send(self, sender: str, to: str, message: Any) -> None:
        conditions = self.conditions
        if not self.passes(sender, to, message):
            return
        while self.random.random() >= conditions.loss:
            delay = self._span(conditions.delay)
            if self.random.random() < conditions.stray:
                delay += self._span((0, conditions.stray_delay))
            self._at(self.now + delay, to, Received(sender, message))
            if self.random.random() >= conditions.duplicate:
                break
