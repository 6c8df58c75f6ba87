"""The routed fabric forwards like the other one, and the same faults take hold of it."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator

import msgspec
import pytest

from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan, PlanError
from topologies.routed_fabric import RoutedFabric
from topologies.sandbox import Sandbox
from topologies.three_tier import FatTree

pytestmark = pytest.mark.network

PLAN = LeafSpine(2, 2, 2, weights={"leaf1-spine1": 3})
HOSTS = [host.name for host in PLAN.hosts]


class RoutedLab:
    def __init__(self, plan: FabricPlan) -> None:
        self.net = RoutedFabric(plan)
        self.net.start()

    async def wait_ready(self) -> None:
        await self.net.wait_ready(20)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(RoutedLab, PLAN, out=tmp_path_factory.mktemp("routed")) as sandbox:
        sandbox.call_sync("wait_ready")
        yield sandbox


async def deaf(lab: RoutedLab) -> set[tuple[str, str]]:
    """The pairs (receiver, sender) of which no probe arrived."""
    matrix = await lab.net.prober.matrix([host.name for host in lab.net.plan.hosts], probes=4, timeout=0.5)
    return {(receiver, sender) for receiver, row in matrix.items() for sender, (_, came) in row.items() if not came}


async def faults(lab: RoutedLab) -> dict[str, set[tuple[str, str]]]:
    """Who is deaf to whom under each fault, and when it is over."""
    dataplane = lab.net.dataplane
    found = {"whole": await deaf(lab)}
    with dataplane.cut("leaf1-spine1"):
        found["one uplink"] = await deaf(lab)
        with dataplane.cut("leaf2-spine2"):
            found["no common spine"] = await deaf(lab)
    found["restored"] = await deaf(lab)
    with dataplane.cut("h1-leaf1"):
        found["host"] = await deaf(lab)
    with dataplane.drop({"h1": {"h3", "h2"}}), dataplane.drop({"h1": {"h3"}}) as second:
        found["grudge"] = await deaf(lab)
        second.lift()
        found["still"] = await deaf(lab)
    lab.net.stop_switch("leaf2")
    found["leaf"] = await deaf(lab)
    lab.net.start_switch("leaf2")
    found["healed"] = await deaf(lab)
    return found


def test_each_fault_takes_hold_and_is_lifted(lab: Sandbox) -> None:
    found = lab.run_sync(faults)
    pairs = set(itertools.permutations(HOSTS, 2))
    across = {pair for pair in pairs if len({"h1", "h2"} & set(pair)) == 1}
    grudge = {("h1", "h3"), ("h1", "h2")}
    assert found == {
        "whole": set(),
        "one uplink": set(),
        "no common spine": across,
        "restored": set(),
        "host": {pair for pair in pairs if "h1" in pair},
        "grudge": grudge,
        "still": grudge,
        "leaf": pairs - {("h1", "h2"), ("h2", "h1")},
        "healed": set(),
    }


async def spread(lab: RoutedLab) -> dict[str, int]:
    """Packets that many flows from h1 to h3 sent up each uplink, and into h3."""
    before = lab.net.link_counters()
    await lab.net.prober.measure([("h1", "h3")], probes=200, timeout=2.0)
    after = lab.net.link_counters()
    watched = ("h1>leaf1", "leaf1>spine1", "leaf1>spine2", "leaf2>h3")
    return {way: after[way].packets - before[way].packets for way in watched}


def test_flows_use_all_spines_and_every_link_counts_them(lab: Sandbox) -> None:
    sent = lab.run_sync(spread)
    assert sent["h1>leaf1"] == sent["leaf2>h3"] == sent["leaf1>spine1"] + sent["leaf1>spine2"] == 200
    assert sent["leaf1>spine1"] > sent["leaf1>spine2"] >= 20  # three to one


def carriers(lab: RoutedLab) -> list[bool]:
    seen = [lab.net.has_carrier("leaf1-spine1"), lab.net.has_carrier("h1-leaf1")]
    with lab.net.dataplane.cut("leaf1-spine1"):
        return [*seen, lab.net.has_carrier("leaf1-spine1"), lab.net.has_carrier("h1-leaf1")]


def test_a_cut_link_has_no_carrier(lab: Sandbox) -> None:
    assert lab.run_sync(carriers) == [True, True, False, True]


def shells(lab: RoutedLab) -> tuple[str, str, str]:
    leaf = lab.net["leaf1"]
    return leaf.cmd("ip -o route"), leaf.cmd("ip nexthop"), lab.net["h1"].cmd("ping -c 1 -W 2 10.0.1.254")


def test_a_switch_has_a_shell_that_shows_its_weighted_next_hops_and_answers_its_hosts(lab: Sandbox) -> None:
    routes, nexthops, ping = lab.run_sync(shells)
    assert "10.0.2.0/24 nhid 1000001" in routes
    assert "id 1000001 group 103,3/104" in nexthops
    assert "id 103 via 172.16.0.1 dev leaf1-eth3" in nexthops
    assert " 0% packet loss" in ping


def in_a_switch(lab: RoutedLab) -> str:
    process = lab.net.spawn("leaf1", ["ip", "-o", "link"], stdout=subprocess.PIPE)
    return process.communicate(timeout=20)[0].decode()


def test_programs_run_in_switches_so_that_packets_can_be_captured_there(lab: Sandbox) -> None:
    assert "leaf1-eth1" in lab.run_sync(in_a_switch)


def as_mininet(lab: RoutedLab) -> list[float]:
    """Percentage of pings lost: with all links, without one uplink of leaf1, without both, and with all again."""
    net = lab.net
    lost = [net.pingAll(timeout="1")]
    for spine in ("spine1", "spine2"):
        net.configLinkStatus("leaf1", spine, "down")
        lost.append(net.pingAll(timeout="1"))
    for spine in ("spine1", "spine2"):
        net.configLinkStatus(spine, "leaf1", "up")
    return [*lost, net.pingAll(timeout="1")]


def test_it_is_a_mininet(lab: Sandbox) -> None:
    across = 100 * 8 / 12
    assert lab.run_sync(as_mininet) == pytest.approx([0, 0, across, 0])


async def lives_twice(lab: RoutedLab) -> bool:
    for _ in range(2):
        lab.net.stop()
        lab.net.start()
        await lab.net.wait_ready(20)
    return not await deaf(lab)


def two_networks_behind_a_leaf() -> FabricPlan:
    first, second, *others = PLAN.hosts
    moved = msgspec.structs.replace(second, address="10.9.0.2/24", gateway="10.9.0.254")
    return msgspec.structs.replace(PLAN, hosts=(first, moved, *others))


def test_a_leaf_may_have_hosts_of_several_networks(tmp_path: pytest.TempPathFactory) -> None:
    with Sandbox(RoutedLab, two_networks_behind_a_leaf(), out=tmp_path) as sandbox:
        sandbox.call_sync("wait_ready")
        assert sandbox.run_sync(deaf) == set()


def test_what_only_open_vswitch_can_is_refused() -> None:
    with pytest.raises(PlanError, match="BFD is Open vSwitch's"):
        RoutedFabric(msgspec.structs.replace(PLAN, bfd_interval=20_000_000))


def test_a_fat_tree_is_routed_and_can_be_built_again(tmp_path: pytest.TempPathFactory) -> None:
    with Sandbox(RoutedLab, FatTree(4), out=tmp_path) as sandbox:
        assert sandbox.run_sync(lives_twice)
