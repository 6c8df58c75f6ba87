"""The fabric of a plan, and the connections of `apps.runtime.transport` across it, at the level of frames.

**Paths.** Those that the plan's data plane is programmed with (`experiments.simulation.forwarding`), of several equal
ones by a seeded hash of the connection and its direction. A link that goes down loses what is sent on it until the
switches at its ends notice, which then send by another if they have one; a little later the other switches send no more
to where there is no way on, when the controller has told them. In the routed data plane all are told at once. With
``bfd_interval`` a link that passes nothing in one direction is found dead after three intervals, and one that is well
again is trusted within two seconds.

**Connections.** Every process dials each node and keeps that connection up. Two nodes speak on the one that the first
of them by name dialled, and without it on the other; clients speak and hear on theirs. What one step has to say to one
peer is one frame and travels as one packet, in order. A lost one is sent again when a later one was acknowledged (RFC
8985), or else when its timer runs out, which doubles (RFC 6298); what is behind it waits. If something stays
unacknowledged for ``silence`` (TCP_USER_TIMEOUT) the connection is given up, with all that is in it, and dialled anew,
every time from another port and so, perhaps, on another path.

**Left out.** Congestion and flow control; segmentation of large frames; delayed acknowledgements; tail loss probes; a
SYN's own retransmissions, beside the fresh ones of the transport. Both ends of a connection that is given up know of it
at once. A packet's fate is decided when it is sent: a fault does not touch what is in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any, Protocol

import msgspec

from apps.process import Event, Nanoseconds, NodeId, Received, Requested
from experiments.nemesis import Grudge
from experiments.simulation.forwarding import Forwarding
from experiments.simulation.kernel import Kernel
from experiments.simulation.lane import LINK_NS, Lane
from experiments.simulation.sampling import STEPS, quantile_table
from topologies.impairment import Impairment, expected_delay
from topologies.plan import HOST_MTU, FabricPlan, Link
from topologies.plan import OVERHEAD as TUNNEL_BYTES

#: What a frame takes beyond the links: sockets, wake-ups and the wait for a processor. Fitted, so that operations take
#: as long as on the fabric of a machine that does nothing else (docs/simulator.md).
OVERHEAD = quantile_table(
    [
        (0.0, 5_000),
        (0.5, 30_000),
        (0.9, 380_000),
        (0.99, 900_000),
        (0.999, 2_000_000),
        (1.0, 8_000_000),
    ]
)

#: Between two processes in one host.
LOOPBACK_NS = 20_000

#: How long after a link went down or came back the switches at its ends go by it, and all the others: shortest and
#: longest, as measured on Open vSwitch under the controller, and on the kernel's routing, where all are told together.
NOTICED_NS, TOLD_NS = (4_000_000, 18_000_000), (9_000_000, 16_000_000)
ROUTED_NS = (2_000_000, 5_000_000)

#: How many intervals of silence BFD takes for a dead link, and how long at most a session takes to come up again.
BFD_INTERVALS, BFD_UP_NS = 3, 2_000_000_000

#: Linux's least retransmission timeout (TCP_RTO_MIN), to which the round trip is added.
LEAST_RTO_NS = 200_000_000

#: The transport's own: the pace of SYNs, the pause before dialling again, and how long a good connection lasts.
DIAL_EVERY_NS = 200_000_000
BACKOFF_NS = (20_000_000, 500_000_000)
GOOD_AFTER_NS = 1_000_000_000

#: Ethernet, IP and TCP headers with time stamps, without a tunnel.
ETHERNET_BYTES = 14
HEADER_BYTES = ETHERNET_BYTES + 20 + 20 + 12
#: What a transport's frame begins with (`apps.runtime.framing`).
_PREFIX_BYTES = 5
_SMALL = 100

Deliver = Callable[[list[Event]], None]


class Unruly(msgspec.Struct, frozen=True):
    """A transport that promises nothing: shares of messages that are lost, that come again, and that stray, by up to
    ``stray_ns``. A protocol must bear it (`apps.process`), though connections spare it that.
    """

    loss: float
    repeat: float
    stray: float
    stray_ns: Nanoseconds


class Endpoint(Protocol):
    """What a driver needs of the network: one process's connections."""

    is_client: bool

    def start(self, deliver: Deliver) -> None: ...
    def stop(self) -> None: ...
    def send(self, peer: NodeId, events: list[Event], departs: Nanoseconds) -> None: ...
    def reply(self, client: NodeId, events: list[Event], departs: Nanoseconds) -> None: ...


