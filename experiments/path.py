"""Which way a flow takes through a fabric: computed where the plan leaves no choice, else observed.

Where several ways are as good as each other a switch chooses by a hash of the flow's 5-tuple. Open vSwitch's user space
datapath hashes without a key, but by what its build of the day makes of the processor; the kernel's is keyed anew at
every boot (docs/controller.md). So nothing here guesses it: the fabric is built, datagrams or connection attempts of
just that 5-tuple are sent, and the links' counters tell. Another fabric of the same plan on the same machine, up since
the same boot, makes the same choice.
"""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from controllers.pipeline import routes
from experiments.emulation.inside import Inside
from topologies.machine import require
from topologies.plan import FabricPlan, PlanError
from topologies.privileges import obstacles, probe
from topologies.sandbox import PrivilegeError, Sandbox

#: How many packets are sent to observe a way. More than stray ones there could be, on a fabric that carries no others.
PACKETS = 20
PATIENCE = 30.0
_SETTLE = 0.15


class PathError(RuntimeError):
    """A flow whose way could not be told: it was not carried, or others were too; the message says which."""


class Flow(msgspec.Struct, frozen=True):
    """A 5-tuple, with hosts by their names."""

    sender: str
    receiver: str
    protocol: Literal["udp", "tcp"]
    source_port: int
    destination_port: int


class Way(msgspec.Struct, frozen=True):
    """The nodes from sender to receiver, both included, and how that is known."""

    nodes: tuple[str, ...]
    how: Literal["computed", "observed"]
    why: str

    @property
    def directions(self) -> tuple[str, ...]:
        return tuple(f"{near}>{far}" for near, far in zip(self.nodes, self.nodes[1:], strict=False))


def path(plan: FabricPlan, flow: Flow) -> Way:
    """The way ``flow`` takes through the fabric of ``plan``, all of its links alive.

    Raises `PlanError` for hosts that are not there, `PathError`, and what a sandbox and a fabric raise.
    """
    return computed(plan, flow.sender, flow.receiver) or observed(plan, flow)


def computed(plan: FabricPlan, sender: str, receiver: str) -> Way | None:
    """The only way there is, or None where a hash decides. Raises `PlanError` for hosts that are not there."""
    here, there = plan.host(sender), plan.host(receiver)
    if sender == receiver:
        raise PlanError(f"what {sender} sends itself never leaves it; name another host")
    if here.leaf == there.leaf:
        return Way((sender, here.leaf, receiver), "computed", "both hosts are at one leaf")
    ways = routes(plan)
    nodes = [sender, here.leaf]
    while nodes[-1] != there.leaf:
        hops = ways[nodes[-1]].get(there.leaf, ())
        if not hops:
            raise PlanError(f"no links lead from {nodes[-1]} to {there.leaf}")
        if len(hops) > 1:
            return None
        nodes.append(hops[0].neighbour)
    return Way((*nodes, receiver), "computed", "the plan has no other way")


def observed(plan: FabricPlan, flow: Flow) -> Way:
    """Build the fabric of ``plan`` and see. Raises as `path` does."""
    if lacking := obstacles(probe(), tun=True):
        raise PrivilegeError("; ".join(lacking))
    require("ip", "tc", "ovs-vswitchd", "ovsdb-server", "mnexec")
    with (
        tempfile.TemporaryDirectory(prefix="splitbrain-path-") as name,
        Sandbox(Inside, plan, Path(name), 0, out=Path(name), on_event=lambda event: None) as sandbox,
    ):
        sandbox.call_sync("build")
        sandbox.call_sync("wait_forwarding", PATIENCE)
        way: Way = sandbox.run_sync(observe, flow)
    return way


def observe(inside: Inside, flow: Flow) -> Way:
    """Send `PACKETS` of ``flow`` on a fabric that carries nothing else, and follow them; runs in the sandbox."""
    before = inside.fabric.link_counters()
    for _ in range(PACKETS):
        _send_one(inside, flow)
    time.sleep(_SETTLE)
    after = inside.fabric.link_counters()
    carried = {direction: after[direction].packets - before[direction].packets for direction in after}
    why = f"{PACKETS} {flow.protocol.upper()} packets of this flow went this way"
    return Way(follow(inside.plan, carried, flow.sender, flow.receiver), "observed", why)


def follow(plan: FabricPlan, carried: Mapping[str, int], sender: str, receiver: str) -> tuple[str, ...]:
    """The nodes that a flow of `PACKETS` went through, from what each direction ``carried`` meanwhile.

    Raises `PathError` when it ended somewhere else, or when something else was carried, too.
    """
    ways, last = routes(plan), plan.host(receiver).leaf
    nodes = [sender, plan.host(sender).leaf]
    while nodes[-1] != last:
        # Only onward: answers come back by ways of their own, through the same nodes perhaps.
        counted = {hop.neighbour: carried[f"{nodes[-1]}>{hop.neighbour}"] for hop in ways[nodes[-1]].get(last, ())}
        onward = [node for node, packets in counted.items() if packets >= PACKETS // 2]
        if len(onward) != 1:
            raise PathError(
                f"of {PACKETS} packets from {sender} to {receiver}, {nodes[-1]} sent on {counted}: "
                + ("the fabric carries something else, too" if onward else "they were not carried any further")
            )
        nodes += onward
    nodes.append(receiver)
    return tuple(nodes)


def _send_one(inside: Inside, flow: Flow) -> None:
    kind = socket.SOCK_DGRAM if flow.protocol == "udp" else socket.SOCK_STREAM
    here, there = inside.plan.host(flow.sender).ip, inside.plan.host(flow.receiver).ip
    with inside.fabric.inside(flow.sender):
        source = socket.socket(socket.AF_INET, kind)
    with source:
        source.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        source.settimeout(1.0)
        source.bind((here, flow.source_port))
        if kind == socket.SOCK_DGRAM:
            source.sendto(b"path", (there, flow.destination_port))
            return
        # Nobody listens, so that a SYN is all there is of it, and its answer says that it arrived.
        with suppress(ConnectionRefusedError, TimeoutError):
            source.connect((there, flow.destination_port))
