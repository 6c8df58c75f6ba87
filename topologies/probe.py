"""Who reaches whom, measured by light, marked probes, with no process in the hosts.

Every host has two sockets, opened in its namespace and kept there: one that hears probes, on UDP port 862, which is
registered for such test packets (RFC 8762), and a raw one that sends them, so that every probe can have a source port
of its own and the probes of a pair spread over the fabric's paths. Probes carry a DSCP that tells them from traffic.

Arrivals are stamped by the kernel (SO_TIMESTAMPNS, socket(7)), departures just before the send, by the same clock: an
event loop that is late counts and delays nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import msgspec

from topologies import netns
from topologies.plan import FabricPlan

PORT = 862

#: 101011: of the pool for experimental and local use (RFC 2474 §6).
DSCP = 0b101011

_TOS = DSCP << 2
_MAGIC = b"sbpr"
#: Magic, round, number of the probe in its round, nanoseconds of its sending.
_PROBE = struct.Struct("!4sIIQ")
_UDP = struct.Struct("!HHHH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python has no name for it
_TIMESPEC = struct.Struct("@qq")
#: From the dynamic ports (RFC 6335), above those that Linux gives to sockets by itself.
_SOURCE_PORTS = range(61_000, 65_536)

#: How many are sent before the event loop and the switches get a turn, and for how long, in seconds.
_BURST, _PAUSE = 4, 0.001

Pair = tuple[str, str]


class Cell(msgspec.Struct, frozen=True):
    """What became of the probes of one sender to one receiver. Delays are one-way nanoseconds; None: none arrived."""

    sent: int
    arrived: int
    delay_min: int | None
    delay_mean: int | None


def readiness_pairs(plan: FabricPlan) -> list[Pair]:
    """Enough (sender, receiver) pairs to see a fabric forward: every host to and from its neighbour in the plan's
    order, every leaf to every other, over different hosts, and tenants' members to and from their neighbours in the
    tenant. That is 2 × (hosts + members) + leaves² at most, not hosts².
    """
    names = [host.name for host in plan.hosts]
    pairs = dict.fromkeys(pair for pair in itertools.pairwise([*names, *names[:1]]) if pair[0] != pair[1])
    pairs |= {(receiver, sender): None for sender, receiver in pairs}
    by_leaf = [hosts for leaf in plan.by_role("leaf") if (hosts := plan.hosts_of(leaf.name))]
    for (i, near), (j, far) in itertools.permutations(enumerate(by_leaf), 2):
        pairs[near[j % len(near)].name, far[i % len(far)].name] = None
    for tenant in plan.tenants:
        members = [member.name for member in tenant.members]
        for one, other in itertools.pairwise([*members, *members[:1]]):
            if one != other:
                pairs[one, other] = pairs[other, one] = None
    return list(pairs)


class _Station(NamedTuple):
    """A host's two sockets and its address, as probes carry it."""

    hears: socket.socket
    sends: socket.socket
    address: bytes


class _Round:
    """A measurement under way. ``probes``: their pairs, by number. ``delays``: of those that came where they should."""

    def __init__(self, probes: Sequence[Pair]) -> None:
        self.probes = probes
        self.delays: dict[int, int] = {}
        self.complete = asyncio.Event()

    def heard(self, number: int, host: str, delay: int) -> None:
        # Addresses of different tenants may be the same: what counts is who heard it.
        if number < len(self.probes) and self.probes[number][1] == host:
            self.delays.setdefault(number, delay)
            if len(self.delays) == len(self.probes):
                self.complete.set()


