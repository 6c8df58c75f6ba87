"""The file of evidence of a process: what its `Trace` effects say, one JSON object a line, in the kernel at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from apps.process import Nanoseconds

SCHEMA = 1


class TraceExists(Exception):  # noqa: N818
    """This incarnation has run before: its evidence is there, and is not written over."""


class TraceFile:
    """Opens ``path`` anew and appends to it. ``clock``: the key that every line's time gets.

    Raises `TraceExists`, and `OSError` here and from `write`.
    """

    def __init__(self, path: Path, clock: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise TraceExists(
                f"{path}: is there already; give every start of a process an incarnation of its own, or a new trace_dir"
            ) from None
        self._clock = clock.encode()
        self._encode = msgspec.json.Encoder().encode

    def write(self, now: Nanoseconds, events: Sequence[Any]) -> None:
        """Hand the events of a step to the kernel, in one write; each encodes to an object that is not empty."""
        start = b'{"%b":%d,' % (self._clock, now)
        lines = memoryview(b"".join([start + self._encode(event)[1:] + b"\n" for event in events]))
        while lines:
            lines = lines[os.write(self._fd, lines) :]

    def close(self) -> None:
        os.close(self._fd)