class Network:
    """``placement`` gives the host of every process, ``nodes`` are those that are dialled.

    ``tenant``: the processes live in that one's members. ``dropped`` counts frames for peers to whom no connection was
    up.
    """

    def __init__(
        self,
        kernel: Kernel,
        plan: FabricPlan,
        placement: Mapping[NodeId, str],
        nodes: Sequence[NodeId],
        silence: Nanoseconds,
        seed: int,
        tenant: str = "",
    ) -> None:
        self.kernel, self.plan, self.placement, self.nodes = kernel, plan, placement, nodes
        self.header_bytes = HEADER_BYTES + (TUNNEL_BYTES if tenant else 0)
        self.segment_bytes = segment_bytes(plan, tenant)
        self.silence = silence
        self.random = Random(f"{seed} network")
        self.version = 0
        self.unruly: Unruly | None = None
        self.dropped = 0
        self.resets = 0
        self.listening: dict[NodeId, Deliver] = {}
        self.calls: dict[tuple[NodeId, NodeId], Call] = {}
        self._seed = seed
        self._probes = Random(f"{seed} probes")
        full = self.segment_bytes + self.header_bytes - ETHERNET_BYTES
        silent = plan.dataplane != "routed"
        self._lanes = {
            way: Lane(way, Random(f"{seed} {way}"), plan.mtu_of(link) if silent and plan.mtu_of(link) < full else 0)
            for link in plan.links
            for way in link.directions
        }
        self._forwarding = Forwarding(plan, seed)
        self._links = {way: link for link in plan.links for way in link.directions}
        self._dead: frozenset[str] = frozenset()  # links, as their own ends have just found
        self._grudges: dict[int, frozenset[tuple[str, str]]] = {}
        self._hostile: frozenset[tuple[str, str]] = frozenset()
        self._lifts: dict[int, Callable[[], None]] = {}
        self._handles = 0
        for direction, impairment in plan.impairments.items():
            self._lanes[direction].impairments[0] = impairment
            self._watch(self._links[direction])

    def endpoint(self, name: NodeId) -> ProcessEndpoint:
        return ProcessEndpoint(self, name)

    @property
    def is_connected(self) -> bool:
        """Whether every connection that anybody dials is up."""
        return all(call.connection is not None for call in self.calls.values())

    # ---- faults, each returning the handle that `lift` takes -----------------------------------------------------

    def drop(self, grudge: Grudge) -> int:
        """Hosts, named by their processes, that do not hear others."""
        handle = self._held(lambda: self._forgive(handle))
        where = self.placement
        self._grudges[handle] = frozenset(
            (where[sender], where[receiver])
            for receiver, senders in grudge.items()
            for sender in senders
            if where[sender] != where[receiver]
        )
        self._hostile = frozenset().union(*self._grudges.values())
        return handle

    def _forgive(self, handle: int) -> None:
        del self._grudges[handle]
        self._hostile = frozenset().union(*self._grudges.values())

    def cut(self, link: str) -> int:
        found = self.plan.link(link)

        def change(by: int) -> None:
            for way in found.directions:
                self._lanes[way].cuts += by
            self._watch(found)

        change(1)
        return self._held(lambda: change(-1))

    def _watch(self, link: Link) -> None:
        """Something was done to ``link``: it may be found dead, or alive, at once or when BFD has noticed."""
        after = 0
        if self.plan.bfd_interval and link.a.port and link.b.port:
            if not self._is_dead(link):
                after = int(self.random.random() * BFD_UP_NS)
            elif self.carrier(link.name):
                after = BFD_INTERVALS * self.plan.bfd_interval
        self.kernel.at(self.kernel.now + after, self._find, link)

    def _is_dead(self, link: Link) -> bool:
        """Whether ``link`` has no carrier, or passes nothing and is watched."""
        if not self.carrier(link.name):
            return True
        found = [self._lanes[way].impairment for way in link.directions] if self.plan.bfd_interval else []
        return any(impairment is not None and impairment.loss >= 1 for impairment in found)

    def _find(self, link: Link) -> None:
        if self._is_dead(link) == (link.name in self._dead):
            return
        self._dead ^= {link.name}
        if self.plan.dataplane == "routed":
            noticed = told = self._within(ROUTED_NS)
        else:
            noticed, told = self._within(NOTICED_NS), self._within(TOLD_NS)
        self.kernel.at(noticed, self._notice, None)
        self.kernel.at(told, self._learn, None)

    def _within(self, span: tuple[Nanoseconds, Nanoseconds]) -> Nanoseconds:
        shortest, longest = span
        return self.kernel.now + shortest + int(self.random.random() * (longest - shortest))

    def _notice(self, _: None) -> None:
        self._forwarding.dead = self._dead
        self.version += 1

    def _learn(self, _: None) -> None:
        self._forwarding.learn(self._dead)
        self.version += 1

    def impair(self, direction: str, impairment: Impairment) -> int:
        lane = self._lanes[direction]

        def clear() -> None:
            del lane.impairments[handle]
            self._watch(link)

        link = self._links[direction]
        handle = self._held(clear)
        lane.impairments[handle] = impairment
        self._watch(link)
        return handle

    def misbehave(self, unruly: Unruly) -> int:
        """All connections lose, repeat and disorder what they are given."""

        def behave() -> None:
            self.unruly = None

        self.unruly = unruly
        return self._held(behave)

    def _held(self, lift: Callable[[], None]) -> int:
        self._handles += 1
        self._lifts[self._handles] = lift
        self.version += 1
        return self._handles

    def lift(self, handle: int) -> None:
        self._lifts.pop(handle)()
        self.version += 1

    def carrier(self, link: str) -> bool:
        return not any(self._lanes[way].cuts for way in self.plan.link(link).directions)

    # ---- paths ---------------------------------------------------------------------------------------------------

    def lane(self, direction: str) -> Lane:
        return self._lanes[direction]

    def twin(self, direction: str, impairment: Impairment) -> Lane:
        """A lane apart from all others, as ``direction`` would be with ``impairment``."""
        lane = Lane(direction, Random(f"{self._seed} {direction} twin {self.kernel.now}"))
        lane.impairments[0] = impairment
        return lane

    def path(self, sender: str, receiver: str, flow: str) -> list[Lane] | None:
        """The lanes from one host to another as they are chosen for ``flow`` now, or None where there is no way."""
        crossed = self._forwarding.directions(sender, receiver, flow)
        return None if crossed is None else [self._lanes[way] for way in crossed]

    def carry(self, sender: str, receiver: str, path: Iterable[Lane] | None, now: Nanoseconds, size: int) -> int | None:
        """When a packet sent at ``now`` arrives, or None if it does not."""
        if path is None or (sender, receiver) in self._hostile:
            return None
        for lane in path:
            arrives = lane.cross(now, size)
            if arrives is None:
                return None
            now = arrives
        return now

    def is_clear(self, sender: str, receiver: str, path: Sequence[Lane] | None) -> bool:
        """Whether nothing can happen to a packet on ``path``."""
        if path is None or (sender, receiver) in self._hostile:
            return False
        return not any(lane.cuts or lane.impairments or lane.narrow for lane in path)

    def room(self, path: Sequence[Lane] | None) -> int | None:
        """How many bytes a TCP segment may carry to fit through ``path``; None where all that are sent do."""
        narrow = [lane.narrow for lane in path or () if lane.narrow]
        return min(narrow) + ETHERNET_BYTES - self.header_bytes if narrow else None

    def probe(self, sender: str, receiver: str) -> bool:
        """Whether a packet of its own flow gets through, if no impairment has it lost."""
        path = self.path(sender, receiver, f"probe {self._probes.random()}")
        if path is None or (sender, receiver) in self._hostile:
            return False
        return not any(lane.cuts for lane in path)


