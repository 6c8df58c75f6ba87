"""Who serves which shard: consistent hashing with weights (Karger et al. 1997), a pure function of who is there."""

from __future__ import annotations

import bisect
from collections.abc import Mapping

from apps.process import NodeId
from apps.quorum.ring import position


def assign(shards: int, weights: Mapping[NodeId, float], virtual_nodes: int) -> tuple[NodeId, ...]:
    """The worker of every shard, by its number; empty where there is nobody.

    A worker of weight 1 has ``virtual_nodes`` places on the ring, one of weight w the first w of them, and always one.
    So a weight that rises moves shards to that worker only, and one that falls moves only those it had.
    """
    places = sorted(
        (position(f"{worker}/{copy}"), worker)
        for worker, weight in weights.items()
        for copy in range(max(1, round(weight * virtual_nodes)))
    )
    if not places:
        return ()
    return tuple(
        places[bisect.bisect(places, (position(f"shard {shard}"), "")) % len(places)][1] for shard in range(shards)
    )
