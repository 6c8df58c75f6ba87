"""A node's log as it stands in memory. It knows terms and positions, not who leads or what is committed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter

from apps.raft.messages import Entry

_TERM = attrgetter("term")


class Log:
    """Entries at positions 1 to `last`, their terms never falling. Position 0 stands before the first, in term 0."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    @property
    def last(self) -> int:
        return len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else 0

    def term(self, index: int) -> int | None:
        """The term of the entry at ``index``, ``None`` when there is no such entry."""
        if index == 0:
            return 0
        return self._entries[index - 1].term if index <= len(self._entries) else None

    def slice(self, first: int, last: int) -> list[Entry]:
        """The entries from ``first`` to ``last``, both included."""
        return self._entries[first - 1 : last]

    def extend(self, entries: Sequence[Entry]) -> None:
        """Put ``entries`` behind the last one."""
        self._entries += entries

    def truncate(self, first: int) -> None:
        """Remove the entries from ``first`` on."""
        del self._entries[first - 1 :]

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as up to date as this one (paper §5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last)

    def held(self, entries: Sequence[Entry]) -> int:
        """How many of ``entries``, from their start, are here already with the same terms."""
        if not entries or entries[0].index > len(self._entries):
            return 0
        here = self._entries[entries[0].index - 1 : entries[-1].index]
        for count, (mine, other) in enumerate(zip(here, entries, strict=False)):
            if mine.term != other.term:
                return count
        return len(here)

    def last_agreeing(self, index: int, term: int) -> tuple[int, int]:
        """The last position up to ``index`` whose term is ``term`` or before, and its term.

        Two logs with their terms never falling cannot agree beyond it if one of them has ``term`` at ``index``: both
        sides skip whole terms with it instead of stepping back an entry a round trip (paper, end of §5.3).
        """
        found = bisect_right(self._entries, term, hi=min(index, len(self._entries)), key=_TERM)
        return found, self._entries[found - 1].term if found else 0
