"""The fabric as a drawing, with a fault on it: where every box, line and mark stands. Pure geometry, no markup."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import msgspec

from experiments.checking.fault_record import FaultRecord
from experiments.report import words
from topologies.plan import FabricPlan, Host, Member

WIDTH = 1080.0
SWITCH_WIDTH, SWITCH_HEIGHT = 104.0, 30.0
HOST_WIDTH, HOST_HEIGHT, HOST_GAP = 66.0, 46.0, 9.0
SPINE_TOP, LEAF_TOP, HOST_TOP = 14.0, 142.0, 214.0

#: From one tier of switches to the next, and by how much each switch raises the arch on which those of a tier stand
#: that have links among themselves, so that no link runs through a box.
TIER, ARCH = LEAF_TOP - SPINE_TOP, 70.0

#: A leaf with more hosts than this shows only those in use.
MANY_HOSTS = 16
#: More pairs than this are a thicket: the groups' outlines say it better.
MANY_PAIRS = 12
MANY_LABELS = 4

#: What `experiments.scenario` calls clients.
_CLIENT = re.compile(r"c\d+")


class Occupant(msgspec.Struct, frozen=True):
    """A node or client in a host. ``group`` is its side of a partition: 0, 1, …"""

    name: str
    client: bool
    group: int | None = None
    killed: bool = False


class Box(msgspec.Struct, frozen=True):
    """``tier`` counts from the hosts, which are 0, over the leaves upwards."""

    x: float
    y: float
    width: float
    height: float
    name: str
    kind: str
    tier: int
    occupants: tuple[Occupant, ...] = ()

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def main(self) -> Occupant | None:
        """The node in a host; a client only where no node is."""
        return next((one for one in self.occupants if not one.client), self.occupants[0] if self.occupants else None)


class Line(msgspec.Struct, frozen=True):
    x1: float
    y1: float
    x2: float
    y2: float
    name: str
    cut: bool = False

    @property
    def middle(self) -> tuple[float, float]:
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2


class Arrow(msgspec.Struct, frozen=True):
    """An impaired direction. ``lasting``: from the plan, not from the fault. ``label`` stands at (x, y)."""

    line: Line
    label: str
    x: float
    y: float
    anchor: str
    lasting: bool


class Arc(msgspec.Struct, frozen=True):
    """Two nodes that a partition keeps apart; ``one_way``: only packets to the arc's end are dropped."""

    path: str
    x: float
    y: float
    title: str
    one_way: bool


class Drawing(msgspec.Struct, frozen=True):
    width: float
    height: float
    boxes: list[Box]
    lines: list[Line]
    arrows: list[Arrow]
    arcs: list[Arc]
    notes: list[tuple[float, float, str]]
    caption: str


