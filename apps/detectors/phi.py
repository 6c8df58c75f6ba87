"""φ-accrual: how unlikely the present silence is, given how heartbeats have come so far.

Hayashibara, Défago, Yared & Katayama, The φ Accrual Failure Detector (SRDS 2004): with arrivals' intervals taken for
normal with the mean and deviation of the last of them, φ(t) = −log₁₀ P(interval > t) of a silence that has lasted t. A
threshold of φ makes about one mistake in 10^φ heartbeats, if the model holds. φ = 8 is crossed at μ + 5.61 σ.

A threshold is a time, known as soon as a heartbeat is in: nothing is polled.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import NormalDist

import msgspec

from apps.detectors.settings import DetectorConfigError, above_zero
from apps.process import Nanoseconds

MILLISECOND = 1_000_000
_LOG_10 = math.log(10)


class PhiConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``interval``: between two heartbeats. ``threshold``: the φ at which a member is given up.

    ``window``: how many of the last intervals count (the paper's 1,000). ``least_deviation``: σ is never taken to be
    smaller, or heartbeats that come by the clock would allow for no delay at all.
    Raises `DetectorConfigError`.
    """

    interval: Nanoseconds = 100 * MILLISECOND
    threshold: float = 8.0
    window: int = 1000
    least_deviation: Nanoseconds = 10 * MILLISECOND

    def __post_init__(self) -> None:
        above_zero(self, "interval", "window", "least_deviation")
        # Below log₁₀ 2 the threshold lies before the mean; above 300 its probability is not a number any more.
        if not 0.31 <= self.threshold <= 300:
            raise DetectorConfigError(f"threshold is {self.threshold}; it must lie between 0.31 and 300")

    @property
    def least_limit(self) -> Nanoseconds:
        """No silence that is shorter is ever taken for a failure."""
        return math.ceil(deviations(self.threshold) * self.least_deviation)


class Accrual:
    """What is known of one peer's heartbeats. It starts from ``interval``, with a quarter of it for σ (as Akka does),
    and goes by its own observations from the second interval on.
    """

    def __init__(self, config: PhiConfig) -> None:
        self._config = config
        self._z = deviations(config.threshold)
        self._intervals: deque[Nanoseconds] = deque()
        # Integers, so that sums never drift however long it runs.
        self._sum = self._sum_of_squares = 0
        self._last: Nanoseconds | None = None

    def heard(self, now: Nanoseconds, *, regular: bool) -> None:
        if self._last is not None and regular:
            self._note(now - self._last)
        self._last = now

    def limit(self) -> Nanoseconds:
        mean, deviation = self.fit()
        return math.ceil(mean + self._z * deviation)

    def phi(self, now: Nanoseconds) -> float:
        """The suspicion at ``now``, 0 before the first heartbeat."""
        if self._last is None:
            return 0.0
        mean, deviation = self.fit()
        return phi((now - self._last - mean) / deviation)

    def fit(self) -> tuple[float, float]:
        """Mean and deviation of the intervals, in nanoseconds."""
        count = len(self._intervals)
        if count < 2:
            return self._config.interval, max(self._config.interval / 4, self._config.least_deviation)
        variance = (count * self._sum_of_squares - self._sum**2) / count**2
        return self._sum / count, max(math.sqrt(variance), self._config.least_deviation)

    def _note(self, interval: Nanoseconds) -> None:
        self._intervals.append(interval)
        self._sum += interval
        self._sum_of_squares += interval**2
        if len(self._intervals) > self._config.window:
            oldest = self._intervals.popleft()
            self._sum -= oldest
            self._sum_of_squares -= oldest**2


def phi(z: float) -> float:
    """−log₁₀ of the chance that a standard normal variable exceeds ``z``."""
    tail = math.erfc(z / math.sqrt(2)) / 2
    if tail > 0:
        return -math.log10(tail)
    # Too small for a float from z = 38 on, where the first term of the asymptotic series is exact to 0.1 %.
    return (z * z / 2 + math.log(z * math.sqrt(2 * math.pi))) / _LOG_10


def deviations(threshold: float) -> float:
    """How many deviations beyond the mean `phi` reaches ``threshold``: its inverse."""
    return -NormalDist().inv_cdf(10.0**-threshold)
