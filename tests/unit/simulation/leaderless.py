"""Scenarios in which the simulator looks for mutants of quorum stores and of SWIM, by `mutants`' name for them."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, ClassVar

import msgspec

from apps.detectors import SwimConfig
from apps.quorum import QuorumConfig
from experiments.nemesis import sample
from experiments.scenario import Expect, Kill, NoWorkload, Partition, Quorum, Register, Scenario, SlowDisk, Swim
from topologies.leaf_spine import LeafSpine

MS = 1_000_000

#: Few keys and deletes, so that every copy that is behind matters.
STORE = QuorumConfig(n=3, r=2, w=2, linearizable=True, handoff_interval=200 * MS, anti_entropy_interval=300 * MS)
WORKLOAD = Register(clients=4, rate=80.0, keys=3, mix={"read": 0.5, "write": 0.35, "delete": 0.15})

#: More often, so that somebody looks into every gap.
BUSY = msgspec.structs.replace(WORKLOAD, clients=6, rate=200.0, keys=2)

#: Where what was written without knowing of each other stays side by side.
SIBLINGS = msgspec.structs.replace(STORE, linearizable=False, versions="siblings")
RECONCILED = msgspec.structs.replace(WORKLOAD, mix={"read": 0.5, "write": 0.5})


#: Nothing mends a copy but reads themselves, and some nodes do not hear some others.
BARE = msgspec.structs.replace(STORE, read_repair=False, hinted_handoff=False, anti_entropy=False)


class Reconciled(Quorum, frozen=True, tag="quorum"):
    """A store whose clients say what their writes are to replace."""

    client: ClassVar[str] = "tests.unit.simulation.mutant_kinds:reconciling"


#: Short periods, and members that look for those whom they have given up.
GROUP = SwimConfig(
    interval=200 * MS, probe_timeout=100 * MS, suspicion_max_multiplier=2.0, reconnect_every=5, max_health=2
)


def store(implementation: str = "") -> Scenario:
    system = Quorum(5, config=STORE, implementation=implementation)
    return Scenario("store", "", 0, 6_000 * MS, LeafSpine(2, 3, 4), system, WORKLOAD, (), Expect())


def siblings(implementation: str = "") -> Scenario:
    system = Reconciled(5, config=SIBLINGS, implementation=implementation)
    expect = Expect(linearizable=False)
    return Scenario("siblings", "", 0, 6_000 * MS, LeafSpine(2, 3, 4), system, RECONCILED, (), expect)


def bare(implementation: str, seed: int) -> Scenario:
    """Again and again one node and some others do not hear each other."""
    system = Quorum(5, config=BARE, implementation=implementation)
    random = Random(f"{seed} bare")
    cuts: list[Any] = []
    for moment in _moments(random, 400):
        one, *others = sample(random, system.names, 2 + int(random.random() * 3))
        cuts.append(Partition(((one,), tuple(others)), moment, int((0.1 + random.random()) * 500 * MS)))
    return Scenario("bare", "", seed, 6_000 * MS, LeafSpine(2, 3, 4), system, BUSY, tuple(cuts), Expect())


def power_cuts(implementation: str, seed: int) -> Scenario:
    """Disks are slow, and the power fails everywhere, several times."""
    system = Quorum(5, config=STORE, implementation=implementation)
    random = Random(f"{seed} power")
    slow = SlowDisk(system.names, 20 + 180 * random.random(), 0, 5_000 * MS)
    cuts = [Kill(system.names, moment, int(random.random() * 100 * MS)) for moment in _moments(random, 1_500)]
    return Scenario("power cuts", "", seed, 6_000 * MS, LeafSpine(2, 3, 4), system, BUSY, (slow, *cuts), Expect())


def _moments(random: Random, apart: int) -> Iterator[int]:
    """Up to so many milliseconds apart, with a quiet end."""
    moment = 250 * MS
    while moment < 4_500 * MS:
        yield moment
        moment += int(random.random() * apart * MS)


def group(implementation: str = "") -> Scenario:
    """Once the network is well again, everybody is soon taken for alive."""
    system = Swim(6, config=GROUP, implementation=implementation)
    expect = Expect(linearizable=False, reinstatement=3_000 * MS)
    return Scenario("group", "", 0, 16_000 * MS, LeafSpine(2, 3, 4), system, NoWorkload(), (), expect)
