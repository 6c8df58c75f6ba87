"""How fast a fabric is built, taken away and forwards, beside what Mininet itself takes for the same one.

The same is 4 spines × 8 leaves × 128 hosts with addresses on Open vSwitch's user space datapath, no controller, in a
sandbox that has just been made. Both find an Open vSwitch that has made a bridge before: for its first one it measures
the processor's clock for 0.1 s. Our teardown ends it, too.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from controllers.fake_switch import cut_off
from experiments.bench import BenchError, Figure, figure
from experiments.emulation.inside import Inside
from topologies import openvswitch
from topologies.fabric import Fabric
from topologies.leaf_spine import LeafSpine
from topologies.mininet_topo import Mininet, topo_of
from topologies.openvswitch import OpenVSwitch
from topologies.plan import FabricPlan, Switch
from topologies.sandbox import Sandbox

SMALL = (4, 8, 16)
LARGE = (4, 32, 32)
ROUNDS = 3
STOCK = "stock Mininet"

#: Seconds a fabric may take to forward before the bench gives it up.
PATIENCE = 60.0


def bench() -> list[Figure]:
    plan = LeafSpine(*SMALL)
    ours = [_lives(Ours, plan) for _ in range(ROUNDS)]
    stock = [_lives(Stock, plan) for _ in range(ROUNDS)]
    build, stop = (statistics.median(times) for times in zip(*ours, strict=True))
    stock_build, stock_stop = (statistics.median(times) for times in zip(*stock, strict=True))
    with _running(plan) as (forwarding, sandbox):
        all_pairs = sandbox.run_sync(_reach_all)
    with _running(LeafSpine(*LARGE)) as (forwarding_large, sandbox):
        resident = sandbox.run_sync(_resident_bytes)
    return [
        figure("build_s", build, "s", peer=STOCK, peer_value=stock_build),
        figure("build_ratio", stock_build / build, "times", aim="≥ 20"),
        figure("teardown_s", stop, "s", peer=STOCK, peer_value=stock_stop),
        figure("teardown_ratio", stock_stop / stop, "times", aim="≥ 20"),
        figure("forwarding_128_s", forwarding, "s", aim="≤ 4"),
        figure("all_pairs_128_s", all_pairs, "s"),
        figure("build_1024_s", forwarding_large, "s", aim="≤ 15"),
        figure("rss_1024_gib", resident / 2**30, "GiB", aim="≤ 1.5"),
        figure("fake_switch_4x4_s", _all_failures(), "s", aim="≤ 2"),
    ]


def _all_failures() -> float:
    """Seconds for all 240 pairs of hosts under each of 32 link failures, on switches in plain Python."""
    started = time.monotonic()
    if wrong := cut_off(LeafSpine(4, 4, 4)):
        raise BenchError(f"{len(wrong)} pairs under a failure are not as they should be, such as {wrong[0]}")
    return time.monotonic() - started


class Ours:
    """A fabric's life inside a sandbox of its own."""

    def life(self, plan: FabricPlan) -> tuple[float, float]:
        """Seconds it takes to build, and to take away."""
        net = Fabric(plan, datapath="netdev", controller=None)
        net.start_open_vswitch()
        assert net.ovs is not None
        _warm_up(net.ovs)
        started = time.monotonic()
        net.start()
        built = time.monotonic()
        net.stop()
        return built - started, time.monotonic() - built


class Stock:
    """The same network, as Mininet builds it."""

    def life(self, plan: FabricPlan) -> tuple[float, float]:
        """Seconds of ``build()`` and ``start()``, and of ``stop()``."""
        from mininet.node import OVSSwitch  # where the fabric has already seen to Mininet's imports

        ovs = OpenVSwitch("netdev")
        ovs.start()
        _warm_up(ovs)
        # Mininet would else set sysctls of the whole machine.
        Mininet.inited = True
        topology = topo_of(plan)
        switches = partial(OVSSwitch, datapath="user", failMode="secure")
        started = time.monotonic()
        net: Any = Mininet(topology, switch=switches, controller=None, build=False)
        net.build()
        net.start()
        built = time.monotonic()
        net.stop()
        ended = time.monotonic()
        ovs.stop()
        return built - started, ended - built


def _warm_up(ovs: OpenVSwitch) -> None:
    """Have it make a bridge, and take that away: left there it would slow stock Mininet by a fifth."""
    bridge = Switch("first", "leaf", 1)
    ovs.configure(openvswitch.bridges([bridge], ovs.datapath))
    ovs.remove(bridge.name)


def _lives(service: type, plan: FabricPlan) -> tuple[float, float]:
    with Sandbox(service) as sandbox:
        times: tuple[float, float] = sandbox.call_sync("life", plan)
        return times


@contextmanager
def _running(plan: FabricPlan) -> Iterator[tuple[float, Sandbox]]:
    """A fabric that forwards, and the seconds that took from nothing, its sandbox and controller included."""
    with tempfile.TemporaryDirectory(prefix="splitbrain-bench-") as name:
        ended: list[tuple[str, str, int]] = []
        started = time.monotonic()
        with Sandbox(Inside, plan, Path(name), 1, out=Path(name), on_event=ended.append) as sandbox:
            sandbox.call_sync("build")
            sandbox.call_sync("wait_forwarding", PATIENCE)
            forwarding = time.monotonic() - started
            yield forwarding, sandbox
            if ended:
                raise BenchError(f"while the fabric was measured, these ended: {ended}")


async def _reach_all(inside: Inside) -> float:
    """Seconds until each of 16,256 pairs was seen to reach, one probe after another. Raises `BenchError` if one never.

    `wait_forwarding` concludes it from fewer: every host to and from a neighbour, and every leaf to every other.
    """
    started = time.monotonic()
    missing = list(itertools.permutations([host.name for host in inside.plan.hosts], 2))
    while missing:
        if time.monotonic() - started > PATIENCE:
            raise BenchError(f"{len(missing)} pairs do not reach, such as {missing[0]}")
        cells = await inside.fabric.prober.measure(missing, probes=1, timeout=0.5)
        missing = [pair for pair in missing if not cells[pair].arrived]
    return time.monotonic() - started


def _resident_bytes(_: Inside) -> int:
    """The memory of every process of the sandbox, what they share counted once for each (proc(5), statm)."""
    pages = 0
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            pages += int(Path("/proc", entry, "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
