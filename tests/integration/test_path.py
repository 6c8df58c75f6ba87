"""`splitbrain path`: the way it names is the one that packets take, on another fabric of the same plan, too."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import pytest

from experiments.emulation.inside import Inside
from experiments.path import Flow, computed, observe
from topologies.leaf_spine import LeafSpine
from topologies.sandbox import Sandbox

pytestmark = pytest.mark.network

PLAN = LeafSpine(4, 2, 1)
FLOWS = [Flow("h1", "h2", protocol, port, 7000) for protocol in ("udp", "tcp") for port in range(5000, 5004)]
DATAGRAMS = 100


@pytest.mark.parametrize("dataplane", ["ovs", "routed"])
def test_the_observed_way_is_the_one_packets_of_the_flow_take_on_any_fabric_of_the_plan(
    dataplane: Literal["ovs", "routed"], tmp_path: Path
) -> None:
    plan = msgspec.structs.replace(PLAN, dataplane=dataplane)
    assert computed(plan, "h1", "h2") is None
    seen = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Sandbox(Inside, plan, folder, 1, out=folder, on_event=lambda event: None) as sandbox:
            sandbox.call_sync("build")
            sandbox.call_sync("wait_forwarding", 30.0)
            seen.append([sandbox.run_sync(observe, flow) for flow in FLOWS])
            for flow, way in zip(FLOWS[:4], seen[0], strict=False):
                carried = sandbox.run_sync(send, flow)
                assert all(carried[direction] >= DATAGRAMS for direction in way.directions), way
                others = [f"leaf1>spine{number}" for number in range(1, 5) if f"spine{number}" not in way.nodes]
                assert all(carried[direction] == 0 for direction in others), way
    assert seen[0] == seen[1]
    assert {(way.nodes[0], way.nodes[1], way.nodes[3], way.nodes[4], way.how) for way in seen[0]} == {
        ("h1", "leaf1", "leaf2", "h2", "observed")
    }


def send(inside: Inside, flow: Flow) -> dict[str, int]:
    """Have a program of its own send the flow's datagrams; what every direction carried meanwhile."""
    program = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        f"s.bind(('', {flow.source_port})); to = ('{inside.plan.host(flow.receiver).ip}', {flow.destination_port}); "
        f"[s.sendto(b'x', to) for _ in range({DATAGRAMS})]"
    )
    before = inside.fabric.link_counters()
    assert inside.fabric.spawn(flow.sender, ["python3", "-c", program]).wait(timeout=20) == 0
    after = inside.fabric.link_counters()
    return {direction: after[direction].packets - before[direction].packets for direction in after}
