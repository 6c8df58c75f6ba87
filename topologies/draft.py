"""A plan in the making: the functions that describe topologies name switches, hosts and links, and this numbers them.

Nodes with hosts are leaves, and traffic never passes through one to another; all other switches are spines. Every
fabric is of these two roles, whatever its shape: a WAN's region is a spine, its router, and a leaf behind it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable
from ipaddress import IPv4Network
from typing import Literal

from topologies import cidr
from topologies.check import MOST_PORTS, check, name_too_long, too_long
from topologies.impairment import Impairment
from topologies.plan import End, FabricPlan, Host, Link, PlanError, Switch

#: Hosts live in this block (RFC 1918); every leaf gets one equal part of it.
HOST_BLOCK = IPv4Network("10.0.0.0/8")

#: Where the datapath ids of a role begin.
DATAPATH_IDS = {"leaf": 0x1000, "spine": 0x2000}

#: The largest fabric that is planned: as many leaves as there are ids before the spines', and the hosts and links of a
#: fat tree of 64-port switches. A machine is full long before; the numbers keep a slip of the finger from filling it.
MOST = {"leaves": 0x1000, "spines": 0x1000, "hosts": 1 << 16, "links": 1 << 18}


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
        last = self._ports[leaf] + count  # what is said of it is said before there are a million of them
        if last > MOST_PORTS:
            raise PlanError(f"{leaf} has {shown(count)} hosts; a switch has at most {MOST_PORTS:,} ports")
        if too_long(f"{leaf}-eth{last}"):
            raise PlanError(name_too_long([f"{leaf}-eth{last}"]))
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


def mac(first: int, number: int) -> str:
    """A locally administered unicast address (IEEE 802: bit 1 of the first octet set, bit 0 clear)."""
    return ":".join(f"{octet:02x}" for octet in (first, *number.to_bytes(5, "big")))


def at_least(minimum: int, **sizes: int) -> None:
    """Raise `PlanError` that names the sizes which are less."""
    if wrong := [f"{name} is {shown(size)}" for name, size in sizes.items() if size < minimum]:
        raise PlanError(f"{', '.join(wrong)}: it needs at least {minimum}")


def at_most(**sizes: int) -> None:
    """Raise `PlanError` that names the sizes of a fabric which are more than `MOST`; to be asked before it is made."""
    if wrong := [f"{shown(size)} {name} (at most {MOST[name]:,})" for name, size in sizes.items() if size > MOST[name]]:
        raise PlanError(f"such a fabric would be too large: {', '.join(wrong)}")


def shown(size: int) -> str:
    """A number that may be absurd, in few digits: Python refuses to write one of more than 4,300."""
    largest = 10**12
    return f"{size:,}" if abs(size) <= largest else f"{'less than -' if size < 0 else 'more than '}{largest:,}"
