"""One direction of one link: what it does to a packet, by the same `Impairment` value as on the fabric."""

from __future__ import annotations

from random import Random

from apps.process import Nanoseconds
from topologies.impairment import QUANTILE_STEPS, Impairment, gilbert, quantiles

#: What crossing a link and the switch behind it takes. Fitted, with what frames and syncs take (docs/simulator.md).
LINK_NS = 20_000


class Lane:
    """``cuts``: how many faults hold the link down. ``impairments``: what was put on it, the last one is in force.

    ``narrow``: its MTU, in bytes of IP packet, where it silently drops what is sent by those who think that more fits;
    else 0. What is too large is for those to know who cut it to packets: `cross` does not ask.
    """

    def __init__(self, name: str, random: Random, narrow: int = 0) -> None:
        self.name = name
        self.narrow = narrow
        self.cuts = 0
        self.impairments: dict[int, Impairment] = {}
        self._random = random
        self._in_burst = False
        self._sent_at: Nanoseconds = 0

    @property
    def impairment(self) -> Impairment | None:
        return next(reversed(self.impairments.values()), None)

    def cross(self, now: Nanoseconds, size: int) -> Nanoseconds | None:
        """When a packet of ``size`` bytes that comes to this lane at ``now`` has crossed it, or None if it is lost.

        Duplicates are not made: whoever uses a lane would throw them away. A damaged packet is a lost one.
        """
        if self.cuts:
            return None
        impairment = self.impairment
        if impairment is None:
            return now + LINK_NS
        if self._loses(impairment):
            return None
        if impairment.rate:
            begins = max(now, self._sent_at)
            takes = size * 8 * 1_000_000_000 // impairment.rate
            if (begins - now) // max(1, takes) >= impairment.queue:
                return None
            self._sent_at = now = begins + takes
        return now + LINK_NS + self._delay(impairment)

    def _loses(self, impairment: Impairment) -> bool:
        draw = self._random.random
        if impairment.burst and 0 < impairment.loss < 1:
            start, end = gilbert(impairment)
            self._in_burst = draw() >= end if self._in_burst else draw() < start
            lost = self._in_burst
        else:
            lost = impairment.loss > 0 and draw() < impairment.loss
        return lost or (impairment.corrupt > 0 and draw() < impairment.corrupt)

    def _delay(self, impairment: Impairment) -> Nanoseconds:
        if impairment.reorder and self._random.random() < impairment.reorder:
            return 0
        if not impairment.jitter:
            return impairment.delay
        points = quantiles(impairment.distribution, impairment.samples)
        place = self._random.random() * QUANTILE_STEPS
        at = int(place)
        deviation = points[at] + (place - at) * (points[at + 1] - points[at])
        return max(0, impairment.delay + int(impairment.jitter * deviation))
