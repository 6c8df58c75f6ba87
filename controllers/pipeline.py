"""What every switch of a fabric should hold, as data: tables, flows and groups from a plan and the links that are dead.

Four tables (the numbers are `Table`):

====== ========= =====================================================================================
0      classify  drops of faults on top (`topologies.plan.FAULT_COOKIE`, never ours); which port is what
1      ARP       the switch answers for every host of the leaf and for their gateway; nothing is flooded
2      L2        within the leaf, by MAC; what is for the router goes on
3      L3        hosts of this leaf by address, other leaves by prefix: TTL, MACs, and a SELECT group over the ways out
====== ========= =====================================================================================

A packet no flow matches is dropped (OpenFlow 1.5.1, §5.4). Nothing here asks the controller, so the data plane lives
on without it. Ways out come from the plan's links alone: those on a shortest path of live links to the destination's
leaf, all of them. Leaves carry no transit, as in data centres whose spines share an AS (RFC 7938, §5.2.1), so a spine
that lost its link to a leaf drops what is for it rather than send it down and up again, and nothing ever loops.

On links between switches a packet carries the MACs of the two switches (`switch_mac`), so that a capture says which
hop it is from. Hosts see one router MAC everywhere, `FabricPlan.router_mac`.
"""

from __future__ import annotations

import ipaddress
import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from enum import IntEnum
from typing import Literal, TypeAlias

import msgspec

from topologies.plan import FabricPlan, Host, Switch

#: The upper 16 bits mark a flow as the controller's. Flows with any other cookie are none of its business.
FABRIC_COOKIE = 0x5B17 << 48
COOKIE_MASK = 0xFFFF << 48

#: OFPP_IN_PORT: back where the packet came from (OpenFlow 1.5.1, §7.2.1.2).
IN_PORT = 0xFFFFFFF8

ETH_IP, ETH_ARP = 0x0800, 0x0806
ARP_REQUEST, ARP_REPLY = 1, 2
ICMP, ECHO_REPLY, ECHO_REQUEST = 1, 0, 8


class Table(IntEnum):
    CLASSIFY = 0
    ARP = 1
    L2 = 2
    L3 = 3


class Output(msgspec.Struct, frozen=True, tag=True):
    port: int


class SetField(msgspec.Struct, frozen=True, tag=True):
    """``field`` is an OXM name (``eth_dst``), ``value`` as in a match."""

    field: str
    value: int | str


class CopyField(msgspec.Struct, frozen=True, tag=True):
    """Copy all ``bits`` of one field over another of the same width."""

    source: str
    target: str
    bits: int


class DecrementTtl(msgspec.Struct, frozen=True, tag=True):
    pass


class ToGroup(msgspec.Struct, frozen=True, tag=True):
    group: int


class Foreign(msgspec.Struct, frozen=True, tag=True):
    """An action that none of ours is, found on a switch. It is never wanted, so a flow that has it is replaced."""

    text: str


Action: TypeAlias = Output | SetField | CopyField | DecrementTtl | ToGroup | Foreign

#: OXM name → value, sorted by name: numbers, MACs and addresses as text, a masked address as ``10.0.1.0/24``.
Match: TypeAlias = tuple[tuple[str, int | str], ...]


class Flow(msgspec.Struct, frozen=True):
    """Apply ``actions``, then go on to table ``goto`` unless that is None."""

    table: int
    priority: int
    match: Match
    actions: tuple[Action, ...] = ()
    goto: int | None = None
    cookie: int = FABRIC_COOKIE

    @property
    def key(self) -> tuple[int, int, Match]:
        """What makes it one flow and not another (OpenFlow 1.5.1, §6.4: overlap and strict matching)."""
        return self.table, self.priority, self.match


class Bucket(msgspec.Struct, frozen=True):
    """One way out, taken in proportion to ``weight`` while ``watch_port`` is live."""

    watch_port: int
    actions: tuple[Action, ...]
    weight: int = 1


class Group(msgspec.Struct, frozen=True):
    """A SELECT group: a packet takes one bucket, by the hash of its 5-tuple."""

    id: int
    buckets: tuple[Bucket, ...]


class Program(msgspec.Struct, frozen=True):
    """All that one switch holds."""

    flows: tuple[Flow, ...] = ()
    groups: tuple[Group, ...] = ()


class Change(msgspec.Struct, frozen=True):
    """One message to a switch."""

    operation: Literal["add", "modify", "remove"]
    item: Flow | Group


class Hop(msgspec.Struct, frozen=True):
    """A way from one switch to a neighbour: the port it leaves by, the neighbour's MAC, and its share of the flows."""

    link: str
    port: int
    neighbour: str
    mac: str
    weight: int = 1


#: For one switch: destination leaf → every way out on a shortest path to it, in the plan's order of links.
Routes: TypeAlias = Mapping[str, tuple[Hop, ...]]


def switch_mac(switch: Switch) -> str:
    """The MAC of ``switch`` on links between switches: locally administered, its last five octets the datapath id."""
    return ":".join(f"{octet:02x}" for octet in (0x06, *switch.datapath_id.to_bytes(8, "big")[3:]))


