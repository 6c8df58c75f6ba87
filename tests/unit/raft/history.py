"""Is what clients saw of one key what a register could have done? For values that are written once only.

After Gibbons & Korach, Testing Shared Memories (1997), §4: when each value is written by one operation, a history is
linearizable exactly if its values' zones do not contradict each other, which sorting decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

FOREVER = 1 << 62


@dataclass
class Operation:
    """``value``: what was written, or what a read found. ``completed``: `FOREVER` while nobody knows whether it did."""

    kind: str
    key: str
    value: Any
    invoked: int
    completed: int = FOREVER


def contradictions(operations: Iterable[Operation]) -> list[str]:
    """Why no order of ``operations`` on one key explains them all; empty when one does."""
    writes: dict[Any, Operation] = {None: Operation("write", "", None, -1, -1)}
    reads: list[Operation] = []
    for operation in operations:
        if operation.kind == "write":
            writes[operation.value] = operation
        elif operation.completed < FOREVER:
            reads.append(operation)
    clusters = {value: [write] for value, write in writes.items() if write.completed < FOREVER}
    for read in reads:
        write = writes.get(read.value)
        if write is None or read.completed < write.invoked:
            return [f"{read} found what had not been written"]
        clusters.setdefault(read.value, [write]).append(read)

    # A zone runs between a value's first completion and its last invocation. Forwards, the value must be there
    # throughout; backwards, it need only have been there at some moment within.
    forward: list[tuple[int, int, Any]] = []
    backward: list[tuple[int, int, Any]] = []
    for value, cluster in clusters.items():
        first_completed = min(operation.completed for operation in cluster)
        last_invoked = max(operation.invoked for operation in cluster)
        if first_completed < last_invoked:
            forward.append((first_completed, last_invoked, value))
        else:
            backward.append((last_invoked, first_completed, value))
    forward.sort(key=lambda zone: zone[:2])
    found = [
        f"{one[2]!r} and {other[2]!r} must both be there at {other[0]}"
        for one, other in pairwise(forward)
        if other[0] < one[1]
    ]
    found += [
        f"{inner[2]!r} must be there while {outer[2]!r} is, {outer[0]} to {outer[1]}"
        for inner in backward
        for outer in forward
        if outer[0] < inner[0] and inner[1] < outer[1]
    ]
    return found
