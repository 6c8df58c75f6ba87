"""Random numbers of measured shapes, from ``random()`` alone, which is the one method whose numbers never change."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

#: Values in a table: a draw is ``table[int(random() * STEPS)]``.
STEPS = 4096


def quantile_table(points: Sequence[tuple[float, int]]) -> tuple[int, ...]:
    """The quantile function through ``points`` of (share, value), straight between them, at the middle of each step.

    The first share is 0 and the last 1, and both shares and values rise. No function of the mathematical library is
    in it, so its values are the same everywhere. Raises `ValueError` for points that are no such function.
    """
    shares = [share for share, _ in points]
    values = [value for _, value in points]
    if not (shares[0] == 0.0 and shares[-1] == 1.0 and shares == sorted(set(shares)) and values == sorted(values)):
        raise ValueError(f"{points} are not the points of a quantile function")
    table: list[int] = []
    for step in range(STEPS):
        share = (step + 0.5) / STEPS
        at = bisect_right(shares, share) - 1
        part = (share - shares[at]) / (shares[at + 1] - shares[at])
        table.append(values[at] + int(part * (values[at + 1] - values[at])))
    return tuple(table)
