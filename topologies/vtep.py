"""Tunnel ends: how hosts carry tenants over the fabric, and what is dropped there.

Every host with a member of a tenant has a VXLAN device for it, in a bridge whose other port leads to the member's
namespace (RFC 7348; the shape of a hypervisor and its guests):

    member h1_blue: eth0 ── veth100 [ br100 ] vxlan100 ── h1-eth0 ── leaf1     of VNI 100

So tenants' packets cross the links of the plan, and whatever happens to those happens to them. Nothing is learnt: who
is behind which tunnel is told from the plan, and the bridge answers ARP for those it knows (``neigh_suppress``), as
where BGP EVPN tells it (RFC 9135 §2, and FRR's guide). What a tunnel end does not know, and what is for everybody, it
copies to all the tenant's others (head-end replication).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from topologies import netns, nftables
from topologies.dataplane import Dataplane, DataplaneError, Fault, Grudge
from topologies.plan import HOST_MTU, FabricPlan, Host, Member, PlanError, Tenant
from topologies.rtnetlink import (
    Message,
    Netlink,
    NetlinkError,
    Port,
    new_address,
    new_bridge,
    new_flooding,
    new_forwarding,
    new_neighbour,
    new_route,
    new_tunnel,
    new_veth,
    new_vxlan,
    set_master,
    set_state,
    suppress_arp,
)

#: IANA's for VXLAN (RFC 7348 §8).
PORT = 4789

#: RFC 7348 §5: the outer source port should be of the dynamic range.
SOURCE_PORTS = range(49_152, 65_536)

MEMBER_INTERFACE = "eth0"
_MEMBER_INDEX = 100
#: A host's tunnel interfaces are numbered from here, three a tenant.
_FIRST_INDEX = 1000


def _indices(plan: FabricPlan, tenant: Tenant) -> tuple[int, int, int]:
    """Of a tenant's bridge, VXLAN device and member's port, the same in each of its hosts."""
    first = _FIRST_INDEX + 3 * plan.tenants.index(tenant)
    return first, first + 1, first + 2


def tenants_of(plan: FabricPlan, host: str) -> Iterator[tuple[Tenant, Member]]:
    """The members that live in a host."""
    for tenant in plan.tenants:
        for member in tenant.members:
            if member.host == host:
                yield tenant, member


def member_side(plan: FabricPlan, tenant: Tenant, member: Member, host: int, congestion_control: str) -> list[Message]:
    """What is told in a member's namespace; ``host`` is an open file of its host's.

    Members know each other's MACs for ever, though the tunnel end would answer, since all namespaces of a machine
    share one ARP table (see `rtnetlink.new_neighbour`).
    """
    _, _, port = _indices(plan, tenant)
    index = _MEMBER_INDEX
    return [
        new_veth(
            Port(MEMBER_INTERFACE, HOST_MTU, number=index, mac=member.mac),
            Port(f"veth{tenant.vni}", HOST_MTU, number=port, namespace=host),
        ),
        set_state("lo", up=True),
        new_address(index, member.address),
        new_route(tenant.prefix, index=index, congestion_control=congestion_control),
        *(new_neighbour(index, other.ip, other.mac) for other in tenant.members if other != member),
    ]


def host_side(plan: FabricPlan, tenant: Tenant, member: Member) -> list[Message]:
    """What is told in the namespace of a member's host, once the member's is there."""
    bridge, vxlan, port = _indices(plan, tenant)
    messages = [
        new_bridge(Port(f"br{tenant.vni}", HOST_MTU, number=bridge)),
        new_vxlan(
            Port(f"vxlan{tenant.vni}", HOST_MTU, number=vxlan),
            vni=tenant.vni,
            local=plan.host(member.host).ip,
            udp_port=PORT,
            source_ports=SOURCE_PORTS,
        ),
        set_master(vxlan, bridge),
        set_master(port, bridge),
        suppress_arp(vxlan),
        new_forwarding(port, member.mac),
    ]
    for other in tenant.members:
        if other != member:
            end = plan.host(other.host).ip
            messages += [
                new_tunnel(vxlan, other.mac, end),
                new_flooding(vxlan, end),
                new_neighbour(bridge, other.ip, other.mac),
            ]
    return messages


def clamping(plan: FabricPlan, tenant: Tenant) -> list[Message]:
    """What has a tunnel end clamp the segments of a tenant that wants it (``mss``), both ways."""
    _, vxlan, port = _indices(plan, tenant)
    table = f"mss-{tenant.name}"
    rules = [nftables.clamp_rule(table, out, tenant.mss) for out in (vxlan, port)]
    return [*nftables.new_table(table), *rules]


def tunnels_missing() -> str | None:
    """Why no tenant can be built in this network namespace; None when one can. Tries it, and leaves what it made."""
    index = _FIRST_INDEX
    try:
        with Netlink() as ours:
            ours.request(
                [
                    new_bridge(Port("br1", HOST_MTU, number=index)),
                    new_vxlan(
                        Port("vxlan1", HOST_MTU, number=index + 1),
                        vni=1,
                        local="127.0.0.1",
                        udp_port=PORT,
                        source_ports=SOURCE_PORTS,
                    ),
                    set_master(index + 1, index),
                    suppress_arp(index + 1),
                ]
            )
        rules = [nftables.drop_rule("trial", index + 1, "10.0.0.1"), nftables.clamp_rule("trial", index + 1, 1360)]
        nftables.commit([*nftables.new_table("trial"), *rules])
    except NetlinkError as error:
        return f"the kernel refused {error.filename}: {error.strerror}"
    return None


def split(plan: FabricPlan, grudge: Grudge) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """The part of a grudge that is between hosts, and the part between members of tenants.

    Raises `PlanError` for a pair that is not in one network, and for names the plan does not have.
    """
    outer: dict[str, set[str]] = {}
    inner: dict[str, set[str]] = {}
    for receiver, senders in sorted(grudge.items()):
        network = set(plan.network(receiver))
        for sender in sorted(senders):
            if plan.endpoint(sender).name not in network:
                raise PlanError(
                    f"{receiver} cannot be made deaf to {sender}: it never hears it, they are not in one network"
                )
            if receiver == sender:
                raise PlanError(f"{receiver} cannot be cut off from itself: what it sends itself never leaves it")
            (outer if isinstance(plan.endpoint(receiver), Host) else inner).setdefault(receiver, set()).add(sender)
    return outer, inner


class VtepDataplane:
    """`Dataplane` of a plan with tenants: what is between their members is dropped at the receiver's tunnel end.

    A rule on the fabric sees tunnels only. The rest is the fabric's own dataplane's, ``underlay``.
    """

    def __init__(self, plan: FabricPlan, underlay: Dataplane) -> None:
        self._plan = plan
        self._underlay = underlay
        self._serials = itertools.count(1)
        self._grudges: dict[Fault, tuple[Fault | None, str, list[str]]] = {}

    def cut(self, link: str) -> Fault:
        return self._underlay.cut(link)

    def restore(self, link: str) -> None:
        self._underlay.restore(link)

    def drop(self, grudge: Grudge) -> Fault:
        outer, inner = split(self._plan, grudge)
        table = f"grudge-{next(self._serials)}"
        told = _tables(self._plan, table, inner)
        below = self._underlay.drop(outer) if outer else None
        done: list[str] = []
        try:
            for host, messages in told.items():
                _tell(host, messages)
                done.append(host)
        except DataplaneError:
            self._forget(below, table, done)
            raise
        fault = Fault(self)
        self._grudges[fault] = below, table, done
        return fault

    def lift(self, fault: Fault) -> None:
        if fault in self._grudges:
            self._forget(*self._grudges[fault])
            del self._grudges[fault]
        else:
            self._underlay.lift(fault)

    @staticmethod
    def _forget(below: Fault | None, table: str, hosts: list[str]) -> None:
        if below is not None:
            below.lift()
        for host in hosts:
            _tell(host, [nftables.delete_table(table)])


def _tables(plan: FabricPlan, table: str, grudge: Mapping[str, set[str]]) -> dict[str, list[Message]]:
    """The table that each receiver's host is to have."""
    owners = {member.name: (tenant, member) for tenant in plan.tenants for member in tenant.members}
    told: dict[str, list[Message]] = {}
    for receiver, senders in grudge.items():
        tenant, member = owners[receiver]
        messages = told.setdefault(member.host, nftables.new_table(table))
        _, _, port = _indices(plan, tenant)
        messages += [nftables.drop_rule(table, port, plan.endpoint(sender).ip) for sender in sorted(senders)]
    return told


def _tell(host: str, messages: list[Message]) -> None:
    try:
        with netns.inside(host):
            nftables.commit(messages)
    except NetlinkError as error:
        raise DataplaneError(f"{host}: {error.filename} failed: {error.strerror}") from error