def draw(plan: FabricPlan, placement: Mapping[str, str], fault: FaultRecord | None) -> Drawing:
    """The plan with who is placed where, and what ``fault`` has done to it once it was applied."""
    resolved = fault.resolved if fault else {}
    side = {name: number for number, group in enumerate(resolved.get("groups", ())) for name in group}
    killed = set(resolved.get("nodes", ()))
    occupants: dict[str, list[Occupant]] = {}
    placement = {name: _host(plan, endpoint) for name, endpoint in placement.items()}
    for name, host in placement.items():
        occupant = Occupant(name, _CLIENT.fullmatch(name) is not None, side.get(name), name in killed)
        occupants.setdefault(host, []).append(occupant)

    leaves, tiers = plan.by_role("leaf"), _tiers(plan)
    width = max(WIDTH, max(map(len, (leaves, *tiers))) * (HOST_WIDTH + 2 * HOST_GAP))
    column = width / max(1, len(leaves))
    across = max(1, int((column - HOST_GAP) // (HOST_WIDTH + HOST_GAP)))
    boxes: dict[str, Box] = {}
    notes: list[tuple[float, float, str]] = []
    leaf_top = SPINE_TOP
    for height, tier in zip(range(len(tiers) + 1, 1, -1), tiers, strict=True):
        inner = any({link.a.node, link.b.node} <= set(tier) for link in plan.links)
        arch = ARCH * len(tier) if inner else 0.0
        for number, name in enumerate(tier):
            top = leaf_top + arch * (1 - math.sin(math.pi * (number + 0.5) / len(tier)))
            boxes[name] = _switch(number, width / len(tier), top, name, "spine", height)
        leaf_top += TIER + arch
    host_top = leaf_top + HOST_TOP - LEAF_TOP
    bottom = leaf_top + SWITCH_HEIGHT
    for number, leaf in enumerate(leaves):
        middle = (number + 0.5) * column
        boxes[leaf.name] = _switch(number, column, leaf_top, leaf.name, "leaf", 1)
        hosts = plan.hosts_of(leaf.name)
        shown = hosts if len(hosts) <= MANY_HOSTS else tuple(host for host in hosts if host.name in occupants)
        rows = [shown[start : start + across] for start in range(0, len(shown), across)]
        for row, some in enumerate(rows):
            boxes |= {box.name: box for box in _row(some, middle, host_top + row * (HOST_HEIGHT + HOST_GAP), occupants)}
        below = host_top + len(rows) * (HOST_HEIGHT + HOST_GAP) - HOST_GAP
        if len(shown) < len(hosts):
            # Short, as it has no more room than a leaf's box.
            left_out = f"and {len(hosts) - len(shown)} more" if shown else words.plural(len(hosts), "host")
            notes.append((middle, below + 16, left_out))
            below += 20
        bottom = max(bottom, below)

    cut = set(resolved.get("links", ()))
    lines = [
        _line(boxes[link.a.node], boxes[link.b.node], link.name, link.name in cut)
        for link in plan.links
        if link.a.node in boxes and link.b.node in boxes
    ]
    arcs = _arcs(resolved.get("grudge", {}), placement, boxes, bottom)
    depth = max((arc.y for arc in arcs), default=bottom)
    return Drawing(
        width,
        max(bottom, depth) + 14,
        list(boxes.values()),
        lines,
        _arrows(plan, boxes, resolved.get("directions", {})),
        arcs,
        notes,
        caption(fault) if fault else f"{words.plural(len(plan.switches), 'switch').replace('switchs', 'switches')}.",
    )


def _host(plan: FabricPlan, endpoint: str) -> str:
    """The host of a process: where it lives, or where the tenant's member does that it lives in."""
    found = plan.endpoint(endpoint)
    return found.host if isinstance(found, Member) else found.name


def caption(fault: FaultRecord) -> str:
    """What the fault did, in words: also what the drawing says to those who do not see it."""
    resolved = fault.resolved
    if not resolved:
        return f"This fault ({fault.kind}) was not applied."
    if "groups" in resolved:
        groups = "; ".join(
            f"{letter(number)} is {words.listed(group)}" for number, group in enumerate(resolved["groups"])
        )
        pairs = sum(len(senders) for senders in resolved.get("grudge", {}).values())
        return f"A partition: {groups}. Packets of {pairs} ordered pairs of nodes are dropped in the fabric."
    if fault.kind == "flap":
        silent = [name for name in resolved["links"] if ">" in name]
        down = [name for name in resolved["links"] if ">" not in name]
        said = [f"carrier lost and back at both ends of {words.listed(down)}"] if down else []
        said += [f"nothing passed in the direction of the arrow only, of {words.listed(silent)}"] if silent else []
        return f"Again and again: {'; '.join(said)}."
    if "links" in resolved:
        return f"Carrier lost at both ends of {words.listed(resolved['links'])}."
    if "directions" in resolved:
        each = [f"{direction} ({words.impairment(value)})" for direction, value in resolved["directions"].items()]
        return f"Impaired, in the direction of the arrow only: {words.listed(each)}."
    if "nodes" in resolved:
        return f"Killed with SIGKILL: {words.listed(resolved['nodes'])}."
    return f"A fault of kind {fault.kind}."


def letter(group: int) -> str:
    return chr(ord("A") + group % 26)


def _switch(number: int, column: float, top: float, name: str, kind: str, tier: int) -> Box:
    width = min(SWITCH_WIDTH, column - HOST_GAP)
    return Box((number + 0.5) * column - width / 2, top, width, SWITCH_HEIGHT, name, kind, tier)


def _row(hosts: tuple[Host, ...], middle: float, top: float, occupants: Mapping[str, list[Occupant]]) -> list[Box]:
    left = middle - (len(hosts) * (HOST_WIDTH + HOST_GAP) - HOST_GAP) / 2
    return [
        Box(
            left + number * (HOST_WIDTH + HOST_GAP),
            top,
            HOST_WIDTH,
            HOST_HEIGHT,
            host.name,
            "host",
            0,
            tuple(occupants.get(host.name, ())),
        )
        for number, host in enumerate(hosts)
    ]


def _tiers(plan: FabricPlan) -> list[list[str]]:
    """The switches above the leaves by how many links they are away from the next leaf, the farthest first."""
    above = {switch.name for switch in plan.by_role("spine")}
    tiers: list[list[str]] = []
    near = {leaf.name for leaf in plan.by_role("leaf")}
    while above:
        beside = {end.node for node in near for link in plan.links_of(node) for end in (link.a, link.b)} & above
        tier = beside or above  # the latter are those that no leaf reaches
        tiers.insert(0, [switch.name for switch in plan.switches if switch.name in tier])
        above, near = above - tier, tier
    return tiers


def _line(one: Box, other: Box, name: str, cut: bool) -> Line:
    return Line(*_between(*sorted((one, other), key=lambda box: (box.y, box.x))), name, cut)


def _between(start: Box, end: Box) -> tuple[float, float, float, float]:
    """From edge to edge between tiers; within one from middle to middle, behind the boxes."""
    if start.tier == end.tier:
        return start.middle, start.y + start.height / 2, end.middle, end.y + end.height / 2
    if start.y < end.y:
        return start.middle, start.y + start.height, end.middle, end.y
    return start.middle, start.y, end.middle, end.y + end.height


def _arrows(plan: FabricPlan, boxes: Mapping[str, Box], struck: Mapping[str, Mapping[str, Any]]) -> list[Arrow]:
    lasting = {name: msgspec.to_builtins(value) for name, value in plan.impairments.items() if name not in struck}
    wanted = [(name, dict(value), False) for name, value in struck.items()]
    wanted += [(name, value, True) for name, value in lasting.items()]
    arrows: list[Arrow] = []
    for name, value, from_plan in wanted:
        sender, receiver = (boxes.get(end.node) for end in plan.ends(name))
        if sender is None or receiver is None:
            continue
        x1, y1, x2, y2 = _between(sender, receiver)
        length = math.hypot(x2 - x1, y2 - y1)
        ahead, aside = (x2 - x1) / length, (y2 - y1) / length
        # To the right of travel, so that both directions of a link can be seen; and clear of the boxes.
        shift_x, shift_y = -aside * 6, ahead * 6
        clear = SWITCH_WIDTH / 2 + 8 if sender.tier == receiver.tier else min(14.0, length / 6)
        line = Line(
            x1 + shift_x + ahead * clear,
            y1 + shift_y + aside * clear,
            x2 + shift_x - ahead * clear,
            y2 + shift_y - aside * clear,
            name,
        )
        right = shift_x >= 0
        x, y = line.middle
        label = words.impairment(value) if len(wanted) <= MANY_LABELS else ""
        x += shift_x + (4 if right else -4)
        arrows.append(Arrow(line, label, x, y + shift_y + 4, "start" if right else "end", from_plan))
    return arrows


def _arcs(
    grudge: Mapping[str, list[str]], placement: Mapping[str, str], boxes: Mapping[str, Box], bottom: float
) -> list[Arc]:
    drops = {(receiver, sender) for receiver, senders in grudge.items() for sender in senders}
    pairs = [pair for pair in combinations(placement, 2) if pair in drops or pair[::-1] in drops]
    arcs: list[Arc] = []
    for one, other in pairs if len(pairs) <= MANY_PAIRS else ():
        if placement[one] == placement[other] or not {placement[one], placement[other]} <= set(boxes):
            continue
        one_way = not {(one, other), (other, one)} <= drops
        deaf, mute = (one, other) if (one, other) in drops else (other, one)
        start, end = boxes[placement[mute]], boxes[placement[deaf]]
        depth = bottom + 14 + abs(start.middle - end.middle) * 0.085
        middle = (start.middle + end.middle) / 2
        quarter = (start.middle + middle) / 2
        path = (
            f"M{start.middle:.0f} {start.y + start.height:.0f}"
            f"C{start.middle:.0f} {depth:.0f} {quarter:.0f} {depth:.0f} {middle:.0f} {depth:.0f}"
            f"S{end.middle:.0f} {depth:.0f} {end.middle:.0f} {end.y + end.height:.0f}"
        )
        what = f"{deaf} does not hear {mute}" if one_way else f"{one} and {other} do not hear each other"
        arcs.append(Arc(path, middle, depth, what, one_way))
    return arcs
