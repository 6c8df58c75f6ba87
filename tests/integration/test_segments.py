"""TCP through the fabric, at the sizes where segmentation offload and MTUs could disagree."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from topologies.fabric import Fabric
from topologies.impair import Impairments, choose_backend
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.sandbox import Sandbox

pytestmark = pytest.mark.network

PLAN = LeafSpine(1, 2, 1)


class Network:
    """A fabric that forwards by MAC learning: there is no controller to wait for."""

    def __init__(self) -> None:
        self.fabric = Fabric(PLAN, controller=None)
        self.fabric.start()
        for switch in self.fabric.switches:
            switch.dpctl("add-flow", "actions=normal")
        # One subnet behind no router: hosts answer for one another by static neighbours.
        for here, there in (PLAN.hosts, reversed(PLAN.hosts)):
            command = (
                f"ip route replace {there.ip}/32 dev {here.name}-eth0 && ip neigh replace {there.ip} lladdr {there.mac}"
            )
            self.fabric.get(here.name).cmd(f"{command} dev {here.name}-eth0")

    def slowest_write_ms(self, sizes: list[int], loss: float) -> float:
        """Send a message of each size from h1 to h2 and back on one connection; the longest round trip."""
        sender, receiver = PLAN.hosts
        with self.fabric.inside(receiver.name):
            listener = socket.create_server((receiver.ip, 7000))
        with self.fabric.inside(sender.name):
            client = socket.socket()
        threading.Thread(target=_echo, args=(listener,), daemon=True).start()
        client.connect((receiver.ip, 7000))
        client.settimeout(20)
        slowest = 0.0
        impairments = Impairments(PLAN, choose_backend("wire"), 1)
        with impairments, impairments.impair("leaf1>spine1", Impairment(loss=loss, delay=1000)):
            for size in sizes:
                started = time.monotonic()
                client.sendall(bytes(size))
                left = size
                while left:
                    left -= len(client.recv(left))
                slowest = max(slowest, time.monotonic() - started)
        client.close()
        return slowest * 1000


def _echo(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def test_writes_about_the_size_of_a_segment_are_not_held_up(sandbox: Callable[..., Sandbox]) -> None:
    # A frame too large for the host's port is dropped and comes again after TCP's 200 ms at the earliest.
    assert sandbox(Network).call_sync("slowest_write_ms", list(range(1380, 1560, 20)) * 3, 0.0) < 150


def test_bulk_goes_on_through_a_link_that_loses_a_little(sandbox: Callable[..., Sandbox]) -> None:
    assert sandbox(Network).call_sync("slowest_write_ms", [1_000_000] * 3, 0.005) < 10_000
