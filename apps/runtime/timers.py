"""The named timers of a process: at most one deadline a name."""

from __future__ import annotations

from collections.abc import Iterator

from apps.process import Nanoseconds


class Timers:
    def __init__(self) -> None:
        self._deadlines: dict[str, Nanoseconds] = {}

    def set(self, name: str, deadline: Nanoseconds) -> None:
        self._deadlines[name] = deadline

    def cancel(self, name: str) -> None:
        self._deadlines.pop(name, None)

    @property
    def next(self) -> Nanoseconds | None:
        """The earliest deadline."""
        return min(self._deadlines.values(), default=None)

    def due(self, now: Nanoseconds) -> Iterator[str]:
        """Take out those whose deadline has come, earliest first, one at a time.

        What is handled between two may set or cancel others; one that is set is due again at ``now`` only if it was
        not yet taken out, so that a process that sets a timer to fire at once does not keep its driver here for ever.
        """
        waiting = sorted((deadline, name) for name, deadline in self._deadlines.items() if deadline <= now)
        for deadline, name in waiting:
            if self._deadlines.get(name) == deadline:
                del self._deadlines[name]
                yield name
