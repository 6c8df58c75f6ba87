"""A fabric whose switches are namespaces in which the kernel routes: no Open vSwitch, no controller.

    with RoutedFabric(LeafSpine(2, 3, 4)) as net:
        print(net["h1"].cmd("traceroute -n 10.0.2.1"))

It is the baseline that `topologies.fabric.Fabric` is compared with, and has the same face: hosts, links by name,
probes, counters, and faults through `dataplane`. See `topologies.routed` for how it forwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from typing import Any

import msgspec

from topologies import netns, routed
from topologies.dataplane import Dataplane, Fault
from topologies.fabric import Counters, Fabric, _typed_errors
from topologies.mininet_topo import plan_of
from topologies.nodes import FabricSwitch, Topo
from topologies.plan import End, FabricPlan, Switch
from topologies.routed import FIRST_INDEX, RoutedDataplane
from topologies.rtnetlink import Netlink, Port, interface_has_carrier, new_veth


class RoutedFabric(Fabric):
    """The network of ``plan`` with the kernel's own forwarding. Whatever fails raises `FabricError`."""

    def __init__(self, plan: FabricPlan | Topo) -> None:
        plan = plan if isinstance(plan, FabricPlan) else plan_of(plan)
        super().__init__(msgspec.structs.replace(plan, dataplane="routed"), controller=None)
        self._stopped: dict[str, list[Fault]] = {}

    def start(self) -> None:
        """Build what there is not yet; it forwards when this returns."""
        if not self.built:
            self.build()

    def build(self) -> None:
        self._begin()
        with _typed_errors(), ExitStack() as files, Netlink() as ours:
            self._build_namespaces()
            self._namespaces: dict[str, int] = {}
            for switch in self.plan.switches:
                with netns.created(switch.name):
                    self._write_sysctls(routed.SWITCH_SYSCTLS)
                self._namespaces[switch.name] = files.enter_context(netns.opened(switch.name))
            ours.request([new_veth(self._port(link.a), self._port(link.b)) for link in self._switch_links])
            self._build_host_links()
            for switch in self.plan.switches:
                with netns.inside(switch.name), Netlink() as theirs:
                    theirs.request(routed.addressing(self.plan, switch.name))
            self._routing.converge()
            self._configure_hosts()

    def stop(self) -> None:
        begun = self._begun
        super().stop()
        if begun:
            for switch in self.plan.switches:
                netns.remove(switch.name)
        self._stopped.clear()

    def inside(self, host: str) -> AbstractContextManager[None]:
        """As every fabric's, and of switches: they are namespaces here."""
        return netns.inside(host) if host in self._switch_names else super().inside(host)

    @cached_property
    def _switch_names(self) -> frozenset[str]:
        return frozenset(switch.name for switch in self.plan.switches)

    @cached_property
    def dataplane(self) -> Dataplane:
        return self._with_tenants(self._routing)

    @cached_property
    def _routing(self) -> RoutedDataplane:
        return RoutedDataplane(self.plan)

    @property
    def _hosts_write_checksums(self) -> bool:
        return False

    def link_counters(self) -> dict[str, Counters]:
        statistics = {}
        for switch in self.plan.switches:
            with _typed_errors(), netns.inside(switch.name), Netlink() as theirs:
                statistics[switch.name] = theirs.statistics()
        counters = {}
        for link in self.plan.links:
            for direction in link.directions:
                sender, receiver = self.plan.ends(direction)
                if sender.node in statistics:
                    seen = statistics[sender.node][FIRST_INDEX + sender.port]
                    counters[direction] = Counters(seen.tx_packets, seen.tx_bytes, seen.tx_dropped)
                else:
                    seen = statistics[receiver.node][FIRST_INDEX + receiver.port]
                    counters[direction] = Counters(seen.rx_packets, seen.rx_bytes, seen.rx_dropped)
        return counters

    def has_carrier(self, link: str) -> bool:
        end = self.plan.link(link).b
        with netns.inside(end.node):
            return interface_has_carrier(end.interface)

    def connected(self) -> dict[str, bool]:
        """Nothing: there is no controller to be connected to."""
        return {}

    def stop_switch(self, name: str) -> None:
        """Cut all links of a switch; `start_switch` restores them."""
        links = self.plan.links_of(self.plan.switch(name).name)
        self._stopped.setdefault(name, []).extend(self.dataplane.cut(link.name) for link in links)

    def start_switch(self, name: str) -> None:
        for fault in self._stopped.pop(self.plan.switch(name).name, []):
            fault.lift()

    def _port(self, end: End) -> Port:
        return routed.port_of(self.plan, end, self._namespaces[end.node])

    def _leaf_port(self, end: End) -> Port:
        return self._port(end)

    def _raise_leaf_ports(self, ends: Sequence[End]) -> None:
        """`routed.addressing` raises every port of a switch."""

    def _switch_node(self, switch: Switch) -> FabricSwitch:
        return RoutedSwitch(switch, self)


class RoutedSwitch(FabricSwitch):
    """A switch that is a namespace: ``net["leaf1"].cmd("ip route")``."""

    def connected(self) -> bool:
        """Always: it forwards by itself, and nobody has to wait for a controller."""
        return True

    def _popen(self, cmd: list[str], **params: Any) -> Any:
        with netns.inside(self.name):
            return super()._popen(cmd, **params)
