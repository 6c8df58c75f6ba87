"""What a link direction does to the packets on it, as one value. How it is realised is a backend's matter."""

from __future__ import annotations

from typing import Literal

import msgspec

Distribution = Literal["uniform", "normal", "pareto"]


class Impairment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Delay, loss and rate of one direction of one link. The default value impairs nothing.

    ``delay`` and ``jitter`` are nanoseconds: a packet is held ``delay`` ± ``jitter`` (uniform: evenly in that
    interval; normal: ``jitter`` is the standard deviation; never below 0). ``loss`` is the probability, 0 to 1, that
    a packet is dropped, independently of the others. ``rate`` is in bits per second of whole Ethernet frames, 0 for
    no limit; ``queue`` is how many packets may wait for it.
    """

    delay: int = 0
    jitter: int = 0
    distribution: Distribution = "uniform"
    loss: float = 0.0
    rate: int = 0
    queue: int = 1000
