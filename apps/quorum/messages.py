"""What clients ask of a quorum store, what its nodes send each other, and what they write to disk.

The sender of a message is known to whoever receives it, so no message repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from apps import kv
from apps.process import NodeId
from apps.quorum.versions import Version


class Get(msgspec.Struct, frozen=True, array_like=True, tag="get"):
    """Answered with `Found`, or `kv.Refused`."""

    key: str


class Put(msgspec.Struct, frozen=True, array_like=True, tag="put"):
    """Replace what was found with ``context`` (Dynamo §4.4); ``None`` as value deletes. Answered with `kv.Done`."""

    key: str
    value: Any
    context: dict[str, int]


class Found(msgspec.Struct, frozen=True, array_like=True, tag="fnd"):
    """``values``: one, none for an absent key, or those of all siblings (`versions.shown`). ``context``: for a `Put` to
    replace them.
    """

    values: list[Any]
    context: dict[str, int]


#: A `kv.Command` reads and writes as on one copy: a write replaces what its coordinator knows of, a read that finds
#: siblings answers with the list of their values. Its session counts for nothing here.
Command: TypeAlias = kv.Command | Get | Put
Result: TypeAlias = kv.Done | kv.Refused | kv.Unsure | Found


class Fetch(msgspec.Struct, frozen=True, array_like=True, tag="F", gc=False):
    operation: int
    key: str


class Fetched(msgspec.Struct, frozen=True, array_like=True, tag="f", gc=False):
    operation: int
    versions: tuple[Version, ...]


class Store(msgspec.Struct, frozen=True, array_like=True, tag="S", gc=False):
    """Merge ``versions`` into what is there. ``owner``: whose they are, if the receiver only stands in for it."""

    operation: int
    key: str
    versions: tuple[Version, ...]
    owner: NodeId | None = None


class Stored(msgspec.Struct, frozen=True, array_like=True, tag="s", gc=False):
    """They are on disk."""

    operation: int


class Digests(msgspec.Struct, frozen=True, array_like=True, tag="D", gc=False):
    """Digests of a `merkle.Tree` of the keys that sender and receiver both keep: at a level, by position."""

    level: int
    digests: dict[int, bytes]


class Exchange(msgspec.Struct, frozen=True, array_like=True, tag="X", gc=False):
    """What the sender has in ``leaves``. ``answer``: the receiver is to say in turn what the sender lacks."""

    leaves: Sequence[int]
    entries: dict[str, tuple[Version, ...]]
    answer: bool


Message: TypeAlias = Fetch | Fetched | Store | Stored | Digests | Exchange


class Boot(msgspec.Struct, frozen=True, array_like=True, tag="B", gc=False):
    """The node was started for the ``number``th time: its dots of before are another actor's."""

    number: int


class Kept(msgspec.Struct, frozen=True, array_like=True, tag="K", gc=False):
    """``versions`` replace what was kept of ``key`` before, for ``owner`` or for the node itself; none: handed over."""

    key: str
    versions: tuple[Version, ...]
    owner: NodeId | None = None


Record: TypeAlias = Boot | Kept
