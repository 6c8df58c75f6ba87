"""What a link direction does to the packets on it, as one value. How it is realised is a backend's matter.

Also here, because every backend and the simulator need the same answer: the shape of the jitter's distributions, and
what delay and loss an impairment should be seen to have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist, fmean, pstdev
from typing import Literal

import msgspec

Distribution = Literal["uniform", "normal", "pareto", "table"]

#: Points of the quantile function of a jitter distribution, less one.
QUANTILE_STEPS = 4096

#: The most samples a table of them has.
MOST_SAMPLES = QUANTILE_STEPS

#: The shape of the Pareto distribution, that of the table iproute2 ships for netem.
_PARETO_SHAPE = 3.0


class ImpairmentError(ValueError):
    """An impairment that no link can have; the message names the field, what it was and what it may be."""


class Impairment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to the packets of one direction of one link. The default value impairs nothing.

    ``delay`` and ``jitter`` are nanoseconds: a packet is held ``delay`` ± ``jitter`` (uniform: evenly in that interval;
    normal and pareto: ``jitter`` is the standard deviation, the pareto one with a long tail to the right; table:
    likewise, and ``samples``, delays in nanoseconds that were measured somewhere, give the shape; never below 0). Every
    packet draws its own delay, so a jitter larger than the packets' spacing reorders them, as netem does. ``loss`` is
    the share of packets, 0 to 1, that are dropped: independently of each other, or, where ``burst`` is given, in runs
    of ``burst`` packets on average (the simple Gilbert model: Gilbert, Capacity of a burst-noise channel, 1960).
    ``duplicate``, ``reorder`` and ``corrupt`` are the shares of packets that arrive twice, that skip the delay, and
    that have one bit flipped behind the Ethernet header. ``rate`` is in bits per second of whole Ethernet frames
    (without preamble and checksum), 0 for no limit; ``queue`` is how many packets may wait for it. The delay begins
    when a packet has been sent at the rate.
    """

    delay: int = 0
    jitter: int = 0
    distribution: Distribution = "uniform"
    samples: tuple[int, ...] = ()
    loss: float = 0.0
    burst: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    rate: int = 0
    queue: int = 1000

    def __post_init__(self) -> None:
        for name in ("delay", "jitter", "rate"):
            if getattr(self, name) < 0:
                raise ImpairmentError(f"{name} is {getattr(self, name)}; it cannot be negative")
        for name in ("delay", "jitter"):
            if getattr(self, name) > 60_000_000_000:
                raise ImpairmentError(f"{name} is {getattr(self, name)} ns; a packet is held for at most 60 s")
        for name in ("loss", "duplicate", "reorder", "corrupt"):
            if not 0 <= getattr(self, name) <= 1:
                raise ImpairmentError(f"{name} is {getattr(self, name)}; a share lies between 0 and 1")
        if not 1 <= self.queue <= 1_000_000:
            raise ImpairmentError(f"queue is {self.queue}; it holds 1 to 1,000,000 packets")
        if (self.distribution == "table") != bool(self.samples):
            raise ImpairmentError(
                'the distribution "table" is that of samples, which no other has: give both or neither'
            )
        if self.samples and not 2 <= len(self.samples) <= MOST_SAMPLES:
            raise ImpairmentError(f"there are {len(self.samples)} samples; a table has 2 to {MOST_SAMPLES:,}")
        if self.samples and (min(self.samples) < 0 or min(self.samples) == max(self.samples)):
            raise ImpairmentError("samples are delays, none negative, and not all the same: that is no jitter")
        if self.burst and (self.burst < 1 or not math.isfinite(self.burst)):
            raise ImpairmentError(f"burst is {self.burst}; a run of lost packets is at least 1 packet long")
        if self.burst and self.loss < 1 and gilbert(self)[0] > 1:
            raise ImpairmentError(
                f"loss {self.loss} in bursts of {self.burst} packets: with at least one packet between two bursts "
                f"at most {self.burst / (1 + self.burst):.3g} of them can be lost; ask for longer bursts"
            )

    @property
    def missing(self) -> float:
        """The share of packets that do not arrive as they were sent: lost, or damaged."""
        return self.loss + (1 - self.loss) * self.corrupt

    @property
    def needs_packets(self) -> bool:
        """Whether packets must be decided on one by one, so that none may pass as part of a larger, unsegmented one."""
        return bool(self.jitter or self.loss or self.duplicate or self.reorder or self.corrupt or self.rate)


def gilbert(impairment: Impairment) -> tuple[float, float]:
    """The chances, per packet, that a burst of losses starts and that it ends; ``loss`` below 1 and ``burst`` given.

    In the simple Gilbert model with those chances p and r, bursts last 1/r packets and p/(p+r) of all are lost.
    """
    end = 1 / impairment.burst
    return impairment.loss * end / (1 - impairment.loss), end


def from_samples(samples: Sequence[int]) -> Impairment:
    """Delays as those that were measured, in nanoseconds: their mean and deviation, and the shape of their table."""
    mean, deviation = round(fmean(samples)), round(pstdev(samples))
    return Impairment(delay=mean, jitter=deviation, distribution="table", samples=tuple(samples))


@lru_cache
def quantiles(distribution: Distribution, samples: tuple[int, ...] = ()) -> tuple[float, ...]:
    """The quantile function of a distribution of mean 0, in units of ``jitter``, at 0, 1/4096, … 1.

    Of a table it is that of its ``samples``. A draw is the linear interpolation of it at a
    uniform number. Tails end where half a step is left; what remains is scaled so that mean and deviation are the ones
    promised.
    """
    if distribution == "uniform":
        return tuple(2 * i / QUANTILE_STEPS - 1 for i in range(QUANTILE_STEPS + 1))
    shares = [min(max(i, 0.5), QUANTILE_STEPS - 0.5) / QUANTILE_STEPS for i in range(QUANTILE_STEPS + 1)]
    if distribution == "table":
        ordered = sorted(samples)
        points = [float(ordered[int(share * len(ordered))]) for share in shares]
    elif distribution == "normal":
        points = [NormalDist().inv_cdf(share) for share in shares]
    else:
        points = [(1 - share) ** (-1 / _PARETO_SHAPE) for share in shares]
    middles = [(low + high) / 2 for low, high in pairwise(points)]
    mean, deviation = fmean(middles), pstdev(middles)
    return tuple((point - mean) / deviation for point in points)


@lru_cache
def expected_delay(impairment: Impairment, bytes_sent: int = 0) -> tuple[float, float]:
    """Mean and standard deviation, in nanoseconds, of the delay of lone frames of ``bytes_sent`` bytes.

    That is what the impairment adds to an empty link, the cut at 0 of large jitters and the frames that skip the delay
    included.
    """
    points = quantiles(impairment.distribution, impairment.samples) if impairment.jitter else (0.0, 0.0)
    middles = [(low + high) / 2 for low, high in pairwise(points)]
    delays = [max(0.0, impairment.delay + impairment.jitter * middle) for middle in middles]
    held = 1 - impairment.reorder
    mean = held * sum(delays) / len(delays)
    square = held * sum(delay * delay for delay in delays) / len(delays)
    sending = bytes_sent * 8e9 / impairment.rate if impairment.rate else 0.0
    return mean + sending, math.sqrt(max(0.0, square - mean * mean))
