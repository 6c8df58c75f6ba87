"""What workers and their coordinator say to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from apps.process import Nanoseconds


class Beat(msgspec.Struct, frozen=True, array_like=True, tag="b", gc=False):
    """I am here. ``since``: when the sender came up, on its own clock; ``sent``: now, likewise. Together they rise.

    ``goes_by``: the last grant it has, as that one's ``since`` and ``number``.
    """

    since: Nanoseconds
    sent: Nanoseconds
    goes_by: tuple[Nanoseconds, int]


class Grant(msgspec.Struct, frozen=True, array_like=True, tag="g", gc=False):
    """Serve ``shards``, and no others, until a lease after ``sent``, the time of the beat that this answers.

    ``number`` rises with every grant of the coordinator's incarnation, which came up at ``since``.
    """

    since: Nanoseconds
    number: int
    beat_since: Nanoseconds
    sent: Nanoseconds
    shards: Sequence[int]


Message: TypeAlias = Beat | Grant
