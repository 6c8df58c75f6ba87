"""Operations counted and their latencies ranked, in equal bins of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from experiments.checking.availability import is_served
from experiments.checking.history import Operation
from experiments.report.words import MILLISECOND, SECOND, nice_step

#: What is drawn of every bin's latencies; 100 is the slowest.
RANKS = (50, 95, 99, 100)

#: The 99th percentile of much fewer latencies than a hundred is just the slowest.
ENOUGH_FOR_P99 = 90


class Counts(msgspec.Struct, frozen=True):
    """Completions in every bin of ``width`` nanoseconds from time 0; the last bin ends at ``end``."""

    width: int
    end: int
    ok: list[int]
    fail: list[int]
    info: list[int]

    def rates(self, numbers: Sequence[int]) -> list[float]:
        """Counts of these bins as operations a second."""
        last = self.end - (len(numbers) - 1) * self.width
        return [number * SECOND / self.width for number in numbers[:-1]] + [numbers[-1] * SECOND / last]


class Latencies(msgspec.Struct, frozen=True):
    """Percentiles of the successful operations invoked in every bin, nanoseconds; None in a bin without any."""

    width: int
    ranks: dict[int, list[int | None]]


def percentile(ordered: Sequence[int], rank: float) -> int:
    """The smallest value with at least ``rank`` percent of ``ordered`` at or below it (nearest rank)."""
    return ordered[max(0, -int(-len(ordered) * rank // 100) - 1)]


def count(operations: Iterable[Operation], end: int) -> Counts:
    """Bins are about a hundredth of the run. Refused operations were answered, and count as successful here."""
    width = max(10 * MILLISECOND, round(nice_step(end / SECOND, 120) * SECOND))
    # What is left at the end goes to the last bin: a sliver of a bin would show a rate of nothing much.
    bins = max(1, round(end / width))
    counted = Counts(width, end, [0] * bins, [0] * bins, [0] * bins)
    for operation in operations:
        if operation.complete is None:
            continue
        slot = min(operation.complete // width, bins - 1)
        if is_served(operation):
            counted.ok[slot] += 1
        elif operation.type == "fail":
            counted.fail[slot] += 1
        else:
            counted.info[slot] += 1
    return counted


def latencies(operations: Sequence[Operation], end: int, finest: int) -> Latencies:
    """Bins no finer than ``finest``, and wide enough for a 99th percentile to mean something at the run's own rate."""
    answered = [one for one in operations if one.type == "ok" and one.complete is not None]
    wanted = min(end / 10, end * ENOUGH_FOR_P99 / max(1, len(operations)))
    width = max(finest, round(nice_step(wanted / SECOND, 1) * SECOND))
    bins: list[list[int]] = [[] for _ in range(-(-end // width))]
    for one in answered:
        bins[min(one.invoke // width, len(bins) - 1)].append((one.complete or one.invoke) - one.invoke)
    for each in bins:
        each.sort()
    return Latencies(width, {rank: [percentile(each, rank) if each else None for each in bins] for rank in RANKS})
