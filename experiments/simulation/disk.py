"""A node's durable log in virtual time: group commit as in `apps.runtime.disk`, and what a crash or decay leave of it.

What is damaged is judged by `apps.journal` itself: the bytes that its log would have are made, some of them are lost or
changed, and they are read again as after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec

from apps.journal import DamageError, JournalCorrupt, SegmentHeader, read_segment, segment_header, segment_image
from apps.process import Nanoseconds
from experiments.simulation.kernel import Kernel
from experiments.simulation.sampling import STEPS, quantile_table

#: How long a write with its sync takes: `sync_*` in the nodes' metrics.ndjson of runs on the fabric, on a virtual disk
#: (median 0.35 ms, 99 % within 1 ms, now and then one of tens of milliseconds), and the way to the disk's thread and
#: back. Fitted (docs/simulator.md).
SYNC = quantile_table(
    [
        (0.0, 300_000),
        (0.5, 950_000),
        (0.9, 1_450_000),
        (0.99, 2_500_000),
        (0.999, 20_000_000),
        (1.0, 60_000_000),
    ]
)

#: What a disk writes whole or not at all, in bytes.
SECTOR = 512

_encode = msgspec.msgpack.Encoder().encode


class _Write(NamedTuple):
    token: int
    records: Sequence[Any]
    anew: bool


class Disk:
    """Outlives the incarnations of its node, ``owner``.

    ``slowness`` multiplies the time of every sync. ``full``: the next write fails, and with it the node that asked for
    it, as one on a real disk does.
    """

    def __init__(self, kernel: Kernel, random: Random, owner: str = "n1") -> None:
        self.slowness = 1.0
        self.full = False
        self._kernel, self._random = kernel, random
        self._header = SegmentHeader("simulated", owner, 0, 0)
        self._batches: list[list[Any]] = []  # durable, each with one sync, oldest first
        self._damage: DamageError | None = None
        self._waiting: list[_Write] = []
        self._writing: list[_Write] = []
        self._incarnation = 0
        self._done: Callable[[int], None]
        self._failed: Callable[[], None]

    @property
    def records(self) -> list[Any]:
        """What is durable, oldest first."""
        return [record for batch in self._batches for record in batch]

    def open(self, done: Callable[[int], None], failed: Callable[[], None]) -> list[Any]:
        """Begin an incarnation: ``done(token)`` is called when all records up to it are durable, ``failed()`` when
        they cannot be. Returns what is there. Raises `JournalCorrupt` where what was durable is not what it was.
        """
        if self._damage is not None:
            where = Path(f"nodes/{self._header.node}/data/{self._header.number:010d}.seg")
            raise JournalCorrupt(where, self._damage.offset, self._damage.reason)
        self._done, self._failed = done, failed
        return self.records

    def persist(self, token: int, records: Sequence[Any], *, anew: bool = False) -> None:
        """``anew``: in the place of everything before, all at once."""
        self._waiting.append(_Write(token, records, anew))
        if not self._writing:
            self._write()

    def crash(self) -> None:
        """The node dies. What had been confirmed stays; what waited is lost.

        Of what was being written either some sectors are on disk, and the log is read again: it is there whole or cut
        off. Or some records of its beginning are, which our log does not do, but `apps.process` lets any.
        """
        writing, self._writing, self._waiting = self._writing, [], []
        self._incarnation += 1
        if not writing:
            return
        draw = self._random.random
        begun = any(write.anew for write in writing)
        if begun or draw() < 0.5:
            if draw() < 0.5 if begun else self._survives(_joined(writing)):
                self._keep(writing)
        else:
            records = _joined(writing)
            self._keep([_Write(0, records[: int(draw() * (len(records) + 1))], False)])

    def flip(self) -> str:
        """One bit of the log changes while no node has it open. Returns what will be found of that."""
        data = segment_image(self._header, map(_encode, self._batches))
        at = int(self._random.random() * len(data) * 8)
        data[at // 8] ^= 1 << at % 8
        try:
            sound = len(read_segment(memoryview(data)).batches)
        except DamageError as damage:
            self._damage = damage
            return f"byte {at // 8} of {len(data)}: {damage.reason}"
        lost = len(self._batches) - sound
        del self._batches[sound:]
        return f"byte {at // 8} of {len(data)}: " + (f"{lost} batches are cut off" if lost else "nothing depends on it")

    def _survives(self, records: Sequence[Any]) -> bool:
        """Whether a batch that was being written is there when the log is read, some of its sectors being unwritten."""
        draw = self._random.random
        data = segment_image(self._header, [_encode(records)])
        begin = len(segment_header(self._header))
        written = draw()
        for edge in range(begin // SECTOR * SECTOR, len(data), SECTOR):
            if draw() >= written:
                start, end = max(begin, edge), min(len(data), edge + SECTOR)
                data[start:end] = bytes(end - start)
        if draw() < 0.5:  # the file had not grown to its new length
            del data[begin + int(draw() * (len(data) - begin + 1)) :]
        return bool(read_segment(memoryview(data)).batches)

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
        """One batch more, or a first one if any of ``writes`` begins the log anew."""
        if any(write.anew for write in writes):
            self._batches = []
        if records := _joined(writes):
            self._batches.append(records)


def _joined(writes: Sequence[_Write]) -> list[Any]:
    """The records of all ``writes``, from the last that begins anew on."""
    records: list[Any] = []
    for write in writes:
        if write.anew:
            records = []
        records += write.records
    return records
