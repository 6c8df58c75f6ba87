"""Measuring one link direction by marked frames, and saying whether what was obtained agrees with what was asked.

The frames carry an EtherType for local experiments, are sent at the sending interface and caught at the receiving one
by packet sockets, with the kernel's time of arrival. So exactly one direction of one link is measured: no routing, no
ECMP and no protocol is in the way, and the node at the far end drops them. `measure_link` is light enough for a link in
use; `measure_rate` saturates it.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import mmap
import os
import socket
import statistics
import struct
import time
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise

import msgspec

from topologies.impair import Attachment, Direction, ImpairError, inside, interface_counters
from topologies.impairment import Impairment, expected_delay, gilbert
from topologies.intervals import BATCHES, Interval, binomial_tail, deviation_interval, mean_interval, share_interval

#: IEEE Std 802 - Local Experimental EtherType 1.
PROBE_ETHERTYPE = 0x88B5

#: A verdict that something disagrees is wrong at most this often, where chance alone decides.
SIGNIFICANCE = 1e-5

_ETHERNET = struct.Struct("!6s6sH")
_HEADER = _ETHERNET.pack(b"\x02\0\0\0\0\x02", b"\x02\0\0\0\0\x01", PROBE_ETHERTYPE)
_MARK = struct.Struct("!8sIQ")  # run, sequence number, wall clock when sent; then padding
_CHECKSUM = struct.Struct("!I")  # CRC-32 of mark and padding
_SMALLEST_FRAME, _LARGEST_FRAME = 60, 65_535
_LARGEST_PACKET = 1514  # of a host, Ethernet header included
_SO_TIMESTAMPNS = 35  # socket(7); with 64-bit time, the option and its control message have one number
_SO_RCVBUFFORCE = 33
_SO_ATTACH_FILTER = 26
_ETH_P_ALL = 3
_RECEIVE_BUFFER = 64 << 20

#: A rate is measured by frames of this size at most, and by smaller ones where it would be few of them.
_RATE_FRAME, _FRAMES_TO_COUNT = 1400, 300

# linux/if_packet.h: a transmit ring of frames, each behind its header (status and length first).
_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2, _PACKET_TX_RING = 263, 10, 1, 13
_TPACKET2_HEADER, _TP_STATUS_SEND_REQUEST = 32, 1

#: Seconds the kernel gets to begin stamping packets after it was asked to; unstamped ones would bear a later time.
_SETTLING = 0.01


class Obtained(msgspec.Struct, frozen=True, kw_only=True):
    """What became of ``sent`` probes. Delays are nanoseconds, ``None`` when none arrived.

    ``arrived`` counts probes of which an intact copy arrived, ``loss`` is the share of the others; ``loss_burst`` the
    mean length of the runs of them. ``reordered`` counts probes that a later one overtook. ``jitter`` is the standard
    deviation of the delays. Intervals are of 95 % confidence (`topologies.intervals`), None where too few arrived.
    """

    sent: int
    arrived: int
    size: int
    loss: float
    loss_burst: float | None
    duplicated: int
    reordered: int
    corrupted: int
    delay_min: int | None
    delay_mean: int | None
    delay_p50: int | None
    delay_p99: int | None
    delay_max: int | None
    jitter: int | None
    loss_interval: tuple[float, float]
    delay_mean_interval: tuple[int, int] | None
    jitter_interval: tuple[int, int] | None


class ObtainedRate(msgspec.Struct, frozen=True, kw_only=True):
    """What was really sent and what arrived of it, both in bits per second of whole Ethernet frames.

    ``interval`` is that of the rate, of 95 % confidence; None where it was measured too shortly to tell.
    """

    offered: int
    rate: int
    interval: tuple[int, int] | None = None


class Arrival(msgspec.Struct, frozen=True):
    """A probe as it was caught: its number, and when it was sent and received, in nanoseconds of the wall clock."""

    sequence: int
    sent: int
    received: int


def summarise(sent: int, size: int, arrivals: Sequence[Arrival], corrupted: int = 0) -> Obtained:
    """`Obtained` from the arrivals, in the order they came."""
    first: dict[int, int] = {}
    newest, reordered = -1, 0
    for arrival in arrivals:
        if arrival.sequence not in first:
            first[arrival.sequence] = arrival.received - arrival.sent
            reordered += arrival.sequence < newest
            newest = max(newest, arrival.sequence)
    in_order = [first[sequence] for sequence in sorted(first)]
    delays = sorted(in_order)
    burst = _mean_run(sequence not in first for sequence in range(sent))
    return Obtained(
        sent=sent,
        arrived=len(first),
        size=size,
        loss=1 - len(first) / sent,
        loss_burst=burst,
        duplicated=len(arrivals) - len(first),
        reordered=reordered,
        corrupted=corrupted,
        delay_min=delays[0] if delays else None,
        delay_mean=round(statistics.fmean(delays)) if delays else None,
        delay_p50=quantile(delays, 0.5) if delays else None,
        delay_p99=quantile(delays, 0.99) if delays else None,
        delay_max=delays[-1] if delays else None,
        jitter=round(statistics.pstdev(delays)) if delays else None,
        loss_interval=share_interval(sent, sent - len(first), burst),
        delay_mean_interval=_rounded(mean_interval(in_order)),
        jitter_interval=_rounded(deviation_interval(in_order)),
    )


def _rounded(interval: Interval | None) -> tuple[int, int] | None:
    return interval and (round(interval[0]), round(interval[1]))


def quantile(ordered: Sequence[int], share: float) -> int:
    """The smallest of the ``ordered`` values that ``share`` of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _mean_run(flags: Iterable[bool]) -> float | None:
    runs, total, before = 0, 0, False
    for flag in flags:
        runs += flag and not before
        total += flag
        before = flag
    return total / runs if runs else None


