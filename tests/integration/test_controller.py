"""The controller on real Open vSwitch: what the fabric does while links and controllers fail."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controllers import status
from controllers.pipeline import FABRIC_COOKIE
from topologies.fabric import Fabric
from topologies.impair import Impairments, choose_backend
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.openvswitch import RUN_DIRECTORY
from topologies.plan import FAULT_COOKIE, FabricPlan
from topologies.sandbox import Sandbox

pytestmark = pytest.mark.network

#: What a run may wait for anything on a machine that does other things too, in seconds.
PATIENCE = 30.0

NORTHBOUND = 8080
FLOWS = 8
SPACING_S = 0.004


class Lab:
    """Lives in the sandbox: a fabric of ``plan``, its controller, and traffic."""

    def __init__(self, plan: FabricPlan, folder: Path, *how: str) -> None:
        """``how`` starts the controller: the library for our launcher, or Python's arguments."""
        self.plan = plan
        self.fabric = Fabric(plan, log_directory=folder)
        self.status = folder / "controller.jsonl"
        self.plan_file = folder / "plan.json"
        self.plan_file.write_bytes(plan.to_json())
        if len(how) == 1:
            files = ("--plan", str(self.plan_file), "--status", str(self.status))
            how = ("-m", "controllers.launch", *files, "--northbound", f"127.0.0.1:{NORTHBOUND}", "--framework", *how)
        self.argv = [sys.executable, *how]
        self.start_controller()

    def start_controller(self) -> None:
        variables = {"SPLITBRAIN_PLAN": str(self.plan_file), "SPLITBRAIN_STATUS": str(self.status)}
        self.controller = subprocess.Popen(self.argv, env=os.environ | variables)

    def kill_controller(self) -> None:
        self.controller.kill()
        self.controller.wait()

    async def build(self) -> None:
        self.fabric.start()
        await self.fabric.wait_ready(PATIENCE)

    def get(self, page: str) -> tuple[int, bytes]:
        """Status and body of what the controller answers to a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", NORTHBOUND, timeout=PATIENCE)
        connection.request("GET", page)
        reply = connection.getresponse()
        return reply.status, reply.read()

    def babble(self, where: int | str, sentences: list[bytes]) -> None:
        """Connect to the controller's port or a switch's socket and say each of these, a connection for every one."""
        family, address = (socket.AF_INET, ("127.0.0.1", where)) if isinstance(where, int) else (socket.AF_UNIX, where)
        for sentence in sentences:
            with socket.socket(family) as peer, contextlib.suppress(OSError):
                peer.settimeout(PATIENCE)
                peer.connect(address)
                peer.sendall(sentence)
                peer.settimeout(0.05)
                while peer.recv(1 << 16):
                    pass

    def events(self) -> list[status.Event]:
        return status.read(self.status.read_bytes()) if self.status.exists() else []

    async def unreachable(self) -> list[tuple[str, str]]:
        """The pairs of hosts of which one does not get all of five probes, on ports of their own, from the other."""
        pairs = list(itertools.permutations([host.name for host in self.plan.hosts], 2))
        cells = await self.fabric.prober.measure(pairs, probes=5, timeout=1.0)
        return [pair for pair in pairs if cells[pair].arrived < 5]

    def pings(self, host: str, address: str) -> bool:
        return self.fabric.spawn(host, ["ping", "-q", "-c", "1", "-W", "2", address], stdout=-3).wait() == 0

    def cut(self, link: str) -> None:
        self.fabric.dataplane.cut(link)

    def restore(self, link: str) -> None:
        self.fabric.dataplane.restore(link)

    def drop(self, receiver: str, sender: str) -> None:
        self.grudge = self.fabric.dataplane.drop({receiver: {sender}})

    def lift(self) -> None:
        self.grudge.lift()

    def flows(self, switch: str) -> str:
        return self._ofctl("dump-flows", switch)

    def delete_flows(self, switch: str, match: str) -> None:
        self._ofctl("del-flows", switch, match)

    def _ofctl(self, *words: str) -> str:
        argv = ["ovs-ofctl", "-O", "OpenFlow15", *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def spread(self, kind: int, flows: int) -> dict[str, float]:
        """Open that many connections (SOCK_STREAM) or send that many datagrams from h1 to the last host; the share of
        leaf1's packets that each uplink took."""
        first, last = self.plan.hosts[0], self.plan.hosts[-1]
        with self.fabric.inside(last.name):
            sink = socket.socket(socket.AF_INET, kind)
            sink.bind((last.ip, 9000))
        if kind == socket.SOCK_STREAM:
            sink.listen(flows)
        uplinks = [f"leaf1>{switch.name}" for switch in self.plan.by_role("spine")]
        before = self.fabric.link_counters()
        with contextlib.ExitStack() as stack:
            stack.enter_context(sink)
            with self.fabric.inside(first.name):
                sources = [stack.enter_context(socket.socket(socket.AF_INET, kind)) for _ in range(flows)]
            for source_port, source in enumerate(sources, 20_000):
                source.bind((first.ip, source_port))
                source.connect((last.ip, 9000))
                for _ in range(4 if kind == socket.SOCK_DGRAM else 0):
                    source.send(bytes(100))
                time.sleep(0.0005)
            time.sleep(0.2)
        after = self.fabric.link_counters()
        taken = {uplink: after[uplink].packets - before[uplink].packets for uplink in uplinks}
        return {uplink: packets / sum(taken.values()) for uplink, packets in taken.items()}

    def pump(self, seconds: float, at: float = 0.0, action: str = "", *args: str) -> dict[str, float]:
        """Send `FLOWS` flows of datagrams from h1 to the last host, `SPACING_S` apart, and call ``action`` meanwhile.

        Returns the longest silence of any flow and of the sender itself, in milliseconds, how many were lost, and how
        many of these because the machine gave the switches no time: they never left the ports' sockets (ss(8), -m).
        """
        first, last = self.plan.hosts[0], self.plan.hosts[-1]
        with contextlib.ExitStack() as stack:
            with self.fabric.inside(last.name):
                sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sink.bind((last.ip, 9001))
            sink.setblocking(False)
            sources = []
            with self.fabric.inside(first.name):
                for source_port in range(21_000, 21_000 + FLOWS):
                    source = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    source.bind((first.ip, source_port))
                    source.connect((last.ip, 9001))
                    sources.append(source)
            overrun = _overruns()
            timer = threading.Timer(at, getattr(self, action, lambda: None), args)
            timer.start()
            start = sent_at = time.monotonic()
            heard = [start] * FLOWS
            silence = stall = 0.0
            sent = received = 0
            while (now := time.monotonic()) < start + seconds + 0.3:
                if sent_at + SPACING_S <= now < start + seconds:
                    stall, sent_at = max(stall, now - sent_at), now
                    for number, source in enumerate(sources):
                        source.send(bytes([number]))
                    sent += FLOWS
                with contextlib.suppress(BlockingIOError):
                    while True:
                        number = sink.recv(16)[0]
                        now = time.monotonic()
                        silence, heard[number] = max(silence, now - heard[number]), now
                        received += 1
                time.sleep(0.0003)
            timer.join()
            silence = max(silence, start + seconds - min(heard))
        return {
            "silence_ms": silence * 1e3,
            "stall_ms": stall * 1e3,
            "lost": sent - received,
            "overrun": _overruns() - overrun,
        }


