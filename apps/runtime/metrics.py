"""How well the machine served a process: once a second, a line of figures in ``metrics.ndjson``.

A loop that wakes late runs timers late and reads its sockets late; a run in which that happened is about the machine,
not about the protocol. So it is measured, by a timer that ought to fire every `TICK` seconds. The loop counts in
milliseconds: up to one of them is its own doing.

Keys: ``t`` (monotonic ns), ``incarnation``; for the second that ended, in ns, ``loop_lag_p50``, ``loop_lag_p99``,
``loop_lag_max``, ``sync_p50``, ``sync_p99``, ``sync_max`` (0 without any), and their number ``syncs``; since the start
``cpu`` (ns of processor time), ``steps``, ``events``, ``bytes_in``, ``bytes_out``, ``frames_in``, ``frames_out``,
``dropped`` (messages without a way to their receiver), ``dials``, ``rejected`` (connections, by reason and by peer);
and ``rss_bytes`` now.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

log = logging.getLogger("apps.runtime")

TICK = 0.02
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Monitor:
    """Measures the running loop from its creation on. ``figures()``: the rest of a line, and the syncs' latencies."""

    def __init__(
        self, path: Path, incarnation: int, figures: Callable[[], tuple[Mapping[str, Any], list[int]]]
    ) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._incarnation, self._figures = incarnation, figures
        self._loop = asyncio.get_running_loop()
        self._lags: list[int] = []
        self._schedule()

    def close(self) -> None:
        """Write the last, shorter second."""
        self._timer.cancel()
        self._write(time.monotonic_ns())
        os.close(self._fd)
        os.close(self._statm)

    def _schedule(self) -> None:
        self._due = time.monotonic_ns() + int(TICK * 1e9)
        self._timer = self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        now = time.monotonic_ns()
        self._lags.append(max(0, now - self._due))
        if len(self._lags) >= 1 / TICK:
            self._write(now)
        self._schedule()

    def _write(self, now: int) -> None:
        figures, syncs = self._figures()
        line = {
            "t": now,
            "incarnation": self._incarnation,
            **_summary("loop_lag", self._lags),
            **_summary("sync", syncs),
            "syncs": len(syncs),
            "cpu": time.process_time_ns(),
            "rss_bytes": int(os.pread(self._statm, 100, 0).split()[1]) * _PAGE,
            **figures,
        }
        self._lags = []
        try:
            os.write(self._fd, msgspec.json.encode(line) + b"\n")
        except OSError as error:
            log.warning("%s: a line of figures is lost: %s", self._path, error.strerror)


def _summary(name: str, values: list[int]) -> dict[str, int]:
    ordered = sorted(values) or [0]
    last = len(ordered) - 1
    return {f"{name}_p50": ordered[last // 2], f"{name}_p99": ordered[last * 99 // 100], f"{name}_max": ordered[last]}
