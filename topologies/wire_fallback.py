"""The wire's loop in Python: what runs where ``wire.c`` was not compiled. Same commands, same fates, slower.

Run as ``python -m topologies.wire_fallback FD`` by `topologies.wire`. See ``wire.c`` for how it works; here its pure
part, `Fates`, is apart from the loop, so that tests can ask what will become of the n-th frame of a seed.
"""

from __future__ import annotations

import errno
import gc
import heapq
import os
import select
import socket
import struct
import sys
import time
from array import array

import msgspec

from topologies.wire import (
    ADD,
    COUNTERS,
    DELAYS,
    FLUSH,
    HEADER,
    OCTAVES,
    REPLY,
    SET,
    STAT,
    STEPS,
    TABLE_SCALE_BITS,
    Settings,
    histogram_index,
    unpack_settings,
)

_MASK = 2**64 - 1
_LOSS, _JITTER, _REORDER, _DUPLICATE, _COPY_JITTER, _CORRUPT, _BIT, _DRAWS = 0, 1, 2, 3, 4, 5, 6, 8
_VNET_HEADER = 10
_ETHERNET_HEADER = 14
_FRAME_MAX = _VNET_HEADER + _ETHERNET_HEADER + 65535 + 64
_READ_BATCH = 32
_LATE_NS = 1_000_000
_HELD_FRAMES_MAX = 100_000


