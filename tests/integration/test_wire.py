"""The wire impairs a real link as asked: both loops, both kinds of ends, and nothing of it stays."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from topologies import netns
from topologies.fabric import Fabric
from topologies.impair import (
    Attachment,
    Counters,
    Direction,
    ImpairError,
    Impairments,
    choose_backend,
    direction_of,
    direction_seed,
    inside,
    run,
)
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.measure import Obtained, ObtainedRate, ProbeRun, measure_link, measure_rate, verify, verify_rate
from topologies.sandbox import Sandbox
from topologies.wire import WireBackend, find_binary, settings_of
from topologies.wire_fallback import Fates

pytestmark = pytest.mark.network

Start = Callable[..., Sandbox]
MS = 1_000_000
PYTHON = (sys.executable, "-m", "topologies.wire_fallback")

#: What a busy machine may add to a delay.
PATIENCE = 30 * MS


@pytest.fixture(scope="module", params=["compiled", "python"])
def command(request: pytest.FixtureRequest) -> Sequence[str]:
    """What runs the loop."""
    return PYTHON if request.param == "python" else _binary()


@pytest.fixture(scope="module")
def pair(command: Sequence[str]) -> Iterator[Sandbox]:
    with Sandbox(Pair, command) as sandbox:
        yield sandbox


def _binary() -> Sequence[str]:
    binary = find_binary()
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("splitbrain-wire was not built by the set-up", pytrace=False)
        pytest.skip("splitbrain-wire is not built: run the set-up script")
    return [binary]


class Pair:
    """A veth between the namespaces ``near`` and ``far``, on which nobody else speaks."""

    def __init__(self, command: Sequence[str], emit: Callable[[Any], None] | None = None) -> None:
        netns.DIRECTORY.mkdir(parents=True, exist_ok=True)
        for name in ("near", "far"):
            with netns.created(name):
                Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
                if name == "far":
                    run(["ip", "link", "add", "far0", "type", "veth", "peer", "name", "near0", "netns", "near"])
        for name, address in (("near", "10.9.0.1"), ("far", "10.9.0.2")):
            with netns.inside(name):
                run(["ip", "link", "set", f"{name}0", "up"])
                run(["ip", "address", "add", f"{address}/24", "dev", f"{name}0"])
        near, far = Attachment("near0", "near"), Attachment("far0", "far")
        self.forth, self.back = Direction("near>far", near, far), Direction("far>near", far, near)
        self.wire = WireBackend(command=command, on_exit=emit)

    async def measure(self, impairment: Impairment, packets: int = 100, forth: bool = True) -> Obtained:
        """What probes see of ``near>far`` while ``impairment`` is on it, or with ``forth`` false of the other way."""
        self.wire.apply(self.forth, impairment, seed=1)
        try:
            return await measure_link(self.forth if forth else self.back, packets=packets, wait=500 * MS)
        finally:
            self.wire.clear(self.forth)

    async def rate(self, impairment: Impairment) -> ObtainedRate:
        self.wire.apply(self.forth, impairment, seed=1)
        try:
            return await measure_rate(self.forth, offered=impairment.rate * 2)
        finally:
            self.wire.clear(self.forth)

    def arrived(self, impairment: Impairment, packets: int) -> frozenset[int]:
        """The numbers of the probes that were not lost."""
        self.wire.apply(self.forth, impairment, seed=direction_seed(9, "near>far"))
        with ProbeRun(self.forth, 100) as probes:
            for _ in range(packets):
                probes.send()
            time.sleep(0.5)
            probes.drain()
            self.wire.clear(self.forth)
            return probes.arrived

    def lift_early(self) -> tuple[int, int, int]:
        """Probes held when a long delay is lifted: how many had arrived before, just after, and how many were held."""
        self.wire.apply(self.forth, Impairment(delay=10_000 * MS), seed=1)
        with ProbeRun(self.forth, 100) as probes:
            for _ in range(50):
                probes.send()
            time.sleep(0.3)
            probes.drain()
            before, held = len(probes.arrived), self.wire.counters(self.forth).held
            self.wire.clear(self.forth)
            time.sleep(0.3)
            probes.drain()
            return before, len(probes.arrived), held

    async def changed(self) -> list[Obtained]:
        """The same direction under one impairment, changed to another, lifted, and impaired again."""
        self.wire.apply(self.forth, Impairment(delay=60 * MS), seed=1)
        seen = [await measure_link(self.forth, packets=20)]
        self.wire.change(self.forth, Impairment(loss=1.0))
        seen.append(await measure_link(self.forth, packets=20))
        self.wire.clear(self.forth)
        seen.append(await measure_link(self.forth, packets=20))
        self.wire.apply(self.forth, Impairment(delay=60 * MS), seed=1)
        seen.append(await measure_link(self.forth, packets=20))
        self.wire.clear(self.forth)
        return seen

    def transfer(self, impairment: Impairment, size: int) -> tuple[bool, Counters]:
        """Send ``size`` bytes over TCP; whether they arrived as they were sent, and what the direction counted."""
        self.wire.apply(self.forth, impairment, seed=1)
        try:
            return _tcp("near", "far", "10.9.0.2", os.urandom(size)), self.wire.counters(self.forth)
        finally:
            self.wire.clear(self.forth)

    def filters(self) -> str:
        with inside(self.forth.sender):
            return run(["tc", "filter", "show", "dev", "near0", "egress"])

    async def kill_wire(self) -> str:
        """Kill the process under an impaired direction; what the next request says."""
        self.wire.apply(self.forth, Impairment(delay=MS), seed=1)
        assert self.wire.pid is not None
        os.kill(self.wire.pid, signal.SIGKILL)
        await asyncio.sleep(0.3)
        try:
            self.wire.counters(self.forth)
        except ImpairError as error:
            return str(error)
        return ""

    def refused(self) -> str:
        try:
            self.wire.apply(Direction("x>y", Attachment("none0", "near"), self.forth.receiver), Impairment(), seed=1)
        except ImpairError as error:
            return str(error)
        return ""


def test_delay_jitter_and_damage_are_what_was_asked(pair: Sandbox) -> None:
    asked = Impairment(delay=20 * MS, jitter=8 * MS, loss=0.2, duplicate=0.2, corrupt=0.1, reorder=0.1)
    obtained = pair.call_sync("measure", asked, packets=300)
    assert verify(asked, obtained, tolerance=PATIENCE) == []
    assert obtained.reordered > 0


def test_a_plain_delay_is_never_shorter_and_loses_nothing(pair: Sandbox) -> None:
    obtained = pair.call_sync("measure", Impairment(delay=30 * MS))
    assert obtained.loss == 0
    assert obtained.reordered == 0
    assert obtained.delay_min >= 30 * MS
    assert obtained.delay_p50 < 30 * MS + PATIENCE


def test_the_other_direction_is_left_alone(pair: Sandbox) -> None:
    obtained = pair.call_sync("measure", Impairment(delay=200 * MS, loss=0.5), forth=False)
    assert obtained.loss == 0
    assert obtained.delay_p50 < 100 * MS


def test_a_rate_is_kept(pair: Sandbox) -> None:
    asked = Impairment(rate=20_000_000)
    obtained = pair.call_sync("rate", asked)
    assert verify_rate(asked, obtained, tolerance=0.15) == []


@pytest.mark.parametrize("asked", [Impairment(loss=0.3), Impairment(loss=0.3, burst=4.0)])
def test_a_seed_loses_the_same_packets_in_every_loop(pair: Sandbox, asked: Impairment) -> None:
    fates = Fates(settings_of(asked, direction_seed(9, "near>far")))
    foretold = {number for number in range(500) if not fates.next(0, 100).cause}
    assert pair.call_sync("arrived", asked, 500) == foretold


def test_lifting_a_delay_sends_what_it_held(pair: Sandbox) -> None:
    assert pair.call_sync("lift_early") == (0, 50, 50)


def test_a_direction_can_be_changed_lifted_and_impaired_again(pair: Sandbox) -> None:
    delayed, lost, bare, again = pair.call_sync("changed")
    assert delayed.delay_p50 >= 60 * MS
    assert lost.arrived == 0
    assert bare.arrived == 20
    assert bare.delay_p50 < 40 * MS
    assert again.delay_p50 >= 60 * MS


def test_tcp_passes_whole_and_in_large_pieces_through_a_delay(pair: Sandbox) -> None:
    intact, counters = pair.call_sync("transfer", Impairment(delay=MS), 5_000_000)
    assert intact
    assert counters.packets >= 5_000_000 / 1448
    assert counters.bytes > 5_000_000


def test_tcp_survives_loss_damage_and_overtaking(pair: Sandbox) -> None:
    asked = Impairment(delay=MS, jitter=MS // 2, loss=0.02, corrupt=0.02, duplicate=0.02)
    intact, counters = pair.call_sync("transfer", asked, 200_000)
    assert intact
    assert counters.dropped["loss"] > 0
    assert counters.corrupted > 0


def test_nothing_stays_on_the_interface(pair: Sandbox) -> None:
    pair.call_sync("measure", Impairment(delay=MS), packets=5)
    assert pair.call_sync("filters").strip() == ""


def test_the_end_of_the_process_is_told_with_the_directions_it_takes_down(
    sandbox: Start, command: Sequence[str]
) -> None:
    told: list[str] = []
    pair = sandbox(Pair, command, on_event=told.append)
    assert "near>far" in pair.call_sync("kill_wire")
    assert len(told) == 1
    assert "near>far" in told[0]
    assert "-9" in told[0]


def test_an_interface_that_is_not_there_is_named(pair: Sandbox) -> None:
    assert "none0" in pair.call_sync("refused")


# ---- on a fabric, where Open vSwitch reads and writes the frames


class Lab:
    """A leaf-spine fabric whose switches learn addresses, with no controller."""

    def __init__(self, folder: Path) -> None:
        # Of one MTU throughout: Open vSwitch cuts TCP's large frames by that of the port they leave by.
        plan = msgspec.structs.replace(LeafSpine(1, 2, 1), mtu=1500)
        self.fabric = Fabric(plan, log_directory=folder)
        self.fabric.start()
        self.impairments = Impairments(plan, choose_backend("wire"))

    async def measure(self, names: Sequence[str], impairment: Impairment) -> dict[str, Obtained]:
        handles = [self.impairments.apply(name, impairment) for name in names]
        measured = await asyncio.gather(
            *(measure_link(direction_of(self.impairments.plan, name), wait=500 * MS) for name in names)
        )
        for handle in handles:
            self.impairments.clear(handle)
        return dict(zip(names, measured, strict=True))

    def transfer(self, names: Sequence[str], impairment: Impairment, size: int) -> tuple[bool, list[Counters]]:
        """Send ``size`` bytes from h1 to h2 by TCP with ``names`` impaired."""
        for bridge in ("leaf1", "leaf2", "spine1"):
            run(["ovs-ofctl", "-O", "OpenFlow13", "add-flow", f"unix:/run/openvswitch/{bridge}.mgmt", "actions=NORMAL"])
        for host in ("h1", "h2"):
            with netns.inside(host):
                run(["ip", "route", "replace", "10.0.0.0/16", "dev", f"{host}-eth0"])
        for name in names:
            self.impairments.apply(name, impairment)
        intact = _tcp("h1", "h2", "10.0.2.1", os.urandom(size))
        return intact, [self.impairments.counters(name) for name in names]


def test_every_kind_of_direction_of_a_fabric_is_impaired(sandbox: Start, tmp_path: Path) -> None:
    names = ["h1>leaf1", "leaf1>spine1", "spine1>leaf2", "leaf2>h2"]
    asked = Impairment(delay=40 * MS, loss=0.2)
    measured = sandbox(Lab, tmp_path).call_sync("measure", names, asked)
    assert [verify(asked, measured[name], tolerance=PATIENCE) for name in names] == [[]] * 4


@pytest.mark.parametrize("asked", [Impairment(delay=2 * MS), Impairment(delay=MS, loss=0.005)])
def test_tcp_through_open_vswitch_and_four_impaired_directions_arrives_whole(
    sandbox: Start, tmp_path: Path, asked: Impairment
) -> None:
    names = ["h1>leaf1", "leaf1>spine1", "spine1>leaf2", "leaf2>h2"]
    intact, counters = sandbox(Lab, tmp_path).call_sync("transfer", names, asked, 2_000_000)
    assert intact
    assert all(counted.packets >= 2_000_000 / 1500 for counted in counters)


def _tcp(sender: str, receiver: str, address: str, data: bytes) -> bool:
    """Whether ``data`` arrives as it was sent, from one namespace to another."""
    with netns.inside(receiver):
        server = socket.create_server((address, 7000))
    with netns.inside(sender):
        client = socket.socket()
    received = hashlib.sha256()

    def receive() -> None:
        connection, _ = server.accept()
        with connection:
            while chunk := connection.recv(1 << 16):
                received.update(chunk)

    reader = threading.Thread(target=receive)
    reader.start()
    with server, client:
        client.settimeout(30)
        client.connect((address, 7000))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        reader.join()
    return received.digest() == hashlib.sha256(data).digest()
