"""A fabric is what its plan says, forwards, is a Mininet, and is built nowhere but in a sandbox."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fabric_lab import FabricLab, fabric_lab

from topologies.fabric import CONGESTION_CONTROL, HOST_SYSCTLS, Counters, Fabric, FabricError
from topologies.leaf_spine import LeafSpine
from topologies.plan import PlanError
from topologies.sandbox import Sandbox

pytestmark = pytest.mark.network

PLAN = LeafSpine(2, 2, 2)

LINUX = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with fabric_lab(PLAN, tmp_path_factory.mktemp("fabric")) as sandbox:
        yield sandbox


# -- what is built


@pytest.mark.parametrize("name", [host.name for host in PLAN.hosts])
def test_a_host_is_as_the_plan_has_it(lab: Sandbox, name: str) -> None:
    host = PLAN.host(name)
    (loopback, interface) = json.loads(lab.call_sync("command", name, "ip", "-json", "address")[1])
    (address,) = interface["addr_info"]
    assert loopback["flags"][-2:] == ["UP", "LOWER_UP"]
    assert interface["ifname"] == f"{name}-eth0"
    assert interface["address"] == host.mac
    assert interface["operstate"] == "UP"
    # IPv4 alone: IPv6 is off, on the loopback too.
    assert f"{address['local']}/{address['prefixlen']}" == host.address
    assert [entry["family"] for entry in loopback["addr_info"]] == ["inet"]
    routes = {route["dst"]: route for route in json.loads(lab.call_sync("command", name, "ip", "-json", "route")[1])}
    assert set(routes) == {"default"}
    assert routes["default"]["gateway"] == host.gateway
    (router,) = json.loads(lab.call_sync("command", name, "ip", "-json", "neighbour")[1])
    assert (router["dst"], router["lladdr"], router["state"]) == (host.gateway, PLAN.router_mac, ["PERMANENT"])


def sysctls(lab: FabricLab, host: str, names: list[str]) -> dict[str, str]:
    with lab.net.inside(host):
        return {name: " ".join(Path("/proc/sys/net", name).read_text().split()) for name in names}


def test_a_hosts_settings_are_ours_and_not_the_machines(lab: Sandbox) -> None:
    # What is set for all interfaces the kernel sets for later ones, too.
    expected = {**HOST_SYSCTLS, "ipv6/conf/default/disable_ipv6": "1"}
    assert lab.run_sync(sysctls, "h1", list(expected)) == expected


def congestion_control(lab: FabricLab) -> set[str]:
    """What TCP uses at both ends of a connection between two hosts."""
    with lab.net.inside("h1"):
        listener = socket.create_server((PLAN.host("h1").ip, 0))
    with lab.net.inside("h3"):
        near = socket.create_connection(listener.getsockname(), timeout=5)
    far, _ = listener.accept()
    with listener, near, far:
        ends = [end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16) for end in (near, far)]
    return {end.rstrip(b"\0").decode() for end in ends}


def test_tcp_between_hosts_uses_the_congestion_control_of_all_machines(lab: Sandbox) -> None:
    assert lab.run_sync(congestion_control) == {CONGESTION_CONTROL}


def bulk(lab: FabricLab, sender: str, receiver: str, octets: int) -> tuple[int, int, int]:
    """Octets of one TCP stream that arrived, and segments with a wrong checksum at either end."""
    code = (
        "import socket, sys; s = socket.create_server((sys.argv[1], 9999)); print(flush=True); c, _ = s.accept()\n"
        "print(sum(len(d) for d in iter(lambda: c.recv(1 << 20), b'')))"
    )
    to = PLAN.host(receiver).ip
    sink = lab.net.spawn(receiver, [sys.executable, "-c", code, to], stdout=subprocess.PIPE)
    assert sink.stdout is not None
    sink.stdout.readline()
    code = f"import socket; c = socket.create_connection(({to!r}, 9999)); c.sendall(bytes({octets}))"
    assert lab.command(sender, sys.executable, "-c", code)[0] == 0
    arrived = int(sink.communicate(timeout=30)[0])
    return arrived, wrong_checksums(lab, sender), wrong_checksums(lab, receiver)


def wrong_checksums(lab: FabricLab, host: str) -> int:
    with lab.net.inside(host), open("/proc/thread-self/net/snmp") as table:
        names, values = (line.split() for line in table if line.startswith("Tcp:"))
    return int(dict(zip(names, values, strict=True))["InCsumErrors"])


def link_counters(lab: FabricLab) -> dict[str, Counters]:
    return lab.net.link_counters()


@pytest.mark.parametrize(("sender", "receiver"), [("h1", "h2"), ("h1", "h3")])
def test_bulk_tcp_arrives_whole_with_offloads_on(lab: Sandbox, sender: str, receiver: str) -> None:
    octets = 20_000_000
    before = lab.run_sync(link_counters)
    assert lab.run_sync(bulk, sender, receiver, octets) == (octets, 0, 0)
    after = lab.run_sync(link_counters)
    direction = f"{sender}>{PLAN.host(sender).leaf}"
    assert after[direction].bytes - before[direction].bytes > octets


def test_a_datagram_as_large_as_udp_allows_arrives(lab: Sandbox) -> None:
    status, shown = lab.call_sync("command", "h1", "ping", "-c1", "-W5", "-s", "60000", PLAN.host("h3").ip)
    assert status == 0, shown


def burst_while_the_switches_wait(lab: FabricLab, packets: int) -> int:
    """How many of so many small packets from h1 arrive at h3 when ovs-vswitchd gets no processor meanwhile."""
    with lab.net.inside("h3"):
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sink.bind((PLAN.host("h3").ip, 0))
    with lab.net.inside("h1"):
        source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    switches = int(Path("/run/openvswitch/ovs-vswitchd.pid").read_text())
    with sink, source:
        source.connect(sink.getsockname())
        source.send(b"first")  # finds the way: ARP, and what the datapath is to remember
        sink.settimeout(5)
        sink.recv(16)
        os.kill(switches, signal.SIGSTOP)
        try:
            for _ in range(packets):
                source.send(b"more")
        finally:
            os.kill(switches, signal.SIGCONT)
        sink.settimeout(0.5)
        arrived = 0
        with suppress(TimeoutError):
            while sink.recv(16):
                arrived += 1
    return arrived


def test_switches_that_have_to_wait_for_a_processor_lose_nothing(lab: Sandbox) -> None:
    # A socket's default buffer holds under 300 of these.
    assert lab.run_sync(burst_while_the_switches_wait, 400) == 400


async def counted(lab: FabricLab) -> dict[str, int]:
    """Packets in each direction because of 100 probes from h1 to h3."""
    before = lab.net.link_counters()
    await lab.net.prober.measure([("h1", "h3")], probes=100, timeout=1)
    after = lab.net.link_counters()
    return {direction: after[direction].packets - before[direction].packets for direction in after}


def test_link_counters_count_each_direction_of_each_link(lab: Sandbox) -> None:
    packets = lab.run_sync(counted)
    assert set(packets) == {direction for link in PLAN.links for direction in link.directions}
    assert 100 <= packets["h1>leaf1"] < 150
    assert 100 <= packets["leaf2>h3"] < 150
    assert 100 <= packets["leaf1>spine1"] + packets["leaf1>spine2"] < 150
    # ARP and other hosts' neighbour upkeep at most.
    assert packets["h2>leaf1"] < 50
    assert packets["spine1>leaf1"] + packets["spine2>leaf1"] < 50


# -- programs in it


def failed_spawn(lab: FabricLab) -> tuple[bool, bool]:
    before = os.stat("/proc/thread-self/ns/net").st_ino
    try:
        lab.net.spawn("h1", ["/no/such/program"])
    except FileNotFoundError:
        return True, os.stat("/proc/thread-self/ns/net").st_ino == before
    return False, False


def test_a_program_that_cannot_start_leaves_nobody_in_the_wrong_namespace(lab: Sandbox) -> None:
    assert lab.run_sync(failed_spawn) == (True, True)


def test_a_program_is_in_its_host_and_gets_its_environment(lab: Sandbox) -> None:
    assert lab.call_sync("command", "h2", "sh", "-c", "ip -o -4 addr show h2-eth0")[1].split()[3] == "10.0.1.2/24"
    assert lab.run_sync(spawned_with, {"ANSWER": "42", "PATH": os.environ["PATH"]}) == b"42\n"


def spawned_with(lab: FabricLab, env: dict[str, str]) -> bytes:
    process = lab.net.spawn("h1", ["sh", "-c", "echo $ANSWER"], env=env, stdout=subprocess.PIPE, cwd="/")
    return process.communicate()[0]


def test_a_host_the_plan_does_not_have_is_refused(lab: Sandbox) -> None:
    with pytest.raises(PlanError, match="no host 'h99'; there is h1"):
        lab.call_sync("command", "h99", "true")


# -- Mininet's face


def mininet(lab: FabricLab) -> dict[str, Any]:
    net = lab.net
    shells = sum(host._shell is not None for host in net.hosts)
    seen = {
        "shells before the first command": shells,
        "cmd": net.get("h1").cmd("ip -o -4 addr show h1-eth0").split()[3],
        "shells after it": sum(host._shell is not None for host in net.hosts),
        "popen": net["h2"].popen("ip -o -4 addr show h2-eth0").communicate()[0].decode().split()[3],
        "shells after popen": sum(host._shell is not None for host in net.hosts),
        "names": list(net),
        "IP": net["h3"].IP(),
        "MAC": net["h3"].MAC(),
        "default interface": str(net["h3"].defaultIntf()),
        "connections": [f"{a}-{b}" for a, b in net["leaf1"].connectionsTo(net["spine2"])],
        "links": sorted(link.name for link in net.links),
        "connected": net.waitConnected(timeout=5),
        "dpctl": net["leaf1"].dpctl("dump-flows").count("cookie"),
        "pid is of a process in the host": net["h1"].cmd("readlink /proc/self/ns/net").strip()
        == os.readlink(f"/proc/{net['h1'].pid}/ns/net"),
        "loss": net.pingAll(),
    }
    net.configLinkStatus("leaf1", "h1", "down")
    seen["loss to a host that is cut off"] = net.ping([net["h1"], net["h2"]], timeout="1")
    net.configLinkStatus("leaf1", "h1", "up")
    return seen


def test_it_is_a_mininet_whose_shells_start_when_they_are_used(lab: Sandbox) -> None:
    seen = lab.run_sync(mininet)
    assert seen.pop("dpctl") > 5
    assert seen == {
        "shells before the first command": 0,
        "cmd": "10.0.1.1/24",
        "shells after it": 1,
        "popen": "10.0.1.2/24",
        "shells after popen": 1,
        "names": ["h1", "h2", "h3", "h4", "leaf1", "leaf2", "spine1", "spine2"],
        "IP": "10.0.2.1",
        "MAC": PLAN.host("h3").mac,
        "default interface": "h3-eth0",
        "connections": ["leaf1-eth4-spine2-eth1"],
        "links": sorted(link.name for link in PLAN.links),
        "connected": True,
        "pid is of a process in the host": True,
        "loss": 0.0,
        "loss to a host that is cut off": 100.0,
    }


def typed(lab: FabricLab, *lines: str) -> None:
    """Type these lines at Mininet's prompt."""
    from mininet.cli import CLI

    script = Path("/run/typed")
    script.write_text("\n".join(lines) + "\n")
    CLI(lab.net, script=str(script))


