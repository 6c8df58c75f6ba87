"""Stock Mininet builds our plans: the file `mn --custom` is given has what it looks for."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from topologies.mininet_topo import Mininet
from topologies.openvswitch import OpenVSwitch
from topologies.sandbox import Sandbox

pytestmark = pytest.mark.network

CUSTOM = Path(__file__).resolve().parents[2] / "topologies" / "leaf_spine.py"


class StockMininet:
    def ping_all(self) -> tuple[list[str], list[str], float]:
        """The hosts and switches it has, and the percentage of pings that were lost."""
        from mininet.node import OVSBridge

        custom: dict[str, Any] = {"__name__": "custom"}
        exec(CUSTOM.read_text(), custom)  # as mn does
        ovs = OpenVSwitch("netdev", segmentation_offload=False)
        ovs.start()
        Mininet.inited = True  # it would set sysctls of the whole machine
        # One spine: without a loop, learning switches need no spanning tree, which takes half a minute.
        topo = custom["topos"]["leafspine"](1, 2, 1)
        net: Any = Mininet(topo, switch=partial(OVSBridge, datapath="user"), controller=None, waitConnected=False)
        net.start()
        for host in net.hosts:
            host.cmd(f"ip route replace default dev {host.name}-eth0")  # nobody routes here: one broadcast domain
        lost = net.pingAll(timeout=5)
        names = [host.name for host in net.hosts], sorted(switch.name for switch in net.switches)
        net.stop()
        ovs.stop()
        return *names, lost


def test_mn_custom_builds_a_leaf_spine_that_forwards(tmp_path: Path) -> None:
    with Sandbox(StockMininet, out=tmp_path) as sandbox:
        assert sandbox.call_sync("ping_all") == (["h1", "h2"], ["leaf1", "leaf2", "spine1"], 0.0)
