"""How evenly datagram flows between two hosts spread over the spines, and how exactly in proportion to weights.

The same flows between two members of a tenant, who live in those hosts, reach the fabric as VXLAN: what spreads them
there is the source port that the tunnel's end gives each.

A draw is 64 flows that differ in their source ports. Even a perfect hash leaves a draw uneven, by chance, so the
figures are medians of several draws, and what chance alone does is beside them.
"""

from __future__ import annotations

import random
import socket
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from experiments.bench import Figure, figure
from experiments.emulation.inside import Inside
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan
from topologies.sandbox import Sandbox
from topologies.tenants import tenant, with_tenants

SPINES = 4
FLOWS, DRAWS = 64, 31
WEIGHTS = (3, 1)
#: So many that the 3:1 of a perfect hash would be off by more than 5 % in one run of 30 only.
WEIGHTED_FLOWS = 8192
PATIENCE = 30.0
CHANCE = "a perfect hash"

_DATAGRAMS = 3
_SINK_PORT, _FIRST_SOURCE_PORT = 9002, 10_000


def bench() -> list[Figure]:
    plan = LeafSpine(SPINES, 2, 1)
    least, most = _extremes(_measure(plan, FLOWS, DRAWS))
    tenants = with_tenants(plan, [tenant("blue", 100, "192.168.0.0/24", [host.name for host in plan.hosts])])
    tunnelled_least, tunnelled_most = _extremes(_measure(tenants, FLOWS, DRAWS))
    fair_least, fair_most = _extremes([_by_chance(random.Random(seed)) for seed in range(1000)])
    [weighted] = _measure(_weighted(LeafSpine(len(WEIGHTS), 2, 1)), WEIGHTED_FLOWS, 1)
    ratio = weighted[0] / weighted[1]
    error = abs(ratio / (WEIGHTS[0] / WEIGHTS[1]) - 1) * 100
    return [
        figure("min_share", least, "", aim="≥ 0.15", peer=CHANCE, peer_value=fair_least),
        figure("max_share", most, "", aim="≤ 0.35", peer=CHANCE, peer_value=fair_most),
        figure("vxlan_min_share", tunnelled_least, "", aim="≥ 0.15", peer=CHANCE, peer_value=fair_least),
        figure("vxlan_max_share", tunnelled_most, "", aim="≤ 0.35", peer=CHANCE, peer_value=fair_most),
        figure("weight_error", error, "%", aim="≤ 15"),
    ]


def _extremes(draws: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Of several draws, the medians of the least and of the most that a spine got."""
    return statistics.median(map(min, draws)), statistics.median(map(max, draws))


def _by_chance(rng: random.Random) -> list[float]:
    taken = Counter(rng.randrange(SPINES) for _ in range(FLOWS))
    return [taken[spine] / FLOWS for spine in range(SPINES)]


def _weighted(plan: FabricPlan) -> FabricPlan:
    """The plan with `WEIGHTS` on the links to its spines."""
    weight = {spine.name: weight for spine, weight in zip(plan.by_role("spine"), WEIGHTS, strict=True)}
    links = tuple(msgspec.structs.replace(link, weight=weight.get(link.b.node, 1)) for link in plan.links)
    return msgspec.structs.replace(plan, links=links)


def _measure(plan: FabricPlan, flows: int, draws: int) -> list[list[float]]:
    with (
        tempfile.TemporaryDirectory(prefix="splitbrain-bench-") as name,
        Sandbox(Inside, plan, Path(name), 1, out=Path(name), on_event=lambda event: None) as sandbox,
    ):
        sandbox.call_sync("build")
        sandbox.call_sync("wait_forwarding", PATIENCE)
        return [sandbox.run_sync(shares, flows, _FIRST_SOURCE_PORT + number * flows) for number in range(draws)]


def shares(inside: Inside, flows: int, first_port: int) -> list[float]:
    """The share of the datagrams from the first host, or the first tenant's member in it, that each spine got.

    Runs in the sandbox.
    """
    plan, fabric = inside.plan, inside.fabric
    members = plan.tenants[0].members if plan.tenants else plan.hosts
    sender, receiver = members[0], members[-1]
    uplinks = [f"{plan.hosts[0].leaf}>{spine.name}" for spine in plan.by_role("spine")]
    before = fabric.link_counters()
    with ExitStack() as stack:
        with fabric.inside(receiver.name):
            sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sink.bind((receiver.ip, _SINK_PORT))
        for port in range(first_port, first_port + flows):
            with fabric.inside(sender.name):
                source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with source:
                source.bind((sender.ip, port))
                for _ in range(_DATAGRAMS):
                    source.sendto(b"flow", (receiver.ip, _SINK_PORT))
            time.sleep(0.0002)  # no more than the switches take in at once
        time.sleep(0.1)
    after = fabric.link_counters()
    taken = [after[uplink].packets - before[uplink].packets for uplink in uplinks]
    return [packets / sum(taken) for packets in taken]
