"""splitbrain: what a distributed system does when the network breaks. The public names, re-exported."""

from experiments.lab import Lab, Verdict, lab
from experiments.scenario import (
    Echo,
    Expect,
    Flap,
    Impair,
    Kill,
    LinkDown,
    Maelstrom,
    Partition,
    Raft,
    Register,
    Scenario,
    ScenarioError,
    load,
    parse,
)
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan, PlanError
from topologies.tenants import tenant, with_tenants

__all__ = [
    "Echo",
    "Expect",
    "FabricPlan",
    "Flap",
    "Impair",
    "Impairment",
    "Kill",
    "Lab",
    "LeafSpine",
    "LinkDown",
    "Maelstrom",
    "Partition",
    "PlanError",
    "Raft",
    "Register",
    "Scenario",
    "ScenarioError",
    "Verdict",
    "lab",
    "load",
    "parse",
    "tenant",
    "with_tenants",
]
