"""The evidence a Raft node leaves, as ``docs/trace.md`` has it; the driver adds the time and the file's header."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import msgspec

from apps.process import NodeId
from apps.raft.messages import Entry
from apps.raft.quorum import Configuration


class Started(msgspec.Struct, frozen=True, tag_field="ev", tag="started", gc=False):
    term: int
    vote: NodeId | None
    last: int
    last_term: int


class RoleChanged(msgspec.Struct, frozen=True, tag_field="ev", tag="role", gc=False):
    role: str
    term: int
    last: int
    last_term: int


class Voted(msgspec.Struct, frozen=True, tag_field="ev", tag="vote", gc=False):
    """Left when the vote is on disk and about to be cast: one that a crash took back was never granted."""

    term: int
    candidate: NodeId


class Truncated(msgspec.Struct, frozen=True, tag_field="ev", tag="truncate", rename={"first": "from"}, gc=False):
    first: int


class Appended(msgspec.Struct, frozen=True, tag_field="ev", tag="append", gc=False):
    first: int
    terms: list[int]
    digests: list[str]


class Committed(msgspec.Struct, frozen=True, tag_field="ev", tag="commit", gc=False):
    index: int
    term: int


class Applied(msgspec.Struct, frozen=True, tag_field="ev", tag="apply", gc=False):
    first: int
    terms: list[int]
    digests: list[str]


class Installed(msgspec.Struct, frozen=True, tag_field="ev", tag="install", gc=False):
    index: int
    term: int


class Configured(msgspec.Struct, frozen=True, tag_field="ev", tag="configure", gc=False):
    index: int
    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...]
    outgoing: tuple[NodeId, ...]


class Rejected(msgspec.Struct, frozen=True, tag_field="ev", tag="reject", gc=False):
    """A ``message`` of ``sender`` was dropped, as no correct node can have said it. ``count``: its ones so far."""

    sender: NodeId
    message: str
    why: str
    count: int


def configured(configuration: Configuration) -> Configured:
    return Configured(configuration.index, configuration.voters, configuration.learners, configuration.outgoing)


def appended(entries: Sequence[Entry]) -> Appended:
    return Appended(entries[0].index, [entry.term for entry in entries], _digests(entries))


def applied(entries: Sequence[Entry]) -> Applied:
    return Applied(entries[0].index, [entry.term for entry in entries], _digests(entries))


def _digests(entries: Sequence[Entry]) -> list[str]:
    crc32 = zlib.crc32
    return [f"{crc32(entry.command):08x}" for entry in entries]