def _overruns() -> int:
    listed = subprocess.run(["ss", "-0", "-n", "-m"], check=True, capture_output=True, text=True).stdout
    return sum(map(int, re.findall(r",d(\d+)\)", listed)))


Start = Callable[..., Sandbox]


def wait_for(lab: Sandbox, wanted: Callable[[list[status.Event]], Any], after: int = 0) -> Any:
    """What ``wanted`` makes of the events from number ``after`` on, once it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := wanted(events := lab.call_sync("events")[after:])):
        assert time.monotonic() < deadline, f"waited in vain: {events}"
        time.sleep(0.01)
    return found


def all_ready(plan: FabricPlan) -> Callable[[list[status.Event]], list[status.Ready]]:
    """All of the switches' `status.Ready`, once the last of them is there."""

    def wanted(events: list[status.Event]) -> list[status.Ready]:
        ready = [event for event in events if isinstance(event, status.Ready)]
        return ready if ready and len(ready[-1].ready) == len(plan.switches) else []

    return wanted


def repaired(*dead: str) -> Callable[[list[status.Event]], status.Repaired | None]:
    def wanted(events: list[status.Event]) -> status.Repaired | None:
        done = (event for event in events if isinstance(event, status.Repaired) and event.dead == dead)
        return next(done, None)

    return wanted


