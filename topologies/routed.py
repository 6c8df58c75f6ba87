"""The routed data plane: switches are namespaces in which the kernel forwards by next hop groups, with no controller.

Every switch knows all shortest ways to every leaf's network, and spreads flows over them by the 5-tuple, as weights
say. Links between switches have /31s (RFC 3021), which traceroute shows. When a link is cut, all switches are told at
once: what a routing protocol would do, if it took no time; it is the baseline to compare a controller with.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Sequence
from ipaddress import IPv4Interface
from typing import NamedTuple

from topologies import cidr, netns
from topologies.dataplane import DataplaneError, Fault, Grudge, grudge_rules
from topologies.draft import mac
from topologies.plan import LINK_BLOCK, End, FabricPlan, Link
from topologies.rtnetlink import (
    Message,
    Netlink,
    NetlinkError,
    Port,
    blackhole_rule,
    new_address,
    new_neighbour,
    new_nexthop,
    new_nexthop_group,
    new_route,
    set_state,
)

#: Sysctls of a switch's namespace, under ``net``: it forwards, hashes the 5-tuple, takes packets by whichever way they
#: come (RFC 3704 has no place where ways are many), and sends nobody elsewhere. The 5-tuple is spelt out (ip-sysctl,
#: policy 3; 0x37 are both addresses, the protocol and both ports): policy 1, "Layer 4", trusts the hash that a packet
#: brings along, and a TCP socket on the same machine draws that anew for every connection and some retransmissions.
SWITCH_SYSCTLS = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv4/ip_forward": "1",
    "ipv4/fib_multipath_hash_policy": "3",
    "ipv4/fib_multipath_hash_fields": "55",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
}

_LOOPBACK = 1
#: Interfaces, next hops and groups of a switch are numbered from here, by port and by leaf.
FIRST_INDEX, _FIRST_GROUP = 100, 1_000_000


class Way(NamedTuple):
    """A switch's port on a shortest way to a leaf, its address there, and what of the flows it gets."""

    port: int
    gateway: str
    weight: int


def port_of(plan: FabricPlan, end: End, namespace: int) -> Port:
    """A switch's end of a link, in its namespace. Hosts see the router's MAC, neighbours the switch's."""
    link = next(link for link in plan.links_of(end.node) if end in (link.a, link.b))
    facing_host = not (link.a.port and link.b.port)
    address = plan.router_mac if facing_host else _switch_mac(plan, end.node)
    return Port(
        end.interface,
        plan.mtu_of(link),
        number=FIRST_INDEX + end.port,
        mac=address,
        namespace=namespace,
    )


def link_addresses(plan: FabricPlan) -> dict[tuple[str, int], IPv4Interface]:
    """The address of every port between switches, by switch and port."""
    pairs = cidr.link_pairs(LINK_BLOCK)
    found = {}
    for link in plan.links:
        if link.a.port and link.b.port:
            near, far = next(pairs)
            found[link.a.node, link.a.port], found[link.b.node, link.b.port] = near, far
    return found


def ways(plan: FabricPlan, dead: Collection[str] = ()) -> dict[str, dict[str, tuple[Way, ...]]]:
    """For every switch and every leaf but itself, the first steps of all shortest ways without the ``dead`` links."""
    addresses = link_addresses(plan)
    leaves = [leaf.name for leaf in plan.by_role("leaf")]
    alive = [link for link in plan.links if link.name not in dead and link.a.port and link.b.port]
    steps: dict[str, list[tuple[End, End, int]]] = {switch.name: [] for switch in plan.switches}
    for link in alive:
        steps[link.a.node].append((link.a, link.b, link.weight))
        steps[link.b.node].append((link.b, link.a, link.weight))
    found: dict[str, dict[str, tuple[Way, ...]]] = {name: {} for name in steps}
    for goal in leaves:
        distance = {goal: 0}
        queue = deque([goal])
        while queue:
            name = queue.popleft()
            for _, far, _ in steps[name]:
                if far.node not in distance:
                    distance[far.node] = distance[name] + 1
                    if far.node not in leaves:  # traffic never passes through a leaf
                        queue.append(far.node)
        for name in steps.keys() & distance.keys() - {goal}:
            found[name][goal] = tuple(
                Way(near.port, str(addresses[far.node, far.port].ip), weight)
                for near, far, weight in steps[name]
                if distance.get(far.node) == distance[name] - 1 and (far.node == goal or far.node not in leaves)
            )
    return found