class Prober:
    """Sends probes between the hosts of ``plan``, whose namespaces are there; measurements may overlap."""

    def __init__(self, plan: FabricPlan) -> None:
        self._plan = plan
        self._stations: dict[str, _Station] = {}
        self._by_fd: dict[int, str] = {}
        self._heard = select.epoll()
        self._rounds: dict[int, _Round] = {}
        self._numbers = itertools.count(1)
        self._ports = itertools.cycle(_SOURCE_PORTS)

    async def matrix(
        self, hosts: Iterable[str] | Mapping[str, str], probes: int = 3, timeout: float = 0.2
    ) -> dict[str, dict[str, list[int]]]:
        """``{receiver: {sender: [sent, arrived]}}`` between all pairs of ``hosts``.

        A mapping gives the hosts other names, such as those of the nodes that live in them: ``{"n1": "h1"}``.
        ``timeout`` is in seconds, after the last probe was sent; when all have arrived it is not waited for.
        """
        return {
            receiver: {sender: [cell.sent, cell.arrived] for sender, cell in row.items()}
            for receiver, row in (await self.cells(hosts, probes, timeout)).items()
        }

    async def cells(
        self, hosts: Iterable[str] | Mapping[str, str], probes: int = 3, timeout: float = 0.2
    ) -> dict[str, dict[str, Cell]]:
        """The same with delays: ``{receiver: {sender: Cell}}``."""
        named = hosts if isinstance(hosts, Mapping) else {host: host for host in hosts}
        pairs = [(named[sender], named[receiver]) for sender, receiver in itertools.permutations(named, 2)]
        measured = await self.measure(pairs, probes=probes, timeout=timeout)
        return {
            receiver: {sender: measured[named[sender], named[receiver]] for sender in named if sender != receiver}
            for receiver in named
        }

    async def measure(self, pairs: Sequence[Pair], *, probes: int = 3, timeout: float = 0.2) -> dict[Pair, Cell]:
        """Send ``probes`` from the first to the second of each pair, evenly interleaved, and wait for what arrives.

        Raises `PlanError` for a host the plan does not have, OSError for one whose namespace is gone.
        """
        for host in dict.fromkeys(itertools.chain.from_iterable(pairs)):
            if host not in self._stations:
                self._open(host)
        distinct = list(dict.fromkeys(pairs))
        with self._listening(_Round(distinct * probes)) as (number, round_):
            for probe, (sender, receiver) in enumerate(round_.probes):
                self._send(number, probe, sender, receiver)
                if probe % _BURST == _BURST - 1:
                    await asyncio.sleep(_PAUSE)
            with suppress(TimeoutError):
                await asyncio.wait_for(round_.complete.wait(), timeout)
            self._collect()
        delays: dict[Pair, list[int]] = {pair: [] for pair in distinct}
        for probe, delay in round_.delays.items():
            delays[round_.probes[probe]].append(delay)
        return {pair: _cell(probes, seen) for pair, seen in delays.items()}

    @contextmanager
    def _listening(self, round_: _Round) -> Iterator[tuple[int, _Round]]:
        """Hear the probes of a round, by the number it gets, while the block lasts."""
        loop = asyncio.get_running_loop()
        if not self._rounds:
            loop.add_reader(self._heard.fileno(), self._collect)
        number = next(self._numbers)
        self._rounds[number] = round_
        try:
            yield number, round_
        finally:
            del self._rounds[number]
            if not self._rounds:
                loop.remove_reader(self._heard.fileno())

    def close(self) -> None:
        for station in self._stations.values():
            station.hears.close()
            station.sends.close()
        self._heard.close()

    def _open(self, host: str) -> None:
        planned = self._plan.endpoint(host)
        with netns.inside(host):
            hears = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            hears.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            hears.bind((planned.ip, PORT))
            sends = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
        self._stations[host] = _Station(hears, sends, socket.inet_aton(planned.ip))
        self._by_fd[hears.fileno()] = host
        self._heard.register(hears, select.EPOLLIN)

    def _send(self, round_: int, number: int, sender: str, receiver: str) -> None:
        source, destination = self._stations[sender].address, self._stations[receiver].address
        length = _UDP.size + _PROBE.size
        # The kernel fills in identification and header checksum (raw(7)); a UDP checksum of 0 is none (RFC 768).
        header = _IPV4.pack(0x45, _TOS, _IPV4.size + length, 0, 0, 64, socket.IPPROTO_UDP, 0, source, destination)
        header += _UDP.pack(next(self._ports), PORT, length, 0)
        probe = _PROBE.pack(_MAGIC, round_, number, time.time_ns())
        with suppress(OSError):  # no carrier, or a full queue: a probe that does not arrive
            self._stations[sender].sends.sendto(header + probe, (self._plan.endpoint(receiver).ip, 0))

    def _collect(self) -> None:
        for fd, _ in self._heard.poll(0):
            host = self._by_fd[fd]
            hears = self._stations[host].hears
            while True:
                try:
                    data, ancillary, _, _ = hears.recvmsg(64, 64)
                except BlockingIOError:
                    break
                if len(data) != _PROBE.size:
                    continue
                magic, number, probe, sent = _PROBE.unpack(data)
                round_ = self._rounds.get(number)
                if magic == _MAGIC and round_ is not None:
                    seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
                    round_.heard(probe, host, seconds * 1_000_000_000 + nanoseconds - sent)


def _cell(sent: int, delays: Sequence[int]) -> Cell:
    if not delays:
        return Cell(sent, 0, None, None)
    return Cell(sent, len(delays), min(delays), round(sum(delays) / len(delays)))