def test_mininets_prompt_runs_commands_in_hosts_and_takes_links_and_switches_down_and_up(lab: Sandbox) -> None:
    lab.run_sync(typed, "h3 ip -o -4 addr > /run/seen", "link leaf1 spine1 down")
    assert "10.0.2.1/24" in lab.run_sync(read, "/run/seen")
    assert lab.call_sync("carriers", "leaf1-spine1") == [False, False]
    lab.run_sync(typed, "link leaf1 spine1 up", "switch leaf2 stop")
    assert lab.call_sync("carriers", "leaf1-spine1") == [True, True]
    assert lab.call_sync("matrix", ["h1", "h2", "h3"], 1)["h3"] == {"h1": [1, 0], "h2": [1, 0]}
    lab.run_sync(typed, "switch leaf2 start")
    lab.call_sync("wait_ready")
    assert lab.call_sync("matrix", ["h1", "h3"], 1) == {"h1": {"h3": [1, 1]}, "h3": {"h1": [1, 1]}}


def read(lab: FabricLab, path: str) -> str:
    return Path(path).read_text()


@pytest.mark.parametrize(
    ("src", "dst", "status", "says"),
    [
        ("leaf1", "leaf2", "down", "no link between"),
        ("leaf1", "spine1", "sideways", "'sideways' is not a link's status"),
    ],
)
def test_a_link_status_that_cannot_be_is_refused(lab: Sandbox, src: str, dst: str, status: str, says: str) -> None:
    with pytest.raises((FabricError, PlanError), match=says):
        lab.run_sync(configure_link, src, dst, status)


