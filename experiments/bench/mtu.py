"""What a link of 1450 bytes does to a tenant whose members send 1500, and what clamping TCP's segments does about it.

One fabric, two leaves under one spine, and two tenants on it with the same hosts: one as it is, one whose tunnel ends
clamp. First the links carry what the plan says; then those between the switches shrink to 1450 bytes, as when a circuit
is replaced by one that is not what its label says. Small packets still pass, so connections are opened, and nothing
tells the senders of large ones: a black hole (RFC 2923 §2.1). Where the switches route they cut the tunnels' packets in
two instead (RFC 791 §2.3), as nothing forbids them to.
"""

from __future__ import annotations

import select
import socket
import tempfile
import time
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

import msgspec

from experiments.bench import Figure, figure
from experiments.emulation.inside import Inside
from topologies import netns
from topologies.leaf_spine import LeafSpine
from topologies.plan import HOST_MTU, OVERHEAD, FabricPlan
from topologies.rtnetlink import Netlink, set_mtu
from topologies.sandbox import Sandbox
from topologies.tenants import tenant, with_tenants

#: Of the links between switches once they are narrow, in bytes of IP packet.
NARROW = 1450
#: The largest segment that fits through them in a tunnel, beside the headers of IPv4 and TCP.
MSS = NARROW - OVERHEAD - 40

SECONDS = 2.0
PATIENCE = 30.0

#: IPv4 and UDP.
_HEADERS = 28
#: Smaller ones are of no interest; from there to the members' MTU each size is tried.
_SMALLEST = 1300
#: Seconds without another, after which the last has come.
_LAST_WAIT = 0.3
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3  # linux/in.h: don't fragment, and don't believe what was heard of the path


class Crossing(msgspec.Struct, frozen=True):
    """What gets from one member to the other.

    ``largest``: bytes of the largest IP packet that may not be fragmented. ``opened``: whether a connection is.
    ``megabits``: what a connection with much to send delivers in a second.
    """

    largest: int
    opened: bool
    megabits: float


def bench() -> list[Figure]:
    plan = with_tenants(
        LeafSpine(1, 2, 1),
        [
            tenant("plain", 100, "192.168.0.0/24", ["h1", "h2"]),
            tenant("clamped", 200, "192.168.0.0/24", ["h1", "h2"], mss=MSS),
        ],
    )
    whole, narrow, clamped = _measured(plan)
    routed, fragmented, routed_clamped = _measured(msgspec.structs.replace(plan, dataplane="routed"))
    peer = "as planned"
    return [
        figure("largest_packet", whole.largest, "bytes", aim=f"≥ {HOST_MTU}"),
        figure("narrow_largest_packet", narrow.largest, "bytes", peer=peer, peer_value=whole.largest),
        figure("narrow_opened", narrow.opened, "", peer=peer, peer_value=whole.opened),
        figure("narrow_mbit_per_s", narrow.megabits, "Mbit/s", peer=peer, peer_value=whole.megabits),
        figure("clamped_mbit_per_s", clamped.megabits, "Mbit/s", peer=peer, peer_value=whole.megabits),
        figure("routed_narrow_mbit_per_s", fragmented.megabits, "Mbit/s", peer=peer, peer_value=routed.megabits),
        figure("routed_clamped_mbit_per_s", routed_clamped.megabits, "Mbit/s", peer=peer, peer_value=routed.megabits),
    ]


def _measured(plan: FabricPlan) -> tuple[Crossing, Crossing, Crossing]:
    """As planned; narrow; narrow, with clamping."""
    with (
        tempfile.TemporaryDirectory(prefix="splitbrain-bench-") as name,
        Sandbox(Inside, plan, Path(name), 1, out=Path(name), on_event=lambda event: None) as sandbox,
    ):
        sandbox.call_sync("build")
        sandbox.call_sync("wait_forwarding", PATIENCE)
        whole = sandbox.run_sync(crossing, "h1_plain", "h2_plain")
        sandbox.run_sync(narrow_links)
        plain, clamped = (sandbox.run_sync(crossing, f"h1_{name}", f"h2_{name}") for name in ("plain", "clamped"))
    return whole, plain, clamped


def narrow_links(inside: Inside) -> None:
    """Give both ends of every link between switches an MTU of `NARROW`; runs in the sandbox."""
    routed = inside.plan.dataplane == "routed"
    for link in inside.plan.links:
        if link.a.port and link.b.port:
            for end in (link.a, link.b):
                with netns.inside(end.node) if routed else nullcontext(), Netlink() as netlink:
                    netlink.request([set_mtu(end.interface, NARROW)])


def crossing(inside: Inside, sender: str, receiver: str, seconds: float = SECONDS) -> Crossing:
    """What gets from one member of a tenant to another; runs in the sandbox."""
    largest = _largest_packet(inside, sender, receiver)
    address = inside.plan.endpoint(receiver).ip
    with ExitStack() as stack:
        with inside.fabric.inside(receiver):
            listener = stack.enter_context(socket.create_server((address, 0)))
        with inside.fabric.inside(sender):
            source = stack.enter_context(socket.socket())
        source.settimeout(seconds)
        try:
            source.connect(listener.getsockname())
        except TimeoutError:
            return Crossing(largest, False, 0.0)
        sink = stack.enter_context(listener.accept()[0])
        source.setblocking(False)
        began, arrived, chunk = time.monotonic(), 0, bytes(1 << 16)
        while (left := began + seconds - time.monotonic()) > 0:
            readable, writable, _ = select.select([sink], [source], [], left)
            if writable:
                with suppress(BlockingIOError):
                    source.send(chunk)
            if readable:
                arrived += len(sink.recv(1 << 20))
        return Crossing(largest, True, arrived * 8 / 1e6 / (time.monotonic() - began))


def _largest_packet(inside: Inside, sender: str, receiver: str) -> int:
    """Bytes of the largest IP packet that arrives whole; 0 where none does."""
    with ExitStack() as stack:
        with inside.fabric.inside(receiver):
            sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with inside.fabric.inside(sender):
            source = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sink.bind((inside.plan.endpoint(receiver).ip, 0))
        sink.setblocking(False)
        source.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        largest = 0
        for size in range(_SMALLEST, HOST_MTU + 1):
            source.sendto(bytes(size - _HEADERS), sink.getsockname())
            while select.select([sink], [], [], _LAST_WAIT if size == HOST_MTU else 0)[0]:
                largest = max(largest, len(sink.recv(HOST_MTU)) + _HEADERS)
        return largest
