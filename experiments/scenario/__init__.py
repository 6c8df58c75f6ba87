"""A scenario: what is built, what runs in it, what breaks and what is expected, as plain frozen data.

Everything is in base units: nanoseconds, shares from 0 to 1. `load` reads one from TOML; the same classes make one in
Python, where durations may be given as text: ``Raft(nodes=5, election_timeout=("1s", "2s"))``. Each table of the file
has its module, which has the data and its reader side by side: `topology`, `systems`, `workloads`, `faults`, `expect`.
"""

from experiments.scenario.expect import Expect
from experiments.scenario.faults import Fault, Flap, Impair, Kill, LinkDown, Partition, Reconfigure, Transfer
from experiments.scenario.names import ROLES, ScenarioError, directions, flapping, link_of, links, place
from experiments.scenario.process_faults import (
    BitFlip,
    CrashPoint,
    Disorder,
    Drift,
    FullDisk,
    Mute,
    Pause,
    Skew,
    SlowDisk,
)
from experiments.scenario.systems import Failover, Heartbeat, Maelstrom, Phi, Quorum, Raft, Swim, System
from experiments.scenario.topology import Dataplane
from experiments.scenario.whole import Requirement, Scenario, load, parse, stretched
from experiments.scenario.workloads import Echo, NoWorkload, Register, Workload

__all__ = [
    "ROLES",
    "BitFlip",
    "CrashPoint",
    "Dataplane",
    "Disorder",
    "Drift",
    "Echo",
    "Expect",
    "Failover",
    "Fault",
    "Flap",
    "FullDisk",
    "Heartbeat",
    "Impair",
    "Kill",
    "LinkDown",
    "Maelstrom",
    "Mute",
    "NoWorkload",
    "Partition",
    "Pause",
    "Phi",
    "Quorum",
    "Raft",
    "Reconfigure",
    "Register",
    "Requirement",
    "Scenario",
    "ScenarioError",
    "Skew",
    "SlowDisk",
    "Swim",
    "System",
    "Transfer",
    "Workload",
    "directions",
    "flapping",
    "link_of",
    "links",
    "load",
    "parse",
    "place",
    "stretched",
]
