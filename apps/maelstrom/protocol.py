"""Maelstrom's messages: lines of JSON, in bytes and out of bytes. No I/O.

A message is ``{"src": …, "dest": …, "body": {"type": …, "msg_id"?: …, "in_reply_to"?: …, …}}`` on a line of its own.
Whatever else a line holds is a `LineError`, never another exception: what a binary prints cannot be trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import msgspec

#: The longest line, in bytes. What is longer is skipped up to its end.
MAX_LINE = 1 << 20

#: How deep lists and objects may lie in each other: every depth that is taken can be written again.
MAX_DEPTH = 100

#: How much of a bad line is shown.
SHOWN = 80


class Code(IntEnum):
    """Maelstrom's errors. Of all others from 1000 on, which are the nodes' own, nothing is known: see `is_definite`."""

    TIMEOUT = 0
    NODE_NOT_FOUND = 1
    NOT_SUPPORTED = 10
    TEMPORARILY_UNAVAILABLE = 11
    MALFORMED_REQUEST = 12
    CRASH = 13
    ABORT = 14
    KEY_DOES_NOT_EXIST = 20
    KEY_ALREADY_EXISTS = 21
    PRECONDITION_FAILED = 22
    TXN_CONFLICT = 30


_DEFINITE = frozenset(Code) - {Code.TIMEOUT, Code.CRASH}


def is_definite(code: int) -> bool:
    """Whether an error says that the operation did not happen and never will. 0, 13 and unknown ones do not."""
    return code in _DEFINITE


class LineError(ValueError):
    """A line that is no message. ``code`` is a word to count by: ``oversized``, ``malformed``, ``shape``."""

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        super().__init__(reason)


class Message(msgspec.Struct, frozen=True):
    """``body`` is as it came, with its ``type``."""

    src: str
    dest: str
    body: dict[str, Any]

    @property
    def type(self) -> str:
        return str(self.body["type"])

    @property
    def msg_id(self) -> int | None:
        return self.body.get("msg_id")

    @property
    def in_reply_to(self) -> int | None:
        return self.body.get("in_reply_to")


class _Head(msgspec.Struct):
    """What every body must have."""

    type: str
    msg_id: int | None = None
    in_reply_to: int | None = None


_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder().encode


def decode(line: bytes) -> Message:
    """The message on a line. Raises `LineError`."""
    try:
        message = _decode(line)
        msgspec.convert(message.body, _Head)
    except msgspec.ValidationError as error:
        raise LineError("shape", f"{error}; a message has src, dest and a body with a type: {shown(line)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise LineError("malformed", f"not a line of JSON: {shown(line)}") from None
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _is_deeper(message.body, MAX_DEPTH):
        raise LineError("shape", f"more than {MAX_DEPTH} lists and objects inside each other: {shown(line)}")
    return message


def _is_deeper(value: Any, depth: int) -> bool:
    layer = [value]
    for _ in range(depth):
        inner: list[Any] = []
        for one in layer:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        if not inner:
            return False
        layer = inner
    return True


def encode(src: str, dest: str, body: Mapping[str, Any]) -> bytes:
    """A line, its end included. Raises `TypeError` for what JSON has no form for."""
    return _encode({"src": src, "dest": dest, "body": body}) + b"\n"


def error_body(code: int, text: str) -> dict[str, Any]:
    return {"type": "error", "code": int(code), "text": text}


def shown(line: bytes) -> str:
    """The beginning of a line, fit for a person's terminal."""
    text = line[:SHOWN].decode(errors="replace")
    return repr(text) + ("…" if len(line) > SHOWN else "")


class Line(NamedTuple):
    """``number`` counts the lines of a stream from 1. ``oversized`` if it was longer than `MAX_LINE` and is cut off."""

    number: int
    text: bytes
    oversized: bool = False


class LineReader:
    """Cuts a stream of bytes into lines; empty ones are left out. Never holds more than `MAX_LINE` bytes."""

    def __init__(self, longest: int = MAX_LINE) -> None:
        self._longest = longest
        self._held = b""
        self._skipping = False
        self._number = 1

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that ``data`` completes."""
        *ended, rest = data.split(b"\n")
        for piece in ended:
            yield from self._end(piece)
        self._hold(rest)

    def close(self) -> Iterator[Line]:
        """The last line, if the stream ended without ending it."""
        yield from self._end(b"")

    def _hold(self, piece: bytes) -> None:
        if not self._skipping:
            self._held += piece
            if len(self._held) > self._longest:
                self._held, self._skipping = self._held[:SHOWN], True

    def _end(self, piece: bytes) -> Iterator[Line]:
        self._hold(piece)
        text, oversized, number = self._held, self._skipping, self._number
        self._held, self._skipping, self._number = b"", False, number + 1
        if text.strip():
            yield Line(number, text, oversized)
