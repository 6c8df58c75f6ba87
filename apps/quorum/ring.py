"""Consistent hashing with virtual nodes (Dynamo §4.2; Karger et al. 1997): who keeps a key, and who stands in."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from hashlib import blake2b

from apps.process import NodeId


def position(name: str) -> int:
    """A place on the ring, 64 bits: the same in every process, whatever PYTHONHASHSEED."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


class Ring:
    """``nodes`` at ``virtual_nodes`` places each. When a node joins, 1/n of the keys move, all of them to it.

    A node's share of the keys has the coefficient of variation √((n−1)/(nV+1)).
    """

    def __init__(self, nodes: Sequence[NodeId], virtual_nodes: int) -> None:
        self._places = sorted((position(f"{node}/{copy}"), node) for node in nodes for copy in range(virtual_nodes))
        self._nodes = len(set(nodes))
        self._walks: dict[str, tuple[NodeId, ...]] = {}

    def walk(self, key: str) -> tuple[NodeId, ...]:
        """All nodes in the order in which the ring comes to them from ``key`` on: its replicas first, then those who
        stand in for them.
        """
        if (walk := self._walks.get(key)) is None:
            start = bisect.bisect(self._places, (position(key), ""))
            seen: dict[NodeId, None] = {}
            for number in range(len(self._places)):
                seen[self._places[(start + number) % len(self._places)][1]] = None
                if len(seen) == self._nodes:
                    break
            walk = self._walks[key] = tuple(seen)
        return walk