def segment_bytes(plan: FabricPlan, tenant: str) -> int:
    """The most that TCP puts into one segment between hosts, or between members of ``tenant``, beside its headers."""
    headers = HEADER_BYTES - ETHERNET_BYTES
    if not tenant:
        return plan.host_mtu - headers
    return min(HOST_MTU - 40, plan.tenant(tenant).mss or HOST_MTU) - (headers - 40)


class ProcessEndpoint:
    """The connections of one incarnation of a process."""

    def __init__(self, network: Network, name: NodeId) -> None:
        self.name = name
        self.is_client = name not in network.nodes
        self._network = network
        self._calls = {peer: Call(network, name, peer) for peer in network.nodes if peer != name}

    def start(self, deliver: Deliver) -> None:
        """Listen, and dial every node."""
        self._network.listening[self.name] = deliver
        for peer, call in self._calls.items():
            self._network.calls[self.name, peer] = call
            call.dial()

    def stop(self) -> None:
        """Every connection ends; the other ends learn of it by a FIN, if that comes through, or by silence."""
        network = self._network
        network.listening.pop(self.name, None)
        for (dialler, peer), call in network.calls.items():
            if self.name in (dialler, peer):
                call.hang_up(by=self.name)

    def send(self, peer: NodeId, events: list[Event], departs: Nanoseconds) -> None:
        connection = self._calls[peer].connection
        if not self.is_client and (connection is None or peer < self.name):
            call = self._network.calls.get((peer, self.name))
            if call is not None and call.connection is not None:
                call.connection.back.send(events, departs)
                return
        if connection is None:
            self._network.dropped += 1
        else:
            connection.away.send(events, departs)

    def reply(self, client: NodeId, events: list[Event], departs: Nanoseconds) -> None:
        call = self._network.calls.get((client, self.name))
        if call is None or call.connection is None:
            self._network.dropped += 1
        else:
            call.connection.back.send(events, departs)


