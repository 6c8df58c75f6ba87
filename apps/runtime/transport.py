"""Connections between processes: TCP, dialled again whenever they fail, with bounded queues.

Every process dials each peer it has an address for, and keeps that connection up for as long as it runs. So two nodes
have two connections, either of which is enough. Both speak on the one that the first of them by name dialled: what
one says then carries TCP's acknowledgement of what it heard, which on two one-way connections is a packet of its own.
The other connection is for when that one is lost, which each may notice at another time.

What is sent to a peer that cannot be reached, or does not read, is dropped and counted: protocols tolerate loss, and
a queue that grows while a network is broken would make the process a casualty of the fault.

After a partition heals, a connection that was up before it stays mute for seconds: TCP doubles its retransmission
timeout for as long as nobody answers (RFC 6298, §5.5). So the kernel is told to give up on a connection whose data has
gone unacknowledged for ``silence`` (TCP_USER_TIMEOUT, RFC 5482), and the peer is dialled anew with a fresh SYN every
`DIAL_EVERY`, since SYNs back off likewise; an attempt is left to succeed while later ones are under way, so that a slow
path is not mistaken for a cut one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, cast

import msgspec

from apps.backoff import full_jitter
from apps.process import Event, Nanoseconds, NodeId, Received, Request, Requested, Response
from apps.runtime.config import Address
from apps.runtime.framing import MAX_FRAME, MAX_HELLO, Codec, FrameError, FrameReader, Hello, Kind, TooLarge

log = logging.getLogger("apps.runtime")

#: Seconds between the SYNs to a peer that does not answer; how long each may take to be answered.
DIAL_EVERY = 0.2
DIAL_PATIENCE = 2.0
#: Nanoseconds, lowest and highest upper end of the random pause before a peer that refused or hung up is dialled again.
BACKOFF = (20_000_000, 500_000_000)
#: Seconds that whoever is at the other end may take to say who it is.
HELLO_PATIENCE = 10.0
_LATE = FrameError("late", f"it has not said who it is within {HELLO_PATIENCE:.0f} s")
#: A connection that lasted for so many seconds was a good one: the next pause starts low again.
GOOD_AFTER = 1.0
#: Different peers that rejected connections are counted by; those after them are `_OTHERS`.
MOST_COUNTED = 100
_OTHERS = "others"
#: Bytes that may wait in a connection's queue; from there on messages for it are dropped.
QUEUE_BYTES = 4 << 20


class Counters(msgspec.Struct):
    """What happened at the sockets since the start.

    ``rejected``: connections that ended for what came on them, or did not come, by reason and by peer: the name that
    it gave, or its address if it gave none. Beside the codes of `FrameError`, ``short``: the other end, or the network,
    ended it within a frame.
    """

    bytes_in: int = 0
    bytes_out: int = 0
    frames_in: int = 0
    frames_out: int = 0
    dropped: int = 0
    dials: int = 0
    rejected: dict[str, dict[str, int]] = {}


class Connection(asyncio.BufferedProtocol):
    """One TCP connection, from its `Hello` to its end. ``dialled``: the peer it is meant to reach, if we made it."""

    def __init__(self, transport: Transport, dialled: NodeId | None = None) -> None:
        self._net = transport
        self._dialled = dialled
        self._reader = FrameReader(MAX_HELLO)
        self._expected = Kind.HELLO
        self._socket: asyncio.Transport
        self._blocked = False
        self._hung_up = False
        self.place = ""
        self.peer: NodeId | None = dialled
        self.claimed: NodeId = ""  # who it says it is, before that is checked
        self.closed = asyncio.get_running_loop().create_future()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self._socket.set_write_buffer_limits(high=QUEUE_BYTES)
        name = self._socket.get_extra_info("peername")
        self.place = f"{name[0]}:{name[1]}" if name else "a closed socket"
        self._net.opened(self)
        self._write(self._net.hello_frame)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HELLO_PATIENCE, self._net.reject, self, _LATE)

    def connection_lost(self, error: Exception | None) -> None:
        self._blocked = True
        self._deadline.cancel()
        if self._reader.held and not self._hung_up:
            self._net.count_rejected(self, "short")
        self._net.lost(self)
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.space()

    def buffer_updated(self, count: int) -> None:
        self._net.counters.bytes_in += count
        try:
            for kind, body in self._reader.received(count):
                self._take(kind, body)
        except FrameError as error:
            self._net.reject(self, error)

    # What the transport calls.

    def send(self, frames: Sequence[bytearray]) -> bool:
        """Queue frames, unless the queue is full or the connection gone; say whether they were taken."""
        if self._blocked or self._socket.is_closing():
            return False
        for frame in frames:
            self._write(frame)
        return True

    def close(self) -> None:
        """Hang up without waiting for what is queued."""
        self._blocked = self._hung_up = True
        self._socket.abort()

    def _write(self, frame: bytearray) -> None:
        counters = self._net.counters
        counters.bytes_out += len(frame)
        counters.frames_out += 1
        self._socket.write(frame)

    def _take(self, kind: Kind, body: memoryview) -> None:
        net = self._net
        net.counters.frames_in += 1
        if kind is not self._expected:
            raise FrameError("unexpected", f"{kind.name.lower()} where {self._expected.name.lower()} was due")
        items = net.codec.decode(kind, body)
        if kind is Kind.MESSAGES:
            net.heard(self)
            net.deliver([Received(self.peer or "", message) for message in items])
        elif kind is Kind.REQUESTS:
            net.deliver([Requested(self.peer or "", request, command) for request, command in items])
        elif kind is Kind.RESPONSES:
            net.deliver([Received(self.peer or "", Response(request, result)) for request, result in items])
        else:
            self.claimed = items.node
            self._expected = net.welcome(self, items, self._dialled)
            self.peer = items.node
            self._deadline.cancel()
            self._reader.limit = MAX_FRAME


class Transport:
    """All connections of one process.

    ``deliver`` is called with the events that came in. ``peers``: the nodes to dial. Nothing is dialled or accepted
    before `start`.
    """

    def __init__(
        self,
        hello: Hello,
        peers: Mapping[NodeId, Address],
        codec: Codec,
        deliver: Callable[[list[Event]], None],
        silence: Nanoseconds,
        random: Random,
    ) -> None:
        self.hello, self.codec, self.deliver = hello, codec, deliver
        self.counters = Counters()
        (self.hello_frame,) = codec.encode(Kind.HELLO, hello)
        self._peers = {name: address for name, address in peers.items() if name != hello.node}
        self._silence_ms, self._random = max(1, silence // 1_000_000), random
        self._all: set[Connection] = set()
        self._dialled: dict[NodeId, Connection] = {}
        self._accepted: dict[NodeId, tuple[int, Connection]] = {}
        self._heard_on: dict[NodeId, Connection] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None
        self._said: set[tuple[str, str]] = set()

    async def start(self, listen: Address | None) -> None:
        """Listen, if there is an address for it, and begin to dial. Raises `OSError` when the address cannot be had."""
        loop = asyncio.get_running_loop()
        if listen is not None:
            raw = self._socket()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            raw.bind(listen)
            self._server = await loop.create_server(lambda: Connection(self), sock=raw, backlog=512)
        self._tasks = [loop.create_task(self._keep(name, address)) for name, address in self._peers.items()]

    async def close(self) -> None:
        """Stop listening and dialling, and hang up."""
        for task in self._tasks:
            task.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._all):
            connection.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connected(self) -> set[NodeId]:
        """The peers that a dialled connection is up to."""
        return set(self._dialled)

    def send(self, to: NodeId, messages: Sequence[Any]) -> None:
        """Send messages to a node, as one frame if they fit; `Request` by a client."""
        if self.hello.role == "client":
            items: list[Any] = [(message.request, message.command) for message in cast(Sequence[Request], messages)]
            self._send(self._dialled.get(to), Kind.REQUESTS, items)
        else:
            self._send(self._way_to(to), Kind.MESSAGES, messages)

    def reply(self, client: NodeId, results: Sequence[tuple[int, Any]]) -> None:
        """Send a client the results of its requests, by their numbers."""
        _, connection = self._accepted.get(client, (0, None))
        self._send(connection, Kind.RESPONSES, results)

    def _way_to(self, node: NodeId) -> Connection | None:
        _, accepted = self._accepted.get(node, (0, None))
        if node < self.hello.node:
            return accepted or self._dialled.get(node)
        # The other end speaks elsewhere than on the one we dialled if it has lost that one.
        return self._heard_on.get(node) or self._dialled.get(node) or accepted

    def _send(self, connection: Connection | None, kind: Kind, items: Sequence[Any]) -> None:
        sent = False
        if connection is not None:
            try:
                sent = connection.send(self.codec.encode(kind, items))
            except TooLarge as error:
                log.warning("to %s: dropped: %s", connection.peer, error)
        if not sent:
            self.counters.dropped += len(items)

    # What connections tell.

    def opened(self, connection: Connection) -> None:
        self._all.add(connection)

    def heard(self, connection: Connection) -> None:
        self._heard_on[connection.peer or ""] = connection

    def welcome(self, connection: Connection, hello: Hello, dialled: NodeId | None) -> Kind:
        """Check who is at the other end; return what it may send from now on. Raises `FrameError`."""
        self._check(hello, dialled)
        self._heard_on.pop(hello.node, None)
        if dialled is not None:
            self._dialled[dialled] = connection
            return Kind.RESPONSES if self.hello.role == "client" else Kind.MESSAGES
        incarnation, earlier = self._accepted.get(hello.node, (-1, None))
        if hello.incarnation < incarnation:
            raise FrameError("incarnation", f"incarnation {hello.incarnation} after {incarnation} was here")
        self._accepted[hello.node] = (hello.incarnation, connection)
        if earlier is not None and earlier is not connection:
            earlier.close()
        return Kind.REQUESTS if hello.role == "client" else Kind.MESSAGES

    def _check(self, hello: Hello, dialled: NodeId | None) -> None:
        own = self.hello
        if not hello.node:
            raise FrameError("node", f"a {hello.role} without a name")
        if hello.version != own.version:
            raise FrameError("version", f"version {hello.version} of the protocol, this is version {own.version}")
        if hello.cluster != own.cluster:
            raise FrameError("cluster", f"a member of cluster {hello.cluster!r}, this is {own.cluster!r}")
        if dialled is not None:
            if hello.node != dialled or hello.role != "node":
                raise FrameError("node", f"{hello.role} {hello.node!r} answers at the address of node {dialled!r}")
        elif own.role == "client":
            raise FrameError("node", "clients are not called")
        elif (hello.node in self._peers) != (hello.role == "node"):
            raise FrameError("node", f"unknown {hello.role} {hello.node!r}; nodes are {', '.join(self._peers)}")
        if hello.role == own.role == "node" and hello.settings != own.settings:
            raise FrameError("settings", f"node {hello.node!r}, whose process is configured otherwise than here")

    def lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        peer = connection.peer
        if peer is None:
            return
        if self._heard_on.get(peer) is connection:
            del self._heard_on[peer]
        if self._dialled.get(peer) is connection:
            del self._dialled[peer]
        elif self._accepted.get(peer, (0, None))[1] is connection:
            del self._accepted[peer]

    def reject(self, connection: Connection, error: FrameError) -> None:
        """Hang up on a peer that sent what cannot be: counted each time, logged the first time."""
        code = error.code
        who = self.count_rejected(connection, code)
        if (who, code) not in self._said and len(self._said) < 1000:
            self._said.add((who, code))
            log.warning("%s at %s: %s; hung up", connection.peer or "somebody", connection.place, error)
        connection.close()

    def count_rejected(self, connection: Connection, code: str) -> str:
        """One more of ``code``; returns what it was counted under."""
        who = connection.peer or connection.claimed or connection.place.rpartition(":")[0]
        by_peer = self.counters.rejected.setdefault(code, {})
        if who not in by_peer and len(by_peer) >= MOST_COUNTED:
            who = _OTHERS
        by_peer[who] = by_peer.get(who, 0) + 1
        return who

    # Dialling.

    async def _keep(self, name: NodeId, address: Address) -> None:
        """Keep a connection to ``name`` up, for ever."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            opened = loop.time()
            try:
                raw = await self._dial(address)
                _, connection = await loop.create_connection(lambda: Connection(self, name), sock=raw)
            except OSError:
                pass
            else:
                opened = loop.time()
                await connection.closed
            low, high = BACKOFF
            failures = 0 if loop.time() - opened > GOOD_AFTER else failures + 1
            await asyncio.sleep(full_jitter(failures, low, high, self._random) / 1e9)

    def _socket(self) -> socket.socket:
        """A socket with our options; those it accepts inherit them."""
        raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._silence_ms)
        return raw

    async def _dial(self, address: Address) -> socket.socket:
        """A connected socket. Raises `OSError` when the other end, or the way to it, says no."""
        attempts: list[asyncio.Task[socket.socket]] = []
        try:
            while True:
                attempts.append(asyncio.create_task(_connect(self._socket(), address)))
                if len(attempts) > DIAL_PATIENCE / DIAL_EVERY:
                    attempts.pop(0).cancel()
                self.counters.dials += 1
                done, _ = await asyncio.wait(attempts, timeout=DIAL_EVERY, return_when=asyncio.FIRST_COMPLETED)
                for attempt in done:
                    attempts.remove(attempt)
                    return attempt.result()
        finally:
            for attempt in attempts:
                attempt.add_done_callback(_discard)
                attempt.cancel()


async def _connect(raw: socket.socket, address: Address) -> socket.socket:
    try:
        await asyncio.get_running_loop().sock_connect(raw, address)
    except BaseException:
        raw.close()
        raise
    return raw


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
