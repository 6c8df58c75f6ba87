"""The evidence that failing over leaves, as ``docs/detectors.md`` has it; the driver adds the time."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from apps.process import Nanoseconds, NodeId


class Leased(msgspec.Struct, frozen=True, tag_field="ev", tag="lease", gc=False):
    """The worker serves ``shards`` and no others from now on, for so long unless it says otherwise before.

    ``grant``: the last that it has, as the grant's ``since`` and ``number`` (`apps.failover.messages.Grant`).
    """

    shards: Sequence[int]
    lasts: Nanoseconds
    grant: tuple[Nanoseconds, int] | None = None


class Granted(msgspec.Struct, frozen=True, tag_field="ev", tag="grant", gc=False):
    """The coordinator lets ``member`` serve ``shards`` and no others. ``grant`` as in `Leased`."""

    member: NodeId
    shards: Sequence[int]
    grant: tuple[Nanoseconds, int]


class Weighed(msgspec.Struct, frozen=True, tag_field="ev", tag="weigh", gc=False):
    """The coordinator gives ``member`` this weight: 0 when it takes it for failed, 1 when it counts in full."""

    member: NodeId
    weight: float
