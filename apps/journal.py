"""The durable log of a node: append-only segment files, written and synced in batches, recovered after a crash.

A *batch* is what one write and one fdatasync put on disk together (group commit, Gray & Reuter 1992, §10.5). It has one
header and one checksum, and the next batch is not written before the sync of this one has come back. That is what
lets recovery tell two kinds of damage apart:

- The last batch is incomplete: a crash cut its write short. Nobody was ever told that it is durable, so it is cut off.
- Anything else that does not check out, for example a bad batch with a good one behind it, was durable once. To go on
  without it would break promises made to others (a vote, an acknowledged entry): `JournalCorrupt`, and nothing is
  changed.

A last batch whose bytes are all there and wrong counts as the second kind, unless one of its 512-byte sectors reads all
zeros: a disk writes a sector whole or not at all, and an unwritten one of a file that had already grown reads as zeros.

Layout, integers little-endian; every batch starts at a multiple of 16 bytes, so its header lies within one sector:

- segment ``<number>.seg``: magic ``splitlog``, u32 version, u32 length, u32 CRC-32C of the rest: msgpack
  ``[cluster, node, segment number, number of its first batch, whether the log begins anew with it]``
- batch: u32 length, u32 number (modulo 2**32), u32 CRC-32C of the body, u32 CRC-32C of this header, of where it stands,
  and of the segment's identity, so that no bytes from elsewhere pass for it; then the body, a msgpack array of records

The checksum is CRC-32C (Castagnoli, IEEE Trans. Comm. 41(6), 1993), for which processors have an instruction. It finds
every error of up to five bits in 5,243, where the polynomial of zlib and Ethernet does so in 268 (Koopman, DSN 2002).
Segments are not preallocated: on ext4 that took a sync of one 256-byte entry from 0.10 to 0.08 ms, and would cost every
node 64 MiB of zeros at its start.

A log can begin *anew*: its next batch then stands for all before it, at the start of a segment that says so. The file
gets its name when that batch is on disk; from then on the earlier segments mean nothing, and they are removed.

What is not here: the thread that keeps the event loop from waiting for the disk (`apps.runtime.disk`).
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from crc32c import crc32c

Record = TypeVar("Record")

VERSION = 3
SEGMENT_BYTES = 64 << 20

_MAGIC = b"splitlog"
_SEGMENT_HEADER = struct.Struct("<8sIII")
_BATCH_HEADER = struct.Struct("<IIII")
_PLACED = struct.Struct("<QIII")
_ALIGNMENT = 16
_SECTOR = 512
_LONGEST_HEADER = 1 << 16
_SEGMENT_NAME = re.compile(r"(\d{10})\.seg")
_UNFINISHED = ".new"


class Identity(NamedTuple):
    """Whose log it is; a log of another node or cluster is refused."""

    cluster: str
    node: str


class JournalError(Exception):
    """The log cannot be used; the message names the file and says what to do."""


class JournalCorrupt(JournalError):  # noqa: N818
    """Bytes that had been made durable are missing or changed. Nothing was altered on disk."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        self.path, self.offset, self.reason = path, offset, reason
        super().__init__(
            f"{path}: damaged at byte {offset}: {reason}. The node does not start, since it may have voted or "
            "acknowledged by what is lost. Restore the file from a copy, or give the machine a new node name and an "
            "empty data_dir; never let it return under its old name with an empty log."
        )


class JournalForeign(JournalError):  # noqa: N818
    """The directory holds the log of another node or cluster."""


class JournalOutdated(JournalError):  # noqa: N818
    """The directory holds a log of an earlier format; it is whole as far as can be told."""


class JournalBusy(JournalError):  # noqa: N818
    """Another process has the log open."""


class JournalFailed(JournalError):  # noqa: N818
    """A write or sync failed. What it was to make durable may be lost, and the log takes no more.

    A failed fsync is never tried again: the kernel marks the pages clean, and a second one would succeed without the
    data being on disk (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
    """


class Cut(NamedTuple):
    """What recovery removed: an unfinished batch at the end of the last segment."""

    path: Path
    offset: int
    length: int