def verify(asked: Impairment, obtained: Obtained, *, tolerance: int = 2_000_000) -> list[str]:
    """What in ``obtained`` disagrees with ``asked``, one sentence each; none when the impairment did what it should.

    Shares (loss, duplicates, damage) must lie where chance puts them but for `SIGNIFICANCE`: exact binomial tails, for
    bursty loss those of as many independent packets as carry the same information. Delays may differ by ``tolerance``
    nanoseconds, which is what a busy machine adds, and by what is left to chance. Where a rate is asked, other packets
    may fill the queue, which adds delay and loss that are in order. A measurement of which too few packets arrived to
    show anything is a disagreement too.
    """
    carried = 1 - asked.loss
    # Of a packet that is duplicated, the wire damages both copies or none, netem each by itself.
    both, either = carried * asked.corrupt, carried * asked.corrupt * (1 - asked.duplicate * (1 - asked.corrupt))
    missing = obtained.sent - obtained.arrived
    share = min(max(asked.loss + either, missing / obtained.sent), asked.missing)
    what = "lost or damaged" if asked.corrupt else "lost"
    problems = [
        *_disagreeing_share(what, asked, obtained, share, missing),
        *_disagreeing_share("damaged", asked, obtained, both, round(obtained.corrupted / (1 + asked.duplicate))),
        *_disagreeing_share(
            "duplicated", asked, obtained, carried * asked.duplicate * (1 - asked.corrupt), obtained.duplicated
        ),
    ]
    if asked.loss * obtained.sent > obtained.sent - 10:
        return problems
    if obtained.delay_mean is None or obtained.jitter is None or obtained.arrived < 10:
        return [*problems, f"only {obtained.arrived} of {obtained.sent} probes arrived: too few to tell the delay"]
    mean, deviation = expected_delay(asked, obtained.size)
    chance = 5 * deviation / math.sqrt(obtained.arrived)
    queueing = asked.queue * _LARGEST_PACKET * 8e9 / asked.rate if asked.rate else 0.0
    low, high = mean - chance - tolerance / 10, mean + chance + tolerance + queueing
    if not low <= obtained.delay_mean <= high:
        problems.append(f"mean delay {_ms(obtained.delay_mean)}, where {_ms(mean)} was asked")
    # A pause of the machine inflates the deviation, nothing deflates it: only too small a one accuses the impairment.
    if deviation > 2 * tolerance and obtained.jitter < deviation / 2:
        problems.append(f"delays vary by {_ms(obtained.jitter)} (standard deviation), where {_ms(deviation)} was asked")
    return problems


def verify_rate(asked: Impairment, obtained: ObtainedRate, *, tolerance: float = 0.05) -> list[str]:
    """What in ``obtained`` disagrees with the rate ``asked``, which must have been offered more than it can carry."""
    if obtained.offered <= asked.rate:
        return [f"{obtained.offered / 1e6:.3g} Mbit/s were offered, too little to fill {asked.rate / 1e6:.3g} Mbit/s"]
    if abs(obtained.rate - asked.rate) > tolerance * asked.rate:
        return [f"{obtained.rate / 1e6:.4g} Mbit/s went through, where {asked.rate / 1e6:.4g} Mbit/s was asked"]
    return []


