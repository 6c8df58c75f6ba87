"""One member, coordinator or worker, as a `Process`; the package's docs say what it promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from apps.failover import messages, trace
from apps.failover.assignment import assign
from apps.failover.messages import Beat, Grant
from apps.process import Effect, Event, Nanoseconds, NodeId, Received, Send, SetTimer, Started, TimerFired, Trace

MILLISECOND = 1_000_000

_BEAT, _TICK, _LEASE = "beat", "tick", "lease"


class FailoverConfigError(ValueError):
    """A configuration that cannot work; the message names the setting and what it must be."""


class FailoverConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``shards``: how many parts the work has. ``interval``: between two beats of a worker. ``lease``: how long a
    worker may serve after the beat that was answered, and how long a silent one is not yet taken for failed.
    ``drift``: by which share clocks may differ in rate. ``ramp``: from when a worker is back until it has its full
    weight, beginning at ``first_weight``. ``virtual_nodes``: places of a worker of full weight on the ring.
    Raises `FailoverConfigError`.
    """

    shards: int = 64
    interval: Nanoseconds = 100 * MILLISECOND
    lease: Nanoseconds = 500 * MILLISECOND
    drift: float = 0.1
    ramp: Nanoseconds = 5_000 * MILLISECOND
    first_weight: float = 0.1
    virtual_nodes: int = 64

    def __post_init__(self) -> None:
        for name in ("shards", "interval", "lease", "virtual_nodes"):
            if getattr(self, name) < 1:
                raise FailoverConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.lease < 2 * self.interval:
            raise FailoverConfigError(
                f"lease is {self.lease} ns; it must be twice the interval of {self.interval} ns or longer, or a worker "
                "stops serving between any two of its beats"
            )
        if self.ramp < 0 or not 0 < self.first_weight <= 1 or not 0 <= self.drift < 1:
            raise FailoverConfigError("ramp must not be negative, first_weight in (0, 1], and drift in [0, 1)")


class _Worker:
    """What the coordinator knows of one worker. ``beat``: the last one, heard at ``heard`` by the coordinator's clock.

    ``shards``: what it may be serving, each with the last grant that had it; ``until``: when all that must be over.
    ``back_at``: since when it is there, None while it is taken for failed.
    """

    def __init__(self) -> None:
        self.beat: tuple[Nanoseconds, Nanoseconds] = (-1, -1)
        self.heard: Nanoseconds = 0
        self.back_at: Nanoseconds | None = None
        self.weight = 0.0
        self.shards: dict[int, int] = {}
        self.until: Nanoseconds = 0


