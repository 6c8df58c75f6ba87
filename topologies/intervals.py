"""How sure a measured figure is: 95 % confidence intervals for shares, means and deviations. Pure.

Probes of one link are not independent of each other: a machine that pauses delays several in a row, and losses come in
bursts. So means have intervals by batch means, and shares as many packets as know the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import NormalDist, fmean, stdev

CONFIDENCE = 0.95

#: 10 to 30 batches are enough for any number of values (Schmeiser, Batch size effects in the analysis of simulation
#: output, Operations Research 30(3), 1982).
BATCHES = 20

#: Of fewer values than this a mean has no interval: the quantile used here is exact enough from here on.
FEWEST = 6

Interval = tuple[float, float]


def binomial_tail(trials: int, share: float, count: int) -> float:
    """How likely a count at least as far out as ``count``, on its side, is among ``trials`` of chance ``share``."""
    if share <= 0 or share >= 1:
        return 1.0 if count == round(trials * share) else 0.0
    up = count >= trials * share
    odds = share / (1 - share)
    term = math.exp(
        math.lgamma(trials + 1)
        - math.lgamma(count + 1)
        - math.lgamma(trials - count + 1)
        + count * math.log(share)
        + (trials - count) * math.log1p(-share)
    )
    total = 0.0
    while True:
        total += term
        if up:
            term *= (trials - count) / (count + 1) * odds
            count += 1
        else:
            term *= count / (trials - count + 1) / odds
            count -= 1
        if term < total * 1e-12 or not 0 <= count <= trials:
            return min(1.0, total)


def share_interval(trials: int, count: int, burst: float | None = None) -> Interval:
    """The exact interval of a share of which ``count`` of ``trials`` were seen (Clopper and Pearson, Biometrika 1934).

    ``burst`` is the mean length of the runs they came in: in longer ones than chance makes, packets tell less each.
    """
    if burst is not None and 0 < count < trials:
        start, end = count / (trials - count) / burst, 1 / burst
        correlation = max(0.0, 1 - start - end)  # of one packet's fate with the next one's, in a simple Gilbert model
        worth = (1 - correlation) / (1 + correlation)
        trials, count = max(1, round(trials * worth)), round(count * worth)
    seen, unlikely = count / trials, (1 - CONFIDENCE) / 2
    low = _where(0.0, seen, lambda share: binomial_tail(trials, share, count) < unlikely) if count else 0.0
    high = _where(seen, 1.0, lambda share: binomial_tail(trials, share, count) >= unlikely) if count < trials else 1.0
    return low, high


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The interval of the mean of ``values``, given in the order they were measured; None for fewer than `FEWEST`.

    By batch means: those of twenty stretches of values, each longer than what makes neighbours alike, are nearly
    independent and nearly normal (Law, Simulation Modeling and Analysis, §9.5.3).
    """
    if len(values) < FEWEST:
        return None
    batches = min(BATCHES, len(values))
    cuts = [len(values) * number // batches for number in range(batches + 1)]
    means = [fmean(values[start:end]) for start, end in pairwise(cuts)]
    middle, reach = fmean(values), student_quantile(batches - 1) * stdev(means) / math.sqrt(batches)
    return middle - reach, middle + reach


def deviation_interval(values: Sequence[float]) -> Interval | None:
    """The interval of the standard deviation of ``values``: the root of that of their squared distance to the mean."""
    if len(values) < FEWEST:
        return None
    mean = fmean(values)
    found = mean_interval([(value - mean) ** 2 for value in values])
    return found and (math.sqrt(max(0.0, found[0])), math.sqrt(max(0.0, found[1])))


def student_quantile(freedom: int) -> float:
    """Student's t, two-sided at `CONFIDENCE`, for 5 and more degrees of freedom: within 0.2 %.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def _where(low: float, high: float, below: Callable[[float], bool]) -> float:
    """Where ``below``, true from ``low`` on, turns false on the way to ``high``."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2
