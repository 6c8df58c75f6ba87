"""Versions of a key, and which of them are still worth having: dotted version vectors.

Each version has a *dot*, the number of the write among its actor's, and a context: what its writer had seen. A version
is obsolete when another's context covers its dot; those that remain are siblings, written without knowing of each
other. Plain version vectors would mistake two writes through one coordinator for one after the other
(Preguiça et al. 2012, §2).

For a vector to be an honest context, whoever has an actor's version must have had its earlier ones, or what replaced
them. So a coordinator sends, with a new version, all siblings it knows of, and forgets none while it keeps its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, TypeAlias

import msgspec

from apps.clocks import HybridTime, join


class Version(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """``actor`` and ``counter`` are its dot. ``time``: of its write, by a hybrid logical clock, for last-writer-wins.

    ``deleted``: a tombstone. It is kept, since a replica that missed the delete could not tell it from a new key.
    """

    actor: str
    counter: int
    context: dict[str, int]
    time: HybridTime
    value: Any
    deleted: bool = False

    @property
    def rank(self) -> tuple[HybridTime, str, int]:
        """The order of last-writer-wins: total, since no two versions share a dot."""
        return self.time, self.actor, self.counter


#: All siblings of a key that somebody has, in the order of their ranks.
Versions: TypeAlias = tuple[Version, ...]

_encode = msgspec.msgpack.Encoder(order="sorted").encode


def covers(version: Version, other: Version) -> bool:
    """Whether the writer of ``version`` had seen ``other``."""
    return version.context.get(other.actor, 0) >= other.counter


def merge(versions: Iterable[Version], last_writer_wins: bool) -> Versions:
    """What is left of ``versions``: idempotent, commutative and associative, so any order of merging ends alike."""
    distinct = sorted({(version.actor, version.counter): version for version in versions}.values(), key=_rank)
    if last_writer_wins:
        return tuple(distinct[-1:])
    return tuple(v for v in distinct if not any(covers(other, v) for other in distinct if other is not v))


def context_of(versions: Iterable[Version]) -> dict[str, int]:
    """What somebody has seen who has seen ``versions``."""
    context: dict[str, int] = {}
    for version in versions:
        context = join(join(context, version.context), {version.actor: version.counter})
    return context


def shown(versions: Versions) -> list[Any]:
    """What a read that found ``versions`` tells of them: their values, none where all are tombstones.

    A tombstone among values is a sibling as they are, and told as ``None``: the values alone do not say that somebody
    deleted the key, too.
    """
    values = [version.value for version in versions if not version.deleted]
    deleted = any(version.deleted for version in versions)
    return [*values, None] if values and deleted else values


def digest(key: str, versions: Versions) -> bytes:
    """16 bytes that stand for a key and its versions."""
    dots = [(version.actor, version.counter) for version in versions]
    return blake2b(_encode((key, dots)), digest_size=16).digest()


def _rank(version: Version) -> tuple[HybridTime, str, int]:
    return version.rank