class Failover:
    """``nodes``: all, the same on each; the first of them coordinates, the others work.

    ``serving(now)`` is what a worker may serve. Raises `ValueError` for nodes that cannot be a group.
    """

    Message: TypeAlias = messages.Message

    def __init__(self, node: NodeId, nodes: Sequence[NodeId], config: FailoverConfig) -> None:
        if node not in nodes or len(set(nodes)) != len(nodes) or len(nodes) < 2:
            raise ValueError(f"nodes {list(nodes)} must be two or more, each named once, {node!r} among them")
        self.node = node
        self._config = config
        self._coordinator = nodes[0]
        self._workers = {worker: _Worker() for worker in nodes[1:]}
        self._since: Nanoseconds = 0
        self._granted = 0
        self._owners: tuple[NodeId, ...] = ()
        self._goes_by: tuple[Nanoseconds, int] = (-1, 0)
        self._shards: tuple[int, ...] = ()
        self._until: Nanoseconds = 0
        self._effects: list[Effect] = []

    def serving(self, now: Nanoseconds) -> tuple[int, ...]:
        """A lease that is over is over, whether its timer has come or not: ask before each piece of work."""
        return self._shards if now < self._until else ()

    @property
    def goes_by(self) -> tuple[Nanoseconds, int]:
        """The last grant that a worker has: when the coordinator's incarnation came up, and its number."""
        return self._goes_by

    def may_serve(self, now: Nanoseconds, worker: NodeId) -> frozenset[int]:
        """What ``worker`` may still be serving, by what its coordinator knows, which this is."""
        known = self._workers[worker]
        return frozenset(known.shards) if now < known.until else frozenset()

    @property
    def since(self) -> Nanoseconds:
        """When this incarnation came up."""
        return self._since

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        effects: list[Effect] = []
        self._effects = effects
        match event:
            case Started():
                self._since = now
                self._on_tick(now) if self.node == self._coordinator else self._beat(now)
            case Received(sender, Beat() as beat) if self.node == self._coordinator and sender in self._workers:
                self._on_beat(now, sender, beat)
            case Received(sender, Grant() as grant) if sender == self._coordinator:
                self._on_grant(now, grant)
            case TimerFired(timer) if timer == _BEAT:
                self._beat(now)
            case TimerFired(timer) if timer == _TICK:
                self._on_tick(now)
            case TimerFired() if now >= self._until:
                self._serve((), 0)
        return effects

    # ---- a worker ------------------------------------------------------------------------------------------------

    def _beat(self, now: Nanoseconds) -> None:
        self._effects.append(SetTimer(_BEAT, self._config.interval))
        self._effects.append(Send(self._coordinator, Beat(self._since, now, self._goes_by)))

    def _on_grant(self, now: Nanoseconds, grant: Grant) -> None:
        # A straggler, or an answer to somebody who had this name before: what it grants may be another's by now.
        if grant.beat_since != self._since or (grant.since, grant.number) <= self._goes_by:
            return
        until = grant.sent + self._config.lease
        if until <= now:
            return
        self._goes_by = grant.since, grant.number
        self._until = until
        self._serve(tuple(grant.shards), until - now)
        self._effects.append(SetTimer(_LEASE, until - now))

    def _serve(self, shards: tuple[int, ...], lasts: Nanoseconds) -> None:
        if shards or self._shards:
            self._effects.append(Trace(trace.Leased(shards, lasts, self._goes_by)))
        self._shards = shards

    # ---- the coordinator -----------------------------------------------------------------------------------------

    def _on_tick(self, now: Nanoseconds) -> None:
        self._effects.append(SetTimer(_TICK, self._config.interval))
        changed = False
        for name, worker in self._workers.items():
            weight = self._weight(now, worker)
            if weight != worker.weight:
                worker.weight, changed = weight, True
                self._effects.append(Trace(trace.Weighed(name, round(weight, 3))))
        if changed:
            present = {name: worker.weight for name, worker in self._workers.items() if worker.weight}
            self._owners = assign(self._config.shards, present, self._config.virtual_nodes)

    def _weight(self, now: Nanoseconds, worker: _Worker) -> float:
        config = self._config
        if worker.back_at is None or now - worker.heard > config.lease:
            worker.back_at = None
            return 0.0
        passed = (now - worker.back_at) / config.ramp if config.ramp else 1.0
        return min(1.0, config.first_weight + (1 - config.first_weight) * passed)

    def _on_beat(self, now: Nanoseconds, sender: NodeId, beat: Beat) -> None:
        worker = self._workers[sender]
        if (beat.since, beat.sent) <= worker.beat:
            return
        if beat.since != worker.beat[0]:
            # Another incarnation: what the one before served, it serves no more, and knows nothing of.
            worker.shards.clear()
            worker.back_at = now
        worker.beat, worker.heard = (beat.since, beat.sent), now
        since, goes_by = beat.goes_by
        if since == self._since:
            worker.shards = {shard: number for shard, number in worker.shards.items() if number >= goes_by}
        if worker.back_at is None:
            worker.back_at = now
        self._grant(now, sender, worker, beat)

    def _grant(self, now: Nanoseconds, sender: NodeId, worker: _Worker, beat: Beat) -> None:
        config = self._config
        if now - self._since < self._must_be_over(config.lease):
            return  # what was granted before this incarnation may still be served
        self._granted += 1
        shards = [
            shard
            for shard, owner in enumerate(self._owners)
            if owner == sender and all(self._is_free(now, shard, other) for other in self._others(sender))
        ]
        worker.shards |= dict.fromkeys(shards, self._granted)
        worker.until = now + self._must_be_over(config.lease)
        self._effects.append(Trace(trace.Granted(sender, shards, (self._since, self._granted))))
        self._effects.append(Send(sender, Grant(self._since, self._granted, beat.since, beat.sent, shards)))

    def _others(self, name: NodeId) -> list[_Worker]:
        return [worker for other, worker in self._workers.items() if other != name]

    def _is_free(self, now: Nanoseconds, shard: int, other: _Worker) -> bool:
        return shard not in other.shards or now >= other.until

    def _must_be_over(self, lease: Nanoseconds) -> Nanoseconds:
        """After how long by this clock another's is at ``lease``, however slowly it runs."""
        return int(lease / (1 - self._config.drift))
