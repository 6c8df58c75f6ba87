"""A key-value store on quorums, after Dynamo: no leader, N copies of each key, R answers make a read and W a write.

What it promises depends on its configuration, and `QuorumConfig` refuses one that cannot keep what it is asked for:

- ``quorum = "strict"``: R + W > N and W > N/2, so a read meets every write that was acknowledged before it began. Who
  cannot reach so many of a key's *own* replicas is refused. With last-writer-wins a write asks R replicas first, and
  ranks above what it finds, so that this holds whatever clocks show.
- ``"sloppy"``: fallbacks further along the ring stand in for replicas that do not answer, and hand over later. Always
  writable, and a read may miss what was acknowledged: it may have asked others.
- ``"partial"``: only the key's own replicas, but with any R and W; a read may be stale.
- ``linearizable``: ABD's second phase for reads too, on strict quorums: they write back what they found before they
  answer.

In all of them every replica ends with the same versions once the network lets it (hinted handoff, read repair,
anti-entropy), and a write that was acknowledged is dropped only for one that saw it, or, with last-writer-wins, for one
with a later timestamp: which, unless the quorum is strict, is that of the coordinator whose clock is ahead.

**A write is sent once**: sent again through another coordinator it is another write. There is no compare-and-set, which
would need consensus.

Where to read: `core.Quorum` is the protocol; `ring`, `versions` and `merkle` are its parts, each without knowledge of
the others; `messages` is what goes over the wire and onto the disk; `invariants` what must hold.

Sources: DeCandia et al., Dynamo: Amazon's Highly Available Key-value Store (SOSP 2007); Gifford, Weighted Voting for
Replicated Data (1979); Attiya, Bar-Noy & Dolev, Sharing Memory Robustly in Message-Passing Systems (1995), for many
writers Lynch & Shvartsman (1997); Preguiça et al., Dotted Version Vectors (2012).
"""

from apps.quorum.config import QuorumConfig, QuorumConfigError
from apps.quorum.core import Quorum
from apps.quorum.messages import Command, Found, Get, Message, Put, Record, Result
from apps.quorum.ring import Ring
from apps.quorum.versions import Version

__all__ = [
    "Command",
    "Found",
    "Get",
    "Message",
    "Put",
    "Quorum",
    "QuorumConfig",
    "QuorumConfigError",
    "Record",
    "Result",
    "Ring",
    "Version",
]
