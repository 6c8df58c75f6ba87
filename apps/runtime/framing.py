"""What goes over a connection: frames of a u32 length, a kind, and a msgpack array. Bytes in, items out; no sockets.

Each side of a connection first sends a `Hello` and checks the other's, so that a node of another cluster, another
version or another name than was dialled is noticed before anything it says is acted upon. A frame carries all that one
step has for a receiver: one call encodes or decodes it, however many messages it holds.

======== =================================================================
bytes
======== =================================================================
4        length of what follows, big-endian, at most `MAX_FRAME`
1        kind: see `Kind`
the rest msgpack array: messages, or ``[request, command]``, or ``[request, result]``; for a hello, its fields
======== =================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, Literal

import msgspec

VERSION = 3
#: The longest frame, in bytes, kind included.
MAX_FRAME = 16 << 20
#: The longest first frame: a stranger is not listened to for long.
MAX_HELLO = 1024
#: Room for one read from a socket, and the size a buffer returns to after a longer frame.
READ_BUFFER = 256 << 10

_LENGTH = struct.Struct(">I")
_PREFIX = _LENGTH.size + 1


class Kind(IntEnum):
    HELLO = 0
    MESSAGES = 1
    REQUESTS = 2
    RESPONSES = 3


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Who is speaking. ``role``: nodes exchange messages, clients send requests.

    ``settings``: a checksum of how the sender's process is configured, which is to be the same on all nodes.
    """

    magic: Literal["splitbrain"]
    version: int
    cluster: str
    node: str
    incarnation: int
    role: Literal["node", "client"]
    settings: int = 0


class FrameError(Exception):
    """What came is not a frame; nothing after it can be trusted, so the connection has to be closed.

    ``code`` is a word to count by: ``oversized``, ``empty``, ``unknown``, ``malformed``, ``unexpected``; for a `Hello`
    that is not welcome ``version``, ``cluster``, ``node``, ``settings``, ``incarnation``; ``late`` for one that does
    not come.
    """

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        super().__init__(reason)


class TooLarge(Exception):  # noqa: N818
    """One item alone does not fit into a frame; it was not encoded."""


class FrameReader:
    """Cuts a stream of bytes into frames.

    The caller reads into `space`, then calls `received` with the number of bytes; the views it returns are good until
    the next call of `space`. ``limit`` is the longest frame taken, and may be changed at any time: also between two
    frames that came in one read, as a `Hello` and what follows it do.
    """

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.limit = limit
        self._buffer = memoryview(bytearray(READ_BUFFER))
        self._start = self._end = 0

    @property
    def held(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return self._end - self._start

    def space(self) -> memoryview:
        """Where the next bytes of the stream go; never empty."""
        held = self.held
        needed = held + 1
        if held >= _LENGTH.size:
            needed = max(needed, _LENGTH.size + self._length())
        if needed > len(self._buffer) or (len(self._buffer) > READ_BUFFER >= needed):
            buffer = memoryview(bytearray(max(READ_BUFFER, needed)))
            buffer[:held] = self._buffer[self._start : self._end]
            self._buffer, self._start, self._end = buffer, 0, held
        elif self._start and (not held or len(self._buffer) - self._end < READ_BUFFER // 4):
            # The two may overlap; assignment between slices of one memoryview copes, as memmove does.
            self._buffer[:held] = self._buffer[self._start : self._end]
            self._start, self._end = 0, held
        return self._buffer[self._end :]

    def received(self, count: int) -> Iterator[tuple[Kind, memoryview]]:
        """The frames completed by ``count`` further bytes: kind and body. Raises `FrameError`."""
        self._end += count
        while self._end - self._start >= _LENGTH.size:
            length = self._length()
            body = self._start + _PREFIX
            end = self._start + _LENGTH.size + length
            if end > self._end:
                break
            try:
                kind = _KINDS[self._buffer[body - 1]]
            except IndexError:
                raise FrameError("unknown", f"a frame of unknown kind {self._buffer[body - 1]}") from None
            self._start = end
            yield kind, self._buffer[body:end]

    def _length(self) -> int:
        (length,) = _LENGTH.unpack_from(self._buffer, self._start)
        if length == 0:
            raise FrameError("empty", "a frame without a kind")
        if length > self.limit:
            raise FrameError("oversized", f"a frame of {length} bytes where at most {self.limit} are taken")
        return int(length)


_KINDS = tuple(Kind)


class Codec:
    """Encodes and decodes frames for one protocol, whose messages, commands and results have the types given."""

    def __init__(self, message: Any, command: Any, result: Any) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoders: dict[Kind, msgspec.msgpack.Decoder[Any]] = {
            Kind.HELLO: msgspec.msgpack.Decoder(Hello),
            Kind.MESSAGES: msgspec.msgpack.Decoder(list[message]),
            Kind.REQUESTS: msgspec.msgpack.Decoder(list[tuple[int, command]]),
            Kind.RESPONSES: msgspec.msgpack.Decoder(list[tuple[int, result]]),
        }

    def decode(self, kind: Kind, body: memoryview) -> Any:
        """The items of a frame, or its `Hello`. Raises `FrameError`."""
        try:
            return self._decoders[kind].decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError("malformed", f"{kind.name.lower()} that cannot be read: {error}") from error

    def encode(self, kind: Kind, items: Sequence[Any] | Hello) -> list[bytearray]:
        """Frames that carry ``items`` in order: one, unless they do not fit. Raises `TooLarge`."""
        frame = bytearray(_PREFIX)
        self._encoder.encode_into(items, frame, _PREFIX)
        length = len(frame) - _LENGTH.size
        if length > MAX_FRAME:
            if isinstance(items, Hello) or len(items) == 1:
                raise TooLarge(f"one of the {kind.name.lower()} takes {length} bytes; a frame holds {MAX_FRAME}")
            half = len(items) // 2
            return self.encode(kind, items[:half]) + self.encode(kind, items[half:])
        _LENGTH.pack_into(frame, 0, length)
        frame[_PREFIX - 1] = kind
        return [frame]
