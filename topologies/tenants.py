"""Tenants: networks of their own over one fabric, by VXLAN, whose addresses may be the same.

    plan = with_tenants(LeafSpine(2, 3, 4), [tenant("blue", 100, "192.168.0.0/24", ["h1", "h5", "h9"])])

Pure: `topologies.vtep` says how the kernel is told. A tenant has a member in each of its hosts, a namespace that sees
that network and no other: ``h1_blue``, with 192.168.0.1. Underscores, so that it is a word at Mininet's prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from topologies import cidr
from topologies.check import check
from topologies.draft import mac
from topologies.plan import HOST_MTU, OVERHEAD, FabricPlan, Member, PlanError, Tenant

#: The octet that members' MACs begin with; a VNI and a number follow, so none is there twice.
_MAC = 0x0A


def tenant(name: str, vni: int, prefix: str, hosts: Sequence[str], *, mss: int = 0) -> Tenant:
    """A tenant with a member in each of ``hosts``, the first with the first address of ``prefix``, and so on.

    Raises `PlanError` for a prefix that is no block of hosts' addresses, or has not enough of them.
    """
    network = cidr.unicast(cidr.block(prefix))
    room = max(0, network.num_addresses - 2)
    if len(hosts) > room:
        longest = 32 - (len(hosts) + 1).bit_length()
        raise PlanError(
            f"tenant {name}: {network} has room for {room} members, not for {len(hosts)}; take a /{longest}"
        )
    members = tuple(
        Member(f"{host}_{name}", host, f"{network.network_address + number}/{network.prefixlen}", _mac(vni, number))
        for number, host in enumerate(hosts, 1)
    )
    return Tenant(name, vni, str(network), members, mss)


def with_tenants(plan: FabricPlan, tenants: Iterable[Tenant]) -> FabricPlan:
    """The plan with these tenants, and links that carry their members' 1500 bytes through a tunnel.

    Raises `PlanError` with everything that `check` finds.
    """
    mtu = HOST_MTU + OVERHEAD if plan.mtu == HOST_MTU else plan.mtu
    found = msgspec.structs.replace(plan, tenants=tuple(tenants), mtu=mtu)
    check(found)
    return found


def _mac(vni: int, number: int) -> str:
    return mac(_MAC, (vni & 0xFFFFFF) << 16 | number)