def configure_link(lab: FabricLab, *what: str) -> None:
    lab.net.configLinkStatus(*what)


# -- life


class Empty:
    """A sandbox in which nothing is built yet."""


async def lives(_: Empty) -> list[tuple[int, list[str], list[str]]]:
    """What h1's link carried in each of a fabric's two lives, and interfaces and names of namespaces after it."""
    seen = []
    net = Fabric(PLAN, controller=None)
    for _life in range(2):
        with net:
            net["h1"].cmd("true")
            before = net.link_counters()["h1>leaf1"].packets
            await net.prober.measure([("h1", "h2")], probes=1, timeout=0.2)  # an ARP request that nobody answers
            carried = net.link_counters()["h1>leaf1"].packets - before
        seen.append((min(carried, 1), os.listdir("/sys/class/net"), os.listdir("/run/netns")))
    return seen


def test_a_stopped_fabric_leaves_nothing_and_can_be_started_again(tmp_path: Path) -> None:
    with Sandbox(Empty, out=tmp_path) as sandbox:
        assert sandbox.run_sync(lives) == [(1, ["lo"], [])] * 2


def silent_hosts(_: Empty) -> list[str]:
    """Of a large fabric just built, the hosts whose first packet, to their gateway, does not reach their leaf."""
    plan = LeafSpine(1, 2, 200)
    with Fabric(plan, controller=None) as net:
        before = net.link_counters()
        for host in plan.hosts:
            with net.inside(host.name), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
                source.sendto(b"", (host.gateway, 9))
        after = net.link_counters()
    links = {host.name: f"{host.name}>{host.leaf}" for host in plan.hosts}
    return [name for name, link in links.items() if after[link].packets == before[link].packets]