class Call:
    """Keeps a connection up from ``dialler`` to ``peer``, as the transport's own loop does."""

    def __init__(self, network: Network, dialler: NodeId, peer: NodeId) -> None:
        self.dialler, self.peer = dialler, peer
        self.connection: Connection | None = None
        self._network = network
        self._ended = False
        self._failures = 0
        self._ports = 0
        self._up_at: Nanoseconds = 0

    def dial(self, _: None = None) -> None:
        """Send a SYN, and another a while later if nothing came of it."""
        if self._ended or self.connection is not None:
            return
        network = self._network
        now = network.kernel.now
        self._ports += 1
        connection = Connection(network, self, f"{self.dialler} {self.peer} {now} {self._ports}")
        there = connection.away.carry(now)
        back = None if there is None else connection.back.carry(there)
        if back is None:
            network.kernel.at(now + DIAL_EVERY_NS, self.dial, None)
            return
        if self.peer not in network.listening:
            network.kernel.at(back, self._refused, None)
            return
        # SYN and its answer, then the two hellos.
        network.kernel.at(now + 2 * (back - now), self._up, connection)

    def _up(self, connection: Connection) -> None:
        if self._ended or self.peer not in self._network.listening:
            self._refused(None)
            return
        self._up_at = self._network.kernel.now
        self.connection = connection
        connection.away.receiver = self._network.listening[self.peer]
        connection.back.receiver = self._network.listening[self.dialler]

    def _refused(self, _: None) -> None:
        self._failures += 1
        self._dial_later()

    def lost(self, connection: Connection) -> None:
        """``connection`` is known to be gone: dial again, after a random pause."""
        if self.connection is not connection:
            return
        kernel = self._network.kernel
        self._failures = 0 if kernel.now - self._up_at > GOOD_AFTER_NS else self._failures + 1
        self.connection = None
        self._dial_later()

    def _dial_later(self) -> None:
        if not self._ended:
            low, high = BACKOFF_NS
            pause = self._network.random.random() * min(high, low * 2 ** min(self._failures, 16))
            self._network.kernel.at(self._network.kernel.now + int(pause), self.dial, None)

    def hang_up(self, by: NodeId) -> None:
        """One of the two has died. What it had sent still arrives; what is sent to it is lost on a dead process."""
        connection, network = self.connection, self._network
        if connection is not None:
            (connection.away if by == self.peer else connection.back).deaf = True
        if by == self.dialler:
            self._ended = True
            self.connection = None
        elif connection is not None:
            heard = connection.back.carry(network.kernel.now)
            network.kernel.at(heard or network.kernel.now + network.silence, self.lost, connection)


