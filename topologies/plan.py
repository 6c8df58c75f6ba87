"""The fabric as frozen data: the one source of truth that builder, controller, fault engine and report all read.

A plan says what there is and what it is called; it never touches the kernel. Links have names a person would use
(``leaf1-spine2``, ``h3-leaf2``), and one direction of a link is ``leaf1>spine2``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Literal, TypeVar

import msgspec

from topologies.impairment import Impairment

T = TypeVar("T")

#: Linux keeps interface names in 16 bytes, the last of them NUL (IFNAMSIZ, netdevice(7)).
LONGEST_INTERFACE_NAME = 15

#: What hosts can send and receive, in bytes of IP packet.
HOST_MTU = 1500

#: What a tunnel adds to a packet within, in bytes of IP packet: the inner Ethernet header, VXLAN's, UDP's and IPv4's
#: (RFC 7348 §5).
OVERHEAD = 14 + 8 + 8 + 20

#: Where the kernel forwards, links between switches have their addresses from here (RFC 1918).
LINK_BLOCK = "172.16.0.0/12"

#: The OpenFlow cookie of the rules that faults put into table 0. The controller leaves flows with this cookie alone.
FAULT_COOKIE = 0xFA17 << 48


class PlanError(ValueError):
    """A plan that cannot be, or a name that the plan does not have; the message says which and what there is."""


class Switch(msgspec.Struct, frozen=True):
    name: str
    role: Literal["leaf", "spine"]
    datapath_id: int


class Host(msgspec.Struct, frozen=True):
    """``address`` carries its prefix length (``10.0.1.1/24``); ``gateway`` is the router address of its leaf."""

    name: str
    leaf: str
    address: str
    gateway: str
    mac: str

    @property
    def ip(self) -> str:
        return self.address.partition("/")[0]


class Member(msgspec.Struct, frozen=True):
    """A tenant's presence in a host: a namespace of its own, ``h1_blue``, behind the host's tunnel end.

    ``address`` is in the tenant's prefix and carries its length; members of other tenants may have the same.
    """

    name: str
    host: str
    address: str
    mac: str

    @property
    def ip(self) -> str:
        return self.address.partition("/")[0]


class Tenant(msgspec.Struct, frozen=True):
    """A network of its own over the fabric, by VXLAN (RFC 7348): only members of the same ``vni`` reach each other.

    ``mss`` is what the tunnel ends clamp TCP's largest segment to, in bytes; 0 for not at all.
    """

    name: str
    vni: int
    prefix: str
    members: tuple[Member, ...]
    mss: int = 0

    def member(self, host: str) -> Member:
        """The one in a host. Raises `PlanError` when there is none."""
        return _named(f"member of tenant {self.name} in", host, {member.host: member for member in self.members})


class End(msgspec.Struct, frozen=True):
    """Where a link meets a node: its interface, and the OpenFlow port number there (0 on a host)."""

    node: str
    interface: str
    port: int


class Link(msgspec.Struct, frozen=True):
    """Of several ways as good as each other, a link takes a part of the flows in proportion to its ``weight``.

    ``mtu`` is that of a link between switches which is narrower than the plan's, in bytes of IP packet; 0 for others.
    """

    name: str
    a: End
    b: End
    weight: int = 1
    mtu: int = 0

    @property
    def directions(self) -> tuple[str, str]:
        """Both directions, as ``a>b`` and ``b>a``."""
        return f"{self.a.node}>{self.b.node}", f"{self.b.node}>{self.a.node}"


class FabricPlan(msgspec.Struct, frozen=True, dict=True):
    """Switches, hosts and named links, with every address assigned. What it may be, and may not, `check` says.

    ``impairments`` maps a direction to what it does to packets from the start, before any fault.
    ``mtu`` is that of fabric links, in bytes of IP packet; hosts keep 1500. It is larger only where tunnels need room:
    with segmentation offload Open vSwitch cuts TCP's segments to the MTU of the link they leave by, so a larger one in
    the middle makes frames that no host's link can carry. Where there are ``tenants`` (`topologies.tenants`) the hosts'
    links have it, too, since tunnels end in the hosts, and it is the tenants' members that keep 1500.
    ``bfd_interval`` is the time in nanoseconds between two of the packets by which switches watch whether the links
    between them carry, so that one that is silently dead is left after three (RFC 5880); 0 for none.
    ``dataplane`` is what forwards: Open vSwitch under a controller, or the kernel's own routing (`topologies.routed`).
    """

    kind: str
    switches: tuple[Switch, ...]
    hosts: tuple[Host, ...]
    links: tuple[Link, ...]
    router_mac: str
    mtu: int = HOST_MTU
    bfd_interval: int = 0
    dataplane: Literal["ovs", "routed"] = "ovs"
    impairments: dict[str, Impairment] = {}
    tenants: tuple[Tenant, ...] = ()

    @cached_property
    def _switches(self) -> dict[str, Switch]:
        return {switch.name: switch for switch in self.switches}

    @cached_property
    def _hosts(self) -> dict[str, Host]:
        return {host.name: host for host in self.hosts}

    @cached_property
    def _endpoints(self) -> dict[str, Host | Member]:
        return {**self._hosts, **{member.name: member for tenant in self.tenants for member in tenant.members}}

    @cached_property
    def _tenants(self) -> dict[str, Tenant]:
        return {tenant.name: tenant for tenant in self.tenants}

    @cached_property
    def _links(self) -> dict[str, Link]:
        return {link.name: link for link in self.links}

    @cached_property
    def _directions(self) -> dict[str, tuple[End, End]]:
        ends: dict[str, tuple[End, End]] = {}
        for link in self.links:
            forth, back = link.directions
            ends[forth], ends[back] = (link.a, link.b), (link.b, link.a)
        return ends

    @cached_property
    def _links_of(self) -> dict[str, tuple[Link, ...]]:
        found: dict[str, list[Link]] = {}
        for link in self.links:
            found.setdefault(link.a.node, []).append(link)
            found.setdefault(link.b.node, []).append(link)
        return {node: tuple(links) for node, links in found.items()}

    def switch(self, name: str) -> Switch:
        return _named("switch", name, self._switches)

    def host(self, name: str) -> Host:
        member = self._endpoints.get(name)
        if isinstance(member, Member):
            raise PlanError(f"{name} is a tenant's member, and a host is meant here: {member.host}")
        return _named("host", name, self._hosts)

    def tenant(self, name: str) -> Tenant:
        return _named("tenant", name, self._tenants)

    def endpoint(self, name: str) -> Host | Member:
        """What has an address and a namespace of that name: a host, or a tenant's member such as ``h1_blue``."""
        return _named("host", name, self._endpoints)

    @property
    def endpoints(self) -> tuple[Host | Member, ...]:
        """Every host, then every member of every tenant."""
        return tuple(self._endpoints.values())

    def network(self, name: str) -> tuple[str, ...]:
        """All who are in one network with an endpoint, itself included: the hosts, or the members of its tenant."""
        if isinstance(self.endpoint(name), Host):
            return tuple(self._hosts)
        networks = (tuple(member.name for member in tenant.members) for tenant in self.tenants)
        return next(names for names in networks if name in names)

    def mtu_of(self, link: Link) -> int:
        """In bytes of IP packet."""
        return link.mtu or (self.mtu if link.a.port and link.b.port else self.host_mtu)

    @property
    def is_uniform(self) -> bool:
        """Whether every link carries what hosts send by themselves, and no more."""
        return all(self.mtu_of(link) == HOST_MTU for link in self.links)

    @property
    def host_mtu(self) -> int:
        """That of the links of hosts, in bytes of IP packet."""
        return self.mtu if self.tenants else HOST_MTU

    def link(self, name: str) -> Link:
        return _named("link", name, self._links)

    def ends(self, direction: str) -> tuple[End, End]:
        """The sending and the receiving end of a direction such as ``leaf1>spine2``."""
        return _named("direction", direction, self._directions)

    def links_of(self, node: str) -> tuple[Link, ...]:
        """Every link that meets ``node``, in the plan's order."""
        return self._links_of.get(node, ())

    def by_role(self, role: Literal["leaf", "spine"]) -> tuple[Switch, ...]:
        return tuple(switch for switch in self.switches if switch.role == role)

    def hosts_of(self, leaf: str) -> tuple[Host, ...]:
        return tuple(host for host in self.hosts if host.leaf == leaf)

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @staticmethod
    def from_json(data: bytes) -> FabricPlan:
        """Raises `PlanError` when ``data`` is not a plan, or one that cannot be (`topologies.check`)."""
        from topologies.check import check  # which is about what is defined here

        try:
            plan = msgspec.json.decode(data, type=FabricPlan)
        except (msgspec.DecodeError, ValueError) as error:
            raise PlanError(f"not a fabric plan: {error}") from error
        check(plan)
        return plan


def _named(kind: str, name: str, known: dict[str, T]) -> T:
    try:
        return known[name]
    except KeyError:
        raise PlanError(f"no {kind} {name!r}; there is {_some(known)}") from None


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "")