@pytest.mark.skipif(LINUX < (6, 8), reason="this kernel lets ends of links send a hundred a second")
def test_all_hosts_of_a_large_fabric_can_send_when_it_is_built(tmp_path: Path) -> None:
    with Sandbox(Empty, out=tmp_path) as sandbox:
        assert sandbox.run_sync(silent_hosts) == []


def allowed_few_files(_: Empty) -> tuple[int, int]:
    """How many ports a fabric has, and how many files a process could have open before it was built."""
    few = 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with Fabric(LeafSpine(2, 2, 40), datapath="netdev", controller=None) as net:
        assert net.ovs is not None
        return len(net.ovs.ports()), few


def test_a_fabric_of_more_ports_than_a_process_may_have_files_raises_its_limit(tmp_path: Path) -> None:
    with Sandbox(Empty, out=tmp_path) as sandbox:
        ports, few = sandbox.run_sync(allowed_few_files)
    assert ports > few


async def waits_in_vain(_: Empty, controller: str | None) -> None:
    with Fabric(PLAN, controller=controller) as net:
        await net.wait_ready(0.5)


@pytest.mark.parametrize(
    ("controller", "says"),
    [
        ("tcp:127.0.0.1:6653", "did not connect to a controller at tcp:127.0.0.1:6653"),
        (None, "does not forward after 0.5 s: .* probes are missing, the first from h1 to h2"),
    ],
)
def test_a_fabric_that_does_not_get_ready_says_what_is_missing(
    tmp_path: Path, controller: str | None, says: str
) -> None:
    with Sandbox(Empty, out=tmp_path) as sandbox, pytest.raises(FabricError, match=says):
        sandbox.run_sync(waits_in_vain, controller)


