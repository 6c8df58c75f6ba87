"""Failing over: the work of a member that has failed is taken over, and one that is back is eased in again.

Detection, reconfiguration, reintegration (van Steen & Tanenbaum, Distributed Systems, ch. 8), around one coordinator:

- *Detection*: every worker beats; one that has been silent for ``lease`` is taken for failed.
- *Reconfiguration*: the work is cut into shards, which a ring of the present workers assigns (`assignment`). A worker
  serves its shards only under a lease, which every answer to a beat renews.
- *Reintegration*: a worker that is new, or back, begins with a small share of its places on the ring and comes to its
  full weight over ``ramp``: a cold cache or a backlog does not meet the whole load at once.

**What it promises.** Never do two workers serve the same shard: a shard is given away when its holder has said that it
let go, or when its lease must be over. As long as the coordinator and one worker reach each other, every shard is
served again within two leases and two intervals of a failure. The coordinator is one node; while it is gone nothing is
reassigned and leases run out. Who needs more than that keeps the assignment in a replicated log.

**What it takes for granted**: clocks that run at the same rate, to within ``drift``, and that a node's own clock never
goes back, not over a restart either (Gray & Cheriton, Leases, SOSP 1989). No disk: after a restart the coordinator
waits until all old leases must be over.
"""

from apps.failover.assignment import assign
from apps.failover.core import Failover, FailoverConfig, FailoverConfigError
from apps.failover.messages import Beat, Grant, Message

__all__ = ["Beat", "Failover", "FailoverConfig", "FailoverConfigError", "Grant", "Message", "assign"]
