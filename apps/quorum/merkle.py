"""Merkle trees over keys: two replicas find what they differ in by exchanging a few digests a level (Dynamo §4.7).

A tree is a list of levels, from the root's one digest to `LEAVES`; a key belongs to the leaf its hash says, and a
leaf's digest is the exclusive or of its entries', so it does not depend on their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TypeAlias

from apps.quorum.ring import position

DEPTH = 8
LEAVES = 1 << DEPTH

Tree: TypeAlias = list[list[bytes]]


def leaf(key: str) -> int:
    return position(key) >> (64 - DEPTH)


def tree(entries: Iterable[tuple[str, bytes]]) -> Tree:
    """The tree of ``entries``: keys, each with a digest of 16 bytes of what is stored under it."""
    leaves = [0] * LEAVES
    for key, digest in entries:
        leaves[leaf(key)] ^= int.from_bytes(digest, "big")
    levels = [[value.to_bytes(16, "big") for value in leaves]]
    while len(levels[0]) > 1:
        below = levels[0]
        pairs = zip(below[::2], below[1::2], strict=True)
        levels.insert(0, [blake2b(left + right, digest_size=16).digest() for left, right in pairs])
    return levels


def differing(mine: Tree, level: int, theirs: Mapping[int, bytes]) -> list[int]:
    """The positions at ``level`` whose digests, among ``theirs``, are not mine; positions beyond it are ignored."""
    return [at for at, digest in sorted(theirs.items()) if 0 <= at < len(mine[level]) and mine[level][at] != digest]


def children(mine: Tree, level: int, positions: Iterable[int]) -> dict[int, bytes]:
    """The digests one level below ``positions``."""
    return {child: mine[level + 1][child] for at in positions for child in (2 * at, 2 * at + 1)}
