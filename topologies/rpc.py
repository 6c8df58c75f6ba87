"""How the two ends of a sandbox talk: frames on a stream socket, and the errors that cross it.

A frame is a header (payload length, kind, request number) and a pickled payload. Both ends are one program, run by one
user on one machine, which is what makes pickle fit; it is not a format to take from anybody else.
"""

from __future__ import annotations

import pickle
import socket
import struct
from enum import IntEnum
from typing import Any

HEADER = struct.Struct("!IBQ")


class SandboxError(RuntimeError):
    """A sandbox that could not start or has ended, or a value that cannot cross; the message says which."""


class PrivilegeError(SandboxError):
    """This user may not make namespaces here; the message says what is lacking and how to get it."""


class Kind(IntEnum):
    """What a frame is. `START` is request 0 and answered like any other; an `EVENT` answers nothing."""

    START = 0
    CALL = 1
    RUN = 2
    CANCEL = 3
    RESULT = 4
    ERROR = 5
    EVENT = 6


def encode(kind: Kind, number: int, payload: Any) -> bytes:
    """One frame. Raises what `pickle` raises for a payload that cannot cross."""
    pickled = pickle.dumps(payload, pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(pickled), kind, number) + pickled


def encode_error(number: int, error: Exception) -> bytes:
    """An `ERROR` frame with ``error``, or with a `SandboxError` that quotes it where it would not survive the trip."""
    try:
        if isinstance(error, StopIteration):
            raise TypeError("no future takes it")
        frame = encode(Kind.ERROR, number, error)
        pickle.loads(frame[HEADER.size :])  # an __init__ of another shape fails only here
    except Exception:
        return encode(Kind.ERROR, number, SandboxError(f"{type(error).__name__}: {error}"))
    return frame


def receive(channel: socket.socket) -> tuple[Kind, int, bytes] | None:
    """Block for the next frame: its kind, number and pickled payload; ``None`` once the peer is gone."""
    header = _exactly(channel, HEADER.size)
    if header is None:
        return None
    length, kind, number = HEADER.unpack(header)
    payload = _exactly(channel, length)
    return None if payload is None else (Kind(kind), number, bytes(payload))


def _exactly(channel: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            count = channel.recv_into(view)
        except OSError:  # reset by a peer that was killed, or closed by our own side
            return None
        if count == 0:
            return None
        view = view[count:]
    return data
