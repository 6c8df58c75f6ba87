"""Processes alone in virtual time: no fabric, hosts or clients, only messages that take a drawn time or get lost.

For what is asked of a protocol by itself, thousands of times: tests of cores, expected values from papers. How it does
on a fabric is `experiments.simulation.world`'s to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from apps.process import (
    CancelTimer,
    Event,
    Nanoseconds,
    NodeId,
    Persist,
    Persisted,
    Process,
    Received,
    Reply,
    Requested,
    Send,
    SetTimer,
    Started,
    TimerFired,
    Trace,
    WallClock,
    step,
)
from experiments.simulation.kernel import DAY_NS, Kernel

_MILLISECOND = 1_000_000


@dataclass(frozen=True)
class Conditions:
    """What messages and writes meet with. Spans are (shortest, longest) in nanoseconds, shares from 0 to 1."""

    delay: tuple[Nanoseconds, Nanoseconds] = (_MILLISECOND, _MILLISECOND)
    loss: float = 0.0
    duplicate: float = 0.0
    write: tuple[Nanoseconds, Nanoseconds] = (_MILLISECOND, _MILLISECOND)


class Evidence(NamedTuple):
    """A `Trace` effect: when, and whose."""

    t: Nanoseconds
    node: NodeId
    event: Any


@dataclass
class _Node:
    process: Process
    alive: bool = True
    incarnation: int = 0
    paused: bool = False
    waiting: list[Event] = field(default_factory=list)
    timers: dict[str, int] = field(default_factory=dict)
    durable: list[Any] = field(default_factory=list)
    writing: deque[Persist] = field(default_factory=deque)
    written_at: Nanoseconds = 0


class Group:
    """``make(node, random)`` builds the process of each incarnation. ``starts``: when nodes come up, if not at once.

    ``evidence`` is what they left, ``sent`` how many messages each has sent, ``replies`` and ``replied`` what requests
    were answered, and when, by their number. ``wall``: by how much a node's time of day is ahead; set it as you like.
    ``on_step`` is called with the name of whoever has just taken a step.
    """

    def __init__(
        self,
        names: Sequence[NodeId],
        make: Callable[[NodeId, Random], Process],
        *,
        seed: int = 0,
        conditions: Conditions = Conditions(),
        starts: Mapping[NodeId, Nanoseconds] | None = None,
    ) -> None:
        self.names = list(names)
        self.conditions = conditions
        self.evidence: list[Evidence] = []
        self.sent = dict.fromkeys(self.names, 0)
        self.replies: dict[int, Any] = {}
        self.replied: dict[int, Nanoseconds] = {}
        self.wall: dict[NodeId, Nanoseconds] = {}
        self.on_step: Callable[[NodeId], None] = lambda name: None
        self._kernel = Kernel()
        self._seed, self._make = seed, make
        self._random = Random(f"{seed} network")
        self._blocked: set[tuple[NodeId, NodeId]] = set()
        self._slow: dict[NodeId, tuple[Nanoseconds, Nanoseconds]] = {}
        self._requests = self._timers = 0
        self._nodes = {name: _Node(self._process(name, 0)) for name in self.names}
        for name in self.names:
            self._kernel.at((starts or {}).get(name, 0), self._start, name)

    @property
    def now(self) -> Nanoseconds:
        return self._kernel.now

    def process(self, name: NodeId) -> Any:
        """The process of the present incarnation, or of the last one."""
        return self._nodes[name].process

    @property
    def alive(self) -> list[NodeId]:
        return [name for name, node in self._nodes.items() if node.alive]

    def run(self, span: Nanoseconds) -> None:
        """Let time pass."""
        self._kernel.run(self._kernel.now + span)

    def request(self, name: NodeId, command: Any) -> int:
        """Hand ``command`` to a node; the answer, if it comes, is in ``replies`` under the number returned."""
        self._requests += 1
        number = self._requests
        self._deliver(name, Requested("client", number, command))
        return number

    def receive(self, name: NodeId, sender: NodeId, message: Any) -> None:
        """Hand over ``message`` as if the network had kept it until now."""
        self._deliver(name, Received(sender, message))

    # ---- faults --------------------------------------------------------------------------------------------------

    def block(self, senders: Iterable[NodeId], receivers: Iterable[NodeId]) -> None:
        """Nothing that ``senders`` send reaches ``receivers`` any more."""
        receivers = list(receivers)
        self._blocked |= {(sender, to) for sender in senders for to in receivers if sender != to}

    def partition(self, *groups: Iterable[NodeId]) -> None:
        """Only nodes of the same group reach each other; one that no group names is alone."""
        self.block(self.names, self.names)
        for group in map(list, groups):
            self._blocked -= {(sender, to) for sender in group for to in group}

    def heal(self) -> None:
        self._blocked.clear()

    def slow(self, name: NodeId, span: tuple[Nanoseconds, Nanoseconds]) -> None:
        """From now on messages wait for so long at ``name``, as on an overloaded host, besides their delay."""
        self._slow[name] = span

    def crash(self, name: NodeId) -> None:
        """As by a power cut: what was being written is on disk up to a random place."""
        node = self._nodes[name]
        node.alive = False
        unsynced = [record for persist in node.writing for record in persist.records]
        node.durable += unsynced[: int(self._random.random() * (len(unsynced) + 1))]

    def restart(self, name: NodeId) -> None:
        old = self._nodes[name]
        incarnation = old.incarnation + 1
        self._nodes[name] = _Node(self._process(name, incarnation), incarnation=incarnation, durable=old.durable)
        self._start(name)

    def pause(self, name: NodeId) -> None:
        """Take no step until `resume`, as between SIGSTOP and SIGCONT; what comes in waits."""
        self._nodes[name].paused = True

    def resume(self, name: NodeId) -> None:
        node = self._nodes[name]
        node.paused = False
        waiting, node.waiting = node.waiting, []
        if waiting and node.alive:
            self._step(name, waiting)

    # ---- the driver ----------------------------------------------------------------------------------------------

    def _process(self, name: NodeId, incarnation: int) -> Process:
        return self._make(name, Random(f"{self._seed} {name} {incarnation}"))

    def _start(self, name: NodeId) -> None:
        self._step(name, [Started(tuple(self._nodes[name].durable))])

    def _deliver(self, name: NodeId, event: Event) -> None:
        node = self._nodes[name]
        if node.alive:
            if node.paused:
                node.waiting.append(event)
            else:
                self._step(name, [event])

    def _arrive(self, arrival: tuple[NodeId, Received]) -> None:
        name, event = arrival
        if (event.sender, name) not in self._blocked:
            self._deliver(name, event)

    def _ring(self, timer: tuple[NodeId, _Node, str, int]) -> None:
        name, node, what, number = timer
        if node is self._nodes[name] and node.timers.get(what) == number:
            del node.timers[what]
            self._deliver(name, TimerFired(what))

    def _written(self, write: tuple[NodeId, _Node, int]) -> None:
        name, node, token = write
        if node is self._nodes[name] and node.alive:
            node.durable += node.writing.popleft().records
            self._deliver(name, Persisted(token))

    def _span(self, span: tuple[Nanoseconds, Nanoseconds]) -> Nanoseconds:
        shortest, longest = span
        return shortest + int(self._random.random() * (longest - shortest + 1))

    def _step(self, name: NodeId, events: list[Event]) -> None:
        node, kernel = self._nodes[name], self._kernel
        now = kernel.now
        if getattr(node.process, "reads_wall_clock", False):
            node.process.handle(now, WallClock(DAY_NS + now + self.wall.get(name, 0)))
        for effect in step(node.process, now, events):
            match effect:
                case Send(to, message):
                    self.sent[name] += 1
                    self._send(to, Received(name, message))
                case SetTimer(timer, after):
                    number = node.timers[timer] = self._timers = self._timers + 1
                    kernel.at(now + after, self._ring, (name, node, timer, number))
                case CancelTimer(timer):
                    node.timers.pop(timer, None)
                case Trace(event):
                    self.evidence.append(Evidence(now, name, event))
                case Persist(token, _):
                    node.writing.append(effect)
                    node.written_at = max(node.written_at, now + self._span(self.conditions.write))
                    kernel.at(node.written_at, self._written, (name, node, token))
                case Reply(_, request, result):
                    self.replies[request], self.replied[request] = result, now
        self.on_step(name)

    def _send(self, to: NodeId, event: Received) -> None:
        conditions = self.conditions
        while self._random.random() >= conditions.loss:
            delay = self._span(conditions.delay) + (self._span(self._slow[to]) if to in self._slow else 0)
            self._kernel.at(self._kernel.now + delay, self._arrive, (to, event))
            if self._random.random() >= conditions.duplicate:
                break
