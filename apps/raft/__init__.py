"""Raft: a log replicated by a majority, and a key-value map that every node computes from it.

What it promises, as long as no node lies and no disk forgets what it said was written: a linearizable map. A write
that was answered with `Done` is never lost, takes effect once however often it was sent, and is seen by every read
that starts after. It is available while a majority of the voters can talk to each other.

Where to read: `core.Raft` is the protocol, in layers: `node`, `election`, `replication`, `snapshots`, `reads`,
`transfer`, `membership`; `log`, `progress` and `quorum` are its parts, each without knowledge of the others;
`messages` is what goes over the wire and onto the disk, `validity` what cannot have been meant; `trace` is the evidence
it leaves, `invariants` what must hold at any moment.
`docs/raft.md` says which rule is where.

Sources: Ongaro & Ousterhout, In Search of an Understandable Consensus Algorithm (2014), "the paper"; Ongaro,
Consensus: Bridging Theory and Practice (2014), "the thesis".
"""

from apps.raft.config import RaftConfig, RaftConfigError
from apps.raft.core import Contradiction, Raft, RecoveryError, Role, Unintelligible
from apps.raft.messages import ChangeMembership, Command, Entry, HardState, Message, Record, TransferLeadership

__all__ = [
    "ChangeMembership",
    "Command",
    "Contradiction",
    "Entry",
    "HardState",
    "Message",
    "Raft",
    "RaftConfig",
    "RaftConfigError",
    "Record",
    "RecoveryError",
    "Role",
    "TransferLeadership",
    "Unintelligible",
]
