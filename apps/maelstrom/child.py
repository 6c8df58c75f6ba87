"""A binary as a child process: its lines as they come, as the runtime needs them. See `apps.maelstrom.bridge`."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from apps.maelstrom.bridge import CHILD, End, Ended, Heard, Tell
from apps.maelstrom.protocol import LineReader
from apps.process import Event, Requested

#: Bytes that may wait for a binary that does not read.
QUEUE_BYTES = 4 << 20

_READ = 1 << 16
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def spawn(command: Sequence[str], stderr: int | IO[Any] | None = None) -> subprocess.Popen[bytes]:
    """Start a binary in a session of its own; it dies with this process. Raises `OSError`."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
        start_new_session=True,
        # It takes no lock, so that no other thread can hold it.
        preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a binary, and what it has started itself."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def not_started(command: Sequence[str], error: OSError) -> str:
    return f"it could not be started: {command[0]}: {error.strerror}"


def how_it_ended(status: int, last_words: str) -> str:
    """In words. ``status`` as subprocess has it, negative for a signal."""
    how = f"it exited with status {status}" if status >= 0 else f"it was killed by {signal.Signals(-status).name}"
    return f"{how}: {last_words}" if last_words else how


def last_words(log: Path) -> str:
    """The last line of a log, or nothing where there is none."""
    try:
        size = log.stat().st_size
        with log.open("rb") as file:
            file.seek(max(0, size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


class Child:
    """A binary beside a running asyncio loop. ``deliver`` gets what it prints, and its end.

    Its standard error is that of this process.
    """

    def __init__(self, command: Sequence[str], deliver: Callable[[list[Event]], None]) -> None:
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._reader = LineReader()
        self._queue = bytearray()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = spawn(command)
        except OSError as error:
            deliver([_ended(not_started(command, error))])
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)
        self._loop.add_reader(self._stdout, self._read)

    def take(self, replies: Sequence[tuple[int, Any]]) -> None:
        """What the bridge has to say to the binary."""
        for _, said in replies:
            if isinstance(said, Tell):
                self._queue += said.line
            elif isinstance(said, End):
                self.close()
        self._write()

    def close(self) -> None:
        """Kill the binary, if it is still there; nothing is delivered any more."""
        if self._process is None:
            return
        self._loop.remove_reader(self._stdout)
        self._loop.remove_writer(self._stdin)
        kill(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process = None

    def _write(self) -> None:
        if self._process is None:
            self._queue.clear()
            return
        try:
            del self._queue[: os.write(self._stdin, self._queue)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._queue.clear()  # that it has ended is seen at its standard output
        if len(self._queue) > QUEUE_BYTES:
            self._end(f"it left {len(self._queue)} bytes unread")
        elif self._queue:
            self._loop.add_writer(self._stdin, self._write)
        else:
            self._loop.remove_writer(self._stdin)

    def _read(self) -> None:
        assert self._process is not None
        try:
            data = os.read(self._stdout, _READ)
        except BlockingIOError:
            return
        lines = self._reader.feed(data) if data else self._reader.close()
        heard: list[Event] = [Requested(CHILD, line.number, Heard(line.text, line.oversized)) for line in lines]
        if heard:
            self._deliver(heard)
        if not data:
            with suppress(subprocess.TimeoutExpired):
                # Who closes its output is about to end, or of no use any more.
                self._process.wait(0.1)
            status = self._process.poll()
            if status is None:
                self._end("it closed its standard output")
            else:
                self._end(how_it_ended(status, last_words(Path("/proc/self/fd/2"))))

    def _end(self, why: str) -> None:
        self.close()
        self._deliver([_ended(why)])


def _ended(why: str) -> Event:
    return Requested(CHILD, 0, Ended(why))