def program(plan: FabricPlan, dead: Collection[str] = ()) -> dict[str, list[Message]]:
    """What makes every switch forward without the ``dead`` links, whatever it did before.

    Carrying it out again changes nothing; an interface that was down had lost its neighbours and routes.
    """
    addresses = link_addresses(plan)
    chosen = ways(plan, dead)
    networks: dict[str, set[str]] = {}
    for one in plan.hosts:
        networks.setdefault(one.leaf, set()).add(str(cidr.network_of(one.address)))
    numbers = {leaf: _FIRST_GROUP + number for number, leaf in enumerate(networks)}
    hosts = {host.name: host for host in plan.hosts}
    messages: dict[str, list[Message]] = {}
    for switch in plan.switches:
        told = messages[switch.name] = []
        for link in plan.links_of(switch.name):
            if link.name in dead:
                continue
            near, far = (link.a, link.b) if link.a.node == switch.name else (link.b, link.a)
            index = FIRST_INDEX + near.port
            if host := hosts.get(far.node):
                told += [new_neighbour(index, host.ip, host.mac), new_route(f"{host.ip}/32", index=index)]
            else:
                gateway = str(addresses[far.node, far.port].ip)
                told += [
                    new_neighbour(index, gateway, _switch_mac(plan, far.node)),
                    new_nexthop(index, index, gateway),
                ]
        for leaf, behind in networks.items():
            if some := chosen[switch.name].get(leaf):
                group = new_nexthop_group(numbers[leaf], {FIRST_INDEX + way.port: way.weight for way in some})
                told += [group, *(new_route(network, nexthop=numbers[leaf]) for network in sorted(behind))]
    return messages


def addressing(plan: FabricPlan, switch: str) -> list[Message]:
    """What a switch's namespace gets once: its interfaces up, its addresses; a leaf has its hosts' gateway, too."""
    addresses = link_addresses(plan)
    messages = [set_state("lo", up=True)]
    gateways = dict.fromkeys(host.gateway for host in plan.hosts_of(switch))
    messages += [new_address(_LOOPBACK, f"{gateway}/32") for gateway in gateways]
    for end in _ends(plan.links_of(switch), switch):
        messages.append(set_state(end.interface, up=True))
        if address := addresses.get((switch, end.port)):
            messages.append(new_address(FIRST_INDEX + end.port, str(address)))
    return messages


class RoutedDataplane:
    """Faults on a fabric of routing namespaces: `topologies.dataplane.Dataplane` by netlink alone."""

    def __init__(self, plan: FabricPlan) -> None:
        self._plan = plan
        self._switches = frozenset(switch.name for switch in plan.switches)
        self._cuts: dict[Fault, str] = {}
        self._grudges: dict[Fault, dict[str, list[tuple[int, str, str]]]] = {}
        self._priorities = itertools.count(1)

    def cut(self, link: str) -> Fault:
        self._set_carrier(self._plan.link(link), up=False)
        fault = Fault(self)
        self._cuts[fault] = link
        self.converge()
        return fault

    def restore(self, link: str) -> None:
        self._set_carrier(self._plan.link(link), up=True)
        self._cuts = {fault: name for fault, name in self._cuts.items() if name != link}
        self.converge()

    def drop(self, grudge: Grudge) -> Fault:
        rules: dict[str, list[tuple[int, str, str]]] = {}
        for rule in grudge_rules(self._plan, grudge):
            one = (next(self._priorities), rule.sender_ip, rule.receiver_ip)
            rules.setdefault(rule.switch, []).append(one)
        for switch, pairs in rules.items():
            _tell(switch, [blackhole_rule(*pair, add=True) for pair in pairs])
        fault = Fault(self)
        self._grudges[fault] = rules
        return fault

    def lift(self, fault: Fault) -> None:
        for switch, pairs in self._grudges.pop(fault, {}).items():
            _tell(switch, [blackhole_rule(*pair, add=False) for pair in pairs])
        if fault in self._cuts:
            link = self._cuts.pop(fault)
            if link not in self._cuts.values():
                self._set_carrier(self._plan.link(link), up=True)
                self.converge()

    def converge(self) -> None:
        """Have every switch forward by the links that are left."""
        for switch, messages in program(self._plan, frozenset(self._cuts.values())).items():
            _tell(switch, messages)

    def _set_carrier(self, link: Link, *, up: bool) -> None:
        # Down at the switches' ends only, so that a host keeps its route.
        for end in (link.a, link.b):
            if end.node in self._switches:
                _tell(end.node, [set_state(end.interface, up=up)])


def _tell(switch: str, messages: Sequence[Message]) -> None:
    try:
        with netns.inside(switch), Netlink() as netlink:
            netlink.request(messages)
    except NetlinkError as error:
        raise DataplaneError(f"{switch}: {error.filename} failed: {error.strerror}") from error


def _ends(links: Sequence[Link], switch: str) -> list[End]:
    return [end for link in links for end in (link.a, link.b) if end.node == switch]


def _switch_mac(plan: FabricPlan, switch: str) -> str:
    return mac(0x06, plan.switch(switch).datapath_id)
