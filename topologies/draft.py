"""A plan in the making: the functions that describe topologies name switches, hosts and links, and this numbers them.

Nodes with hosts are leaves, and traffic never passes through one to another; all other switches are spines. Every
fabric is of these two roles, whatever its shape: a WAN's region is a spine, its router, and a leaf behind it.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, deque
from collections.abc import Collection, Iterable
from ipaddress import IPv4Network
from typing import Literal

from topologies import cidr
from topologies.impairment import Impairment
from topologies.plan import HOST_MTU, LONGEST_INTERFACE_NAME, End, FabricPlan, Host, Link, PlanError, Switch

#: Hosts live in this block (RFC 1918); every leaf gets one equal part of it.
HOST_BLOCK = ipaddress.IPv4Network("10.0.0.0/8")

#: Where the datapath ids of a role begin.
DATAPATH_IDS = {"leaf": 0x1000, "spine": 0x2000}

#: Ethernet's largest payload that anything here carries, jumbo frames, and IPv4's least MTU (RFC 791).
_LARGEST_MTU, _LEAST_MTU = 9_000, 576

#: Numbers above are OpenFlow's reserved ports (OpenFlow 1.5 §7.2.1, as Open vSwitch has it for 1.0).
_MOST_PORTS = 0xFEFF

_LISTED = 6


def leaf_networks(leaves: int, most_hosts: int) -> list[IPv4Network]:
    """A network for every leaf, /24 or larger, the *i*-th of `HOST_BLOCK`: leaf 3 has 10.0.3.0/24.

    Raises `PlanError` when they do not fit.
    """
    return cidr.split(HOST_BLOCK, leaves + 1, hosts=most_hosts, longest=24)[1:]


class Draft:
    """What there is so far. Ports are numbered in the order in which a switch's links are added."""

    def __init__(self) -> None:
        self._switches: list[Switch] = []
        self._hosts: list[Host] = []
        self._links: list[Link] = []
        self._impairments: dict[str, Impairment] = {}
        self._ports: Counter[str] = Counter()
        self._roles: Counter[str] = Counter()

    def switches(self, role: Literal["leaf", "spine"], names: Iterable[str]) -> list[str]:
        """Add switches of a role; returns their names."""
        added = list(names)
        for name in added:
            self._roles[role] += 1
            self._switches.append(Switch(name, role, DATAPATH_IDS[role] + self._roles[role]))
        return added

    def hosts(self, leaf: str, count: int, network: IPv4Network) -> None:
        """Add ``count`` hosts, the next ones by number, to a leaf whose network this is."""
        last = f"{leaf}-eth{self._ports[leaf] + count}"
        if len(last) > LONGEST_INTERFACE_NAME:  # said before there are a million of them
            raise PlanError(_too_long([last]))
        gateway = str(network.broadcast_address - 1)
        for offset in range(1, count + 1):
            number = len(self._hosts) + 1
            name = f"h{number}"
            address = f"{network.network_address + offset}/{network.prefixlen}"
            self._hosts.append(Host(name, leaf, address, gateway, mac(0x02, number)))
            self._links.append(Link(f"{name}-{leaf}", End(name, f"{name}-eth0", 0), self._end(leaf)))

    def link(
        self, near: str, far: str, *, weight: int = 1, forth: Impairment | None = None, back: Impairment | None = None
    ) -> None:
        """Add a link between two switches; ``forth`` and ``back`` are what its directions do to packets."""
        if weight < 1:
            raise PlanError(f"the weight of {near}-{far} is {weight}; it is at least 1")
        link = Link(f"{near}-{far}", self._end(near), self._end(far), weight)
        self._links.append(link)
        for direction, impairment in zip(link.directions, (forth, back), strict=True):
            if impairment is not None:
                self._impairments[direction] = impairment

    def plan(self, kind: str) -> FabricPlan:
        """Raises `PlanError`, which lists everything that `check` finds."""
        plan = FabricPlan(
            kind,
            tuple(self._switches),
            tuple(self._hosts),
            tuple(self._links),
            router_mac=mac(0x06, 0xFE),
            impairments=self._impairments,
        )
        check(plan)
        return plan

    def _end(self, switch: str) -> End:
        self._ports[switch] += 1
        port = self._ports[switch]
        return End(switch, f"{switch}-eth{port}", port)