def _disagreeing_share(what: str, asked: Impairment, obtained: Obtained, share: float, count: int) -> list[str]:
    losing = what.startswith("lost")
    if losing and asked.rate and count > obtained.sent * share:
        return []
    if losing and asked.burst and 0 < asked.loss < 1:
        likely = _bursty_tail(asked, obtained.sent, share, count)
    else:
        likely = binomial_tail(obtained.sent, share, count)
    if likely >= SIGNIFICANCE / 2:
        return []
    return [f"{count / obtained.sent:.2%} of {obtained.sent} probes {what}, where {share:.2%} was asked"]


def _bursty_tail(asked: Impairment, trials: int, share: float, count: int) -> float:
    """`binomial_tail` for losses that come in bursts: that of fewer packets, which know as much as these do."""
    start, end = gilbert(asked)
    if count == 0:
        return (1 - share) * (1 - start) ** (trials - 1)
    correlation = max(0.0, 1 - start - end)  # of one packet's fate with the next one's
    worth = (1 - correlation) / (1 + correlation)
    return binomial_tail(max(1, round(trials * worth)), share, round(count * worth))


def _ms(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:.2f} ms"


async def measure_link(
    direction: Direction,
    *,
    packets: int = 200,
    interval: int = 2_000_000,
    size: int = 128,
    wait: int = 250_000_000,
) -> Obtained:
    """Send ``packets`` probes of ``size`` bytes, one every ``interval`` nanoseconds; stop when all have arrived, or
    ``wait`` nanoseconds after the last (give it the longest delay there can be).

    Raises `topologies.impair.ImpairError` when an interface is not there.
    """
    with ProbeRun(direction, size) as run:
        await asyncio.sleep(_SETTLING)
        started = time.monotonic_ns()
        for sequence in range(packets):
            await asyncio.sleep((started + sequence * interval - time.monotonic_ns()) / 1e9)
            run.send()
            run.drain()
        deadline = time.monotonic_ns() + wait
        while run.missing and time.monotonic_ns() < deadline:
            await asyncio.sleep(0.005)
            run.drain()
        return run.obtained()