def draw(seed: int, number: int, which: int) -> int:
    """Draw ``which`` of frame ``number``, uniform in 0 to 2^32 - 1 (SplitMix64; Steele, Lea, Flood, OOPSLA 2014)."""
    z = (seed + (number * _DRAWS + which + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) >> 32


class Fate(msgspec.Struct, frozen=True):
    """What becomes of a frame: when each of its copies leaves (none: it was dropped), and which bit is flipped."""

    departures: tuple[int, ...]
    cause: str = ""
    reordered: bool = False
    bit: int | None = None


class Fates:
    """Decides on the frames of one direction, in the order they come."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._number = 0
        self._bursting = False
        self._idle_at = 0
        self._finish: list[int] = []

    def next(self, now: int, length: int) -> Fate:
        """The fate of a frame of ``length`` bytes (Ethernet header included) that comes at ``now`` nanoseconds."""
        s, number = self.settings, self._number
        self._number += 1
        if self._lost(number):
            return Fate((), "lost")
        sent_at = self._serialised(now, length)
        if sent_at is None:
            return Fate((), "queue_full")
        bits = (length - _ETHERNET_HEADER) * 8
        damaged = bits > 0 and draw(s.seed, number, _CORRUPT) < s.corrupt
        bit = (draw(s.seed, number, _BIT) * bits) >> 32 if damaged else None
        reordered = draw(s.seed, number, _REORDER) < s.reorder
        departures = [sent_at + (0 if reordered else self._delay(number, _JITTER))]
        if draw(s.seed, number, _DUPLICATE) < s.duplicate:
            departures.append(sent_at + self._delay(number, _COPY_JITTER))
        return Fate(tuple(departures), "", reordered, bit)

    def _lost(self, number: int) -> bool:
        s = self.settings
        u = draw(s.seed, number, _LOSS)
        if not s.burst_end:
            return u < s.loss
        if u < (s.burst_end if self._bursting else s.burst_start):
            self._bursting = not self._bursting
        return self._bursting

    def _delay(self, number: int, which: int) -> int:
        s = self.settings
        if not s.jitter:
            return s.delay
        u = draw(s.seed, number, which)
        low, high = s.table[u >> 20], s.table[(u >> 20) + 1]
        quantile = low + (((high - low) * (u & 0xFFFFF)) >> 20)
        return max(0, s.delay + ((s.jitter * quantile) >> TABLE_SCALE_BITS))

    def _serialised(self, now: int, length: int) -> int | None:
        s = self.settings
        if not s.rate:
            return now
        while self._finish and self._finish[0] <= now:
            self._finish.pop(0)
        if len(self._finish) >= s.queue:
            return None
        self._idle_at = max(self._idle_at, now) + length * 8_000_000_000 // s.rate
        self._finish.append(self._idle_at)
        return self._idle_at


def on_the_wire(frame: bytes) -> tuple[int, int]:
    """How many frames of how many bytes in all a frame with a virtio-net header will be once it is segmented."""
    length = len(frame) - _VNET_HEADER
    gso_type, gso_size, csum_start = struct.unpack_from("=xBxxHH", frame)
    offset = _VNET_HEADER + csum_start + 12  # the TCP header's data offset, RFC 9293 §3.1
    if gso_type & 0x7F not in (1, 4) or not gso_size or offset >= len(frame):  # TCP over IPv4, over IPv6
        return 1, length
    headers = csum_start + (frame[offset] >> 4) * 4
    packets = max(1, -(-(length - headers) // gso_size))
    return packets, length + (packets - 1) * headers


class _Line:
    """One direction: its descriptors, its fates, its counts."""

    def __init__(self, tap: int, out: socket.socket, settings: Settings) -> None:
        self.tap = tap
        self.out = out
        self.start(settings)

    def start(self, settings: Settings) -> None:
        self.fates = Fates(settings)
        self.counts = dict.fromkeys(COUNTERS, 0)
        self.delays = array("I", [0]) * (OCTAVES * STEPS)


class _Loop:
    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.lines: dict[int, _Line] = {}
        self.by_tap: dict[int, _Line] = {}
        self.heap: list[tuple[int, int, int, _Line, bytes]] = []  # due, order, arrived, …
        self.order = 0
        self.poller = select.epoll()
        self.poller.register(control, select.EPOLLIN)

    def run(self) -> None:
        heap, clock = self.heap, time.monotonic_ns
        while True:
            now = clock()
            while heap and heap[0][0] <= now:
                self.transmit(*heapq.heappop(heap))
                now = clock()
            timeout = max(0, heap[0][0] - now) / 1e9 if heap else None
            commanded = False
            for fd, _ in self.poller.poll(timeout):
                if fd == self.control.fileno():
                    commanded = True
                else:
                    self.receive(self.by_tap[fd])
            if commanded and not self.obey():
                return

    def receive(self, line: _Line) -> bool:
        """Read what waits in a TAP, at most a batch; false once it is empty."""
        counts = line.counts
        for _ in range(_READ_BATCH):
            now = time.monotonic_ns()
            try:
                frame = os.read(line.tap, _FRAME_MAX)
            except BlockingIOError:
                return False
            except OSError:
                self.poller.unregister(line.tap)
                return False
            packets, length = on_the_wire(frame)
            counts["packets"] += packets
            counts["bytes"] += length
            fate = line.fates.next(now, length)
            if fate.cause:
                counts[fate.cause] += packets
                continue
            if len(self.heap) > _HELD_FRAMES_MAX:
                counts["memory_full"] += packets
                continue
            if fate.bit is not None:
                counts["corrupted"] += 1
                frame = _flipped(frame, fate.bit)
            counts["reordered"] += fate.reordered
            counts["duplicated"] += len(fate.departures) - 1
            for due in fate.departures:
                counts["held"] += 1
                self.order += 1
                heapq.heappush(self.heap, (due, self.order, now, line, frame))
        return True

    def transmit(self, due: int, _order: int, arrived: int, line: _Line, frame: bytes) -> None:
        counts = line.counts
        counts["held"] -= 1
        now = time.monotonic_ns()
        try:
            line.out.send(frame, socket.MSG_DONTWAIT)
        except OSError:
            counts["send_failed"] += 1
            return
        late = max(0, now - due)
        counts["sent"] += 1
        counts["delay_sum"] += now - arrived
        counts["late_sum"] += late
        counts["late_max"] = max(late, counts["late_max"])
        counts["late"] += late > _LATE_NS
        line.delays[histogram_index(now - arrived)] += 1

    def obey(self) -> bool:
        """Carry out one command and answer it; false when the controller has gone."""
        data, ancillary, _, _ = self.control.recvmsg(1 << 16, 1024)
        if not data:
            return False
        fds = array("i")
        for _, _, rights in ancillary:
            fds.frombytes(rights)
        verb, number = HEADER.unpack_from(data)
        line = self.lines.get(number)
        error, body = 0, b""
        if verb == ADD:
            tap, out = fds
            line = _Line(tap, socket.socket(fileno=out), unpack_settings(data[HEADER.size :]))
            self.lines[number] = self.by_tap[tap] = line
            self.poller.register(tap, select.EPOLLIN)
        elif line is None:
            error = errno.ENOENT
        elif verb == SET:
            line.fates.settings = unpack_settings(data[HEADER.size :])
        elif verb == FLUSH:
            self.flush(line)
        elif verb == STAT:
            body = DELAYS.pack(*line.delays)
        counts = line.counts.values() if line and verb == STAT else [0] * len(COUNTERS)
        self.control.send(REPLY.pack(error, 0, *counts) + body)
        return True

    def flush(self, line: _Line) -> None:
        """Send all that is held at once, in the order it was due, and start anew."""
        while self.receive(line):
            pass
        leaving = sorted(entry for entry in self.heap if entry[3] is line)
        self.heap[:] = [entry for entry in self.heap if entry[3] is not line]
        heapq.heapify(self.heap)
        for entry in leaving:
            self.transmit(*entry)
        line.start(line.fates.settings)


def _flipped(frame: bytes, bit: int) -> bytes:
    damaged = bytearray(frame)
    damaged[_VNET_HEADER + _ETHERNET_HEADER + bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    gc.disable()  # nothing here makes cycles, and a collection would make packets late
    _Loop(control).run()


if __name__ == "__main__":
    main()