class SegmentHeader(msgspec.Struct, frozen=True, array_like=True):
    cluster: str
    node: str
    number: int
    first_batch: int
    anew: bool = False


class Segment(NamedTuple):
    """A segment's contents: its batches, each with its offset, and the offset behind the last good one."""

    header: SegmentHeader
    batches: list[tuple[int, memoryview]]
    end: int
    torn: bool


class DamageError(Exception):
    """What is wrong with a segment's bytes, and at which."""

    def __init__(self, offset: int, reason: str) -> None:
        self.offset, self.reason = offset, reason


class OutdatedError(DamageError):
    """There is no damage: an earlier version of this program wrote the segment."""


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def segment_header(header: SegmentHeader) -> bytes:
    """The bytes a segment file begins with, padded to where its first batch goes."""
    body = msgspec.msgpack.encode(header)
    raw = _SEGMENT_HEADER.pack(_MAGIC, VERSION, len(body), crc32c(body)) + body
    return raw.ljust(_aligned(len(raw)), b"\0")


def _salt(header: SegmentHeader) -> int:
    return crc32c(msgspec.msgpack.encode(header))


def batch_frame(salt: int, offset: int, number: int, body: bytes) -> list[bytes]:
    """The pieces to write for a batch that is to stand at ``offset``."""
    length, number, checksum = len(body), number & 0xFFFFFFFF, crc32c(body)
    own = crc32c(_PLACED.pack(offset, length, number, checksum), salt)
    padding = bytes(_aligned(length) - length)
    return [_BATCH_HEADER.pack(length, number, checksum, own), body, padding]


def segment_image(header: SegmentHeader, bodies: Iterable[bytes]) -> bytearray:
    """All bytes of a segment that has these batches."""
    data, salt = bytearray(segment_header(header)), _salt(header)
    for number, body in enumerate(bodies, header.first_batch):
        data += b"".join(batch_frame(salt, len(data), number, body))
    return data


def _batch_header(data: memoryview, salt: int, offset: int) -> tuple[int, int, int] | None:
    """``(length, number, checksum)`` if a sound batch header stands at ``offset``."""
    if offset + _BATCH_HEADER.size > len(data):
        return None
    length, number, checksum, own = _BATCH_HEADER.unpack_from(data, offset)
    if own != crc32c(_PLACED.pack(offset, length, number, checksum), salt):
        return None
    return length, number, checksum