def check(plan: FabricPlan) -> None:
    """Raise `PlanError` with every reason why this plan cannot be built, or could not work if it were."""
    ends = [end for link in plan.links for end in (link.a, link.b)]
    problems = [
        *_repeated("name", [*(switch.name for switch in plan.switches), *(host.name for host in plan.hosts)]),
        *_repeated("link", [link.name for link in plan.links]),
        *_repeated("interface", [end.interface for end in ends]),
        *_repeated("address", [host.ip for host in plan.hosts] + sorted({host.gateway for host in plan.hosts})),
        *_repeated("MAC address", [host.mac for host in plan.hosts]),
        *_repeated("datapath id", [f"{switch.datapath_id:#x}" for switch in plan.switches]),
        *_repeated("port", [f"{end.port} of {end.node}" for end in ends if end.port]),
    ]
    names = [*(end.interface for end in ends), *(switch.name for switch in plan.switches)]
    if long := [name for name in names if len(name) > LONGEST_INTERFACE_NAME]:
        problems.append(_too_long(long))
    if high := [f"{end.port} of {end.node}" for end in ends if not 0 <= end.port <= _MOST_PORTS]:
        problems.append(f"a switch's ports have numbers up to {_MOST_PORTS}: there is {_some(high)}")
    if not _LEAST_MTU <= plan.mtu <= _LARGEST_MTU:
        problems.append(f"the MTU is {plan.mtu}; it is between {_LEAST_MTU} and {_LARGEST_MTU} bytes")
    elif plan.mtu < HOST_MTU:
        problems.append(f"the MTU of fabric links is {plan.mtu}, which the hosts' packets of {HOST_MTU} do not fit")
    switches = {switch.name for switch in plan.switches}
    hosts = {host.name for host in plan.hosts}
    if unknown := sorted({end.node for end in ends} - switches - hosts):
        problems.append(f"links lead to {_some(unknown)}, which the plan does not have")
    if not hosts:
        problems.append("there are no hosts")
    if loops := [link.name for link in plan.links if link.a.node == link.b.node]:
        problems.append(f"{_some(loops)} leads from a switch to itself")
    linked = Counter(end.node for end in ends)
    if astray := [
        host.name
        for host in plan.hosts
        if linked[host.name] != 1 or host.leaf not in {e.node for k in plan.links_of(host.name) for e in (k.a, k.b)}
    ]:
        problems.append(f"a host has one link, to its leaf: {_some(astray)} has not")
    problems += _address_problems(plan)
    if not problems:
        problems += _unreachable(plan)
    if problems:
        raise PlanError("; ".join(problems))


def _address_problems(plan: FabricPlan) -> list[str]:
    try:
        networks = {f"{host.leaf} {network}": network for host in plan.hosts for network in [_network(host)]}
        cidr.check_apart(networks)
    except PlanError as error:
        return [str(error)]
    return []


def _network(host: Host) -> IPv4Network:
    network = cidr.network_of(host.address)
    if ipaddress.IPv4Address(host.gateway) not in network:
        raise PlanError(f"{host.name}'s gateway {host.gateway} is not in its network {network}")
    return network


def _unreachable(plan: FabricPlan) -> list[str]:
    leaves = list(dict.fromkeys(host.leaf for host in plan.hosts))
    apart = [leaf for leaf in leaves if leaf not in leaves_reached(plan, leaves[0])]
    if not apart:
        return []
    return [f"hosts of {_some(apart)} cannot reach those of {leaves[0]}: there is no way of spines between them"]


def leaves_reached(plan: FabricPlan, leaf: str, dead_links: Collection[str] = ()) -> set[str]:
    """The leaves that a leaf reaches over spines, itself included, without the links named in ``dead_links``."""
    leaves = {switch.name for switch in plan.by_role("leaf")}
    found, queue = {leaf}, deque([leaf])
    while queue:
        name = queue.popleft()
        for link in plan.links_of(name):
            other = link.b.node if link.a.node == name else link.a.node
            if link.name in dead_links or other in found or not (link.a.port and link.b.port):
                continue
            found.add(other)
            if other not in leaves:
                queue.append(other)
    return found & leaves


def _too_long(names: Collection[str]) -> str:
    return (
        f"{_some(names)} would be longer than the {LONGEST_INTERFACE_NAME} characters Linux allows for an interface: "
        "use shorter names, or fewer ports"
    )


def _repeated(what: str, given: Iterable[str]) -> list[str]:
    twice = [name for name, times in Counter(given).items() if times > 1]
    return [f"{what} {_some(twice)} is there more than once"] if twice else []


def _some(names: Collection[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_LISTED]) + (f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else "")


def mac(first: int, number: int) -> str:
    """A locally administered unicast address (IEEE 802: bit 1 of the first octet set, bit 0 clear)."""
    return ":".join(f"{octet:02x}" for octet in (first, *number.to_bytes(5, "big")))


def at_least(minimum: int, **sizes: int) -> None:
    """Raise `PlanError` that names the sizes which are less."""
    if wrong := [f"{name} is {size}" for name, size in sizes.items() if size < minimum]:
        raise PlanError(f"{', '.join(wrong)}: it needs at least {minimum}")
