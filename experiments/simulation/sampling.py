"""Random numbers of measured shapes, from ``random()`` alone, which is the one method whose numbers never change."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

#: Makes a number of a uniform one, 0 ≤ u < 1.
Sampler = Callable[[float], int]


def quantile_function(points: Sequence[tuple[float, int]]) -> Sampler:
    """The inverse distribution function through ``points`` of (share, value), straight between them.

    The first share is 0 and the last 1, and both shares and values rise. No function of the mathematical library is
    in it, so its values are the same everywhere. Raises `ValueError` for points that are no such function.
    """
    shares = [share for share, _ in points]
    values = [value for _, value in points]
    if not (shares[0] == 0.0 and shares[-1] == 1.0 and shares == sorted(set(shares)) and values == sorted(values)):
        raise ValueError(f"{points} are not the points of a quantile function")
    slopes = [
        (high - low) / (to - since)
        for low, high, since, to in zip(values, values[1:], shares, shares[1:], strict=False)
    ]

    def sample(u: float) -> int:
        at = bisect_right(shares, u) - 1
        return values[at] + int((u - shares[at]) * slopes[at])

    return sample
