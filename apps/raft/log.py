"""A node's log as it stands in memory. It knows terms and positions, not who leads or what is committed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter

from apps.raft.messages import Entry

_TERM = attrgetter("term")


class Log:
    """Entries at positions `base` + 1 to `last`, their terms never falling.

    Those up to `base` were there and are gone, since a snapshot stands for them (paper §7); of the last of them the
    term is still known. Position 0 stands before the first of all, in term 0.
    """

    __slots__ = ("_entries", "base", "base_term")

    def __init__(self) -> None:
        self.base = 0
        self.base_term = 0
        self._entries: list[Entry] = []

    @property
    def last(self) -> int:
        return self.base + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.base_term

    def term(self, index: int) -> int | None:
        """The term of the entry at ``index``, ``None`` when there is no such entry or it is gone."""
        at = index - self.base
        if at <= 0:
            return self.base_term if at == 0 else None
        return self._entries[at - 1].term if at <= len(self._entries) else None

    def slice(self, first: int, last: int) -> list[Entry]:
        """The entries from ``first`` to ``last``, both included, as far as they are here."""
        return self._entries[max(first - 1 - self.base, 0) : max(last - self.base, 0)]

    def extend(self, entries: Sequence[Entry]) -> None:
        """Put ``entries`` behind the last one."""
        self._entries += entries

    def truncate(self, first: int) -> None:
        """Remove the entries from ``first`` on."""
        del self._entries[first - 1 - self.base :]

    def compact(self, base: int) -> None:
        """Let go of the entries up to ``base``, which is here."""
        term = self.term(base)
        assert term is not None
        del self._entries[: base - self.base]
        self.base, self.base_term = base, term

    def restart(self, base: int, term: int) -> None:
        """Begin again, empty, behind position ``base`` of ``term``."""
        self.base, self.base_term = base, term
        self._entries.clear()

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as up to date as this one (paper §5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last)

    def held(self, entries: Sequence[Entry]) -> int:
        """How many of ``entries``, from their start, are here already with the same terms.

        The first of them is not gone.
        """
        if not entries or entries[0].index > self.last:
            return 0
        here = self.slice(entries[0].index, entries[-1].index)
        for count, (mine, other) in enumerate(zip(here, entries, strict=False)):
            if mine.term != other.term:
                return count
        return len(here)

    def last_agreeing(self, index: int, term: int) -> tuple[int, int]:
        """The last position up to ``index`` whose term is ``term`` or before, and its term.

        Two logs with their terms never falling cannot agree beyond it if one of them has ``term`` at ``index``: both
        sides skip whole terms with it instead of stepping back an entry a round trip (paper, end of §5.3). Of the
        terms of what is gone nothing is known, so there it steps over one entry: whoever needs that needs the snapshot.
        """
        here = min(max(index - self.base, 0), len(self._entries))
        found = bisect_right(self._entries, term, hi=here, key=_TERM)
        if found:
            return self.base + found, self._entries[found - 1].term
        if self.base_term > term:
            return min(index, self.base - 1), term
        return min(index, self.base), self.base_term
