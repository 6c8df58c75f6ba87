"""What a leader knows of one follower, when it may send it more, and when it may give it a vote."""

from __future__ import annotations

from collections import deque

from apps.process import Nanoseconds


class Progress:
    """``match``: the last entry known to be on the follower's disk. ``next``: the first one to send it.

    It starts *probing*: where the two logs part is a guess, so one `Append` is sent and its answer awaited. Once that
    is found it *streams*: ``next`` runs ahead of the answers, up to a window of ``max_inflight`` messages.
    ``heard``: when the follower last answered anything. ``round``: the last heartbeat round it answered.
    """

    __slots__ = ("_awaiting", "_inflight", "_match_before", "heard", "match", "next", "round", "streaming")

    def __init__(self, next_index: int, now: Nanoseconds) -> None:
        self.match = 0
        self.next = next_index
        self.heard = now
        self.round = 0
        self.streaming = False
        self._awaiting = False
        self._match_before = 0
        self._inflight: deque[int] = deque()

    def may_send(self, max_inflight: int) -> bool:
        return len(self._inflight) < max_inflight if self.streaming else not self._awaiting

    def sent(self, last: int) -> None:
        """An `Append` that ends with entry ``last`` is on its way."""
        if self.streaming:
            self._inflight.append(last)
            self.next = last + 1
        else:
            self._awaiting = True

    def accepted(self, match: int) -> None:
        """The follower has everything up to ``match``. That it was asked before, or out of order, does no harm."""
        self.match = max(self.match, match)
        if self.streaming:
            self.next = max(self.next, self.match + 1)
        else:
            self._restart(streaming=True)
            self.next = self.match + 1
        while self._inflight and self._inflight[0] <= match:
            self._inflight.popleft()

    def rejected(self, previous_index: int, agreeing: int) -> None:
        """The follower lacks ``previous_index`` and may agree up to ``agreeing``. Old news changes nothing."""
        if previous_index <= self.match:
            return
        if self.streaming:
            # Something before it was lost on the way; the disk still holds what it said it does.
            self.next = self.match + 1
        elif previous_index == self.next - 1:
            self.next = max(agreeing, self.match) + 1
        else:
            return
        self._restart(streaming=False)

    def answered_heartbeat(self) -> bool:
        """It is there: if the probe was lost, the next one may go. Returns whether it had to wait for that."""
        awaited, self._awaiting = self._awaiting, False
        return awaited

    def has_stalled(self) -> bool:
        """Whether nothing of what is in flight was answered since this was asked last: it may be lost."""
        stalled = self.streaming and self.match == self._match_before and self.match < self.next - 1
        self._match_before = self.match
        return stalled

    def _restart(self, *, streaming: bool) -> None:
        self.streaming = streaming
        self._awaiting = False
        self._inflight.clear()


#: In so many rounds a node that can keep up at all is near the end of the log (thesis §4.2.1).
MOST_ROUNDS = 10


class CatchUp:
    """How a node comes near the end of the log before it is given a vote, in rounds (thesis §4.2.1).

    A round is over when the node has on its disk what was in the log when the round began. ``is_near``: one took no
    longer than an election timeout, and so will what is left. ``has_failed``: it never comes near.
    """

    def __init__(self, last: int, now: Nanoseconds) -> None:
        self.rounds = 0
        self.is_near = False
        self._target = last
        self._began = now

    @property
    def has_failed(self) -> bool:
        return not self.is_near and self.rounds >= MOST_ROUNDS

    def update(self, match: int, last: int, now: Nanoseconds, election_timeout: Nanoseconds) -> None:
        """The node has come as far as ``match``, the log ends at ``last``."""
        if self.is_near or match < self._target:
            return
        self.rounds += 1
        self.is_near = now - self._began <= election_timeout
        self._target, self._began = last, now
