"""Streams of datagrams across a fabric, and how long any of them went without one while something happened to it."""

from __future__ import annotations

import math
import os
import socket
import struct
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

import msgspec

from experiments.emulation.inside import Inside

FLOWS = 32
#: Between two datagrams of one stream.
SPACING_NS = 2_000_000

_SINK_PORT, _FIRST_SOURCE_PORT = 9001, 21_000
_SINK_BUFFER = 16 << 20
#: For what is still on its way when the last datagram has been sent.
_DRAIN_NS = 300_000_000
_DATAGRAM = struct.Struct("!HI")
_TIMESTAMP = struct.Struct("@qq")
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_SO_RCVBUFFORCE = 33


class Streamed(msgspec.Struct, frozen=True):
    """What became of one pump. Times are milliseconds.

    ``gap`` is the longest time any stream's receiver heard nothing of it, by the kernel's time of each arrival;
    ``pause`` the longest that the sender, held up by the machine, left between two datagrams of one stream. ``lost``
    were sent and never arrived.
    """

    gap: float
    pause: float
    sent: int
    lost: int


def stream(inside: Inside, sender: str, receiver: str, seconds: float, at: float, act: Callable[[], None]) -> Streamed:
    """Send `FLOWS` streams from one host to another for ``seconds``, and call ``act`` when ``at`` of them have passed.

    The streams differ in their source ports, so that they take different ways. Sending goes before whatever else the
    machine does, where it may (sched(7), SCHED_FIFO).
    """
    with ExitStack() as stack:
        sink, sources = _sockets(inside, sender, receiver, stack)
        outcome: list[Streamed] = []
        pump = threading.Thread(target=lambda: outcome.append(_pump(sink, sources, round(seconds * 1e9))))
        began = time.monotonic()
        pump.start()
        time.sleep(max(0.0, began + at - time.monotonic()))
        act()
        pump.join()
    return outcome[0]


def _sockets(inside: Inside, sender: str, receiver: str, stack: ExitStack) -> tuple[socket.socket, list[socket.socket]]:
    here, there = inside.plan.endpoint(sender).ip, inside.plan.endpoint(receiver).ip
    with inside.fabric.inside(receiver):
        sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sink.bind((there, _SINK_PORT))
    sink.setblocking(False)
    sink.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    with suppress(PermissionError):
        sink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _SINK_BUFFER)
    with inside.fabric.inside(sender):
        sources = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(FLOWS)]
    for number, source in enumerate(sources):
        source.bind((here, _FIRST_SOURCE_PORT + number))
        source.connect((there, _SINK_PORT))
    return sink, sources


def _pump(sink: socket.socket, sources: Sequence[socket.socket], duration: int) -> Streamed:
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # of this thread only
    heard = array("q", bytes(8 * len(sources)))
    gap = pause = rounds = received = 0
    start = last = due = time.monotonic_ns()
    while due < start + duration:
        if (ahead := due - time.monotonic_ns()) > 0:
            time.sleep(ahead / 1e9)
        now = time.monotonic_ns()
        pause, last = max(pause, now - last), now
        for number, source in enumerate(sources):
            source.send(_DATAGRAM.pack(number, rounds))
        rounds += 1
        arrived, longest = _collect(sink, heard)
        received, gap = received + arrived, max(gap, longest)
        due = max(due + SPACING_NS, now)  # a round that came late is not made up for by two at once
    time.sleep(_DRAIN_NS / 1e9)
    arrived, longest = _collect(sink, heard)
    received, gap = received + arrived, max(gap, longest)
    gap = max(gap, max(heard) - min(heard)) if all(heard) else duration  # one that never came back
    sent = rounds * len(sources)
    return Streamed(gap / 1e6, pause / 1e6, sent, sent - received)


def _collect(sink: socket.socket, heard: array[int]) -> tuple[int, int]:
    """Take in what has arrived; how many, and the longest time between two of one stream."""
    longest = received = 0
    with suppress(BlockingIOError):
        while True:
            data, ancillary, _, _ = sink.recvmsg(16, 64)
            seconds, nanoseconds = _TIMESTAMP.unpack(ancillary[0][2])
            arrived = seconds * 1_000_000_000 + nanoseconds
            number, _ = _DATAGRAM.unpack(data)
            if heard[number]:
                longest = max(longest, arrived - heard[number])
            heard[number] = arrived
            received += 1
    return received, longest


def p95(values: Sequence[float]) -> float:
    """The smallest of ``values`` that 95 % of them do not exceed (nearest rank)."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]
