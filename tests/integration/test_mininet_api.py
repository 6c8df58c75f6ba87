"""Mininet's public interface does the same on stock Mininet and on our fabrics, here on Mininet's own topologies."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from topologies.fabric import Fabric, FabricError
from topologies.mininet_topo import Mininet, net, plan_of, topo_of
from topologies.openvswitch import OpenVSwitch
from topologies.plan import FabricPlan, PlanError
from topologies.routed_fabric import RoutedFabric
from topologies.sandbox import Sandbox

pytestmark = pytest.mark.network

CHECKOUT = Path(__file__).resolve().parents[2]


class Lab:
    """One of the networks that are to behave the same, started, with a controller where it needs one."""

    def __init__(self, kind: str, topology: str) -> None:
        self.net: Any = {"mininet": self._stock, "fabric": self._fabric, "routed": RoutedFabric}[kind](topo(topology))
        self.net.start()

    async def wait_ready(self) -> None:
        if isinstance(self.net, Fabric):
            await self.net.wait_ready(30)

    def _stock(self, topo: Any) -> Any:
        from mininet.node import OVSBridge

        OpenVSwitch("netdev", segmentation_offload=False).start()
        Mininet.inited = True  # it would set sysctls of the whole machine
        net = Mininet(topo, switch=partial(OVSBridge, datapath="user"), controller=None)
        for host in net.hosts:  # or TCP's checksums are wrong behind the user space datapath
            host.cmd(f"ethtool -K {host.defaultIntf()} tx off")
        return net

    def _fabric(self, topo: Any) -> Fabric:
        Path("/run/plan.json").write_bytes(plan_of(topo).to_json())
        command = [sys.executable, "-m", "controllers.launch", "--plan", "/run/plan.json"]
        self.controller = subprocess.Popen([*command, "--status", "/run/status.jsonl"], cwd=CHECKOUT)
        return Fabric(topo)


def topo(text: str) -> Any:
    from mininet.topo import LinearTopo
    from mininet.topolib import TreeTopo

    kind, *sizes = text.split(",")
    return {"tree": TreeTopo, "linear": LinearTopo}[kind](*map(int, sizes))


def use(lab: Lab) -> dict[str, Any]:
    """What a person sees who uses a tree of two leaves with two hosts each by Mininet's interface."""
    from mininet.cli import CLI

    net = lab.net
    h1, h4, s1, s2 = net.get("h1", "h4", "s1", "s2")
    popen = h4.popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    h1.sendCmd("echo sent")
    script = Path("/run/script")
    script.write_text("py net\nh1 hostname > /run/typed; ip -o -4 addr show h1-eth0 >> /run/typed\nlink s1 s2 down\n")
    seen = {
        "nodes": sorted(net),
        "keys": sorted(net.keys()) == sorted(net),
        "values": all(net[node.name] is node for node in net.values()),
        "items": all(net[name] is node for name, node in net.items()),
        "len": len(net),
        "in": ("h4" in net, "h5" in net),
        "hosts": [host.name for host in net.hosts],
        "switches": sorted(switch.name for switch in net.switches),
        "links": len(net.links),
        "between": [len(net.linksBetween(s1, s2)), len(net.linksBetween(h1, s2)), len(net.linksBetween(h1, h4))],
        "interfaces": [h1.intfNames(), s1.intfNames()[1:], sorted(s2.intfNames()[1:])],
        "connections": [(str(a), str(b)) for a, b in h1.connectionsTo(s2)],
        "sendCmd": h1.waitOutput().split(),
        "IP": h1.cmd("ip -o -4 addr show h1-eth0").split()[3].partition("/")[0] == h1.IP(),
        "MAC": h1.MAC() in h1.cmd("ip link show h1-eth0"),
        "pexec": h4.pexec("sh", "-c", "echo out; echo err >&2; exit 7"),
        "popen": popen.communicate(b"echo")[0],
        "intfIsUp": h1.intf("h1-eth0").isUp(),
        "pingAll": net.pingAll(timeout="2"),
        "pingPair": net.pingPair(),
        "ping": net.ping([h1, h4], timeout="2"),
        "pingFull": [(a.name, b.name, sent, got) for a, b, (sent, got, *_) in net.pingFull([h1, h4])],
        "iperf": [rate.split()[-1] for rate in net.iperf([h1, h4], l4Type="UDP", udpBw="2M", seconds=1)],
    }
    net.configLinkStatus("s1", "s2", "down")
    seen["ping over a link that is down"] = net.ping([h1, h4], timeout="1")
    net.configLinkStatus("s1", "s2", "up")
    seen["ping over a link that is up again"] = min(net.ping([h1, h4], timeout="1") for _ in range(5))
    CLI(net, script=str(script))
    seen["typed"] = h1.IP() in Path("/run/typed").read_text()
    seen["ping over a link that a script took down"] = net.ping([h1, h4], timeout="1")
    return seen


