"""The evidence a quorum store's node leaves, as ``docs/quorum.md`` has it; the driver adds the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from apps.process import NodeId

Dot: TypeAlias = tuple[str, int]


class Booted(msgspec.Struct, frozen=True, tag_field="ev", tag="boot", gc=False):
    """The node came up, and names its writes after ``actor`` from now on. ``kept``: what it found on disk, by key the
    dots of its versions; ``hints``: what it keeps for others, by owner.
    """

    actor: str
    kept: dict[str, list[Dot]]
    hints: dict[NodeId, dict[str, list[Dot]]]


class Written(msgspec.Struct, frozen=True, tag_field="ev", tag="put", gc=False):
    """A write got its dot. ``time``: physical and logical, for last-writer-wins; ``context``: what its writer saw."""

    key: str
    actor: str
    counter: int
    time: tuple[int, int]
    context: dict[str, int]


class Kept(msgspec.Struct, frozen=True, tag_field="ev", tag="keep", gc=False):
    """The node keeps these versions of ``key`` from now on, for ``owner`` or, without one, as its replica."""

    key: str
    dots: Sequence[Dot]
    owner: NodeId | None


class Acknowledged(msgspec.Struct, frozen=True, tag_field="ev", tag="ack", gc=False):
    """A write was acknowledged to its client; ``by``: the nodes that have it on disk so far, for themselves or not."""

    key: str
    actor: str
    counter: int
    by: Sequence[NodeId]


class Answered(msgspec.Struct, frozen=True, tag_field="ev", tag="read", gc=False):
    """A read was answered with these versions, as (actor, counter); ``by``: the nodes whose word it is."""

    key: str
    dots: Sequence[Dot]
    by: Sequence[NodeId]


class Failed(msgspec.Struct, frozen=True, tag_field="ev", tag="short", gc=False):
    """An operation was given up: so many nodes answered of those that were needed."""

    key: str
    write: bool
    answered: int
    needed: int


class Repaired(msgspec.Struct, frozen=True, tag_field="ev", tag="repair", gc=False):
    """A read found ``replica`` behind, and sent it what it lacks."""

    key: str
    replica: NodeId


class HandedOver(msgspec.Struct, frozen=True, tag_field="ev", tag="handoff", gc=False):
    """``owner`` has on disk what this node kept for it."""

    key: str
    owner: NodeId


class Ahead(msgspec.Struct, frozen=True, tag_field="ev", tag="ahead", gc=False):
    """A message of ``peer`` was not taken: what it brought was of a time ``by`` nanoseconds ahead of this node's."""

    peer: NodeId
    by: int


class Synchronised(msgspec.Struct, frozen=True, tag_field="ev", tag="sync", gc=False):
    """Anti-entropy with ``peer`` brought so many keys that were missing or behind here."""

    peer: NodeId
    keys: int
