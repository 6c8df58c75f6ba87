"""splitbrain: what a distributed system does when the network breaks. The public names, re-exported."""

from apps.detectors import HeartbeatConfig, PhiConfig, SwimConfig
from apps.failover import FailoverConfig
from apps.quorum import QuorumConfig
from experiments.lab import Lab, Verdict, lab
from experiments.scenario import (
    Echo,
    Expect,
    Failover,
    Flap,
    Heartbeat,
    Impair,
    Kill,
    LinkDown,
    Maelstrom,
    NoWorkload,
    Partition,
    Phi,
    Quorum,
    Raft,
    Register,
    Scenario,
    ScenarioError,
    Swim,
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
    "Failover",
    "FailoverConfig",
    "FatTree",
    "Flap",
    "Heartbeat",
    "HeartbeatConfig",
    "Impair",
    "Impairment",
    "Kill",
    "Lab",
    "LeafSpine",
    "LinkDown",
    "Maelstrom",
    "NoWorkload",
    "Partition",
    "Phi",
    "PhiConfig",
    "PlanError",
    "Quorum",
    "QuorumConfig",
    "Raft",
    "Register",
    "Scenario",
    "ScenarioError",
    "SingleSwitch",
    "Swim",
    "SwimConfig",
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
