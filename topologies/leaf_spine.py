"""Leaf-spine: every leaf has one link to every spine, hosts hang off the leaves."""

from __future__ import annotations

import ipaddress

from topologies.plan import LONGEST_INTERFACE_NAME, End, FabricPlan, Host, Link, PlanError, Switch

#: Hosts live in this block (RFC 1918); every leaf gets one equal part of it.
HOST_BLOCK = ipaddress.IPv4Network("10.0.0.0/8")


def LeafSpine(spines: int, leaves: int, hosts_per_leaf: int) -> FabricPlan:  # noqa: N802 - it reads as a noun in scenarios
    """The plan of a two-tier Clos fabric: ``spines`` × ``leaves`` links, ``leaves * hosts_per_leaf`` hosts.

    Host numbers run through the leaves: with four hosts a leaf, h1-h4 are in leaf1 and h5-h8 in leaf2. Leaf *i* has
    the *i*-th /24 (or larger, when it has more than 253 hosts) of 10.0.0.0/8, its router address the last usable one.
    Raises `PlanError` for a fabric that cannot be.
    """
    for name, count in (("spines", spines), ("leaves", leaves), ("hosts_per_leaf", hosts_per_leaf)):
        if count < 1:
            raise PlanError(f"{name} is {count}; a leaf-spine fabric needs at least 1")
    prefix = min(24, 32 - (hosts_per_leaf + 2).bit_length())
    if leaves > 2 ** (prefix - HOST_BLOCK.prefixlen) - 1:
        raise PlanError(f"{leaves} leaves of {hosts_per_leaf} hosts do not fit into {HOST_BLOCK}")
    longest = (
        f"leaf{leaves}-eth{hosts_per_leaf + spines}",
        f"spine{spines}-eth{leaves}",
        f"h{leaves * hosts_per_leaf}-eth0",
    )
    for interface in longest:
        if len(interface) > LONGEST_INTERFACE_NAME:
            raise PlanError(
                f"{spines} × {leaves} × {hosts_per_leaf} is too large: its interface {interface} would be longer than "
                f"the {LONGEST_INTERFACE_NAME} characters Linux allows"
            )
    subnets = HOST_BLOCK.subnets(new_prefix=prefix)
    next(subnets)  # leaf numbers start at 1, and so do the third bytes of their addresses

    leaf_names = [f"leaf{number}" for number in range(1, leaves + 1)]
    spine_names = [f"spine{number}" for number in range(1, spines + 1)]
    switches = [Switch(name, "leaf", 0x1000 + number) for number, name in enumerate(leaf_names, 1)]
    switches += [Switch(name, "spine", 0x2000 + number) for number, name in enumerate(spine_names, 1)]

    hosts: list[Host] = []
    links: list[Link] = []
    for leaf_number, (leaf, subnet) in enumerate(zip(leaf_names, subnets, strict=False)):
        gateway = subnet.broadcast_address - 1
        for port in range(1, hosts_per_leaf + 1):
            number = leaf_number * hosts_per_leaf + port
            name = f"h{number}"
            address = subnet.network_address + port
            hosts.append(Host(name, leaf, f"{address}/{prefix}", str(gateway), _mac(0x02, number)))
            links.append(_link(name, End(name, f"{name}-eth0", 0), leaf, port))
        for spine_number, spine in enumerate(spine_names):
            port = hosts_per_leaf + spine_number + 1
            links.append(_link(leaf, End(leaf, f"{leaf}-eth{port}", port), spine, leaf_number + 1))
    return FabricPlan("leaf-spine", tuple(switches), tuple(hosts), tuple(links), router_mac=_mac(0x06, 0xFE))


def _link(near: str, end: End, far: str, port: int) -> Link:
    return Link(f"{near}-{far}", end, End(far, f"{far}-eth{port}", port))


def _mac(first: int, number: int) -> str:
    """A locally administered unicast address (IEEE 802: bit 1 of the first octet set, bit 0 clear)."""
    return ":".join(f"{octet:02x}" for octet in (first, *number.to_bytes(5, "big")))
