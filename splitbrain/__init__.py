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
from topologies.graph import SingleSwitch, Wan, from_edges, from_file, from_graph
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan, PlanError
from topologies.tenants import tenant, with_tenants
from topologies.three_tier import FatTree, ThreeTier

__all__ = [
    "Echo",
    "Expect",
    "FabricPlan",
    "FatTree",
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
    "SingleSwitch",
    "ThreeTier",
    "Verdict",
    "Wan",
    "from_edges",
    "from_file",
    "from_graph",
    "lab",
    "load",
    "parse",
    "tenant",
    "with_tenants",
]