def logs(_: Empty, folder: Path) -> None:
    with Fabric(PLAN, controller=None, log_directory=folder):
        pass


def test_open_vswitchs_logs_go_where_they_are_wanted(tmp_path: Path) -> None:
    with Sandbox(Empty, out=tmp_path) as sandbox:
        sandbox.run_sync(logs, tmp_path)
    assert "bridge leaf1: added interface leaf1-eth1 on port 1" in (tmp_path / "ovs-vswitchd.log").read_text()
    assert (tmp_path / "ovsdb-server.log").exists()


def without_open_vswitch(_: Empty) -> None:
    from topologies import openvswitch

    fabric = Fabric(PLAN, controller=None)
    os.environ["PATH"] = openvswitch._SYSTEM_PATH = "/nowhere"
    fabric.start()


def test_a_machine_without_open_vswitch_is_told_how_to_get_it(tmp_path: Path) -> None:
    with (
        Sandbox(Empty, out=tmp_path) as sandbox,
        pytest.raises(FabricError, match=r"ovsdb-tool is not there.*apt install openvswitch-switch"),
    ):
        sandbox.run_sync(without_open_vswitch)


def test_a_fabric_is_not_built_in_the_machines_own_namespaces() -> None:
    # The test itself runs there, or in a container whose network is in use.
    with pytest.raises(FabricError, match="inside a sandbox"):
        Fabric(PLAN).start()


def refused(_: Empty) -> tuple[str, bool, list[str]]:
    """What a fabric says where somebody else's network is, and what is left of that."""
    os.mkdir("/run/netns")
    Path("/run/netns/h1").touch()
    subprocess.run("ip link add eth0 group 91 type veth peer leaf1 && ip link set eth0 up", shell=True, check=True)
    try:
        with Fabric(PLAN, controller=None):
            return "nothing", False, []
    except FabricError as error:
        return str(error), Path("/run/netns/h1").exists(), sorted(os.listdir("/sys/class/net"))


def test_a_fabric_that_is_refused_takes_nothing_of_others_away(tmp_path: Path) -> None:
    with Sandbox(Empty, out=tmp_path) as sandbox:
        says, name_is_there, interfaces = sandbox.run_sync(refused)
    assert "this network namespace is in use, it has eth0" in says
    assert name_is_there
    assert interfaces == ["eth0", "leaf1", "lo"]


def test_constructing_a_fabric_touches_nothing_of_the_machine(tmp_path: Path) -> None:
    limits = [Path("/proc/sys", name) for name in ("net/core/wmem_max", "net/ipv4/neigh/default/gc_thresh1")]
    before = [limit.read_text() for limit in limits]
    Fabric(PLAN)
    assert [limit.read_text() for limit in limits] == before


def test_an_address_that_is_no_controllers_is_refused_with_an_example() -> None:
    with pytest.raises(FabricError, match=r"'127\.0\.0\.1' is not a controller: write tcp:ADDRESS:PORT"):
        Fabric(PLAN, controller="127.0.0.1")
