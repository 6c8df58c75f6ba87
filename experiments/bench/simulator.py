"""How fast the simulator plays: five Raft nodes, clients at 20 operations a second together, 30 virtual seconds a seed.

The leader is cut off in the middle, and every seed is checked: linearizability, acknowledged writes, Raft's properties.
One core for the events, all of them for the seeds.
"""

from __future__ import annotations

import statistics
import time

from experiments.bench import Figure, figure
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

#: Seeds on one core, and on all of them, after one that is not counted.
SINGLE, TOGETHER = 8, 64


def bench() -> list[Figure]:
    play_seed(SCENARIO.with_seed(0))
    speeds: list[float] = []
    for seed in range(1, SINGLE + 1):
        began = time.process_time()
        events = play_seed(SCENARIO.with_seed(seed)).events
        speeds.append(events / (time.process_time() - began))
    began = time.monotonic()
    outcomes = list(play_seeds(SCENARIO, range(1, TOGETHER + 1)))
    took = time.monotonic() - began
    broken = sum(outcome.valid is not True for outcome in outcomes)
    return [
        figure("events_per_s", statistics.median(speeds), "1/s", aim="≥ 100,000"),
        figure("events_per_seed", statistics.fmean(outcome.events for outcome in outcomes), ""),
        figure("seeds_per_minute", TOGETHER * 60 / took, "1/min", aim="≥ 500"),
        figure("seeds_not_valid", broken, "", aim="≤ 0"),
    ]
