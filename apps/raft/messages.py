"""What Raft nodes send each other, and what they write to disk.

The sender of a message is known to whoever receives it, so no message repeats it. An entry's command is bytes that the
leader encoded once: followers store, forward and checksum them without looking inside.

The types say which numbers can be decoded; what no node can mean by a message that was, `apps.raft.validity` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import msgspec

from apps import kv
from apps.process import NodeId
from apps.raft.quorum import Configuration

#: Terms, positions and sizes that come over the wire, and those that begin at 1; what is out of range is not decoded.
#: Nobody counts so far, and whoever takes over the largest can go on from there and still write it down.
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Ordinal: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**62)]


class HardState(msgspec.Struct, frozen=True, array_like=True, tag="H", gc=False):
    """What a node must not forget besides its log (paper, Figure 2): the term it is in and its vote in that term."""

    term: int
    vote: NodeId | None


class Entry(msgspec.Struct, frozen=True, array_like=True, tag="E", gc=False):
    """``command``: an encoded `kv.Command`, a configuration (`configuration_entry`), or nothing for the entry with
    which a leader opens its term.

    On disk, an entry whose index is not beyond the last one replaces it and all that follow.
    """

    index: int
    term: int
    command: bytes


#: What decoders raise for bytes that are no command, no configuration, no state.
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

#: What a command that is a configuration begins with: the one byte that begins nothing in MessagePack.
CONFIGURATION = b"\xc1"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Configuration).decode


def configuration_entry(term: int, configuration: Configuration) -> Entry:
    """The entry of ``term`` that puts ``configuration`` into force, at its index."""
    return Entry(configuration.index, term, CONFIGURATION + _encode(configuration))


def configurations(entries: Sequence[Entry]) -> list[Configuration]:
    """Those that ``entries`` put into force, in their order."""
    # A slice, as each entry comes through here: it takes a quarter of the time of `startswith`.
    return [_decode(entry.command[1:]) for entry in entries if entry.command[:1] == CONFIGURATION]


class SnapshotRecord(msgspec.Struct, frozen=True, array_like=True, tag="S", gc=False):
    """The state after entry ``index`` of ``term`` was applied, as `kv.Store.dump` gave it, with its CRC-32C.

    The log goes on behind ``base`` of ``base_term``, which is not beyond ``index``. ``configuration`` is the last one
    up to ``index``.
    """

    index: int
    term: int
    base: int
    base_term: int
    checksum: int
    data: bytes
    configuration: Configuration


Record: TypeAlias = HardState | Entry | SnapshotRecord


class RequestVote(msgspec.Struct, frozen=True, array_like=True, tag="V", gc=False):
    """``pre``: a question only (thesis §9.6); ``term`` is then the one its sender would stand in.

    ``handed_over``: the leader itself asked for this election (`TimeoutNow`), so that it is heard is no reason to deny.
    """

    term: Ordinal
    last_index: Count
    last_term: Count
    pre: bool
    handed_over: bool = False


class VoteReply(msgspec.Struct, frozen=True, array_like=True, tag="v", gc=False):
    """``term``: the voter's own. ``campaign``: the term that was asked for."""

    term: Count
    campaign: Ordinal
    granted: bool
    pre: bool


class Append(msgspec.Struct, frozen=True, array_like=True, tag="A", gc=False):
    """AppendEntries (paper §5.3). Without entries it asks whether the follower has ``previous``."""

    term: Ordinal
    previous_index: Count
    previous_term: Count
    commit: Count
    entries: Sequence[Entry]


class AppendReply(msgspec.Struct, frozen=True, array_like=True, tag="a", gc=False):
    """The follower's log agrees with the leader's up to ``match``, and is on disk that far."""

    term: Count
    match: Count


class AppendRejected(msgspec.Struct, frozen=True, array_like=True, tag="x", gc=False):
    """The follower has no entry of the asked-for term at ``previous_index``.

    ``hint_index`` and ``hint_term``: the last of its entries that may agree, so that the leader skips a term at a time.
    """

    term: Count
    previous_index: Count
    hint_index: Count
    hint_term: Count


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag="B", gc=False):
    """``commit``: never beyond what this follower is known to have. ``round``: counts a leader's rounds from 1."""

    term: Ordinal
    commit: Count
    round: Ordinal


class HeartbeatReply(msgspec.Struct, frozen=True, array_like=True, tag="b", gc=False):
    """The follower knew no later term than ``term`` when round ``round`` reached it."""

    term: Count
    round: Count


class ReadIndex(msgspec.Struct, frozen=True, array_like=True, tag="R", gc=False):
    """A follower asks how far it must apply before it may answer reads (thesis §6.4). ``number``: its own, rising."""

    term: Ordinal
    number: Count


class ReadIndexReply(msgspec.Struct, frozen=True, array_like=True, tag="r", gc=False):
    """Whoever has applied up to ``index`` may answer what came in before question ``number`` was asked."""

    term: Count
    number: Count
    index: Count


class InstallSnapshot(msgspec.Struct, frozen=True, array_like=True, tag="S", gc=False):
    """A piece of the snapshot at ``index``, which is ``total`` bytes of CRC-32C ``checksum``, from ``offset`` on.

    ``configuration``: the last one up to ``index``.
    """

    term: Ordinal
    index: Ordinal
    last_term: Ordinal
    checksum: Count
    total: Count
    offset: Count
    data: bytes
    configuration: Configuration


class SnapshotReply(msgspec.Struct, frozen=True, array_like=True, tag="s", gc=False):
    """So many bytes of the snapshot at ``index`` are ``received``; when all are, `AppendReply` says so."""

    term: Count
    index: Count
    received: Count


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag="T", gc=False):
    """The leader of ``term`` wants this node to stand for election at once (thesis §3.10)."""

    term: Ordinal


Message: TypeAlias = (
    RequestVote
    | VoteReply
    | Append
    | AppendReply
    | AppendRejected
    | Heartbeat
    | HeartbeatReply
    | ReadIndex
    | ReadIndexReply
    | InstallSnapshot
    | SnapshotReply
    | TimeoutNow
)


class TransferLeadership(msgspec.Struct, frozen=True, array_like=True, tag="transfer"):
    """A request to the leader: let ``to`` lead (thesis §3.10).

    `kv.Done` once ``to`` leads, `kv.Refused` if it will not by this request, `kv.Unsure` if nobody knows.
    """

    to: NodeId


class ChangeMembership(msgspec.Struct, frozen=True, array_like=True, tag="members"):
    """A request to the leader: let ``voters`` be those who have a vote, and ``learners`` those who only get the log.

    `kv.Done` when it is so for good, `kv.Refused` if it will not be by this request, and why, `kv.Busy` if it cannot be
    begun just now, `kv.Unsure` if leadership was lost on the way: the next leader may finish it or undo it.
    """

    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...] = ()


#: What clients may ask of a node.
Command: TypeAlias = kv.Command | TransferLeadership | ChangeMembership
