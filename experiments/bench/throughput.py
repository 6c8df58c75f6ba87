"""How much one TCP connection carries from host to host, through leaf, spine and leaf, beside a bare veth.

2 spines × 2 leaves on Open vSwitch under the controller, without a tunnel, so that segments pass whole; then routed.
The bare veth joins two namespaces without a switch between them: what the kernel and iperf3 could at most.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from experiments.bench import BenchError, Figure, figure
from experiments.emulation.inside import Inside
from topologies import netns
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan
from topologies.rtnetlink import Netlink, Port, new_address, new_veth, set_state
from topologies.sandbox import Sandbox

PORT = 5201
SECONDS = 3
ROUNDS = 3

#: Seconds the fabric may take to forward, and iperf3's server to listen.
PATIENCE = 30.0

BARE = "bare veth"
_BARE_ADDRESSES = {"near": "10.250.0.1", "far": "10.250.0.2"}


def bench() -> list[Figure]:
    if shutil.which("iperf3") is None:
        raise BenchError("there is no iperf3 command, which this bench measures with: install iperf3")
    plan = LeafSpine(2, 2, 1)
    through, bare = _measured(plan)
    routed, bare_then = _measured(msgspec.structs.replace(plan, dataplane="routed"))
    return [
        figure("host_to_host_gbit_per_s", through, "Gbit/s", aim="≥ 2", peer=BARE, peer_value=bare),
        figure("routed_gbit_per_s", routed, "Gbit/s", peer=BARE, peer_value=bare_then),
    ]


def _measured(plan: FabricPlan) -> tuple[float, float]:
    """Gbit/s through the fabric of a plan, and over the bare veth beside it."""
    ended: list[tuple[str, str, int]] = []
    with tempfile.TemporaryDirectory(prefix="splitbrain-bench-") as name:
        folder = Path(name)
        with Sandbox(Inside, plan, folder, 1, out=folder, on_event=ended.append) as sandbox:
            sandbox.call_sync("build")
            sandbox.call_sync("wait_forwarding", PATIENCE)
            sandbox.run_sync(_join_bare)
            # In turn, so that a machine which is busy for a while is so for both.
            rounds = [(sandbox.run_sync(_fabric_rate), sandbox.run_sync(_bare_rate)) for _ in range(ROUNDS)]
    if ended:
        raise BenchError(f"while throughput was measured, these ended: {ended}")
    through, bare = (statistics.median(rates) / 1e9 for rates in zip(*rounds, strict=True))
    return through, bare


def _join_bare(_: Inside) -> None:
    """Two namespaces with a veth between them, beside the fabric."""
    for name in _BARE_ADDRESSES:
        with netns.created(name):
            pass
    far = (netns.DIRECTORY / "far").open()
    with far, netns.inside("near"), Netlink() as netlink:
        pair = new_veth(Port("near0", 1500, number=100), Port("far0", 1500, number=100, namespace=far.fileno()))
        netlink.request([pair])
    for name, address in _BARE_ADDRESSES.items():
        with netns.inside(name), Netlink() as netlink:
            netlink.request([set_state(f"{name}0", up=True), new_address(100, f"{address}/24")])
            subprocess.run(["ip", "route", "add", "10.250.0.0/24", "dev", f"{name}0"], check=True)


def _fabric_rate(inside: Inside) -> float:
    far = inside.plan.hosts[-1]
    return _rate(inside.plan.hosts[0].name, far.name, far.ip)


def _bare_rate(_: Inside) -> float:
    return _rate("near", "far", _BARE_ADDRESSES["far"])


def _rate(client: str, server: str, address: str) -> float:
    """Bits a second that arrived, as iperf3's server counted them."""
    with netns.inside(server):
        listener = subprocess.Popen(
            ["iperf3", "--server", "--one-off", "--port", str(PORT), "--forceflush"],
            stdout=subprocess.PIPE,
            text=True,
        )
    assert listener.stdout is not None
    with listener:
        deadline = time.monotonic() + PATIENCE
        while "listening" not in (line := listener.stdout.readline()):
            if not line or time.monotonic() > deadline:
                listener.kill()
                raise BenchError(f"iperf3's server did not start in {server}")
        command = ["iperf3", "--client", address, "--port", str(PORT), "--time", str(SECONDS), "--json"]
        with netns.inside(client):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        listener.kill()
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise BenchError(f"iperf3 from {client} to {server}: {answer['error']}")
    return float(answer["end"]["sum_received"]["bits_per_second"])