def _has_unwritten_sector(data: memoryview, start: int, end: int) -> bool:
    while start < end:
        edge = min(end, (start // _SECTOR + 1) * _SECTOR)
        if not any(data[start:edge]):
            return True
        start = edge
    return False


def _read_header(data: memoryview) -> tuple[SegmentHeader, int]:
    if len(data) < _SEGMENT_HEADER.size:
        raise DamageError(len(data), "the file ends within its header")
    magic, version, length, checksum = _SEGMENT_HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise DamageError(0, "it is not a segment of a log: its first bytes are wrong")
    body = data[_SEGMENT_HEADER.size : _SEGMENT_HEADER.size + length]
    if version != VERSION:
        reason = f"its format is version {version}; this program reads version {VERSION}"
        # Up to version 2 checksums were zlib's: one that is right tells an old segment from a flipped bit.
        outdated = 0 < version < VERSION and length > 0 and zlib.crc32(body) == checksum
        raise (OutdatedError if outdated else DamageError)(8, reason)
    if len(body) < length:
        raise DamageError(len(data), "the file ends within its header")
    if crc32c(body) != checksum:
        raise DamageError(_SEGMENT_HEADER.size, "the checksum of its header differs")
    try:
        header = msgspec.msgpack.decode(body, type=SegmentHeader)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamageError(_SEGMENT_HEADER.size, f"its header cannot be read: {error}") from error
    return header, _aligned(_SEGMENT_HEADER.size + length)


def read_segment(data: memoryview) -> Segment:
    """Read a segment's bytes up to its end or to a batch that a crash left unfinished (``torn``).

    Raises `DamageError` for everything that a crash does not explain.
    """
    header, offset = _read_header(data)
    salt = _salt(header)
    batches: list[tuple[int, memoryview]] = []
    while offset < len(data):
        fields = _batch_header(data, salt, offset)
        start = offset + _BATCH_HEADER.size
        if fields is not None:
            length, number, checksum = fields
            body = data[start : start + length]
            if number != (header.first_batch + len(batches)) & 0xFFFFFFFF:
                raise DamageError(offset, f"batch {number} stands where {header.first_batch + len(batches)} belongs")
            if len(body) == length and crc32c(body) == checksum:
                batches.append((offset, body))
                offset = _aligned(start + length)
                continue
            torn = len(body) < length or _has_unwritten_sector(data, start, start + length)
            behind = _aligned(start + length)
        else:
            torn = start > len(data) or _has_unwritten_sector(data, offset, start)
            behind = offset + _ALIGNMENT
        if any(_batch_header(data, salt, later) for later in range(behind, len(data), _ALIGNMENT)):
            raise DamageError(offset, "a batch is broken and sound ones follow it")
        if not torn:
            raise DamageError(offset, "a batch is all there but its checksum differs")
        return Segment(header, batches, offset, torn=True)
    return Segment(header, batches, offset, torn=False)


class Journal(Generic[Record]):
    """A log open for appending; `records` is what it held when it was opened, oldest first.

    ``records`` belongs to the caller, who may empty it. Not thread-safe: one thread at a time calls `commit`.
    """

    def __init__(
        self, directory: Path, identity: Identity, record_type: Any = Any, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        """Open or create the log in ``directory`` and recover it.

        ``record_type``: what `msgspec` decodes a record to. Raises `JournalCorrupt`, `JournalForeign`, `JournalBusy`,
        `JournalOutdated`, and `JournalFailed` when the directory cannot be read or written.
        """
        self.records: list[Record] = []
        self.cut: Cut | None = None
        self._directory, self._identity, self._segment_bytes = directory, identity, segment_bytes
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[record_type]).decode
        self._fd = -1
        self._failure: JournalFailed | None = None
        try:
            if not directory.exists():
                directory.mkdir(parents=True)
                _sync_directory(directory.parent)
            self._lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _failed("cannot be opened", directory, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise JournalBusy(
                f"{directory}: another process has this log open; stop it, or choose another data_dir"
            ) from None
        try:
            self._recover()
        except OSError as error:
            self.close()
            raise _failed("cannot be recovered", directory, error) from error
        except BaseException:
            self.close()
            raise

    def commit(self, records: Sequence[Record], *, anew: bool = False) -> None:
        """Append ``records`` as one batch; on return they are on disk. Blocks for the sync.

        ``anew``: they replace all that was committed before; a crash leaves either them or what they were to replace.

        Raises `JournalFailed`, from then on always: what was not synced must never be acknowledged.
        """
        if self._failure is not None:
            raise self._failure
        try:
            if anew:
                os.close(self._fd)
                self._fd = -1
                self._new_segment(self._number + 1, self._next_batch, self._encode(records))
                self._remove_before(self._number)
                return
            if self._offset >= self._segment_bytes:
                os.close(self._fd)
                self._fd = -1
                self._new_segment(self._number + 1, self._next_batch)
            pieces = batch_frame(self._salt, self._offset, self._next_batch, self._encode(records))
            self._offset += _write_all(self._fd, pieces, self._offset)
            os.fdatasync(self._fd)
        except OSError as error:
            self._failure = _failed("could not be written", self._path(self._number), error)
            raise self._failure from error
        self._next_batch += 1

    def close(self) -> None:
        """Give up the files and the lock; what was committed is on disk already."""
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:010d}.seg"

    def _recover(self) -> None:
        numbers = []
        for path in self._directory.iterdir():
            if match := _SEGMENT_NAME.fullmatch(path.name):
                numbers.append(int(match[1]))
            elif path.suffix == _UNFINISHED:
                path.unlink()  # a segment that a crash kept from ever being used
        numbers.sort()
        if not numbers:
            self._new_segment(0, 0)
            return
        # Those before the last one that begins anew mean nothing, and some of them may be gone.
        begun = max((number for number in numbers if self._begins_anew(number)), default=0)
        numbers = [number for number in numbers if number >= begun]
        self._next_batch = 0
        for position, number in enumerate(numbers, begun):
            path = self._path(number)
            if number != position:
                raise JournalCorrupt(self._path(position), 0, "this segment is missing, later ones are there")
            try:
                segment = read_segment(memoryview(path.read_bytes()))
                if segment.header.anew:
                    self._next_batch = segment.header.first_batch
                self._check_place(path, number, segment.header)
                for offset, body in segment.batches:
                    self._take(offset, body)
                if segment.torn and number != numbers[-1]:
                    raise DamageError(segment.end, "a batch is cut short, and later segments are there")
            except OutdatedError as outdated:
                raise JournalOutdated(
                    f"{path}: {outdated.reason}. Nothing is damaged: start the node with the program that wrote it, "
                    "or, if nothing in this log is needed any more, all nodes of the cluster with an empty data_dir"
                ) from None
            except DamageError as damage:
                raise JournalCorrupt(path, damage.offset, damage.reason) from None
            self._next_batch += len(segment.batches)
        self._number, self._offset, self._salt = number, segment.end, _salt(segment.header)
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        size = os.fstat(self._fd).st_size
        if size != segment.end:
            # Longer: an unfinished batch. Shorter: the padding of the last one is missing, and comes back as zeros.
            os.ftruncate(self._fd, segment.end)
            os.fsync(self._fd)
        self._remove_before(begun)
        if segment.torn:
            self.cut = Cut(path, segment.end, size - segment.end)

    def _take(self, offset: int, body: memoryview) -> None:
        try:
            self.records += self._decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DamageError(
                offset, f"the records here are sound but not of the kind this program writes: {error}"
            ) from None

    def _check_place(self, path: Path, number: int, header: SegmentHeader) -> None:
        owner = Identity(header.cluster, header.node)
        if owner != self._identity:
            raise JournalForeign(
                f"{path}: this log is of node {owner.node!r} of cluster {owner.cluster!r}, and this is node "
                f"{self._identity.node!r} of cluster {self._identity.cluster!r}; give it a data_dir of its own"
            )
        if (header.number, header.first_batch) != (number, self._next_batch):
            raise DamageError(
                0,
                f"it begins with batch {header.first_batch} as segment {header.number}, "
                f"and batch {self._next_batch} of segment {number} belongs here",
            )

    def _begins_anew(self, number: int) -> bool:
        with self._path(number).open("rb") as file:
            try:
                return _read_header(memoryview(file.read(_LONGEST_HEADER)))[0].anew
            except DamageError:
                return False  # which is reported when it is read

    def _remove_before(self, number: int) -> None:
        for path in self._directory.iterdir():
            if (match := _SEGMENT_NAME.fullmatch(path.name)) and int(match[1]) < number:
                path.unlink()

    def _new_segment(self, number: int, first_batch: int, body: bytes | None = None) -> None:
        """Begin a segment. With ``body``, the log begins anew there, with that as its first batch."""
        header = SegmentHeader(*self._identity, number, first_batch, body is not None)
        path = self._path(number)
        # Under another name until its header is on disk: a segment that exists has a whole header.
        unfinished = path.with_suffix(_UNFINISHED)
        self._fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._salt, self._next_batch = _salt(header), first_batch
        start = segment_header(header)
        pieces = [start]
        if body is not None:
            pieces += batch_frame(self._salt, len(start), first_batch, body)
            self._next_batch += 1
        self._offset = _write_all(self._fd, pieces, 0)
        os.fsync(self._fd)
        os.rename(unfinished, path)
        os.fsync(self._lock)
        self._number = number


def _failed(what: str, path: Path, error: OSError) -> JournalFailed:
    return JournalFailed(
        f"{path}: the log {what}: {error.strerror}. The node stops without acknowledging what it could not make "
        "durable. Make room or repair the disk, then start it again: it recovers by itself."
    )


def _sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable; a synced file without its name would be lost all the same."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, pieces: Iterable[bytes], offset: int) -> int:
    """Write ``pieces`` at ``offset`` and return how many bytes that was."""
    rest = memoryview(b"".join(pieces))
    total = len(rest)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written
    return total
