"""A fabric of switches that execute their programs on packets, link by link, in plain Python.

It stands in for Open vSwitch where a property is to hold for every pair of hosts under every failure. It is strict
where a switch would be: a message that OpenFlow refuses is an error here.
"""

from __future__ import annotations

import ipaddress
import itertools
import zlib
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import TypeAlias

from controllers.pipeline import (
    ETH_ARP,
    ETH_IP,
    IN_PORT,
    Action,
    Bucket,
    Change,
    CopyField,
    DecrementTtl,
    Flow,
    Foreign,
    Group,
    Match,
    Output,
    Program,
    SetField,
    ToGroup,
    difference,
    programs,
)
from topologies.draft import leaves_reached
from topologies.plan import End, FabricPlan, Host

#: OXM field → value, and ``ttl``.
Packet: TypeAlias = dict[str, int | str]

FIVE_TUPLE = ("ipv4_src", "ipv4_dst", "ip_proto", "udp_src", "udp_dst", "tcp_src", "tcp_dst")


class RefusedError(Exception):
    """What a switch answers to a message that cannot be."""


@cache
def _number(address: str) -> int:
    return int(ipaddress.IPv4Address(address))


class FakeSwitch:
    """One switch: ``apply`` is its OpenFlow agent, ``forward`` its data plane."""

    def __init__(self) -> None:
        self.flows: dict[tuple[int, int, Match], Flow] = {}
        self.groups: dict[int, Group] = {}
        self._tables: dict[int, list[tuple[_Matcher, Flow]]] | None = None

    @property
    def program(self) -> Program:
        return Program(tuple(self.flows.values()), tuple(self.groups.values()))

    def apply(self, change: Change) -> None:
        """Raises `RefusedError` where OpenFlow 1.5.1 would answer with an error (§7.5.4.4, §7.5.4.7)."""
        self._tables = None
        known = change.item.key in self.flows if isinstance(change.item, Flow) else change.item.id in self.groups
        if known != (change.operation != "add"):
            raise RefusedError(f"{change.operation} of {change.item}, which is {'' if known else 'not '}there")
        if isinstance(change.item, Group):
            self._apply_group(change.operation, change.item)
        elif change.operation == "remove":
            del self.flows[change.item.key]
        else:
            for group in _groups_of(change.item):
                if group not in self.groups:
                    raise RefusedError(f"no group {group} for {change.item}")
            self.flows[change.item.key] = change.item

    def _apply_group(self, operation: str, group: Group) -> None:
        if operation == "remove":
            del self.groups[group.id]
            self.flows = {key: flow for key, flow in self.flows.items() if group.id not in _groups_of(flow)}
        elif len({bucket.watch_port for bucket in group.buckets}) < len(group.buckets):
            raise RefusedError(f"buckets of one number in {group}")
        else:
            self.groups[group.id] = group

    def forward(self, packet: Packet, in_port: int, live: Collection[int]) -> Iterator[tuple[int, Packet]]:
        """The ports that ``packet`` leaves by, and what it then is."""
        packet = dict(packet)
        table: int | None = 0
        while table is not None:
            flow = self._lookup(table, packet, in_port)
            if flow is None:
                return
            yield from self._execute(flow.actions, packet, in_port, live)
            if packet.get("ttl") == 0:
                return
            assert flow.goto is None or flow.goto > table, "OpenFlow only ever goes on to a later table"
            table = flow.goto

    def _lookup(self, table: int, packet: Packet, in_port: int) -> Flow | None:
        if self._tables is None:
            self._tables = {}
            for flow in sorted(self.flows.values(), key=lambda flow: -flow.priority):
                self._tables.setdefault(flow.table, []).append((_Matcher(flow.match), flow))
        seen = {**packet, "in_port": in_port}
        return next((flow for matcher, flow in self._tables.get(table, ()) if matcher.matches(seen)), None)

    def _execute(
        self, actions: tuple[Action, ...], packet: Packet, in_port: int, live: Collection[int]
    ) -> Iterator[tuple[int, Packet]]:
        for action in actions:
            match action:
                case Output(port) if port == IN_PORT:
                    yield in_port, dict(packet)
                case Output(port) if port != in_port:  # §6.4: IN_PORT is the only way back
                    yield port, dict(packet)
                case Output():
                    pass
                case SetField(field, value):
                    packet[field] = value
                case CopyField(source, target, _):
                    packet[target] = packet[source]
                case DecrementTtl():
                    packet["ttl"] = int(packet["ttl"]) - 1
                    if packet["ttl"] == 0:
                        return
                case ToGroup(number):
                    if bucket := _choose(self.groups[number], packet, live):
                        yield from self._execute(bucket.actions, dict(packet), in_port, live)
                case Foreign(text):
                    raise AssertionError(f"not ours: {text}")


class _Matcher:
    def __init__(self, match: Match) -> None:
        self._exact = [(field, value) for field, value in match if "/" not in str(value)]
        self._masked: list[tuple[str, int, int]] = []
        for field, value in match:
            if "/" in str(value):
                network = ipaddress.IPv4Network(str(value))
                self._masked.append((field, int(network.network_address), int(network.netmask)))

    def matches(self, packet: Mapping[str, int | str]) -> bool:
        for field, value in self._exact:
            if packet.get(field) != value:
                return False
        return all(_number(str(packet[field])) & mask == network for field, network, mask in self._masked)


