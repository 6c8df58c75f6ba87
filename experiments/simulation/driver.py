"""Runs one process in virtual time, as `apps.runtime.driver` runs it in real time, and keeps the same promises to it.

A step takes processor time, and what comes in meanwhile waits and is handled together in the next one; so a busy leader
batches here as it does on the fabric.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from apps.maelstrom.bridge import CHILD
from apps.process import (
    IDLE,
    CancelTimer,
    Event,
    Nanoseconds,
    NodeId,
    Persist,
    Persisted,
    Process,
    Received,
    Reply,
    Requested,
    Response,
    Send,
    SetTimer,
    Snapshot,
    Started,
    TimerFired,
    Trace,
    WallClock,
)
from experiments.simulation.binary import Binary
from experiments.simulation.disk import Disk
from experiments.simulation.kernel import DAY_NS, Kernel
from experiments.simulation.network import Endpoint

#: The client's name of whoever started this process, as in the runtime.
CONTROL: NodeId = ""

#: Processor time of a step and of each event in it until what it says is on its way: fitted (docs/simulator.md), and
#: four fifths of what `cpu`, `steps` and `events` in the nodes' metrics.ndjson of those runs say of the whole step.
STEP_NS, EVENT_NS = 85_000, 50_000

_MILLISECOND = 1_000_000
_NEVER = 1 << 62


class Clock:
    """A node's two clocks, which one oscillator drives: the monotonic one, and the time of day, which can be set.

    They run ``rate`` times as fast as time does, from a moment on at which they showed what they showed then.
    """

    def __init__(self) -> None:
        self.rate = 1.0
        self._since: Nanoseconds = 0
        self._showed: Nanoseconds = 0
        self._gained: Nanoseconds = 0
        self._skews: dict[int, tuple[Nanoseconds, Nanoseconds, Nanoseconds]] = {}
        self._skewed = 0

    def read(self, now: Nanoseconds) -> Nanoseconds:
        """The monotonic clock."""
        passed = now - self._since
        return self._showed + (passed if self.rate == 1.0 else int(passed * self.rate))

    def set_rate(self, now: Nanoseconds, rate: float) -> None:
        """Run at ``rate`` from ``now`` on. At 1 the time of day is set right, as by NTP; the monotonic clock keeps what
        it has gained or lost.
        """
        self._gained = self._drifted(now)
        self._showed, self._since, self.rate = self.read(now), now, rate

    def wall(self, now: Nanoseconds) -> Nanoseconds:
        """The time of day, in nanoseconds since 1970."""
        shows = DAY_NS + now + self._drifted(now)
        for offset, period, since in self._skews.values():
            if not period or (now - since) // period % 2 == 0:
                shows += offset
        return shows

    def _drifted(self, now: Nanoseconds) -> Nanoseconds:
        if self.rate == 1.0:
            return 0
        return self._gained + (self.read(now) - self._showed) - (now - self._since)

    def skew(self, now: Nanoseconds, offset: Nanoseconds, period: Nanoseconds) -> int:
        """Set the time of day off by ``offset`` until `set_right`; with a ``period``, there and back after each."""
        self._skewed += 1
        self._skews[self._skewed] = offset, period, now
        return self._skewed

    def set_right(self, skew: int) -> None:
        del self._skews[skew]


class Driver:
    """One incarnation of a process.

    ``record(event)`` takes its evidence, ``died(name, why)`` is told when it ends by itself. ``done``: a client has
    answered that its work is over.
    """

    def __init__(
        self,
        kernel: Kernel,
        name: NodeId,
        process: Process,
        endpoint: Endpoint,
        record: Callable[[Any], None],
        died: Callable[[NodeId, str], None],
        disk: Disk | None = None,
        clock: Clock | None = None,
        child: Binary | None = None,
    ) -> None:
        self.name = name
        self.process = process
        self.alive = True
        self.done = False
        self._kernel, self._endpoint, self._died = kernel, endpoint, died
        self._disk, self._clock, self._child = disk, clock, child
        self._wall = clock if getattr(process, "reads_wall_clock", False) else None
        self._inbox: list[Event] = []
        self._due: list[tuple[str, Nanoseconds]] = []
        self._timers: dict[str, Nanoseconds] = {}
        self._free_at: Nanoseconds = 0
        self._awake = False
        self._to_send: dict[NodeId, list[Any]] = {}
        self._to_reply: dict[NodeId, list[Event]] = {}
        self._to_child: list[Any] = []
        self._carry_out: Mapping[type, Callable[[Any], None]] = {
            Trace: lambda effect: record(effect.event),
            Persist: self._persist,
            Snapshot: self._persist,
            Send: self._send,
            Reply: self._reply,
            SetTimer: self._set_timer,
            CancelTimer: self._cancel_timer,
        }

    def start(self) -> None:
        """Hand over what is on the disk, and begin to dial."""
        records: list[Any] = []
        if self._disk is not None:
            records = self._disk.open(
                lambda token: self.deliver([Persisted(token)]), lambda: self.die("its disk is full")
            )
        if self._child is not None:
            self._child.start()
        self.deliver([Started(tuple(records))])
        if self.alive:  # its disk may be full already
            self._endpoint.start(self.deliver)

    def stop(self) -> None:
        """The end, without a word: as by SIGKILL."""
        self.alive = False
        self._inbox.clear()
        self._endpoint.stop()
        if self._disk is not None:
            self._disk.crash()
        if self._child is not None:
            self._child.close()

    def die(self, why: str) -> None:
        self.stop()
        self._died(self.name, why)

    @property
    def is_paused(self) -> bool:
        return self._free_at == _NEVER

    def pause(self) -> None:
        """Take no step until `resume`, as between SIGSTOP and SIGCONT; what comes in waits."""
        self._free_at = _NEVER

    def resume(self) -> None:
        if not self.is_paused:
            return
        self._free_at = self._kernel.now
        if self._inbox or self._due:
            self._wake_at(self._free_at)

    def deliver(self, events: list[Event]) -> None:
        """Events that have come in: handled now, or when the step under way is over."""
        if not self.alive:
            return
        if self._free_at <= self._kernel.now and not self._awake:
            self._step(events)
        else:
            self._inbox += events
            self._wake_at(self._free_at)

    def _wake_at(self, moment: Nanoseconds) -> None:
        if not self._awake and moment < _NEVER:
            self._awake = True
            self._kernel.at(moment, self._wake, None)

    def _wake(self, _: None) -> None:
        self._awake = False
        if self.alive and self._free_at <= self._kernel.now:
            events, self._inbox = self._inbox, []
            self._step(events)

    def _ring(self, timer: tuple[str, Nanoseconds]) -> None:
        if self._timers.get(timer[0]) != timer[1] or not self.alive:
            return
        self._due.append(timer)
        if self._free_at <= self._kernel.now and not self._awake:
            self._step([])
        else:
            self._wake_at(self._free_at)

    def _step(self, events: list[Event]) -> None:
        kernel_now = self._kernel.now
        clock = self._clock
        now = kernel_now if clock is None else clock.read(kernel_now)
        handle, carry_out = self.process.handle, self._carry_out
        handled = len(events)
        try:
            if self._wall is not None:
                handle(now, WallClock(self._wall.wall(kernel_now)))
            for event in events:
                for effect in handle(now, event):
                    carry_out[type(effect)](effect)
            if self._due:
                due, self._due = self._due, []
                for name, deadline in due:
                    if self._timers.get(name) == deadline:
                        del self._timers[name]
                        handled += 1
                        for effect in handle(now, TimerFired(name)):
                            carry_out[type(effect)](effect)
            if handled:
                for effect in handle(now, IDLE):
                    carry_out[type(effect)](effect)
        except Exception as error:  # whatever a core raises is a finding, and the end of its process
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.die(f"{type(error).__name__}: {error}, in {place.name}")
            return
        if self._free_at < _NEVER:
            self._free_at = kernel_now + STEP_NS + EVENT_NS * handled
        if not self.alive:
            return
        if self._to_send:
            for peer, items in self._to_send.items():
                self._endpoint.send(peer, items, self._free_at)
            self._to_send = {}
        if self._to_reply:
            for client, replies in self._to_reply.items():
                self._endpoint.reply(client, replies, self._free_at)
            self._to_reply = {}
        if self._to_child:
            told, self._to_child = self._to_child, []
            assert self._child is not None
            self._child.take(told)

    # ---- effects -------------------------------------------------------------------------------------------------

    def _send(self, effect: Send) -> None:
        message = effect.message
        event: Event = (
            Requested(self.name, message.request, message.command)
            if self._endpoint.is_client
            else Received(self.name, message)
        )
        self._to_send.setdefault(effect.to, []).append(event)

    def _reply(self, effect: Reply) -> None:
        if effect.client == CONTROL:
            self.done = True
            return
        if effect.client == CHILD:
            self._to_child.append(effect.result)
            return
        event = Received(self.name, Response(effect.request, effect.result))
        self._to_reply.setdefault(effect.client, []).append(event)

    def _persist(self, effect: Persist | Snapshot) -> None:
        assert self._disk is not None
        self._disk.persist(effect.token, effect.records, anew=type(effect) is Snapshot)

    def _cancel_timer(self, effect: CancelTimer) -> None:
        self._timers.pop(effect.timer, None)

    def _set_timer(self, effect: SetTimer) -> None:
        after = effect.after
        if self._clock is not None and self._clock.rate != 1.0:
            after = int(after / self._clock.rate)
        # The runtime's loop counts in milliseconds, and wakes in the one after the deadline.
        deadline = self._kernel.now + (after // _MILLISECOND + 1) * _MILLISECOND
        self._timers[effect.timer] = deadline
        self._kernel.at(deadline, self._ring, (effect.timer, deadline))
