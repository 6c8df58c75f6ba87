"""How well clients were served: shares, outages, and how soon after a fault or a heal things went on.

Served is an operation that was answered: it succeeded, or was a compare-and-set that the system refused because it knew
the register's value to be another. Times are nanoseconds from the start of the workload.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import msgspec

from experiments.checking.history import Operation

#: What a client writes as error when no node answered, or none would: nobody refused anything.
UNANSWERED = ("timeout", "no leader")

#: Service is steady from the first success on that is followed by such a time without a longer gap than `steady_gap`.
STEADY = 1_000_000_000
SHORTEST_STEADY_GAP = 100_000_000
STEADY_GAP_SPACINGS = 10


class Outage(msgspec.Struct, frozen=True):
    start: int
    length: int


class Service(msgspec.Struct, frozen=True):
    """Counts of operations; ``ok``, ``refused`` (see the module), ``failed`` and ``unknown`` add up to ``operations``.

    ``outage``: the longest time in which operations were under way and none was answered; None without operations.
    """

    operations: int
    ok: int
    refused: int
    failed: int
    unknown: int
    outage: Outage | None

    @property
    def share(self) -> float | None:
        """The part of all operations that was served, 0 to 1."""
        return (self.ok + self.refused) / self.operations if self.operations else None


def is_served(operation: Operation) -> bool:
    return operation.type == "ok" or _is_refused(operation)


def _is_refused(operation: Operation) -> bool:
    return operation.type == "fail" and operation.f == "cas" and operation.error not in UNANSWERED


def service(operations: Sequence[Operation]) -> Service:
    refused = sum(map(_is_refused, operations))
    count = {kind: sum(operation.type == kind for operation in operations) for kind in ("ok", "fail", "info")}
    outage = longest_outage(operations)
    return Service(len(operations), count["ok"], refused, count["fail"] - refused, count["info"], outage)


def longest_outage(operations: Sequence[Operation]) -> Outage | None:
    """The longest time without a served operation, counted only from when one was under way."""
    if not operations:
        return None
    end = max(operation.complete or operation.invoke for operation in operations)
    served = served_at(operations)
    longest = Outage(0, -1)
    moments = [min(operation.invoke for operation in operations), *served, end]
    for last, following in sorted(pairwise(moments), key=lambda gap: gap[0] - gap[1]):
        if following - last <= longest.length:
            break  # the others are shorter still
        under_way = (max(one.invoke, last) for one in operations if one.complete is None or one.complete > last)
        start = min(under_way, default=following)
        if following - start > longest.length:
            longest = Outage(start, following - start)
    return longest


def served_at(operations: Sequence[Operation]) -> list[int]:
    """When operations were answered, in order."""
    return sorted(one.complete for one in operations if one.complete is not None and is_served(one))


def steady_gap(served: Sequence[int]) -> int:
    """The longest gap between successes that still counts as steady service, by how far apart they usually are."""
    usual = median(later - earlier for earlier, later in pairwise(served)) if len(served) > 1 else 0
    return max(SHORTEST_STEADY_GAP, round(STEADY_GAP_SPACINGS * usual))


def steady_after(served: Sequence[int], moment: int, end: int, gap: int) -> int | None:
    """How long after ``moment`` service was steady: until the first success from which on, for `STEADY` or to the
    ``end`` of the workload, no ``gap`` nanoseconds passed without another. None if that never came.
    """
    start: int | None = None
    last = 0
    for success in served[bisect_left(served, moment) :]:
        if start is None or success - last > gap:
            start = success
        last = success
        if last - start >= STEADY:
            return start - moment
    return None if start is None or end - last > gap else start - moment