async def measure_rate(
    direction: Direction, *, offered: int, duration: int = 200_000_000, delay: int = 0
) -> ObtainedRate:
    """Offer ``offered`` bits per second of frames for ``duration`` nanoseconds, and see what gets through.

    ``delay`` is how long the direction holds a frame: only what comes after it, and after a quarter of ``duration`` in
    which the queue fills, is counted. It takes all the link has: not for a link in use. Raises
    `topologies.impair.ImpairError`.
    """
    size = min(max(offered * duration // 8_000_000_000 // _FRAMES_TO_COUNT, _SMALLEST_FRAME), _RATE_FRAME)
    slot = duration * 3 // 4 // BATCHES
    seen: list[tuple[int, int]] = []
    with Flood(direction.sender, size) as flood:
        started = now = time.monotonic_ns()
        due_reading, end = started + delay + duration // 4, started + delay + duration
        while now < end:
            due = round((now - started) * offered / 8e9 / size) - flood.sent
            flood.send(max(0, min(due, flood.batch)))
            if due <= flood.batch:
                await asyncio.sleep(0.001)
            now = time.monotonic_ns()
            if now >= due_reading:
                seen.append((now, interface_counters(direction.receiver).rx_bytes))
                due_reading = now + slot
        seen.append((now, interface_counters(direction.receiver).rx_bytes))
        (begin, before), (finish, after) = seen[0], seen[-1]
        rates = [(more - less) * 8e9 / (later - sooner) for (sooner, less), (later, more) in pairwise(seen[:-1])]
        return ObtainedRate(
            offered=flood.sent * size * 8 * 1_000_000_000 // (now - started),
            rate=(after - before) * 8 * 1_000_000_000 // max(1, finish - begin),
            interval=_rounded(mean_interval(rates)),
        )


class ProbeRun:
    """Probes of one measurement under way. Entering it opens the sockets at both ends, leaving it closes them.

    Drain it often: the receiving socket holds some thousand probes.
    """

    def __init__(self, direction: Direction, size: int) -> None:
        self.direction = direction
        self.size = max(size, _SMALLEST_FRAME)
        self.sent = 0
        self._run = os.urandom(8)
        self._arrivals: list[Arrival] = []
        self._seen: set[int] = set()
        self._corrupted = 0

    def __enter__(self) -> ProbeRun:
        with inside(self.direction.sender):
            self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            _bind(self._out, self.direction.sender, 0)
        try:
            with inside(self.direction.receiver):
                self._caught = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
                self._caught.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
                for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE):  # the latter is root's, past the system's limit
                    with suppress(PermissionError):
                        self._caught.setsockopt(socket.SOL_SOCKET, option, _RECEIVE_BUFFER)
                _only_probes(self._caught)
                _bind(self._caught, self.direction.receiver, _ETH_P_ALL)
        except BaseException:
            self._out.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()
        self._caught.close()

    @property
    def arrived(self) -> frozenset[int]:
        """The numbers, from 0, of the probes that have arrived intact."""
        return frozenset(self._seen)

    @property
    def missing(self) -> bool:
        """Whether some probe sent has not arrived, intact or damaged."""
        return len(self._seen) + self._corrupted < self.sent

    def send(self) -> None:
        with suppress(OSError):  # an interface that is down: to the measurement that probe is lost
            self._out.send(_frame(self._run, self.sent, self.size))
        self.sent += 1

    def drain(self) -> None:
        """Take in what has arrived."""
        while True:
            try:
                frame, ancillary, _, _ = self._caught.recvmsg(_LARGEST_FRAME, 64)
            except BlockingIOError:
                return
            body, checksum = frame[_ETHERNET.size : -_CHECKSUM.size], frame[-_CHECKSUM.size :]
            if zlib.crc32(body) != _CHECKSUM.unpack(checksum)[0]:
                self._corrupted += 1
                continue
            run, sequence, sent = _MARK.unpack_from(body)
            if run == self._run:
                seconds, nanoseconds = struct.unpack_from("qq", ancillary[0][2])
                self._arrivals.append(Arrival(sequence, sent, seconds * 1_000_000_000 + nanoseconds))
                self._seen.add(sequence)

    def obtained(self) -> Obtained:
        return summarise(self.sent, self.size, self._arrivals, self._corrupted)


class Flood:
    """Sends probes that nobody reads, by the hundred: they lie in a ring shared with the kernel (packet(7))."""

    def __init__(self, where: Attachment, size: int, batch: int = 256) -> None:
        self.batch = batch
        self.sent = 0
        self._size = size
        slot = 1 << (size + _TPACKET2_HEADER - 1).bit_length()
        blocks = max(1, batch * slot // mmap.PAGESIZE)
        with inside(where):
            self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._out.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        self._out.setsockopt(_SOL_PACKET, _PACKET_TX_RING, struct.pack("4I", mmap.PAGESIZE, blocks, slot, batch))
        _bind(self._out, where, 0)
        self._ring = mmap.mmap(self._out.fileno(), batch * slot)
        frame = _frame(os.urandom(8), 0, size)
        for place in range(0, batch * slot, slot):
            self._ring[place + _TPACKET2_HEADER : place + _TPACKET2_HEADER + size] = frame
        self._words = memoryview(self._ring).cast("I")
        self._slot_words = slot // 4
        self._next = 0

    def send(self, count: int) -> None:
        """Send ``count`` frames, at most a batch."""
        for _ in range(count):
            status = self._next * self._slot_words
            self._words[status + 1] = self._size
            self._words[status] = _TP_STATUS_SEND_REQUEST
            self._next = (self._next + 1) % self.batch
        self.sent += count
        with suppress(OSError):  # an interface that is down
            self._out.send(b"")

    def __enter__(self) -> Flood:
        return self

    def __exit__(self, *_: object) -> None:
        self._words.release()
        self._ring.close()
        self._out.close()


def _frame(run: bytes, sequence: int, size: int) -> bytes:
    body = _MARK.pack(run, sequence, time.time_ns()) + bytes(size - _ETHERNET.size - _MARK.size - _CHECKSUM.size)
    return _HEADER + body + _CHECKSUM.pack(zlib.crc32(body))


def _only_probes(opened: socket.socket) -> None:
    """Have the kernel show ``opened`` nothing but probes (linux/filter.h).

    Binding to their EtherType is not enough: the kernel's Open vSwitch takes a port's frames before such a socket.
    """
    load_ethertype, is_probe, whole, nothing = (
        (0x28, 0, 0, 12),  # BPF_LD | BPF_H | BPF_ABS
        (0x15, 0, 1, PROBE_ETHERTYPE),  # BPF_JMP | BPF_JEQ | BPF_K
        (0x06, 0, 0, 0xFFFFFFFF),  # BPF_RET | BPF_K
        (0x06, 0, 0, 0),
    )
    program = b"".join(struct.pack("=HBBI", *line) for line in (load_ethertype, is_probe, whole, nothing))
    memory = ctypes.create_string_buffer(program)
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 4, ctypes.addressof(memory)))


def _bind(opened: socket.socket, where: Attachment, protocol: int) -> None:
    try:
        opened.bind((where.interface, protocol))
    except OSError as error:
        opened.close()
        raise ImpairError(f"cannot measure at interface {where.interface}: {error.strerror}") from error