PLAN = LeafSpine(4, 2, 2)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """One fabric for several tests, which leave it whole."""
    folder = tmp_path_factory.mktemp("lab")
    with Sandbox(Lab, PLAN, folder, "ryu", out=folder) as lab:
        lab.call_sync("build")
        wait_for(lab, all_ready(PLAN))
        yield lab


@pytest.mark.parametrize("library", ["ryu", "os_ken"])
def test_all_pairs_reach_each_other_and_every_gateway_under_either_library(
    sandbox: Start, tmp_path: Path, library: str
) -> None:
    plan = LeafSpine(2, 3, 2)
    lab = sandbox(Lab, plan, tmp_path, library)
    lab.call_sync("build")
    listening, *_ = lab.call_sync("events")
    assert (listening.framework, listening.address) == (library, "127.0.0.1:6653")
    assert all(event.changes > 0 for event in wait_for(lab, all_ready(plan)))
    assert lab.call_sync("unreachable") == []
    assert all(lab.call_sync("pings", "h1", host.gateway) for host in plan.hosts)
    pages = ("/partitions", "/metrics", "/paths/h1/h6")
    assert [lab.call_sync("get", page)[0] for page in pages] == [200] * 3


def test_ryus_own_manager_loads_the_application_by_its_path(sandbox: Start, tmp_path: Path) -> None:
    application = Path(__file__).parents[2] / "controllers" / "fabric.py"
    start = "import controllers.framework; from ryu.cmd.manager import main; main()"
    lab = sandbox(Lab, LeafSpine(1, 2, 1), tmp_path, "-c", start, str(application))
    lab.call_sync("build")
    wait_for(lab, all_ready(LeafSpine(1, 2, 1)))
    assert lab.call_sync("unreachable") == []


def test_datagrams_and_connections_spread_over_the_spines_by_their_ports(lab: Sandbox) -> None:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        shares = lab.call_sync("spread", kind, 256)
        assert min(shares.values()) >= 0.15, shares


def test_dead_links_near_and_far_are_repaired_around_and_taken_back_when_they_return(lab: Sandbox) -> None:
    for link in ("leaf1-spine1", "leaf2-spine2"):
        seen = len(lab.call_sync("events"))
        gap = lab.call_sync("pump", 1.5, 0.5, "cut", link)
        assert gap["silence_ms"] < 500, gap
        report = wait_for(lab, repaired(link), seen)
        assert report.changes <= 4
        assert lab.call_sync("unreachable") == []
        seen = len(lab.call_sync("events"))
        gap = lab.call_sync("pump", 1.5, 0.5, "restore", link)
        assert gap["silence_ms"] < 500, gap
        wait_for(lab, repaired(), seen)
    assert lab.call_sync("unreachable") == []


