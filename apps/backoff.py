"""How long to wait before trying again: so that those who failed together do not all come back together."""

from __future__ import annotations

from random import Random

from apps.process import Nanoseconds


def full_jitter(attempt: int, base: Nanoseconds, cap: Nanoseconds, random: Random) -> Nanoseconds:
    """A wait drawn uniformly from 0 to ``base`` doubled ``attempt`` times, at most ``cap``; attempts count from 0.

    "Full jitter" of Brooker, Exponential Backoff And Jitter (AWS Architecture Blog, 2015): of the schemes compared
    there, the one with which contending clients do the least work in all.
    """
    # Beyond 63 doublings of a nanosecond lie centuries; the shift stays small however long somebody has been away.
    return int(random.random() * min(cap, base << min(attempt, 63)))
