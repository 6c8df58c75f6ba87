"""Keeps a number of writes under way at an etcd cluster, and prints a `FloodSummary`: `apps.workload.Flood` for etcd.

``python -m experiments.bench.etcd_flood LEADER OUTSTANDING VALUE_BYTES WARM_UP SECONDS``; ``LEADER`` is ``ip:port``.

It speaks etcd's own interface, gRPC, over one connection, as ours speaks its own over one. Of etcd's other ways in,
JSON would have cost it a translation, and the old version 2 leads to another store. A gRPC library for Python takes
more of the machine for a request than etcd does, and would itself have been measured: so here are the few frames of
HTTP/2 (RFC 9113) that a stream of small writes needs. It does not decode headers: an answer that carries data is a
success, one that does not is an error, and ends the program.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from collections import deque
from typing import cast

import msgspec
import uvloop

from apps.workload import FloodSummary

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_WINDOW = 65_535  # of a connection until the other side widens it, RFC 9113 §6.9.2
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """RFC 9113 §4.1: length in 24 bits, type, flags, stream."""
    return len(body).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + body


def _headers(authority: str) -> bytes:
    """A call of ``Put``, in HPACK (RFC 7541) without its compression: names from its table, values as they are."""

    def text(value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    return b"".join(
        [
            b"\x83\x86",  # :method POST, :scheme http
            b"\x04" + text("/etcdserverpb.KV/Put"),
            b"\x01" + text(authority),
            b"\x0f\x10" + text("application/grpc"),  # content-type
            b"\x00" + text("te") + text("trailers"),
        ]
    )


def _put(key: bytes, value: bytes) -> bytes:
    """A gRPC message: a flag, the length, and the protocol buffer ``PutRequest{key = 1; value = 2}``."""

    def field(number: int, content: bytes) -> bytes:
        length, varint = len(content), b""
        while length > 0x7F:
            varint += bytes([length & 0x7F | 0x80])
            length >>= 7
        return bytes([number << 3 | 2]) + varint + bytes([length]) + content

    message = field(1, key) + field(2, value)
    return struct.pack(">BI", 0, len(message)) + message


class _Flood(asyncio.Protocol):
    """``done`` gets the error that ended the connection, if one does."""

    def __init__(self, authority: str, outstanding: int, value_bytes: int, counted_from: int) -> None:
        self._headers, self._outstanding, self._counted_from = _headers(authority), outstanding, counted_from
        self._value = b"x" * value_bytes
        self._received = bytearray()
        self._under_way: dict[int, tuple[int, int]] = {}  # stream: (session, begun)
        self._answered: set[int] = set()
        self._waiting: deque[int] = deque()  # sessions whose next write has no room in the window
        self._window = _WINDOW
        self._next_stream = 1
        self._to_write: list[bytes] = []
        self._transport: asyncio.Transport
        self.latencies: list[int] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        wide = struct.pack(">I", (1 << 31) - 1 - _WINDOW)  # for all answers there will ever be
        self._to_write = [_PREFACE, _frame(_SETTINGS, 0, 0, b""), _frame(_WINDOW_UPDATE, 0, 0, wide)]
        self._waiting.extend(range(self._outstanding))
        self._write()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"etcd hung up: {error}")

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(why))

    def data_received(self, data: bytes) -> None:
        self._received += data
        start = 0
        while len(self._received) - start >= 9:
            length = int.from_bytes(self._received[start : start + 3], "big")
            kind, flags, stream = struct.unpack_from(">BBI", self._received, start + 3)
            end = start + 9 + length
            if end > len(self._received):
                break
            self._take(kind, flags, stream, self._received[start + 9 : end])
            start = end
        del self._received[:start]
        self._write()

    def _take(self, kind: int, flags: int, stream: int, body: bytearray) -> None:
        if kind == _DATA:
            self._answered.add(stream)
        elif kind == _SETTINGS and not flags & _ACK:
            self._to_write.append(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._to_write.append(_frame(_PING, _ACK, 0, bytes(body)))
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(body, "big")
        elif kind in (_RESET, _GO_AWAY):
            self._fail(f"etcd refused: frame of type {kind}, {bytes(body)!r}")
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            self._ended(stream)

    def _ended(self, stream: int) -> None:
        session, begun = self._under_way.pop(stream)
        if stream not in self._answered:
            self._fail("etcd answered a write with an error")
            return
        self._answered.discard(stream)
        now = time.monotonic_ns()
        if now >= self._counted_from:
            self.latencies.append(now - begun)
        self._waiting.append(session)

    def _write(self) -> None:
        """Begin what waits and has room, and hand all of it to the socket together."""
        now = time.monotonic_ns()
        while self._waiting:
            body = _put(b"k%d" % self._waiting[0], self._value)
            if len(body) > self._window:
                break
            self._window -= len(body)
            stream, self._next_stream = self._next_stream, self._next_stream + 2
            self._under_way[stream] = (self._waiting.popleft(), now)
            self._to_write.append(_frame(_HEADERS, _END_HEADERS, stream, self._headers))
            self._to_write.append(_frame(_DATA, _END_STREAM, stream, body))
        if self._to_write:
            self._transport.write(b"".join(self._to_write))
            self._to_write.clear()


async def _main(leader: str, outstanding: int, value_bytes: int, warm_up: float, seconds: float) -> FloodSummary:
    host, _, port = leader.rpartition(":")
    counted_from = time.monotonic_ns() + int(warm_up * 1e9)
    loop = asyncio.get_running_loop()
    _, flood = await loop.create_connection(
        lambda: _Flood(leader, outstanding, value_bytes, counted_from), host, int(port)
    )
    done, _ = await asyncio.wait([flood.done], timeout=warm_up + seconds)
    if done:
        flood.done.result()
    return FloodSummary.of(flood.latencies, time.monotonic_ns() - counted_from)


if __name__ == "__main__":
    _, leader, outstanding, value_bytes, warm_up, seconds = sys.argv
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        summary = runner.run(_main(leader, int(outstanding), int(value_bytes), float(warm_up), float(seconds)))
    print(msgspec.json.encode(summary).decode())
