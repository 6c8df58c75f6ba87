"""Sets and counters that every node takes writes for, also while it is cut off: broadcast, g-set, pn-counter.

Each is a join semilattice: states merge in any order, any number of times, to the same result (Shapiro et al.,
"Conflict-free Replicated Data Types", SSS 2011). Nodes tell each other only what has changed, by the anti-entropy of
Almeida, Shoker and Baquero ("Delta State Replicated Data Types", 2018, Algorithm 2): a node numbers its changes, sends
each neighbour those it has not acknowledged, and sends them again until it does. A neighbour passes on what was new to
it, but not to where it came from (Enes et al., "Efficient Synchronization of State-based CRDTs", ICDE 2019), so that
everything reaches everybody as long as the neighbours' graph is connected, whatever is lost on the way.

Nothing is on disk: a write that was acknowledged is lost with its node if the node dies before a neighbour has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from apps.maelstrom.simple import Body
from apps.process import (
    Effect,
    Event,
    Idle,
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

#: How often what a neighbour has not acknowledged is sent to it again.
RESEND = 200_000_000

#: Changes remembered one by one; a neighbour that is further behind gets the whole state.
REMEMBERED = 10_000

_TIMER = "resend"


# ---------------------------------------------------------------------------------------------------------------------
# States


class State(Protocol):
    """A state or a change of one, which is a small state; both travel as what `dump` gives."""

    def merge(self, other: Any) -> Any:
        """Take in what was dumped; returns the part that was new, in the same form, or None."""
        ...

    def dump(self) -> Any: ...


class GSet:
    """A set that only grows. Elements are any JSON, told apart by their encoding; they keep the order they came in."""

    def __init__(self) -> None:
        self._elements: dict[bytes, Any] = {}

    def merge(self, other: Sequence[Any]) -> list[Any] | None:
        new: list[Any] = []
        for element in other:
            key = _canonical(element)
            if key not in self._elements:
                self._elements[key] = element
                new.append(element)
        return new or None

    def dump(self) -> list[Any]:
        return list(self._elements.values())


class PNCounter:
    """A counter: what every node has added and taken away, each a sum that only grows, so that the larger one holds."""

    def __init__(self) -> None:
        self._sums: dict[NodeId, tuple[int, int]] = {}

    def merge(self, other: Mapping[NodeId, Sequence[int]]) -> dict[NodeId, tuple[int, int]] | None:
        new: dict[NodeId, tuple[int, int]] = {}
        for node, (up, down) in other.items():
            had = self._sums.get(node, (0, 0))
            has = (max(had[0], up), max(had[1], down))
            if has != had:
                self._sums[node] = new[node] = has
        return new or None

    def dump(self) -> dict[NodeId, tuple[int, int]]:
        return dict(self._sums)

    def changed(self, node: NodeId, delta: int) -> dict[NodeId, tuple[int, int]]:
        """The state that ``node`` adding ``delta`` makes, for `merge`."""
        up, down = self._sums.get(node, (0, 0))
        return {node: (up + max(delta, 0), down + max(-delta, 0))}

    @property
    def value(self) -> int:
        return sum(up - down for up, down in self._sums.values())


_canonical = msgspec.json.Encoder(order="deterministic").encode


# ---------------------------------------------------------------------------------------------------------------------
# What clients ask, and what neighbours tell


class Topology(Body, frozen=True, tag="topology"):
    topology: dict[NodeId, list[NodeId]]


class TopologyOk(Body, frozen=True, tag="topology_ok"):
    pass


class Broadcast(Body, frozen=True, tag="broadcast"):
    message: Any


class BroadcastOk(Body, frozen=True, tag="broadcast_ok"):
    pass


class AddElement(Body, frozen=True, tag="add"):
    element: Any


class AddDelta(Body, frozen=True, tag="add"):
    delta: int


class AddOk(Body, frozen=True, tag="add_ok"):
    pass


class Read(Body, frozen=True, tag="read"):
    pass


class ReadMessages(Body, frozen=True, tag="read_ok"):
    messages: list[Any]


class ReadValue(Body, frozen=True, tag="read_ok"):
    value: Any


T = TypeVar("T")


class Delta(msgspec.Struct, Generic[T], frozen=True, array_like=True, tag="d"):
    """All changes up to number ``upto`` that the receiver has not acknowledged, merged; or the whole state."""

    upto: int
    state: T


class Ack(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    upto: int


SetMessage: TypeAlias = Delta[list[Any]] | Ack
CounterMessage: TypeAlias = Delta[dict[NodeId, tuple[int, int]]] | Ack


class Replica:
    """One node's copy. Subclasses say what the requests of a workload do to it.

    Until a `Topology` names a node's neighbours, all others are.
    """

    def __init__(self, node: NodeId, nodes: Sequence[NodeId], state: State) -> None:
        self._node, self._nodes, self._state = node, list(nodes), state
        self._neighbours = [other for other in self._nodes if other != node]
        self._changes: list[tuple[NodeId, Any]] = []  # each with who told of it
        self._forgotten = 0  # how many changes came before those in the list
        self._acknowledged: dict[NodeId, int] = {}
        self._sent: dict[NodeId, int] = {}
        self._effects: list[Effect] = []
        self._requests: Mapping[type, Callable[[Any], Body]] = {Topology: self._on_topology}

    @property
    def node(self) -> NodeId:
        return self._node

    @property
    def state(self) -> State:
        """What it holds; to be looked at only."""
        return self._state

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        self._effects = []
        match event:
            case Started():
                self._effects.append(SetTimer(_TIMER, RESEND))
            case Received(sender=sender, message=Delta(upto=upto, state=state)):
                self._learn(sender, state)
                self._effects.append(Send(sender, Ack(upto)))
            case Received(sender=sender, message=Ack(upto=upto)):
                self._acknowledged[sender] = max(self._acknowledged.get(sender, 0), upto)
            case Requested(client=client, request=request, command=command):
                answer = self._requests[type(command)](command)
                self._effects.append(Reply(client, request, answer))
            case TimerFired():
                self._sent = dict(self._acknowledged)
                self._effects.append(SetTimer(_TIMER, RESEND))
            case Idle():
                self._tell()
        return self._effects

    @property
    def _upto(self) -> int:
        return self._forgotten + len(self._changes)

    def _learn(self, source: NodeId, state: Any) -> None:
        if (new := self._state.merge(state)) is not None:
            self._changes.append((source, new))
            if len(self._changes) > REMEMBERED:
                half = len(self._changes) // 2
                del self._changes[:half]
                self._forgotten += half

    def _tell(self) -> None:
        """Send each neighbour what it has neither acknowledged nor been sent since the timer last fired."""
        for neighbour in self._neighbours:
            sent = self._sent.get(neighbour, 0)
            if sent < self._upto:
                if news := self._since(sent, neighbour):
                    self._effects.append(Send(neighbour, Delta(self._upto, news)))
                self._sent[neighbour] = self._upto

    def _since(self, number: int, neighbour: NodeId) -> Any:
        """What came after change ``number`` and not from ``neighbour`` itself."""
        if number < self._forgotten:
            return self._state.dump()
        merged = type(self._state)()
        for source, change in self._changes[number - self._forgotten :]:
            if source != neighbour:
                merged.merge(change)
        return merged.dump()

    def _on_topology(self, asked: Topology) -> TopologyOk:
        named = asked.topology.get(self._node, [])
        self._neighbours = [other for other in self._nodes if other in named and other != self._node]
        return TopologyOk()


class BroadcastNode(Replica):
    def __init__(self, node: NodeId, nodes: Sequence[NodeId]) -> None:
        super().__init__(node, nodes, GSet())
        self._requests = {
            **self._requests,
            Broadcast: self._on_broadcast,
            Read: lambda _: ReadMessages(self._state.dump()),
        }

    def _on_broadcast(self, asked: Broadcast) -> BroadcastOk:
        self._learn(self._node, [asked.message])
        return BroadcastOk()


class GSetNode(Replica):
    def __init__(self, node: NodeId, nodes: Sequence[NodeId]) -> None:
        super().__init__(node, nodes, GSet())
        self._requests = {**self._requests, AddElement: self._on_add, Read: lambda _: ReadValue(self._state.dump())}

    def _on_add(self, asked: AddElement) -> AddOk:
        self._learn(self._node, [asked.element])
        return AddOk()


class CounterNode(Replica):
    """For g-counter and pn-counter alike."""

    def __init__(self, node: NodeId, nodes: Sequence[NodeId]) -> None:
        self._counter = PNCounter()
        super().__init__(node, nodes, self._counter)
        self._requests = {**self._requests, AddDelta: self._on_add, Read: lambda _: ReadValue(self._counter.value)}

    def _on_add(self, asked: AddDelta) -> AddOk:
        self._learn(self._node, self._counter.changed(self._node, asked.delta))
        return AddOk()