def test_killing_the_controller_loses_nothing_and_its_successor_sends_nothing(lab: Sandbox) -> None:
    lab.call_sync("drop", "h1", "h4")
    faults = _matching(FAULT_COOKIE, lab.call_sync("flows", "leaf1"))
    flows = _matching(FABRIC_COOKIE, lab.call_sync("flows", "leaf1"))
    assert len(faults) == 1
    gap = lab.call_sync("pump", 1.0, 0.2, "kill_controller")
    assert gap["lost"] <= gap["overrun"], gap
    seen = len(lab.call_sync("events"))
    began = time.monotonic()
    gap = lab.call_sync("pump", 2.0, 0.2, "start_controller")
    assert gap["lost"] <= gap["overrun"], gap
    assert [event.changes for event in wait_for(lab, all_ready(PLAN), seen)] == [0] * len(PLAN.switches)
    left = lab.call_sync("flows", "leaf1")
    assert _matching(FAULT_COOKIE, left) == faults
    assert _matching(FABRIC_COOKIE, left) == flows
    ages = [float(age) for age in re.findall(r"duration=([0-9.]+)s", left)]
    assert min(ages) > time.monotonic() - began, "a flow is younger than the controller"
    assert lab.call_sync("unreachable") == [("h4", "h1")]
    lab.call_sync("lift")


def test_a_controller_that_comes_back_puts_right_what_was_lost_or_failed_while_it_was_gone(lab: Sandbox) -> None:
    lab.call_sync("kill_controller")
    lab.call_sync("cut", "leaf2-spine3")
    lab.call_sync("delete_flows", "leaf1", "table=2")
    assert lab.call_sync("unreachable") != []
    seen = len(lab.call_sync("events"))
    lab.call_sync("start_controller")
    wait_for(lab, repaired("leaf2-spine3"), seen)
    wait_for(lab, all_ready(PLAN), seen)
    everyone_reached(lab)  # once Open vSwitch goes by the new tables, and not by what it had cached of the old ones
    lab.call_sync("restore", "leaf2-spine3")
    wait_for(lab, repaired(), seen)


class WatchedLab(Lab):
    """A lab whose links can be silenced."""

    async def build(self) -> None:
        await super().build()
        self.impairments = Impairments(self.plan, choose_backend())

    def silence(self, direction: str) -> None:
        self.silenced = self.impairments.apply(direction, Impairment(loss=1.0))

    def unsilence(self) -> None:
        self.impairments.clear(self.silenced)


@pytest.mark.parametrize("direction", ["leaf1>spine1", "spine2>leaf2"])
def test_a_link_that_is_silently_deaf_one_way_is_found_by_bfd_and_left_and_trusted_again(
    sandbox: Start, tmp_path: Path, direction: str
) -> None:
    plan = msgspec.structs.replace(LeafSpine(2, 2, 1), bfd_interval=50_000_000)
    link = next(link.name for link in plan.links if direction in link.directions)
    lab = sandbox(WatchedLab, plan, tmp_path, "ryu")
    lab.call_sync("build")
    wait_for(lab, lambda events: all(link["up"] for link in json.loads(lab.call_sync("get", "/links")[1])["links"]))
    seen = len(lab.call_sync("events"))
    lab.call_sync("silence", direction)
    wait_for(lab, repaired(link), seen)
    everyone_reached(lab)
    seen = len(lab.call_sync("events"))
    lab.call_sync("unsilence")
    wait_for(lab, repaired(), seen)
    everyone_reached(lab)


