"""A Maelstrom binary as a child of the simulation, in lock-step with virtual time (`apps.maelstrom.bridge`).

Time stands still while the binary works: it is given one line, and its answer is waited for before anything else
happens. That it has answered is seen from outside, whatever it is written in: it has read all it was given, and every
thread of it, and of the programs it has started, sleeps (proc(5)), with nothing left in its standard output. Two looks
must agree, with no switch of context between them, so that nobody can wake or start another unseen. So what a binary
says depends on what it was told, and on itself alone; a run repeats itself exactly as far as the binary does.

A sleep of the binary's own counts as rest: its clock is the machine's, and nothing outside can tell it otherwise.
Where a binary does things by itself as time passes (``own_timers``), there is no lock-step: virtual time is kept from
running ahead of the machine's (`Pace`), and what it says is taken as it comes. Such a run takes as long as on the
fabric, and does not repeat itself exactly.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from apps.maelstrom.bridge import CHILD, End, Ended, Heard, Tell
from apps.maelstrom.child import how_it_ended, kill, last_words, not_started, spawn
from apps.maelstrom.protocol import LineReader
from apps.process import Event, Nanoseconds, Requested
from experiments.simulation.kernel import Kernel

#: What a binary may take for one line before it is given up: seconds of processor time, so that a busy machine is not
#: held against it; seconds in all; and bytes it may print.
MOST_CPU, PATIENCE, MOST_PRINTED = 5.0, 60.0, 2 << 20

#: How often binaries with timers of their own are looked at, and how far the machine's time may be ahead of the
#: virtual before the difference is let go.
PACE_NS, SLACK_NS = 1_000_000, 50_000_000

#: Bytes that may wait for such a binary when it does not read.
QUEUE_BYTES = 4 << 20

#: Seconds between two looks at a binary that is not at rest.
_LOOK = 0.0002

_READ = 1 << 16
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Binary:
    """One incarnation. ``deliver`` gets what it prints, and its end, as the bridge expects it. ``own_timers``: what it
    prints is not waited for, but taken by `listen`. ``init_timeout``: how long it may sleep over its first line, which
    is ``init``, without having read it, in nanoseconds of the machine's time.
    """

    def __init__(
        self,
        command: Sequence[str],
        deliver: Callable[[list[Event]], None],
        own_timers: bool = False,
        init_timeout: Nanoseconds = int(PATIENCE * 1e9),
    ) -> None:
        self._command, self._deliver, self._own_timers = tuple(command), deliver, own_timers
        self._init_timeout = init_timeout / 1e9
        self._has_read = False
        self._asleep: list[bytes] | None = None
        self._asleep_since = 0.0
        self._queue = bytearray()
        self._reader = LineReader()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Any = None
        self._known: dict[str, bool] = {}

    def start(self) -> None:
        """Spawn it; that it could not be is delivered."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the binary
        try:
            self._process = spawn(self._command, self._log)
        except OSError as error:
            self._end(not_started(self._command, error))
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)

    def take(self, told: Sequence[Any]) -> None:
        """Let the binary have what the bridge has to say, a line at a time, and hear what it says to each."""
        for one in told:
            if isinstance(one, End):
                self.close()
            elif isinstance(one, Tell) and self._process is not None and self._own_timers:
                self._queue += one.line
                self._write()
            elif isinstance(one, Tell) and self._process is not None:
                self._exchange(one.line)

    def listen(self) -> None:
        """Take what it has said by now, and write what it has not taken yet."""
        if self._process is not None and self._queue:
            self._write()
        if self._process is not None and (said := self._read()) is not None:
            self._hear(said)

    def _write(self) -> None:
        try:
            del self._queue[: os.write(self._stdin, self._queue)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._queue.clear()  # that it has ended is seen at its standard output
        if len(self._queue) > QUEUE_BYTES:
            self._end(f"it left {len(self._queue)} bytes unread")

    def close(self) -> None:
        """Kill it, if it is still there; nothing is delivered any more."""
        if self._process is not None:
            kill(self._process)
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                stream.close()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    # ---- one line, and what comes of it --------------------------------------------------------------------------

    def _exchange(self, line: bytes) -> None:
        left = memoryview(line)
        printed = 0
        begun, used = time.monotonic(), self._cpu_seconds()
        while self._process is not None:
            if left:
                try:
                    left = left[os.write(self._stdin, left) :]
                except BlockingIOError:
                    pass
                except BrokenPipeError:
                    left = left[:0]  # that it has ended is seen at its standard output
            at_rest = not left and self._is_at_rest()
            said = self._read()
            if said is None:
                if at_rest:
                    self._has_read = True
                    return
                select.select([self._stdout], [self._stdin] if left else [], [], _LOOK)
            else:
                printed += len(said)
                self._hear(said)
            if printed > MOST_PRINTED:
                self._end(f"it printed more than {MOST_PRINTED} bytes in answer to one line")
            elif self._cpu_seconds() - used > MOST_CPU:
                self._end(f"it computed for more than {MOST_CPU:g} s over one line")
            elif not self._has_read and self._has_slept(self._init_timeout):
                self._end(f"it did not answer init within {self._init_timeout:g} s, which it has not read")
            elif time.monotonic() - begun > PATIENCE:
                self._end(f"it did not come to rest within {PATIENCE:g} s of a line")

    def _cpu_seconds(self) -> float:
        """What it has used of processors so far; 0 when it is no more."""
        if self._process is None:
            return 0.0
        # proc(5): utime and stime are the 14th and 15th field; two come before the name's closing bracket
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND

    def _read(self) -> bytes | None:
        """What is there of its output; None where there is nothing, empty at its end."""
        try:
            return os.read(self._stdout, _READ)
        except BlockingIOError:
            return None

    def _hear(self, said: bytes) -> None:
        lines = self._reader.feed(said) if said else self._reader.close()
        heard: list[Event] = [Requested(CHILD, line.number, Heard(line.text, line.oversized)) for line in lines]
        if heard:
            self._deliver(heard)
        if not said and self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
            status = self._process.poll()
            words = last_words(Path(f"/proc/self/fd/{self._log.fileno()}"))
            self._end("it closed its standard output" if status is None else how_it_ended(status, words))

    def _end(self, why: str) -> None:
        self.close()
        self._deliver([Requested(CHILD, 0, Ended(why))])

    # ---- is it at rest? ------------------------------------------------------------------------------------------

    def _is_at_rest(self) -> bool:
        unread = int.from_bytes(fcntl.ioctl(self._stdin, termios.FIONREAD, b"\0" * 4), "little")
        return not unread and self._sleeps()

    def _sleeps(self) -> bool:
        # Whoever is the same in both looks slept all the while between them; so at that moment everybody did.
        first = self._threads()
        return first is not None and self._threads() == first

    def _has_slept(self, seconds: float) -> bool:
        """Whether nothing of it has run for so long; who waits for a processor of a busy machine does not sleep."""
        threads, now = self._threads(), time.monotonic()
        if threads is None or threads != self._asleep:
            self._asleep, self._asleep_since = threads, now
        return threads is not None and now - self._asleep_since > seconds

    def _threads(self) -> list[bytes] | None:
        """How often each of its threads has been switched away from; None if one of them does not sleep."""
        switches: list[bytes] = []
        for pid in self._pids():
            with suppress(OSError):  # it has just ended
                for thread in os.listdir(f"/proc/{pid}/task"):
                    task = Path(f"/proc/{pid}/task/{thread}")
                    if _runs(task):
                        return None
                    status = (task / "status").read_bytes()
                    if status.partition(b"State:\t")[2][:1] not in (b"S", b"Z", b"X", b"T"):
                        return None
                    switches.append(thread.encode() + status.partition(b"voluntary_ctxt_switches:")[2])
        return switches

    def _pids(self) -> list[str]:
        """All processes of its session: its own, and those it has started."""
        assert self._process is not None
        there = [name for name in os.listdir("/proc") if name.isdigit()]
        self._known = {pid: self._known[pid] if pid in self._known else self._is_ours(pid) for pid in there}
        return [pid for pid, ours in self._known.items() if ours]

    def _is_ours(self, pid: str) -> bool:
        assert self._process is not None
        try:
            return os.getsid(int(pid)) == self._process.pid
        except OSError:
            return False


def _runs(task: Path) -> bool:
    """Whether a thread is on a processor, or waits for one. One whose state says that it sleeps may still be on its way
    there, and turn back; the kernel tells of this file only what has truly come to rest.
    """
    try:
        return (task / "syscall").read_bytes().startswith(b"running")
    except (FileNotFoundError, PermissionError):
        return False  # it has ended, or this kernel does not say: its state must do


class Pace:
    """Keeps a kernel's time from running ahead of the machine's, for as long as something in it lives by the latter."""

    def __init__(self, kernel: Kernel, listen: Callable[[], None]) -> None:
        self._kernel, self._listen = kernel, listen
        self._begun = time.monotonic_ns() - kernel.now
        self._tick(None)

    def _tick(self, _: None) -> None:
        ahead: Nanoseconds = self._kernel.now - (time.monotonic_ns() - self._begun)
        if ahead > 0:
            time.sleep(ahead / 1e9)
        elif ahead < -SLACK_NS:
            self._begun -= ahead
        self._listen()
        self._kernel.at(self._kernel.now + PACE_NS, self._tick, None)
