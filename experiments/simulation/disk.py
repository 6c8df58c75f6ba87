"""A node's durable log in virtual time: group commit as in `apps.runtime.disk`, and what a crash leaves of it.

A record is kept whole or not at all: one that was torn by a crash is recognised by its checksum and cut off when the
log is read again (`apps.journal`, whose tests tear it at every byte), and so is the same as one that was never written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

from apps.process import Nanoseconds
from experiments.simulation.kernel import Kernel
from experiments.simulation.sampling import STEPS, quantile_table

#: How long a write with its sync takes: `sync_*` in the nodes' metrics.ndjson of runs on the fabric, on two busy cores
#: and a virtual disk (median 0.5 ms, 99 % within 4 ms), and the way to the disk's thread and back.
SYNC = quantile_table(
    [
        (0.0, 250_000),
        (0.5, 800_000),
        (0.9, 2_000_000),
        (0.99, 5_000_000),
        (0.999, 20_000_000),
        (1.0, 60_000_000),
    ]
)


class _Write(NamedTuple):
    token: int
    records: Sequence[Any]
    anew: bool

    def parts(self) -> list[_Write]:
        """What of it can be on disk without the rest."""
        return [self] if self.anew else [_Write(self.token, (record,), False) for record in self.records]


class Disk:
    """Outlives the incarnations of its node.

    ``records``: what is durable, oldest first. ``slowness`` multiplies the time of every sync. ``full``: the next write
    fails, and with it the node that asked for it, as one on a real disk does.
    """

    def __init__(self, kernel: Kernel, random: Random) -> None:
        self.records: list[Any] = []
        self.slowness = 1.0
        self.full = False
        self._kernel, self._random = kernel, random
        self._waiting: list[_Write] = []
        self._writing: list[_Write] = []
        self._incarnation = 0
        self._done: Callable[[int], None]
        self._failed: Callable[[], None]

    def open(self, done: Callable[[int], None], failed: Callable[[], None]) -> list[Any]:
        """Begin an incarnation: ``done(token)`` is called when all records up to it are durable, ``failed()`` when
        they cannot be. Returns what is there."""
        self._done, self._failed = done, failed
        return list(self.records)

    def persist(self, token: int, records: Sequence[Any], *, anew: bool = False) -> None:
        """``anew``: in the place of everything before, all at once."""
        self._waiting.append(_Write(token, records, anew))
        if not self._writing:
            self._write()

    def crash(self) -> None:
        """The node dies: of what was being written some beginning is there, drawn at random; of what waited, nothing.

        What had been confirmed stays.
        """
        unsynced = [part for write in self._writing for part in write.parts()]
        self._keep(unsynced[: int(self._random.random() * (len(unsynced) + 1))])
        self._writing, self._waiting = [], []
        self._incarnation += 1

    def _write(self) -> None:
        """Write and sync all that waits, with one sync."""
        if self.full:
            self._failed()
            return
        self._writing, self._waiting = self._waiting, []
        took: Nanoseconds = int(SYNC[int(self._random.random() * STEPS)] * self.slowness)
        self._kernel.at(self._kernel.now + took, self._written, self._incarnation)

    def _written(self, incarnation: int) -> None:
        if incarnation != self._incarnation:
            return
        written, self._writing = self._writing, []
        self._keep(written)
        self._done(written[-1].token)
        if self._waiting:
            self._write()

    def _keep(self, writes: Sequence[_Write]) -> None:
        for write in writes:
            if write.anew:
                self.records = []
            self.records += write.records
