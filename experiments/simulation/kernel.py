"""Virtual time: one heap of what is to happen, and an asyncio loop whose clock it is.

Time is integer nanoseconds and moves only from one event to the next. What is due at the same nanosecond happens in the
order in which it was asked for, so nothing depends on hashing, addresses or the machine.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import selectors
from collections.abc import Callable, Mapping
from typing import Any

from apps.process import Nanoseconds

#: The time of day when virtual time begins, for whoever looks: 2000-01-01, in nanoseconds since 1970.
DAY_NS: Nanoseconds = 946_684_800 * 1_000_000_000


class Kernel:
    """The heap. ``now`` is the present, ``events`` counts what has happened so far."""

    def __init__(self) -> None:
        self.now: Nanoseconds = 0
        self.events = 0
        self._serial = 0
        self._heap: list[tuple[Nanoseconds, int, Callable[[Any], None], Any]] = []

    def at(self, moment: Nanoseconds, action: Callable[[Any], None], argument: Any) -> int:
        """Call ``action(argument)`` at ``moment``, which is not before now; returns a number that no other call got.

        There is no way to take it back: whoever no longer wants it lets it find that out when it happens.
        """
        self._serial += 1
        heapq.heappush(self._heap, (moment, self._serial, action, argument))
        return self._serial

    def run(self, until: Nanoseconds) -> None:
        """Let everything happen that is due up to ``until``, and make that the present."""
        heap, pop = self._heap, heapq.heappop
        happened = 0
        try:
            while heap and heap[0][0] <= until:
                self.now, _, action, argument = pop(heap)
                happened += 1
                action(argument)
        finally:
            self.events += happened
        self.now = until


class Loop(asyncio.SelectorEventLoop):
    """An asyncio loop in which time passes as a `Kernel` says: who sleeps an hour wakes at once, an hour later.

    For what drives a simulation from outside, such as the schedule of faults, which is the same code on the fabric.
    """

    def __init__(self) -> None:
        self.kernel = Kernel()
        super().__init__(_Waiting(self.kernel))

    def time(self) -> float:
        """Seconds of virtual time."""
        return self.kernel.now / 1e9


class _Waiting(selectors.BaseSelector):
    """What the loop waits with: instead of blocking, it runs the kernel. No file is ever ready."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits for something that will never happen")
        if timeout > 0:
            self._kernel.run(self._kernel.now + max(1, math.ceil(timeout * 1e9 - 0.5)))
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}
