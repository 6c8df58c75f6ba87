"""The routed fabric on Debian's kernel: next hop groups, and the way around a link that is gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan
from topologies.routed_fabric import RoutedFabric
from topologies.sandbox import Sandbox

pytestmark = [pytest.mark.network, pytest.mark.timeout(240)]

PLAN = LeafSpine(2, 2, 1, weights={"leaf1-spine1": 3})
HEARD = {"h1": {"h2": True}, "h2": {"h1": True}}


class RoutedLab:
    def __init__(self, plan: FabricPlan) -> None:
        self.net = RoutedFabric(plan)
        self.net.start()

    async def wait_ready(self) -> None:
        await self.net.wait_ready(60)

    async def heard(self) -> dict[str, dict[str, bool]]:
        """Who hears any of the probes of whom; an emulated processor may be seconds late with one."""
        matrix = await self.net.prober.matrix(["h1", "h2"], probes=3, timeout=5.0)
        return {receiver: {sender: came > 0 for sender, (_, came) in row.items()} for receiver, row in matrix.items()}

    async def heard_despite_a_cut(self) -> dict[str, dict[str, bool]]:
        with self.net.dataplane.cut("leaf1-spine1"):
            return await self.heard()

    async def uplinks_used(self) -> list[bool]:
        before = self.net.link_counters()
        await self.net.prober.measure([("h1", "h2")], probes=100, timeout=5.0)
        after = self.net.link_counters()
        return [after[way].packets > before[way].packets for way in ("leaf1>spine1", "leaf1>spine2")]

    def next_hops(self) -> str:
        return str(self.net["leaf1"].cmd("ip nexthop"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(RoutedLab, PLAN, out=tmp_path_factory.mktemp("routed")) as sandbox:
        sandbox.call_sync("wait_ready")
        yield sandbox


def test_flows_take_every_way_of_a_weighted_group(lab: Sandbox) -> None:
    assert "group 102,3/103" in lab.call_sync("next_hops")
    assert lab.call_sync("uplinks_used") == [True, True]


def test_a_cut_uplink_is_gone_around_and_comes_back(lab: Sandbox) -> None:
    assert lab.call_sync("heard_despite_a_cut") == HEARD
    assert lab.call_sync("heard") == HEARD