@pytest.mark.parametrize("kind", ["mininet", "fabric", "routed"])
def test_mininets_interface_does_on_our_fabrics_what_it_does_on_mininet(kind: str, tmp_path: Path) -> None:
    with Sandbox(Lab, kind, "tree,2,2", out=tmp_path) as sandbox:
        sandbox.call_sync("wait_ready")
        assert sandbox.run_sync(use) == {
            "nodes": ["h1", "h2", "h3", "h4", "s1", "s2", "s3"],
            "keys": True,
            "values": True,
            "items": True,
            "len": 7,
            "in": (True, False),
            "hosts": ["h1", "h2", "h3", "h4"],
            "switches": ["s1", "s2", "s3"],
            "links": 6,
            "between": [1, 1, 0],
            "interfaces": [["h1-eth0"], ["s1-eth1", "s1-eth2"], ["s2-eth1", "s2-eth2", "s2-eth3"]],
            "connections": [("h1-eth0", "s2-eth1")],
            "sendCmd": ["sent"],
            "IP": True,
            "MAC": True,
            "pexec": ("out\n", "err\n", 7),
            "popen": b"echo",
            "intfIsUp": True,
            "pingAll": 0.0,
            "pingPair": 0.0,
            "ping": 0.0,
            "pingFull": [("h1", "h4", 1, 1), ("h4", "h1", 1, 1)],
            "iperf": ["2M", "Mbits/sec", "Mbits/sec"],
            "ping over a link that is down": 100.0,
            "ping over a link that is up again": 0.0,
            "typed": True,
            "ping over a link that a script took down": 100.0,
        }


def tcp(lab: Lab) -> tuple[list[str], float]:
    return lab.net.iperf(seconds=1), float(lab.net.pingAll(timeout="2"))


@pytest.mark.parametrize("kind", ["fabric", "routed"])
def test_mininets_linear_topology_runs_on_our_fabrics_and_tcp_over_it(kind: str, tmp_path: Path) -> None:
    with Sandbox(Lab, kind, "linear,3,1", out=tmp_path) as sandbox:
        sandbox.call_sync("wait_ready")
        rates, lost = sandbox.run_sync(tcp)  # stock Mininet's own would wait for ever, see Fabric.iperf
        assert [bool(re.fullmatch(r"[\d.]+ [KMG]bits/sec", rate)) for rate in rates] == [True, True]
        assert lost == 0.0


def refused(lab: Lab) -> None:
    lab.net.addLink("h1", "s3")


def test_a_fabric_is_not_changed_behind_its_plans_back(tmp_path: Path) -> None:
    with Sandbox(Lab, "routed", "tree,1,2", out=tmp_path) as sandbox, pytest.raises(FabricError, match="of its plan"):
        sandbox.run_sync(refused)


# -- the command mn


class Machine:
    """A sandbox with nothing in it."""

    def mn(self, *argv: str) -> str:
        """What the command ``mn`` says, on both its outputs."""
        command = [str(Path(sys.executable).parent / "mn"), *argv]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


@pytest.mark.parametrize("topology", ["leafspine,2,4,2", "tree,2,2"])
def test_mn_runs_our_topologies_and_its_own_on_our_fabric(topology: str, tmp_path: Path) -> None:
    with Sandbox(Machine, out=tmp_path) as sandbox:
        said = sandbox.call_sync(
            "mn",
            "--custom",
            "topologies/leaf_spine.py",
            "--topo",
            topology,
            "--controller",
            "none",
            "--test",
            "pingall",
        )
        hosts = 8 if topology.startswith("leafspine") else 4
        assert f"Results: 0% dropped ({hosts * (hosts - 1)}/{hosts * (hosts - 1)} received)" in said


def documented() -> str:
    """The line that docs/fabric.md gives for a sandbox of one's own."""
    found = re.search(r"```\n(unshare .*?)\n```", (CHECKOUT / "docs/fabric.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


def typed(line: str, scratch: Path) -> str:
    """What a shell says to it, whose /tmp is ``scratch``, so that nothing is lost where the line is wrong."""
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    inside = ["unshare", "--mount", "sh", "-c", f'mount --bind {scratch} /tmp && exec sh -c "$0"', line]
    return subprocess.run(
        inside,
        cwd=CHECKOUT,
        env={"PATH": path, "HOME": "/root"},
        text=True,
        timeout=60,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ).stdout


def test_the_documented_line_is_a_sandbox(tmp_path: Path) -> None:
    assert "Results: 0% dropped (56/56 received)" in typed(documented(), tmp_path)


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("leafspine,2,4,2", "leafspine,2,4", "write leafspine,SPINES,LEAVES,HOSTS_PER_LEAF, such as leafspine,2,4,2"),
        ("leafspine,2,4,2", "leafspine,2,4,x", "leafspine,2,4,x is no leaf-spine"),
        ("leafspine,2,4,2", "leafspine,spines=2", "leafspine,spines=2 is no leaf-spine"),
        ("--test", "--link tc,bw=10,delay=10ms --test", "mn asks for link TCLink{'bw': 10, 'delay': '10ms'}"),
        ("--test", "--switch ovsbr,stp=1 --test", "mn asks for switch OVSBridge{'stp': 1}"),
    ],
)
def test_mn_is_told_what_is_wrong_and_cleans_up_after_itself_alone(
    right: str, wrong: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "somebodys.log").touch()
    assert says in typed(documented().replace(right, wrong), tmp_path)
    assert (tmp_path / "somebodys.log").exists()


