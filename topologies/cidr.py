"""Addresses by splitting blocks: networks for hosts, /31s for links, and a check that nothing overlaps.

    leaves = split("10.0.0.0/8", 3, hosts=20)       # three /27s, each for 20 hosts and their router
    near, far = next(link_pairs("172.16.0.0/12"))   # 172.16.0.0/31 and 172.16.0.1/31

Blocks are IPv4, as text or as `ipaddress.IPv4Network`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Interface, IPv4Network

from topologies.plan import PlanError


def block(text: str | IPv4Network) -> IPv4Network:
    """Raises `PlanError` for what is no block, and says which one was probably meant when bits of a host are set."""
    try:
        return IPv4Network(text)
    except ValueError as error:
        try:
            meant = f"; did you mean {IPv4Network(text, strict=False)}?"
        except ValueError:
            meant = ": write a network and its prefix length, such as 10.0.0.0/8"
        raise PlanError(f"{str(text)!r} is no block of addresses ({error}){meant}") from None


def split(whole: str | IPv4Network, networks: int, *, hosts: int, longest: int = 30) -> list[IPv4Network]:
    """The first ``networks`` equal parts of a block, each with room for ``hosts``, a router and the two of RFC 919.

    The parts are as small as that allows, or of prefix length ``longest``. Raises `PlanError` when they do not fit, or
    a number is negative.
    """
    given = block(whole)
    if networks < 0 or hosts < 0:
        raise PlanError(f"{networks} networks of {hosts} hosts: neither can be negative")
    prefix = min(longest, 32 - (hosts + 2).bit_length())
    if prefix < given.prefixlen or networks > 2 ** (prefix - given.prefixlen):
        room = 2 ** max(0, prefix - given.prefixlen) if prefix >= given.prefixlen else 0
        raise PlanError(
            f"{networks} networks of {hosts} hosts do not fit into {given}: each needs a /{prefix}, and there is room "
            f"for {room}; take a larger block"
        )
    return list(itertools.islice(given.subnets(new_prefix=prefix), networks))


def link_pairs(whole: str | IPv4Network) -> Iterator[tuple[IPv4Interface, IPv4Interface]]:
    """The two ends of each point-to-point link, from consecutive /31s (RFC 3021).

    The iterator raises `PlanError` when the block is used up.
    """
    given = block(whole)
    if given.prefixlen > 31:
        raise PlanError(f"{given} is a single address; a link needs a /31")
    for pair in given.subnets(new_prefix=31):
        yield IPv4Interface(f"{pair[0]}/31"), IPv4Interface(f"{pair[1]}/31")
    raise PlanError(f"{given} has no more than {given.num_addresses // 2} links of a /31 each; take a larger block")


def check_apart(networks: Mapping[str, str | IPv4Network]) -> None:
    """Raise `PlanError` that names every two of these networks, ``{"leaf1": "10.0.1.0/24"}``, that overlap."""
    ordered = sorted(((block(network), name) for name, network in networks.items()), key=lambda one: one[0])
    overlaps = []
    reach: list[tuple[IPv4Network, str]] = []
    for network, name in ordered:
        # Sorted by their first address, an earlier one that ends before this begins meets nobody any more.
        reach = [one for one in reach if one[0].broadcast_address >= network.network_address]
        overlaps += [f"{other} {wide} and {name} {network}" for wide, other in reach]
        reach.append((network, name))
    if overlaps:
        raise PlanError(f"addresses overlap: {'; '.join(overlaps)}")


def interface(address: str) -> IPv4Interface:
    """A host's address with its prefix length, ``10.0.1.1/24``.

    Raises `PlanError` for anything else, also for the address of the network itself and for that of all in it.
    """
    try:
        found = IPv4Interface(address)
    except ValueError:
        found = None
    if found is None or str(found) != address:  # 10.0.1.1/255.255.255.0, and 10.0.1.1, which is a network by itself
        raise PlanError(f"{address!r} is no address with a prefix length, such as 10.0.1.1/24")
    if found.network.prefixlen < 31 and found.ip in (found.network.network_address, found.network.broadcast_address):
        raise PlanError(f"{address} is the address of a whole network, not of a host in it")
    return found


def network_of(address: str) -> IPv4Network:
    """The network of an address with its prefix length, ``10.0.1.1/24``. Raises `PlanError` for anything else."""
    return interface(address).network


#: What no host can be called.
_NO_HOSTS = {
    IPv4Network("0.0.0.0/8"): "unspecified: it is only for hosts that have no address yet (RFC 1122 §3.2.1.3)",
    IPv4Network("127.0.0.0/8"): "loopback: packets to it never leave a host (RFC 1122 §3.2.1.3)",
    IPv4Network("224.0.0.0/4"): "multicast: its addresses are groups', no host's (RFC 5771)",
}


def unicast(network: IPv4Network) -> IPv4Network:
    """The same network. Raises `PlanError`, with the reason, where hosts cannot have the addresses in it."""
    for block, reason in _NO_HOSTS.items():
        if network.overlaps(block):
            within = f"{network} is" if network.subnet_of(block) else f"{network} has {block}, which is"
            raise PlanError(f"{within} {reason}")
    return network
