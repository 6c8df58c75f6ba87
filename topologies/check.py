"""Whether a plan can be built, and would work if it were: every reason why not, wherever the plan came from.

Pure. What makes plans asks here before it hands one out, and so does whoever takes one: `FabricPlan.from_json`, which
a person may have edited, and `Fabric`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from ipaddress import IPv4Address, IPv4Network

from topologies import cidr
from topologies.plan import HOST_MTU, LINK_BLOCK, LONGEST_INTERFACE_NAME, OVERHEAD, FabricPlan, Link, PlanError, Tenant

#: What nodes, links and interfaces are called. They become files (``/run/netns``), words of commands, patterns of links
#: (``leaf1-*``) and parts of directions (``a>b``), so nothing that means something there is in them. Being ASCII they
#: have as many bytes as characters, and are no longer than a label of a host's name (RFC 1035 §2.3.4).
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

#: Numbers above are OpenFlow's reserved ports (OpenFlow 1.5 §7.2.1, as Open vSwitch has it for 1.0).
MOST_PORTS = 0xFEFF

#: RFC 7348 §5: a VXLAN network identifier has 24 bits. 0 is kept for nobody.
VNIS = range(1, 1 << 24)

#: From Linux's least (TCP_MIN_MSS) to what fits into 1500 bytes beside the headers of IPv4 and TCP.
MSS = range(88, HOST_MTU - 40 + 1)

#: Nanoseconds between two of BFD's packets; Open vSwitch takes whole milliseconds (ovs-vswitchd.conf.db(5), min_tx).
BFD_INTERVALS = range(1_000_000, 10_000_000_000 + 1, 1_000_000)

#: What a link can weigh: a bucket's weight in OpenFlow has 16 bits (OpenFlow 1.3 §A.3.4.2), and 0 is for never.
WEIGHTS = range(1, 1 << 16)

#: Ethernet's largest payload that anything here carries, jumbo frames, and IPv4's least MTU (RFC 791).
_LARGEST_MTU, _LEAST_MTU = 9_000, 576

_DATAPATH_IDS = range(1, 1 << 64)

#: Interfaces that the kernel or Open vSwitch has already, and directories beside those of interfaces (net.ipv4.conf).
_RESERVED = {"lo", "all", "default", "ovs-netdev", "ovs-system"}

_TENANT = re.compile(r"[a-z][a-z0-9]{0,14}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

_LISTED = 6


def check(plan: FabricPlan) -> None:
    """Raise `PlanError` with every reason why this plan cannot be built, or could not work if it were."""
    problems = [
        *_name_problems(plan),
        *_link_problems(plan),
        *_mtu_problems(plan),
        *_address_problems(plan),
        *_tenant_problems(plan),
    ]
    if plan.dataplane == "routed" and plan.bfd_interval:
        problems.append("BFD is Open vSwitch's, and with the dataplane routed there is none: leave the interval out")
    if plan.bfd_interval and plan.bfd_interval not in BFD_INTERVALS:
        problems.append(f"BFD's interval is {plan.bfd_interval} ns; it is 1 ms to 10 s, in whole milliseconds")
    if not problems:
        problems += _unreachable(plan)
    if problems:
        raise PlanError("; ".join(problems))


# -- names and numbers


def _name_problems(plan: FabricPlan) -> list[str]:
    ends = [end for link in plan.links for end in (link.a, link.b)]
    switches = [switch.name for switch in plan.switches]
    hosts = [host.name for host in plan.hosts]
    interfaces = [end.interface for end in ends]
    links = [link.name for link in plan.links]
    problems = [
        *_repeated("name", [*switches, *hosts]),
        *_repeated("link", links),
        *_repeated("interface", interfaces),
        *_repeated("datapath id", [f"{switch.datapath_id:#x}" for switch in plan.switches]),
        *_repeated("port", [f"{end.port} of {end.node}" for end in ends if end.port]),
    ]
    if both := sorted(set(switches) & set(interfaces)):
        problems.append(f"{_some(both)} is a switch's name and an interface's")
    # What is called after a node that has no proper name has none, either: the node is enough.
    if bad := _no_names(switches + hosts) or _no_names(links + interfaces):
        problems.append(
            f"{_some(map(_shown, bad))} is no name: it is of ASCII letters, digits, '_', '.' and '-', begins with a "
            "letter or a digit and has at most 63 of them"
        )
    if taken := [name for name in dict.fromkeys([*switches, *interfaces]) if name in _RESERVED]:
        problems.append(f"{_some(taken)} is what the kernel or Open vSwitch has already: choose another name")
    if long := [name for name in [*interfaces, *switches] if NAME.fullmatch(name) and too_long(name)]:
        problems.append(name_too_long(long))
    if strange := [switch.name for switch in plan.switches if switch.datapath_id not in _DATAPATH_IDS]:
        problems.append(f"the datapath id of {_some(strange)} is not one of 64 bits, other than 0")
    return problems


def _no_names(names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if not NAME.fullmatch(name)]


def too_long(name: str) -> bool:
    """Whether Linux would not have this name for an interface."""
    return len(name.encode()) > LONGEST_INTERFACE_NAME


def name_too_long(names: Iterable[str]) -> str:
    """What to say of them."""
    return (
        f"{_some(names)} would be longer than the {LONGEST_INTERFACE_NAME} bytes Linux allows for an interface's name: "
        "use shorter names, or fewer ports"
    )


# -- links


def _link_problems(plan: FabricPlan) -> list[str]:
    problems = []
    switches, hosts = {switch.name for switch in plan.switches}, {host.name for host in plan.hosts}
    leaves = {switch.name for switch in plan.by_role("leaf")}
    ends = [end for link in plan.links for end in (link.a, link.b)]
    if not hosts:
        problems.append("there are no hosts")
    if unknown := sorted({end.node for end in ends} - switches - hosts):
        problems.append(f"links lead to {_some(map(_shown, unknown))}, which the plan does not have")
    if loops := [link.name for link in plan.links if link.a.node == link.b.node]:
        problems.append(f"{_some(loops)} leads from a switch to itself")
    problems += _parallel(plan.links)
    if high := [f"{end.port} of {end.node}" for end in ends if not 0 <= end.port <= MOST_PORTS]:
        problems.append(f"a switch's ports have numbers up to {MOST_PORTS}: there is {_some(high)}")
    if odd := [f"{end.port} of {end.node}" for end in ends if bool(end.port) != (end.node in switches)]:
        problems.append(f"a switch's ports have numbers from 1, a host's has 0: there is {_some(odd)}")
    if astray := [host.name for host in plan.hosts if not _hangs_off_its_leaf(plan, host.name, host.leaf)]:
        problems.append(f"a host has one link, to its leaf: {_some(astray)} has not")
    if aloft := [f"{host.name} of {_shown(host.leaf)}" for host in plan.hosts if host.leaf not in leaves]:
        problems.append(f"hosts hang off leaves: {_some(aloft)} does not")
    if heavy := [f"{link.weight} of {link.name}" for link in plan.links if link.weight not in WEIGHTS]:
        problems.append(f"a weight is between {WEIGHTS.start} and {WEIGHTS.stop - 1}: there is {_some(heavy)}")
    known = {direction for link in plan.links for direction in link.directions}
    if strange := [name for name in plan.impairments if name not in known]:
        problems.append(f"{_some(map(_shown, strange))} is impaired, and no direction of a link, such as leaf1>spine1")
    return problems


def _parallel(links: Iterable[Link]) -> list[str]:
    between: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for link in links:
        between[tuple(sorted(link.directions))].append(link.name)
    return [
        f"{' and '.join(names)} have the same directions, {' and '.join(map(_shown, directions))}: "
        "two nodes have one link"
        for directions, names in between.items()
        if len(names) > 1
    ][:_LISTED]


def _hangs_off_its_leaf(plan: FabricPlan, host: str, leaf: str) -> bool:
    links = plan.links_of(host)
    return len(links) == 1 and {links[0].a.node, links[0].b.node} == {host, leaf}


def _mtu_problems(plan: FabricPlan) -> list[str]:
    if not _LEAST_MTU <= plan.mtu <= _LARGEST_MTU:
        return [f"the MTU is {plan.mtu}; it is between {_LEAST_MTU} and {_LARGEST_MTU} bytes"]
    problems = []
    if plan.mtu < HOST_MTU:
        problems.append(f"the MTU of fabric links is {plan.mtu}, which the hosts' packets of {HOST_MTU} do not fit")
    elif plan.tenants and plan.mtu < HOST_MTU + OVERHEAD:
        problems.append(
            f"the MTU is {plan.mtu}, which no tunnel of {HOST_MTU} bytes fits: VXLAN adds {OVERHEAD}, "
            f"so it is at least {HOST_MTU + OVERHEAD}"
        )
    own = [link for link in plan.links if link.mtu]
    if wrong := [f"{link.mtu} of {link.name}" for link in own if not _LEAST_MTU <= link.mtu <= plan.mtu]:
        problems.append(
            f"a link's own MTU is between {_LEAST_MTU} and the fabric's {plan.mtu} bytes: there is {_some(wrong)}"
        )
    if at_hosts := [link.name for link in own if not (link.a.port and link.b.port)]:
        problems.append(f"links of hosts have the hosts' MTU, no own: {_some(at_hosts)} has")
    return problems


# -- addresses


def _address_problems(plan: FabricPlan) -> list[str]:
    problems = [
        *_repeated("address", [host.ip for host in plan.hosts] + sorted({host.gateway for host in plan.hosts})),
        *_repeated("MAC address", [*(host.mac for host in plan.hosts), plan.router_mac]),
    ]
    macs = {"the router": plan.router_mac, **{host.name: host.mac for host in plan.hosts}}
    macs |= {member.name: member.mac for tenant in plan.tenants for member in tenant.members}
    problems += _mac_problems(macs)
    wrong = []
    seen: dict[tuple[str, IPv4Network], str] = {}
    for host in plan.hosts:
        try:
            network = cidr.interface(host.address).network
            _check_gateway(host.gateway, network)
            cidr.unicast(network)
        except PlanError as error:
            wrong.append(f"{_shown(host.name)}: {error}")
            continue
        seen.setdefault((host.leaf, network), f"{host.name} of {host.leaf}")
    problems += wrong[:_LISTED]
    networks = {name: network for (_, network), name in seen.items()}
    if plan.dataplane == "routed":
        networks["a routed fabric's own links"] = IPv4Network(LINK_BLOCK)
    try:
        cidr.check_apart(networks)
    except PlanError as error:
        problems.append(str(error))
    return problems


def _mac_problems(macs: Mapping[str, str]) -> list[str]:
    """Of who has which."""
    # Groups' addresses have the lowest bit of the first octet set (IEEE 802), and nobody is called all zeros.
    if wrong := [
        f"{_shown(mac)} of {_shown(owner)}"
        for owner, mac in macs.items()
        if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or not mac.strip("0:")
    ]:
        return [f"a MAC address is one station's, in small letters, such as 02:00:00:00:00:01: there is {_some(wrong)}"]
    return []


def _check_gateway(gateway: str, network: IPv4Network) -> None:
    try:
        address = IPv4Address(gateway)
    except ValueError:
        raise PlanError(f"its gateway {_shown(gateway)} is no address") from None
    if address not in network or address in (network.network_address, network.broadcast_address):
        raise PlanError(f"its gateway {gateway} is no address in its network {network}")


# -- ways


def _unreachable(plan: FabricPlan) -> list[str]:
    """Leaves between which there is no way of spines, as nothing passes through a leaf."""
    part = _parts(plan)
    # Leaves that touch the same parts of the spines are alike.
    alike: dict[frozenset[str], list[str]] = defaultdict(list)
    for leaf in dict.fromkeys(host.leaf for host in plan.hosts):
        others = ({link.a.node, link.b.node} - {leaf} for link in plan.links_of(leaf))
        alike[frozenset(part[node] for nodes in others for node in nodes if node in part)].append(leaf)
    for touched, (leaf, *_) in alike.items():
        apart = [other for parts, leaves in alike.items() if not parts & touched for other in leaves if other != leaf]
        if apart:
            return [f"hosts of {_some(apart)} cannot reach those of {leaf}: there is no way of spines between them"]
    return []


def _parts(plan: FabricPlan) -> dict[str, str]:
    """For every spine the first of those that it reaches over spines alone."""
    part: dict[str, str] = {}
    spines = dict.fromkeys(switch.name for switch in plan.by_role("spine"))
    for spine in spines:
        if spine in part:
            continue
        part[spine], waiting = spine, [spine]
        while waiting:
            for link in plan.links_of(waiting.pop()):
                for node in (link.a.node, link.b.node):
                    if node in spines and node not in part:
                        part[node] = spine
                        waiting.append(node)
    return part


# -- tenants


def _tenant_problems(plan: FabricPlan) -> list[str]:
    found = [
        *_repeated("tenant", [one.name for one in plan.tenants]),
        *_repeated("VNI", [str(one.vni) for one in plan.tenants]),
    ]
    hosts = [host.name for host in plan.hosts]
    taken = {*hosts, *(switch.name for switch in plan.switches)}
    for one in plan.tenants:
        found += [f"tenant {one.name}: {problem}" for problem in _problems_of(one, hosts, taken)]
        taken |= {member.name for member in one.members}
    return found


def _problems_of(tenant: Tenant, hosts: Sequence[str], taken: Set[str]) -> list[str]:
    found = []
    if not _TENANT.fullmatch(tenant.name):
        found.append("a tenant's name is a small letter and up to 14 more letters or digits")
    if tenant.vni not in VNIS:
        found.append(f"VNI {tenant.vni} is not between {VNIS.start} and {VNIS.stop - 1}")
    if tenant.mss and tenant.mss not in MSS:
        found.append(f"mss is {tenant.mss}; it is between {MSS.start} and {MSS.stop - 1}, or 0 for no clamping")
    if not tenant.members:
        found.append("it has no members")
    if unknown := sorted({member.host for member in tenant.members}.difference(hosts)):
        found.append(f"no host {_some(map(repr, unknown))}; there is {_some(hosts)}")
    for what, values in (
        ("host", [member.host for member in tenant.members]),
        ("member", [member.name for member in tenant.members]),
        ("address", [member.ip for member in tenant.members]),
        ("MAC address", [member.mac for member in tenant.members]),
    ):
        found += _repeated(what, values)
    names = {member.name for member in tenant.members}
    if bad := sorted(_no_names(names)):
        found.append(f"{_some(map(_shown, bad))} is no name of a member: those are such as h1_blue")
    if clash := sorted(names & taken):
        found.append(f"{', '.join(clash)} is the name of something else")
    try:
        cidr.unicast(cidr.block(tenant.prefix))
        outside = [one.name for one in tenant.members if str(cidr.interface(one.address).network) != tenant.prefix]
    except PlanError as error:
        return [*found, str(error)]
    if outside:
        found.append(f"the address of {', '.join(outside)} is not in {tenant.prefix}")
    return found


# -- words


def _repeated(what: str, given: Iterable[str]) -> list[str]:
    twice = [name for name, times in Counter(given).items() if times > 1]
    return [f"{what} {_some(map(_shown, twice))} is there more than once"] if twice else []


def _shown(name: str) -> str:
    """As it is, or so that what cannot be seen is seen."""
    return name if name.isprintable() and name.strip() == name != "" else repr(name)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_LISTED]) + (f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else "")