class Stock:
    def ping_all(self, plan: FabricPlan) -> tuple[list[str], list[str], float]:
        """The hosts and switches that stock Mininet makes of a plan, and the percentage of pings that were lost."""
        from mininet.node import OVSBridge

        OpenVSwitch("netdev", segmentation_offload=False).start()
        Mininet.inited = True
        net = Mininet(topo_of(plan), switch=partial(OVSBridge, datapath="user"), controller=None)
        net.start()
        lost = net.pingAll(timeout="5")
        return [host.name for host in net.hosts], sorted(switch.name for switch in net.switches), float(lost)


def test_stock_mininet_builds_our_plans(tmp_path: Path) -> None:
    from topologies.leaf_spine import LeafSpine

    with Sandbox(Stock, out=tmp_path) as sandbox:  # one spine: without a loop there is no need of a spanning tree
        plan = LeafSpine(1, 2, 1)
        assert sandbox.call_sync("ping_all", plan) == (["h1", "h2"], ["leaf1", "leaf2", "spine1"], 0.0)


# -- Mininet's topologies as plans


def test_switches_with_hosts_that_others_pass_through_are_a_spine_and_a_leaf() -> None:
    plan = plan_of(topo("linear,3,2"))
    assert {switch.name: switch.role for switch in plan.switches} == {
        "s1": "leaf",
        "s2": "spine",
        "s2-lf": "leaf",
        "s3": "leaf",
    }
    assert [host.name for host in plan.hosts_of("s2-lf")] == [h.name for h in plan.hosts if "s2" in h.name]
    assert plan.link("s2-lf-s2").a.port == 5
    assert plan.ends("s1>s2")[1].interface == "s2-eth3"


def test_mn_may_ask_for_what_a_plan_gives_anyway_and_for_nothing_that_would_be_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mininet.link import Link, TCLink
    from mininet.node import CPULimitedHost, Host, NullController, OVSSwitch, RemoteController, UserSwitch

    monkeypatch.setattr("topologies.fabric.in_a_sandbox", lambda: True)
    asked: dict[str, Any] = {
        "switch": OVSSwitch,
        "host": Host,
        "controller": [NullController],
        "link": Link,
        "ipBase": "10.0.0.0/8",
        "inNamespace": False,
        "xterms": False,
        "autoSetMacs": True,
        "autoStaticArp": True,
        "autoPinCpus": False,
        "listenPort": 6654,
    }
    assert isinstance(net(topo("tree,1,2"), **asked), RoutedFabric)
    for other in (
        {"link": TCLink},
        {"switch": UserSwitch},
        {"host": CPULimitedHost},
        {"controller": [RemoteController]},
        {"intf": TCLink},
        {"ipBase": "192.168.0.0/24"},
        {"autoPinCpus": True},
    ):
        with pytest.raises(PlanError, match=f"mn asks for {next(iter(other))}"):
            net(topo("tree,1,2"), **(asked | other))


@pytest.mark.parametrize(
    ("add", "says"),
    [
        (lambda topo: topo.addHost("h9", ip="10.0.0.9/24"), r"h9 has ip='10.0.0.9/24', which no plan takes"),
        (lambda topo: topo.addLink("h1", "s3"), "h1 has not"),
        (lambda topo: topo.addLink("s1", "s2"), "there more than once"),
        (lambda topo: topo.addLink("s2", "s3", bw=10), "s2-s3 has bw=10, which no plan takes"),
    ],
)
def test_a_mininet_topology_that_is_no_plan_is_refused(add: Any, says: str) -> None:
    tree = topo("tree,2,2")
    add(tree)
    with pytest.raises(PlanError, match=says):
        plan_of(tree)


def test_what_is_neither_plan_nor_topology_is_refused() -> None:
    with pytest.raises(PlanError, match="'tree,2,2' is neither a plan nor one of Mininet's topologies"):
        Fabric("tree,2,2")
