"""Heartbeats from everybody to everybody, and a patience that decides when a silence has lasted too long.

The patience is a value of its own, so a fixed timeout and φ-accrual are compared with everything else alike. A silent
member is `FAILED` until it is heard again: there is no gossip, so every member judges by its own ears alone, and two
may judge differently for as long as the network treats them differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from apps.detectors import trace
from apps.detectors.settings import DetectorConfigError, above_zero
from apps.detectors.trace import Standing
from apps.process import Effect, Event, Nanoseconds, NodeId, Received, Send, SetTimer, Started, TimerFired, Trace

MILLISECOND = 1_000_000
_BEAT = "beat"
_SILENCE = "silence "


class Beat(msgspec.Struct, frozen=True, array_like=True, tag="h", gc=False):
    """I am here. ``since``: when the sender's incarnation started, on its own clock; ``number`` counts from 1.

    Together they rise, so that a copy or a straggler is not taken for news.
    """

    since: Nanoseconds
    number: int


class HeartbeatConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``interval``: between two heartbeats. ``timeout``: the silence after which `FixedTimeout` gives a member up.

    Raises `DetectorConfigError` when healthy members would be given up.
    """

    interval: Nanoseconds = 100 * MILLISECOND
    timeout: Nanoseconds = 500 * MILLISECOND

    def __post_init__(self) -> None:
        above_zero(self, "interval")
        if self.timeout <= self.interval:
            raise DetectorConfigError(
                f"timeout is {self.timeout} ns; it must be longer than the interval of {self.interval} ns, "
                "or members are given up between any two of their heartbeats"
            )


class Patience(Protocol):
    """How long one peer may be silent."""

    def heard(self, now: Nanoseconds, *, regular: bool) -> None:
        """A heartbeat arrived. ``regular``: the time since the one before says how they usually come."""
        ...

    def limit(self) -> Nanoseconds:
        """For how long from the last heartbeat, or from the start, silence proves nothing."""
        ...


class FixedTimeout:
    """The same limit whatever is observed."""

    def __init__(self, timeout: Nanoseconds) -> None:
        self._timeout = timeout

    def heard(self, now: Nanoseconds, *, regular: bool) -> None:
        pass

    def limit(self) -> Nanoseconds:
        return self._timeout


class Heartbeats:
    """One member of a group whose members all beat every ``interval``. ``patience`` makes one value for each peer.

    ``standing(member)`` is what it takes a member for now. Raises `ValueError` for members that cannot be a group.
    """

    Message: TypeAlias = Beat

    def __init__(
        self, node: NodeId, members: Sequence[NodeId], interval: Nanoseconds, patience: Callable[[], Patience]
    ) -> None:
        if node not in members or len(set(members)) != len(members):
            raise ValueError(f"members {list(members)} must name each once, {node!r} among them")
        self.node = node
        self._interval = interval
        self._peers = {peer: patience() for peer in members if peer != node}
        self._last: dict[NodeId, tuple[Nanoseconds, int]] = {}
        self._heard_at: dict[NodeId, Nanoseconds] = {}
        self._failed: set[NodeId] = set()
        self._since: Nanoseconds = 0
        self._number = 0
        self._received = 0

    def standing(self, member: NodeId) -> Standing:
        return Standing.FAILED if member in self._failed else Standing.ALIVE

    @property
    def peers(self) -> tuple[NodeId, ...]:
        return tuple(self._peers)

    def silence(self, now: Nanoseconds, member: NodeId) -> Nanoseconds:
        """For how long nothing new has come from a peer, or since the start, if nothing ever came."""
        return now - self._heard_at.get(member, self._since)

    def limit(self, member: NodeId) -> Nanoseconds:
        """The silence after which a peer is given up, as things are."""
        return self._peers[member].limit()

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        match event:
            case Received(sender, message) if sender in self._peers:
                return self._heard(now, sender, message)
            case TimerFired(timer) if timer == _BEAT:
                return self._beat()
            case TimerFired(timer):
                return self._on_silence(now, timer.removeprefix(_SILENCE))
            case Started():
                self._since = now
                waits: list[Effect] = [SetTimer(_SILENCE + peer, p.limit()) for peer, p in self._peers.items()]
                return waits + self._beat()
        return []

    def _beat(self) -> list[Effect]:
        self._number += 1
        beat = Beat(self._since, self._number)
        effects: list[Effect] = [SetTimer(_BEAT, self._interval)]
        effects += [Send(peer, beat) for peer in self._peers]
        if self._number % trace.REPORT_EVERY == 0:
            effects.append(Trace(trace.Load(self._number * len(self._peers), self._received)))
        return effects

    def _heard(self, now: Nanoseconds, sender: NodeId, beat: Beat) -> list[Effect]:
        self._received += 1
        since, number = self._last.get(sender, (-1, 0))
        if (beat.since, beat.number) <= (since, number):
            return []
        self._last[sender] = beat.since, beat.number
        self._heard_at[sender] = now
        patience = self._peers[sender]
        # An outage is not how heartbeats usually come: it must not buy the next one more time.
        patience.heard(now, regular=beat.since == since and sender not in self._failed)
        return [SetTimer(_SILENCE + sender, patience.limit()), *self._judge(sender, Standing.ALIVE)]

    def _on_silence(self, now: Nanoseconds, member: NodeId) -> list[Effect]:
        silence, limit = self.silence(now, member), self.limit(member)
        if silence < limit:  # the clock has slowed down since the timer was set
            return [SetTimer(_SILENCE + member, limit - silence)]
        return self._judge(member, Standing.FAILED, silence)

    def _judge(self, member: NodeId, standing: Standing, after: Nanoseconds | None = None) -> list[Effect]:
        if self.standing(member) is standing:
            return []
        if standing is Standing.FAILED:
            self._failed.add(member)
        else:
            self._failed.remove(member)
        return [Trace(trace.believed(member, standing, after=after))]