def routes(plan: FabricPlan, dead: Collection[str] = ()) -> dict[str, Routes]:
    """For every switch, its ways to every other leaf when the links named in ``dead`` are gone.

    Where none is left, the ways of the whole fabric stay. They end at dead ports, and forward again the moment one of
    those comes back, before anybody has been told.
    """
    intact = _shortest(plan, ())
    return intact if not dead else {name: {**intact[name], **ways} for name, ways in _shortest(plan, dead).items()}


def _shortest(plan: FabricPlan, dead: Collection[str]) -> dict[str, Routes]:
    hops: dict[str, list[Hop]] = {switch.name: [] for switch in plan.switches}
    macs = {switch.name: switch_mac(switch) for switch in plan.switches}
    for link in plan.links:
        if link.name in dead or link.a.node not in hops or link.b.node not in hops:
            continue
        for near, far in ((link.a, link.b), (link.b, link.a)):
            hops[near.node].append(Hop(link.name, near.port, far.node, macs[far.node], link.weight))

    leaves = dict.fromkeys(leaf.name for leaf in plan.by_role("leaf"))
    found: dict[str, dict[str, tuple[Hop, ...]]] = {name: {} for name in hops}
    for goal in leaves:
        distances = _distances(goal, hops, leaves)
        shortest: dict[str, list[Hop]] = {}
        for name, ways in hops.items():
            onward = [hop for hop in ways if hop.neighbour in distances]
            if name != goal and onward:
                least = min(distances[hop.neighbour] for hop in onward)
                shortest[name] = [hop for hop in onward if distances[hop.neighbour] == least]
        capacities: dict[str, int] = {}
        for name in distances:  # the nearest first
            capacities[name] = sum(_share(hop, goal, capacities) for hop in shortest.get(name, ()))
        for name, ways in shortest.items():
            found[name][goal] = _shares(ways, goal, capacities)
    return dict(found)


def _share(hop: Hop, goal: str, capacities: Mapping[str, int]) -> int:
    """What a way can carry to ``goal``: no more than its link does, nor than its neighbour can pass on.

    So flows spread by what there is behind a neighbour, too (Zhou et al., "WCMP", EuroSys 2014, §3).
    """
    return hop.weight if hop.neighbour == goal else min(hop.weight, capacities[hop.neighbour])


def _shares(ways: list[Hop], goal: str, capacities: Mapping[str, int]) -> tuple[Hop, ...]:
    shares = [_share(hop, goal, capacities) for hop in ways]
    common = math.gcd(*shares)  # weights are 16 bits wide, and equal ones are 1 whatever the links' are
    return tuple(
        hop if hop.weight == share // common else msgspec.structs.replace(hop, weight=share // common)
        for hop, share in zip(ways, shares, strict=True)
    )


def _distances(goal: str, hops: Mapping[str, Iterable[Hop]], leaves: Collection[str]) -> dict[str, int]:
    """How many links ``goal`` is from itself and from every switch that may carry traffic to it; breadth first."""
    distances = {goal: 0}
    queue = deque([goal])
    while queue:
        name = queue.popleft()
        for hop in hops[name]:
            if hop.neighbour not in distances and hop.neighbour not in leaves:
                distances[hop.neighbour] = distances[name] + 1
                queue.append(hop.neighbour)
    return distances


def local_flows(plan: FabricPlan, switch: Switch) -> tuple[Flow, ...]:
    """The flows of ``switch`` that no link failure changes: its ports, and on a leaf its own hosts."""
    own = switch_mac(switch)
    port_of_host: dict[str, int] = {}
    flows: list[Flow] = []
    for link in plan.links_of(switch.name):
        near, peer = (link.a, link.b) if link.a.node == switch.name else (link.b, link.a)
        if peer.port:
            to_router = _match(in_port=near.port, eth_dst=own, eth_type=ETH_IP)
            flows.append(Flow(Table.CLASSIFY, 10, to_router, goto=Table.L3))
        else:
            port_of_host[peer.node] = near.port
            flows.append(Flow(Table.CLASSIFY, 20, _match(in_port=near.port, eth_type=ETH_ARP), goto=Table.ARP))
            flows.append(Flow(Table.CLASSIFY, 10, _match(in_port=near.port), goto=Table.L2))

    hosts = plan.hosts_of(switch.name)
    for host in hosts:
        flows += _host_flows(host, port_of_host[host.name], plan.router_mac)
    for gateway in dict.fromkeys(host.gateway for host in hosts):
        flows += [_arp_answer(gateway, plan.router_mac), _echo_answer(gateway, plan.router_mac)]
    if hosts:
        to_router = _match(eth_dst=plan.router_mac, eth_type=ETH_IP)
        flows.append(Flow(Table.L2, 20, to_router, goto=Table.L3))
    return tuple(flows)


def _host_flows(host: Host, port: int, router_mac: str) -> list[Flow]:
    output = Output(port)
    rewritten = (DecrementTtl(), SetField("eth_src", router_mac), SetField("eth_dst", host.mac), output)
    return [
        _arp_answer(host.ip, host.mac),
        Flow(Table.L2, 10, _match(eth_dst=host.mac), (output,)),
        Flow(Table.L3, 20, _match(eth_type=ETH_IP, ipv4_dst=host.ip), rewritten),
    ]


