"""How a Raft node is tuned: all nodes of a cluster get the same."""

from __future__ import annotations

from typing import Literal

import msgspec

from apps.process import Nanoseconds, NodeId

MILLISECOND = 1_000_000


_AT_LEAST_ONE = (
    "max_batch_entries",
    "max_batch_bytes",
    "max_inflight",
    "max_uncommitted_entries",
    "max_uncommitted_bytes",
    "max_waiting_reads",
    "snapshot_entries",
)


class RaftConfigError(ValueError):
    """A configuration that cannot work; the message names the setting and what it must be."""


class RaftConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Raises `RaftConfigError` when the settings contradict each other.

    ``election_timeout``: shortest and longest time without a leader before a node stands for election; each time it
    is drawn anew, uniformly (paper §5.2; 150-300 ms is its §9.3).
    ``heartbeat_interval``: how often a leader makes itself heard when it has nothing to send.
    ``pre_vote``: ask whether an election could be won before raising the term, and deny those who ask while a leader
    is heard (thesis §9.6 and §4.2.3), so that a node that comes back does not depose a leader who serves the others.
    ``check_quorum``: a leader that has not heard from a majority for the longest election timeout steps down (thesis
    §6.2). Without it, a node that hears the leader but is not heard by it can keep all others waiting for ever.
    ``max_batch_entries``, ``max_batch_bytes``: limits of one `Append`; an entry larger than the second goes alone.
    ``max_inflight``: how many `Append` a follower may be behind with its answers before the leader waits for it.
    ``max_uncommitted_entries``, ``max_uncommitted_bytes``: with so much in its log that is not committed yet, a leader
    takes no further write (`kv.Busy`): memory stays bounded when followers are slow or gone.
    ``max_waiting_reads``: with so many reads unanswered, a node takes no further one, either.
    ``snapshot_entries``: so many applied entries are replaced by a snapshot (`apps.raft.snapshots`).
    ``reads``: how a leader makes sure that it still is one, by a round of heartbeats or by a lease (`apps.raft.reads`).
    ``clock_drift_bound``: for leases, by what share one node's clock may run faster than another's. Oscillators differ
    by 0.0002 at most, so that most of the default is for clocks that are being corrected.
    ``follower_reads``: a follower answers reads too, having asked the leader how far it must be.
    ``voters``: who has a vote in the beginning, all nodes if none are named. The others wait until they are made
    members (`ChangeMembership`); on a node that has a log, this counts only until its log says otherwise.
    """

    election_timeout: tuple[Nanoseconds, Nanoseconds] = (150 * MILLISECOND, 300 * MILLISECOND)
    heartbeat_interval: Nanoseconds = 50 * MILLISECOND
    pre_vote: bool = True
    check_quorum: bool = True
    max_batch_entries: int = 1024
    max_batch_bytes: int = 1 << 20
    max_inflight: int = 64
    max_uncommitted_entries: int = 100_000
    max_uncommitted_bytes: int = 64 << 20
    max_waiting_reads: int = 10_000
    snapshot_entries: int = 50_000
    reads: Literal["read_index", "lease"] = "read_index"
    clock_drift_bound: float = 0.05
    follower_reads: bool = False
    voters: tuple[NodeId, ...] = ()

    def __post_init__(self) -> None:
        shortest, longest = self.election_timeout
        if not 0 < shortest <= longest:
            raise RaftConfigError(f"election_timeout is {shortest} to {longest} ns; it must rise, and start above 0")
        if not 0 < self.heartbeat_interval < shortest:
            raise RaftConfigError(
                f"heartbeat_interval is {self.heartbeat_interval} ns; it must be above 0 and below the shortest "
                f"election_timeout of {shortest} ns, or followers take a healthy leader for dead"
            )
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise RaftConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.clock_drift_bound < 1:
            raise RaftConfigError(f"clock_drift_bound is {self.clock_drift_bound}; it must be from 0 to below 1")

    @property
    def lease(self) -> Nanoseconds:
        """For how long after a heartbeat that a majority answered nobody else can have been elected."""
        return int(self.election_timeout[0] / (1 + self.clock_drift_bound))