def _groups_of(flow: Flow) -> list[int]:
    return [action.group for action in flow.actions if isinstance(action, ToGroup)]


def _choose(group: Group, packet: Packet, live: Collection[int]) -> Bucket | None:
    """The live bucket of the highest weighted random number, as the 5-tuple's hash draws them."""
    flow = repr([packet.get(field) for field in FIVE_TUPLE])
    alive = [bucket for bucket in group.buckets if bucket.watch_port in live]
    return max(
        alive,
        key=lambda bucket: ((zlib.crc32(f"{flow}{bucket.watch_port}".encode()) + 1) / 2**32) ** (1 / bucket.weight),
        default=None,
    )


class FakeFabric:
    """All switches of ``plan``, with empty tables, and all links alive: name one in ``dead`` to lose its carrier."""

    def __init__(self, plan: FabricPlan) -> None:
        self.plan = plan
        self.switches = {switch.name: FakeSwitch() for switch in plan.switches}
        self.dead: set[str] = set()
        self._far: dict[tuple[str, int], tuple[str, End]] = {}
        for link in plan.links:
            self._far[link.a.node, link.a.port] = link.name, link.b
            self._far[link.b.node, link.b.port] = link.name, link.a

    def load(self, programs: Mapping[str, Program]) -> None:
        """Have every switch hold its program, and nothing else."""
        for name, program in programs.items():
            self.switches[name] = FakeSwitch()
            for change in difference(Program(), program):
                self.switches[name].apply(change)

    def repair(self, have: Mapping[str, Program], want: Mapping[str, Program]) -> None:
        """Send every switch, which holds ``have``, the difference to ``want``."""
        for name, program in want.items():
            for change in difference(have[name], program):
                self.switches[name].apply(change)

    def live_ports(self, switch: str) -> set[int]:
        return {port for (node, port), (link, _) in self._far.items() if node == switch and link not in self.dead}

    def send(self, host: Host, packet: Packet) -> tuple[list[tuple[str, Packet]], list[str]]:
        """Let ``host`` send ``packet``: which hosts got what, and the switches it went through, in order."""
        arrived: list[tuple[str, Packet]] = []
        path: list[str] = []
        queue: list[tuple[str, int, Packet]] = [(host.name, 0, packet)]
        live: dict[str, set[int]] = {}
        while queue:
            node, port, sent = queue.pop(0)
            link, end = self._far[node, port]
            if link in self.dead:
                continue
            if end.node not in self.switches:
                arrived.append((end.node, sent))
                continue
            path.append(end.node)
            if len(path) > 2 * len(self.switches):
                raise AssertionError(f"a loop: {' '.join(path)}")
            ports = live.setdefault(end.node, self.live_ports(end.node))
            queue += [(end.node, out, left) for out, left in self.switches[end.node].forward(sent, end.port, ports)]
        return arrived, path


def udp(sender: Host, receiver: Host, router_mac: str, source_port: int = 5000, ttl: int = 64) -> Packet:
    """A datagram as Linux would send it: to the neighbour itself within the prefix, else to the gateway."""
    near = ipaddress.ip_address(receiver.ip) in ipaddress.ip_interface(sender.address).network
    return {
        "eth_src": sender.mac,
        "eth_dst": receiver.mac if near else router_mac,
        "eth_type": ETH_IP,
        "ipv4_src": sender.ip,
        "ipv4_dst": receiver.ip,
        "ip_proto": 17,
        "udp_src": source_port,
        "udp_dst": 7000,
        "ttl": ttl,
    }


def arp_request(sender: Host, target: str) -> Packet:
    return {
        "eth_src": sender.mac,
        "eth_dst": "ff:ff:ff:ff:ff:ff",
        "eth_type": ETH_ARP,
        "arp_op": 1,
        "arp_sha": sender.mac,
        "arp_spa": sender.ip,
        "arp_tha": "00:00:00:00:00:00",
        "arp_tpa": target,
    }


def cut_off(plan: FabricPlan) -> list[tuple[str, str, str]]:
    """Every pair of hosts under every single link that is down, as soon as the controller has told the switches.

    Returns ``(link, sender, receiver)`` where a packet did not arrive once, at its receiver alone, though there is a
    way, or arrived though there is none.
    """
    fabric = FakeFabric(plan)
    whole = programs(plan)
    fabric.load(whole)
    wrong = []
    for link in plan.links:
        repaired = programs(plan, {link.name})
        fabric.repair(whole, repaired)
        fabric.dead = {link.name}
        reached = {leaf.name: leaves_reached(plan, leaf.name, fabric.dead) for leaf in plan.by_role("leaf")}
        for sender, receiver in itertools.permutations(plan.hosts, 2):
            attached = not {sender.name, receiver.name} & {link.a.node, link.b.node}
            wanted = [receiver.name] if attached and receiver.leaf in reached[sender.leaf] else []
            arrived, _ = fabric.send(sender, udp(sender, receiver, plan.router_mac))
            if [name for name, _ in arrived] != wanted:
                wrong.append((link.name, sender.name, receiver.name))
        fabric.repair(repaired, whole)
    return wrong