def _arp_answer(ip: str, mac: str) -> Flow:
    """Turn a request for ``ip`` into its reply and send it back (RFC 826; Linux's unicast probes are answered too)."""
    return Flow(
        Table.ARP,
        10,
        _match(eth_type=ETH_ARP, arp_op=ARP_REQUEST, arp_tpa=ip),
        (
            CopyField("eth_src", "eth_dst", 48),
            SetField("eth_src", mac),
            SetField("arp_op", ARP_REPLY),
            CopyField("arp_sha", "arp_tha", 48),
            SetField("arp_sha", mac),
            CopyField("arp_spa", "arp_tpa", 32),
            SetField("arp_spa", ip),
            Output(IN_PORT),
        ),
    )


def _echo_answer(gateway: str, router_mac: str) -> Flow:
    """The gateway answers pings, so that ``ping 10.0.1.254`` tells whether a host reaches its leaf."""
    return Flow(
        Table.L3,
        30,
        _match(eth_type=ETH_IP, ipv4_dst=gateway, ip_proto=ICMP, icmpv4_type=ECHO_REQUEST),
        (
            CopyField("eth_src", "eth_dst", 48),
            SetField("eth_src", router_mac),
            SetField("icmpv4_type", ECHO_REPLY),
            CopyField("ipv4_src", "ipv4_dst", 32),
            SetField("ipv4_src", gateway),
            Output(IN_PORT),
        ),
    )


def leaf_prefixes(plan: FabricPlan) -> dict[str, tuple[str, ...]]:
    """The subnets of every leaf's hosts, such as ``{"leaf1": ("10.0.1.0/24",)}``, in the plan's order of leaves."""
    found: dict[str, dict[str, None]] = {leaf.name: {} for leaf in plan.by_role("leaf")}
    for host in plan.hosts:
        found[host.leaf][str(ipaddress.ip_interface(host.address).network)] = None
    return {leaf: tuple(prefixes) for leaf, prefixes in found.items()}


def routed(switch: Switch, prefixes: Mapping[str, tuple[str, ...]], ways: Routes) -> Program:
    """The flows and groups by which ``switch`` sends on, its ``ways``, what is for the `leaf_prefixes` elsewhere.

    Group numbers are those of the leaves, from 1.
    """
    flows: list[Flow] = []
    groups: list[Group] = []
    source = SetField("eth_src", switch_mac(switch))
    for number, (leaf, subnets) in enumerate(prefixes.items(), 1):
        hops = ways.get(leaf, ())
        if not hops or not subnets:
            continue
        if len(hops) == 1:  # a group of one would only cost a second pass through the datapath
            way = _out(hops[0])
        else:
            way = (ToGroup(number),)
            groups.append(Group(number, tuple(Bucket(hop.port, _out(hop), hop.weight) for hop in hops)))
        for subnet in subnets:
            match = _match(eth_type=ETH_IP, ipv4_dst=subnet)
            flows.append(Flow(Table.L3, 10, match, (DecrementTtl(), source, *way)))
    return Program(tuple(flows), tuple(groups))


def _out(hop: Hop) -> tuple[Action, ...]:
    return SetField("eth_dst", hop.mac), Output(hop.port)


def programs(plan: FabricPlan, dead: Collection[str] = ()) -> dict[str, Program]:
    """What every switch should hold when the links named in ``dead`` are gone."""
    ways = routes(plan, dead)
    prefixes = leaf_prefixes(plan)
    return {s.name: whole(local_flows(plan, s), routed(s, prefixes, ways[s.name])) for s in plan.switches}


def whole(local: tuple[Flow, ...], elsewhere: Program) -> Program:
    """A switch's `local_flows` and what `routed` gave, as one program."""
    return Program(local + elsewhere.flows, elsewhere.groups)


def _match(**fields: int | str) -> Match:
    return tuple(sorted(fields.items()))


def ours(flow: Flow) -> bool:
    return flow.cookie & COOKIE_MASK == FABRIC_COOKIE & COOKIE_MASK


def difference(have: Program, want: Program) -> tuple[Change, ...]:
    """The fewest changes that turn ``have`` into ``want``, in an order that is safe to apply one by one.

    Groups come before the flows that point to them, and go after them, since removing a group removes its flows
    (OpenFlow 1.5.1, §6.7). Flows without our cookie are never touched.
    """
    flows = {flow.key: flow for flow in have.flows if ours(flow)}
    groups = {group.id: group for group in have.groups}
    put: list[Change] = []
    for group in want.groups:
        put += _put(groups.pop(group.id, None), group)
    for flow in want.flows:
        put += _put(flows.pop(flow.key, None), flow)
    gone: list[Flow | Group] = [*flows.values(), *groups.values()]
    return (*put, *(Change("remove", item) for item in gone))


def _put(had: Flow | Group | None, item: Flow | Group) -> tuple[Change, ...]:
    if had is item or had == item:
        return ()
    return (Change("add" if had is None else "modify", item),)
