"""Tenants: networks of their own over one fabric, by VXLAN, whose addresses may be the same.

    plan = with_tenants(LeafSpine(2, 3, 4), [tenant("blue", 100, "192.168.0.0/24", ["h1", "h5", "h9"])])

Pure: `topologies.vtep` says how the kernel is told. A tenant has a member in each of its hosts, a namespace that sees
that network and no other: ``h1_blue``, with 192.168.0.1. Underscores, so that it is a word at Mininet's prompt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from topologies import cidr
from topologies.draft import mac
from topologies.plan import HOST_MTU, FabricPlan, Member, PlanError, Tenant

#: What a tunnel adds to a packet within, in bytes of IP packet: the inner Ethernet header, VXLAN's, UDP's and IPv4's
#: (RFC 7348 §5).
OVERHEAD = 14 + 8 + 8 + 20

#: RFC 7348 §5: a VXLAN network identifier has 24 bits. 0 is kept for nobody.
VNIS = range(1, 1 << 24)

#: From Linux's least (TCP_MIN_MSS) to what fits into 1500 bytes beside the headers of IPv4 and TCP.
MSS = range(88, HOST_MTU - 40 + 1)

_NAME = re.compile(r"[a-z][a-z0-9]{0,14}")
#: The octet that members' MACs begin with; a VNI and a number follow, so none is there twice.
_MAC = 0x0A


def tenant(name: str, vni: int, prefix: str, hosts: Sequence[str], *, mss: int = 0) -> Tenant:
    """A tenant with a member in each of ``hosts``, the first with the first address of ``prefix``, and so on.

    Raises `PlanError` for a prefix that is no block of addresses, or has not enough of them.
    """
    network = cidr.block(prefix)
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

    Raises `PlanError` with everything `problems` finds.
    """
    mtu = HOST_MTU + OVERHEAD if plan.mtu == HOST_MTU else plan.mtu
    found = msgspec.structs.replace(plan, tenants=tuple(tenants), mtu=mtu)
    if wrong := problems(found):
        raise PlanError("; ".join(wrong))
    return found


def problems(plan: FabricPlan) -> list[str]:
    """Every reason why the plan's tenants could not work."""
    found = [
        f"{what} {name} is there more than once"
        for what, names in (
            ("tenant", [one.name for one in plan.tenants]),
            ("VNI", [one.vni for one in plan.tenants]),
        )
        for name, times in Counter[object](names).items()
        if times > 1
    ]
    if plan.tenants and plan.mtu < HOST_MTU + OVERHEAD:
        found.append(
            f"the MTU is {plan.mtu}, which no tunnel of {HOST_MTU} bytes fits: VXLAN adds {OVERHEAD}, "
            f"so it is at least {HOST_MTU + OVERHEAD}"
        )
    taken = {host.name for host in plan.hosts} | {switch.name for switch in plan.switches}
    for one in plan.tenants:
        found += [f"tenant {one.name}: {problem}" for problem in _problems(plan, one, taken)]
    return found


def _problems(plan: FabricPlan, tenant: Tenant, taken: set[str]) -> list[str]:
    found = []
    if not _NAME.fullmatch(tenant.name):
        found.append("a tenant's name is a small letter and up to 14 more letters or digits")
    if tenant.vni not in VNIS:
        found.append(f"VNI {tenant.vni} is not between {VNIS.start} and {VNIS.stop - 1}")
    if tenant.mss and tenant.mss not in MSS:
        found.append(f"mss is {tenant.mss}; it is between {MSS.start} and {MSS.stop - 1}, or 0 for no clamping")
    if not tenant.members:
        found.append("it has no members")
    for member in tenant.members:
        try:
            plan.host(member.host)
        except PlanError as error:
            found.append(str(error))
    for what, values in (
        ("host", [member.host for member in tenant.members]),
        ("address", [member.ip for member in tenant.members]),
        ("MAC address", [member.mac for member in tenant.members]),
    ):
        found += [f"{what} {value} is there more than once" for value, times in Counter(values).items() if times > 1]
    if clash := sorted({member.name for member in tenant.members} & taken):
        found.append(f"{', '.join(clash)} is the name of something else")
    if outside := [one.name for one in tenant.members if str(cidr.network_of(one.address)) != tenant.prefix]:
        found.append(f"the address of {', '.join(outside)} is not in {tenant.prefix}")
    return found


def _mac(vni: int, number: int) -> str:
    return mac(_MAC, (vni & 0xFFFFFF) << 16 | number)
