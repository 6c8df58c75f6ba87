"""``python -m apps.runtime CONFIG.json``: run one node or client until SIGTERM, or until its work is done.

Exit status, as in sysexits.h: 0 after SIGTERM or a finished workload, 64 for a wrong command line, 65 for a damaged
log or what else a process must not go on with, 70 for a bug, 71 for an address that cannot be had, 73 for files that
cannot be made, 74 when a disk failed, 75 for a log that is in use, 78 for a wrong configuration.

A client reads its standard input: ``start NANOSECONDS`` and ``stop NANOSECONDS``, on the monotonic clock, say when its
operations begin and when no further ones do; the end of the input means stop now. Before it starts it is connected.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from apps.journal import JournalBusy, JournalCorrupt, JournalError, JournalForeign, JournalOutdated
from apps.process import Event, Requested
from apps.runtime.config import Config, ConfigError, read_config
from apps.runtime.driver import CONTROL, Driver
from apps.runtime.kinds import Kind, kind_of
from apps.runtime.trace import TraceExists

if TYPE_CHECKING:
    from apps.workload import Start, Stop

log = logging.getLogger("apps.runtime")

#: Seconds a thread may hold the interpreter while another waits. The disk's thread wants it for microseconds; at the
#: default of 5 ms, a busy loop would make each sync look that much slower.
SWITCH_INTERVAL = 0.0005

_STATUS: list[tuple[type[Exception], int]] = [
    (ConfigError, os.EX_CONFIG),
    (JournalCorrupt, os.EX_DATAERR),
    (JournalForeign, os.EX_CONFIG),
    (JournalOutdated, os.EX_CONFIG),
    (JournalBusy, os.EX_TEMPFAIL),
    (JournalError, os.EX_IOERR),
    (TraceExists, os.EX_CANTCREAT),
]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m apps.runtime CONFIG.json", file=sys.stderr)
        return os.EX_USAGE
    logging.basicConfig(format="%(asctime)s.%(msecs)03d %(levelname)s %(message)s", datefmt="%H:%M:%S")
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        config = read_config(Path(arguments[0]))
        kind = kind_of(config)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(config, kind))
    except tuple(error for error, _ in _STATUS) as error:
        print(error, file=sys.stderr)
        return next(status for kind_of_error, status in _STATUS if isinstance(error, kind_of_error))


async def _run(config: Config, kind: Kind) -> int:
    try:
        driver = Driver(config, kind)
    except OSError as error:
        print(f"{error.filename}: cannot be made: {error.strerror}", file=sys.stderr)
        return os.EX_CANTCREAT
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, driver.stop, os.EX_OK)
    # What is there now stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    try:
        await driver.start()
        if kind.client:
            threading.Thread(target=_read_control, args=(loop, driver), name="control", daemon=True).start()
        return await driver.finished
    except OSError as error:
        print(f"listen: {config.listen} cannot be had: {error.strerror}", file=sys.stderr)
        return os.EX_OSERR
    finally:
        await driver.close()


def _read_control(loop: asyncio.AbstractEventLoop, driver: Driver) -> None:
    """Hand what is read from standard input to the process. A thread, since not every input can be polled."""
    from apps.workload import Start, Stop

    words: dict[str, Callable[[int], Start | Stop]] = {"start": Start, "stop": Stop}

    def tell(request: int, command: Start | Stop) -> None:
        events: list[Event] = [Requested(CONTROL, request, command)]
        loop.call_soon_threadsafe(driver.deliver, events)

    request = 0
    for request, line in enumerate(sys.stdin, start=1):
        word, _, moment = line.strip().partition(" ")
        if word not in words or not moment.isdigit():
            log.error("standard input: %r; 'start NANOSECONDS' or 'stop NANOSECONDS' was expected", line.rstrip("\n"))
            loop.call_soon_threadsafe(driver.stop, os.EX_USAGE)
            return
        tell(request, words[word](int(moment)))
    tell(request + 1, Stop(0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
