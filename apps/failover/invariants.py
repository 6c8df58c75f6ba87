"""What must hold of failing over: for whoever has the nodes at hand, tests and simulators.

`violations` looks at all nodes at one moment. Each predicate asks of the nodes' state what the package's docs promise,
which the messages between them have to bring about.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from apps.failover.core import Failover
from apps.process import Nanoseconds


class Violation(msgspec.Struct, frozen=True):
    property: str
    detail: str


def violations(now: Nanoseconds, coordinator: Failover | None, workers: Sequence[Failover]) -> list[Violation]:
    """What the nodes that run violate at ``now`` of the clock that they share; no coordinator where it does not run."""
    return [*one_owner(now, workers), *(served_is_granted(now, coordinator, workers) if coordinator else ())]


def one_owner(now: Nanoseconds, workers: Sequence[Failover]) -> list[Violation]:
    """At most one worker holds a shard's lease at a time."""
    found: list[Violation] = []
    holders: dict[int, str] = {}
    for worker in workers:
        for shard in worker.serving(now):
            if shard in holders:
                found.append(Violation("OneOwner", f"{holders[shard]} and {worker.node} both serve shard {shard}"))
            holders[shard] = worker.node
    return found


def served_is_granted(now: Nanoseconds, coordinator: Failover, workers: Sequence[Failover]) -> list[Violation]:
    """Whoever goes by a grant of this coordinator's incarnation serves what the coordinator reckons with, or less."""
    found: list[Violation] = []
    for worker in workers:
        if worker.goes_by[0] != coordinator.since:
            continue
        beyond = set(worker.serving(now)) - coordinator.may_serve(now, worker.node)
        if beyond:
            detail = f"{worker.node} serves {sorted(beyond)}, of which {coordinator.node} knows nothing"
            found.append(Violation("ServedIsGranted", detail))
    return found
