"""Group commit: a thread that makes durable whatever has been asked for while its last sync was under way."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from apps.journal import Journal

_Job = tuple[int, Sequence[Any], bool]


class Disk:
    """The durable log as the event loop sees it.

    ``done(token)`` is called in the loop when all records up to that token are on disk; one call may stand for many.
    ``failed(error)`` is called once instead, if ever, with a `JournalError` or what a bug raised, and nothing more is
    written.
    """

    def __init__(self, journal: Journal[Any], done: Callable[[int], None], failed: Callable[[Exception], None]) -> None:
        self._journal, self._done, self._failed = journal, done, failed
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        #: Nanoseconds each write with its sync took, since somebody last emptied it.
        self.latencies: list[int] = []
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)
        self._thread.start()

    def persist(self, token: int, records: Sequence[Any], *, anew: bool = False) -> None:
        """``anew``: in the place of everything before."""
        self._jobs.put((token, records, anew))

    def close(self) -> None:
        """Finish what was asked for, then close the log. ``done`` may still be called."""
        self._jobs.put(None)
        self._thread.join()
        self._journal.close()

    def _run(self) -> None:
        jobs = self._jobs
        while (job := jobs.get()) is not None:
            token, records, anew = job
            if not jobs.empty():
                records = list(records)
                while not jobs.empty():
                    if (job := jobs.get()) is None:
                        jobs.put(None)
                        break
                    token, more, replaces = job
                    if replaces:
                        records, anew = [], True
                    records += more
            began = time.monotonic_ns()
            try:
                self._journal.commit(records, anew=anew)
            except Exception as error:
                self._loop.call_soon_threadsafe(self._failed, error)
                return
            self.latencies.append(time.monotonic_ns() - began)
            self._loop.call_soon_threadsafe(self._done, token)