def everyone_reached(lab: Sandbox, within: float = 10.0) -> None:
    """On a busy machine BFD may take a healthy link for dead for a moment; it is trusted again two seconds later."""
    deadline = time.monotonic() + within
    while (unreachable := lab.call_sync("unreachable")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert unreachable == []


def test_the_controller_answers_over_http_what_the_switches_hold_and_told(lab: Sandbox) -> None:
    lab.call_sync("drop", "h1", "h4")
    page = json.loads(lab.call_sync("get", "/partitions")[1])
    assert [rules["deaf"] for rules in page["partitions"]] == [{"h1": ["h4"]}]
    lab.call_sync("lift")
    assert json.loads(lab.call_sync("get", "/partitions")[1]) == {"partitions": []}
    seen = len(lab.call_sync("events"))
    lab.call_sync("cut", "leaf1-spine2")
    wait_for(lab, repaired("leaf1-spine2"), seen)
    links = json.loads(lab.call_sync("get", "/links")[1])["links"]
    assert [link["name"] for link in links if not link["up"]] == ["leaf1-spine2"]
    assert len(json.loads(lab.call_sync("get", "/paths/h1/h4")[1])["paths"]) == 3
    assert b'splitbrain_link_up{link="leaf1-spine2"} 0' in lab.call_sync("get", "/metrics")[1]
    assert lab.call_sync("get", "/nothing")[0] == 404
    lab.call_sync("restore", "leaf1-spine2")
    wait_for(lab, repaired(), seen)


def test_peers_that_talk_nonsense_change_nothing(lab: Sandbox) -> None:
    rng = random.Random(7)
    hello = struct.pack("!BBHI", 6, 0, 8, 1)
    features = struct.pack("!BBHIQIBBHII", 6, 6, 32, 2, 0x1001, 0, 254, 0, 0, 0, 0)  # leaf1, as it says
    nonsense = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 64,
        b"\xff" * 64,
        struct.pack("!BBHI", 6, 0, 0, 1),
        struct.pack("!BBHI", 99, 200, 8, 1),
        hello + struct.pack("!BBHI", 6, 6, 9, 2) + b"x",
        hello + features[:20],
        hello + features + struct.pack("!BBHIHHI", 6, 19, 16, 3, 13, 0, 0) + rng.randbytes(200),
        *(hello + rng.randbytes(rng.randrange(400)) for _ in range(10)),
    ]
    seen = len(lab.call_sync("events"))
    lab.call_sync("babble", 6653, nonsense)
    lab.call_sync("babble", NORTHBOUND, nonsense)
    posed = [event for event in lab.call_sync("events")[seen:] if isinstance(event, status.Connected)]
    assert {event.switch for event in posed} == {"leaf1"}, "nobody was taken for leaf1, so this tests less than it says"
    assert lab.call_sync("unreachable") == []
    deadline = time.monotonic() + PATIENCE
    while not all(switch["ready"] for switch in json.loads(lab.call_sync("get", "/switches")[1])["switches"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    seen = len(lab.call_sync("events"))
    lab.call_sync("cut", "leaf2-spine1")
    wait_for(lab, repaired("leaf2-spine1"), seen)
    lab.call_sync("restore", "leaf2-spine1")
    wait_for(lab, repaired(), seen)
    assert lab.call_sync("unreachable") == []


def test_switches_that_are_told_nonsense_go_on_forwarding_and_obeying(lab: Sandbox) -> None:
    rng = random.Random(11)
    hello = struct.pack("!BBHI", 6, 0, 8, 1)
    nonsense = [
        rng.randbytes(3000),
        b"{" * 100_000,
        hello + struct.pack("!BBHI", 6, 14, 0xFFFF, 2) + rng.randbytes(300),  # a FlowMod longer than what comes
        *(hello + struct.pack("!BBHI", 6, kind, 48, 3) + rng.randbytes(40) for kind in range(30)),
    ]
    for name in ("leaf1.mgmt", "leaf2.snoop", "db.sock"):
        lab.call_sync("babble", str(RUN_DIRECTORY / name), nonsense)
    assert lab.call_sync("unreachable") == []
    lab.call_sync("drop", "h1", "h3")
    assert ("h3", "h1") in lab.call_sync("unreachable")
    lab.call_sync("lift")
    assert lab.call_sync("unreachable") == []


def _matching(cookie: int, dump: str) -> list[str]:
    """The flows of a dump whose cookie has the same upper 16 bits, without what counts up by itself."""
    kept = [line for line in dump.splitlines() if f"cookie={cookie >> 48:#x}" in line]
    return sorted(re.sub(r"(duration|n_packets|n_bytes|idle_age)=[^,]*,", "", line) for line in kept)