class Connection:
    """A pair of streams, away from the dialler and back to it."""

    def __init__(self, network: Network, call: Call, flow: str) -> None:
        self.open = True
        self._network, self._call = network, call
        here, there = network.placement[call.dialler], network.placement[call.peer]
        self.away = Stream(network, self, here, there, f"{flow} >")
        self.back = Stream(network, self, there, here, f"{flow} <")
        self.away.reverse, self.back.reverse = self.back, self.away

    def reset(self) -> None:
        """It is given up by an end whose data nobody acknowledged."""
        if self.open:
            self.open = False
            self._network.resets += 1
            self._call.lost(self)


class Segment(msgspec.Struct, gc=False, eq=False):
    """A frame that is not known to have arrived."""

    events: list[Event]
    size: int
    first_sent: Nanoseconds
    sent: Nanoseconds
    arrived: Nanoseconds | None = None
    acknowledged: bool = False


class Stream:
    """One direction of a connection, between two hosts: frames go in, and ``receiver`` gets them in order.

    ``reverse`` is the other direction, on which acknowledgements travel. ``deaf``: the receiver has died.
    """

    reverse: Stream
    receiver: Deliver

    def __init__(self, network: Network, connection: Connection, here: str, there: str, flow: str) -> None:
        self.deaf = False
        self._network, self._connection = network, connection
        self._here, self._there, self._flow = here, there, flow
        self._version = -1
        self._path: list[Lane] | None = None
        self._clear = False
        self._room: int | None = None
        self._latency: Nanoseconds = 0
        self._last_out: Nanoseconds = 0
        self._unacknowledged: deque[Segment] = deque()
        self._undelivered: deque[Segment] = deque()
        self._timing = False
        self._backoff = 0

    def send(self, events: list[Event], departs: Nanoseconds) -> None:
        """Take a frame that leaves the process at ``departs``."""
        network = self._network
        if self._version != network.version:
            self._find_path()
        if self._clear and not self._unacknowledged and network.unruly is None:
            arrives = departs + self._latency + OVERHEAD[int(network.random.random() * STEPS)]
            if arrives < self._last_out:
                arrives = self._last_out
            self._last_out = arrives
            network.kernel.at(arrives, self._deliver, events)
            return
        if network.unruly is not None:
            self._send_unruly(events, departs, network.unruly)
            return
        segment = Segment(events, self._size(events), departs, departs)
        self._unacknowledged.append(segment)
        self._undelivered.append(segment)
        self._transmit(segment, departs)
        self._set_timer(departs)

    def carry(self, now: Nanoseconds, size: int = _SMALL) -> Nanoseconds | None:
        """When a packet of this stream sent at ``now`` arrives, or None if it does not."""
        if self._version != self._network.version:
            self._find_path()
        arrives = self._network.carry(self._here, self._there, self._path, now, size)
        return None if arrives is None else arrives + OVERHEAD[int(self._network.random.random() * STEPS)]

    def _find_path(self) -> None:
        """Where this direction and the other lead now, and whether nothing can happen on the way there and back."""
        network = self._network
        clear = True
        for stream in (self, self.reverse):
            stream._version = network.version
            stream._path = network.path(stream._here, stream._there, stream._flow)
            stream._latency = LINK_NS * len(stream._path) if stream._path else LOOPBACK_NS
            stream._room = network.room(stream._path)
            clear = clear and network.is_clear(stream._here, stream._there, stream._path)
        self._clear = self.reverse._clear = clear

    def _size(self, events: list[Event]) -> int:
        """Bytes on the wire; only a link with a rate, or one that is narrow, asks."""
        limited = any(lane.narrow or (lane.impairment and lane.impairment.rate) for lane in self._path or ())
        return self._network.header_bytes + _payload(events) if limited else _SMALL

    def _fits(self, size: int) -> bool:
        """Whether every segment of a frame of ``size`` bytes, with headers, passes the links on the way.

        All but the last are full, and what is narrower than a full one is on the way: so the frame has to be one small.
        """
        return self._room is None or size - self._network.header_bytes <= self._room

    def _send_unruly(self, events: list[Event], departs: Nanoseconds, unruly: Unruly) -> None:
        """Every message for itself, and nobody asks what became of it."""
        draw = self._network.random.random
        for event in events:
            if not self._fits(self._size([event])):
                continue
            while draw() >= unruly.loss:
                arrives = self.carry(departs)
                if arrives is not None:
                    stray = int(draw() * unruly.stray_ns) if draw() < unruly.stray else 0
                    self._network.kernel.at(arrives + stray, self._deliver, [event])
                if draw() >= unruly.repeat:
                    break

    # ---- when something is in the way ----------------------------------------------------------------------------

    def _transmit(self, segment: Segment, now: Nanoseconds) -> None:
        segment.sent = now
        arrives = self.carry(now, segment.size)
        if arrives is None or not self._fits(segment.size):
            return
        if segment.arrived is None:
            segment.arrived = arrives
            self._release()
        heard = self.reverse.carry(arrives)
        if heard is not None:
            self._network.kernel.at(heard, self._acknowledged, segment)

    def _release(self) -> None:
        """Give out what has arrived, up to the first gap."""
        waiting = self._undelivered
        while waiting and waiting[0].arrived is not None:
            segment = waiting.popleft()
            self._last_out = max(segment.arrived or 0, self._last_out)
            self._network.kernel.at(self._last_out, self._deliver, segment.events)

    def _deliver(self, events: list[Event]) -> None:
        if self._connection.open and not self.deaf:
            self.receiver(events)

    def _acknowledged(self, segment: Segment) -> None:
        """An acknowledgement has come: of ``segment``, and of all that had arrived before it."""
        if not self._connection.open or segment.acknowledged or segment.arrived is None:
            return
        self._backoff = 0
        missing: list[Segment] = []
        for other in self._unacknowledged:
            if other.arrived is not None and other.arrived <= segment.arrived:
                other.acknowledged = True
            elif other.sent < segment.sent:
                missing.append(other)
        self._unacknowledged = deque(other for other in self._unacknowledged if not other.acknowledged)
        for other in missing:
            self._transmit(other, self._network.kernel.now)

    def _set_timer(self, now: Nanoseconds) -> None:
        if not self._timing:
            self._timing = True
            first = self._unacknowledged[0]
            expires = max(now, first.sent + (self._timeout() << self._backoff))
            self._network.kernel.at(
                min(expires, max(now, first.first_sent + self._network.silence)), self._timer_expired, None
            )

    def _timer_expired(self, _: None) -> None:
        self._timing = False
        if not self._unacknowledged or not self._connection.open:
            return
        now = self._network.kernel.now
        first = self._unacknowledged[0]
        if now >= first.first_sent + self._network.silence:
            self._connection.reset()
            return
        if now >= first.sent + (self._timeout() << self._backoff):
            self._transmit(first, now)
            self._backoff += 1
        self._set_timer(now)

    def _timeout(self) -> Nanoseconds:
        lanes = [*(self._path or ()), *(self.reverse._path or ())]
        held = sum(int(expected_delay(lane.impairment)[0]) for lane in lanes if lane.impairment)
        return LEAST_RTO_NS + LINK_NS * len(lanes) + held


def _payload(events: list[Event]) -> int:
    """Bytes of the frame that carries ``events``."""
    return _PREFIX_BYTES + len(msgspec.msgpack.encode([_content(event) for event in events]))


def _content(event: Event) -> Any:
    match event:
        case Received(message=message):
            return message
        case Requested(request=request, command=command):
            return request, command
    return None
