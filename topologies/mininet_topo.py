"""A plan as Mininet's own `Topo`, so that stock Mininet builds it: ``mn --custom topologies/leaf_spine.py``.

It has the plan's names, addresses, port numbers and datapath ids. Such a fabric has loops: a switch that learns needs a
spanning tree (``--switch ovsbr,stp=1``), and none of our controller, faults or impairments is in it.
"""

from __future__ import annotations

from typing import Any

from topologies.nodes import Mininet  # sees to Mininet's imports where Python has no distutils
from topologies.plan import FabricPlan

__all__ = ["Mininet", "topo_of"]


def topo_of(plan: FabricPlan) -> Any:
    """The `mininet.topo.Topo` of a plan."""
    from mininet.topo import Topo

    topo = Topo()
    for switch in plan.switches:
        topo.addSwitch(switch.name, dpid=f"{switch.datapath_id:016x}")
    for host in plan.hosts:
        topo.addHost(host.name, ip=host.address, mac=host.mac, defaultRoute=f"via {host.gateway}")
    for link in plan.links:
        topo.addLink(
            link.a.node,
            link.b.node,
            port1=link.a.port,
            port2=link.b.port,
            intfName1=link.a.interface,
            intfName2=link.b.interface,
        )
    return topo
