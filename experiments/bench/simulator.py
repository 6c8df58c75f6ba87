"""How fast the simulator plays: five Raft nodes, clients at 20 operations a second together, 30 virtual seconds a seed.

The leader is cut off in the middle, and every seed is checked: linearizability, acknowledged writes, Raft's properties.
One core for the events, all of them for the seeds. ``events_per_s`` and ``swim_10000_s`` are of processor seconds, so
that whatever else the machine does is not counted; the sources' own speed is beside that of the machine code of them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from experiments.bench import Figure, figure
from experiments.bench.detectors import swim
from experiments.scenario import Partition, Raft, Register, Scenario
from experiments.simulation.campaign import play_seeds
from experiments.simulation.seed import play_seed
from topologies.leaf_spine import LeafSpine

_SECOND = 1_000_000_000

SCENARIO = Scenario(
    name="bench",
    description="",
    seed=1,
    duration=30 * _SECOND,
    plan=LeafSpine(2, 3, 4),
    system=Raft(nodes=5),
    workload=Register(clients=5, rate=20.0),
    faults=(Partition((("leader",), ("others",)), 10 * _SECOND, 6 * _SECOND),),
)

#: Seeds on one core, and on all of them.
SINGLE, TOGETHER = 8, 64


#: SWIM with its defaults, nothing happening: what a member does costs the same however many there are.
MEMBERS, MEMBERS_SECONDS = 10_000, 60


def bench() -> list[Figure]:
    pure = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import events_per_s; print(events_per_s())"],
        env={**os.environ, "SPLITBRAIN_PURE": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    speed = events_per_s()
    began = time.monotonic()
    outcomes = list(play_seeds(SCENARIO, range(1, TOGETHER + 1)))
    took = time.monotonic() - began
    broken = sum(outcome.valid is not True for outcome in outcomes)
    return [
        figure("events_per_s", speed, "1/s", aim="≥ 100,000", peer="not compiled", peer_value=float(pure.stdout)),
        figure("events_per_seed", statistics.fmean(outcome.events for outcome in outcomes), ""),
        figure("seeds_per_minute", TOGETHER * 60 / took, "1/min", aim="≥ 500"),
        figure("seeds_not_valid", broken, "", aim="≤ 0"),
        figure("swim_10000_s", _swim_seconds(), "s", aim="≤ 120"),
    ]


def events_per_s() -> float:
    """Of a processor second: the median of some seeds, after one that is not counted."""
    play_seed(SCENARIO.with_seed(0))
    speeds: list[float] = []
    for seed in range(1, SINGLE + 1):
        began = time.process_time()
        events = play_seed(SCENARIO.with_seed(seed)).events
        speeds.append(events / (time.process_time() - began))
    return statistics.median(speeds)


def _swim_seconds() -> float:
    """Processor seconds of `MEMBERS_SECONDS` virtual ones."""
    began = time.process_time()
    swim(0, MEMBERS).run(MEMBERS_SECONDS * _SECOND)
    return time.process_time() - began
