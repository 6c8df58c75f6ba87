"""Scenarios in which the simulator looks for mutants of quorum stores and of SWIM, by `mutants`' name for them."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from apps.detectors import SwimConfig
from apps.quorum import QuorumConfig
from experiments.scenario import Expect, NoWorkload, Quorum, Register, Scenario, Swim
from topologies.leaf_spine import LeafSpine

MS = 1_000_000

#: Few keys and deletes, so that every copy that is behind matters.
STORE = QuorumConfig(n=3, r=2, w=2, linearizable=True, handoff_interval=200 * MS, anti_entropy_interval=300 * MS)
WORKLOAD = Register(clients=4, rate=80.0, keys=3, mix={"read": 0.5, "write": 0.35, "delete": 0.15})

#: Where what was written without knowing of each other stays side by side.
SIBLINGS = msgspec.structs.replace(STORE, linearizable=False, versions="siblings")
RECONCILED = msgspec.structs.replace(WORKLOAD, mix={"read": 0.5, "write": 0.5})


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


def group(implementation: str = "") -> Scenario:
    """Once the network is well again, everybody is soon taken for alive."""
    system = Swim(6, config=GROUP, implementation=implementation)
    expect = Expect(linearizable=False, reinstatement=3_000 * MS)
    return Scenario("group", "", 0, 16_000 * MS, LeafSpine(2, 3, 4), system, NoWorkload(), (), expect)
