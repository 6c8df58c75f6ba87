"""Runs a process on real sockets, disk and time, and keeps the promises of `apps.process` towards it.

Everything that is at hand in one turn of the event loop makes one step: the process handles it all, then its evidence
goes to the kernel, then what it wants written to the disk's thread, then what it has to say to the sockets.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from apps.journal import Identity, Journal, JournalError
from apps.process import (
    IDLE,
    CancelTimer,
    Event,
    Halt,
    NodeId,
    Persist,
    Persisted,
    Reply,
    Send,
    SetTimer,
    Snapshot,
    Started,
    TimerFired,
    Trace,
    WallClock,
)
from apps.runtime.config import Config, address
from apps.runtime.disk import Disk
from apps.runtime.framing import VERSION, Codec, Hello
from apps.runtime.kinds import Kind
from apps.runtime.metrics import Monitor
from apps.runtime.timers import Timers
from apps.runtime.trace import SCHEMA, TraceFile
from apps.runtime.transport import Transport

if TYPE_CHECKING:
    from apps.maelstrom.child import Child

log = logging.getLogger("apps.runtime")

#: The client's name of whoever started this process. A reply to it means that the work is done.
CONTROL: NodeId = ""


class Driver:
    """One process, from its start to its end. Create it in a running loop; then `start`, then await `finished`.

    ``finished`` is the exit status. Raises `JournalError` when there is a log and it cannot be used, `TraceExists` when
    this incarnation has run before, `OSError` when a file cannot be made.
    """

    def __init__(self, config: Config, kind: Kind) -> None:
        self._loop = asyncio.get_running_loop()
        # asyncio's own handler would log and go on: half a step would be left undone.
        self._loop.set_exception_handler(lambda loop, context: self._bug(context.get("exception"), context["message"]))
        self.finished: asyncio.Future[int] = self._loop.create_future()
        self._config, self._kind = config, kind
        self._journal: Journal[Any] | None = None
        if kind.record is not None:
            identity = Identity(config.cluster, config.node)
            self._journal = Journal(Path(config.data_dir), identity, kind.record)
            if self._journal.cut is not None:
                path, offset, length = self._journal.cut
                log.warning("%s: cut off %d bytes of an unfinished write at byte %d", path, length, offset)
        traces = Path(config.trace_dir)
        name = "history" if kind.client else str(config.incarnation)
        self._trace = TraceFile(traces / f"{name}.ndjson", "time" if kind.client else "t")
        if not kind.client:
            header = {
                "ev": "trace",
                "schema": SCHEMA,
                "node": config.node,
                "incarnation": config.incarnation,
                "protocol": kind.protocol,
            }
            self._trace.write(time.monotonic_ns(), [header])
        self._process = kind.make()
        self._reads_wall_clock = getattr(self._process, "reads_wall_clock", False)
        self._net = Transport(
            hello=Hello(
                "splitbrain",
                VERSION,
                config.cluster,
                config.node,
                config.incarnation,
                "client" if kind.client else "node",
                config.settings,
            ),
            peers={peer: address(text) for peer, text in config.peers.items()},
            codec=Codec(kind.message, kind.command, kind.result),
            deliver=self.deliver,
            silence=config.silence,
            random=Random(f"{config.seed} {config.node} {config.incarnation} transport"),
        )
        self._child: Child | None = None
        self._timers = Timers()
        self._inbox: list[Event] = []
        self._awake = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0
        self._steps = self._events = 0

        self._traced: list[Any] = []
        self._to_persist: list[Persist | Snapshot] = []
        self._to_send: dict[NodeId, list[Any]] = {}
        self._to_reply: dict[NodeId, list[tuple[int, Any]]] = {}
        #: Clients that are in this process.
        self._local: dict[NodeId, Callable[[list[tuple[int, Any]]], None]] = {
            CONTROL: lambda _: self.stop(os.EX_OK),
        }
        self._now = 0
        self._carry_out: Mapping[type, Callable[[Any], None]] = {
            Trace: lambda effect: self._traced.append(effect.event),
            Persist: self._to_persist.append,
            Snapshot: self._to_persist.append,
            Send: lambda effect: self._to_send.setdefault(effect.to, []).append(effect.message),
            Reply: lambda effect: self._to_reply.setdefault(effect.client, []).append((effect.request, effect.result)),
            SetTimer: lambda effect: self._timers.set(effect.timer, self._now + effect.after),
            CancelTimer: lambda effect: self._timers.cancel(effect.timer),
        }

    async def start(self) -> None:
        """Hand over what the log held, then listen and dial. Raises `OSError` when the address cannot be had."""
        records: Sequence[Any] = ()
        self._disk: Disk | None = None
        if self._journal is not None:
            records, self._journal.records = self._journal.records, []
            self._disk = Disk(self._journal, self._persisted, self._disk_failed)
        self._monitor = Monitor(
            Path(self._config.trace_dir) / "metrics.ndjson", self._config.incarnation, self._figures
        )
        self._inbox.append(Started(records))
        if self._kind.child:
            from apps.maelstrom.bridge import CHILD
            from apps.maelstrom.child import Child

            self._child = Child(self._kind.child, self.deliver)
            self._local[CHILD] = self._child.take
        self._step()
        await self._net.start(None if self._config.listen is None else address(self._config.listen))

    async def close(self) -> None:
        """Hang up and close the files; what was handed to the disk is written first."""
        self.stop(os.EX_OK)
        if self._alarm is not None:
            self._alarm.cancel()
        if self._child is not None:
            self._child.close()
        await self._net.close()
        self._monitor.close()
        if self._disk is not None:
            self._disk.close()
        self._trace.close()

    def stop(self, status: int) -> None:
        """Take no further step, and be finished with ``status`` unless it is already."""
        if not self.finished.done():
            self.finished.set_result(status)

    @property
    def connected(self) -> set[NodeId]:
        return self._net.connected

    def deliver(self, events: Sequence[Event]) -> None:
        """Events that have come in; they are handled in the next step, with whatever else comes in until then."""
        self._inbox += events
        self._wake()

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._awake = False
        if self.finished.done():
            return
        events, self._inbox = self._inbox, []
        self._now = now = time.monotonic_ns()
        handle, carry_out = self._process.handle, self._carry_out
        try:
            if self._reads_wall_clock:
                handle(now, WallClock(time.time_ns()))
            handled = len(events)
            for event in events:
                for effect in handle(now, event):
                    carry_out[type(effect)](effect)
            for timer in self._timers.due(now):
                handled += 1
                for effect in handle(now, TimerFired(timer)):
                    carry_out[type(effect)](effect)
            if handled:
                for effect in handle(now, IDLE):
                    carry_out[type(effect)](effect)
        except Halt as halt:
            log.error("%s", halt)
            self.stop(os.EX_DATAERR)
            return
        except Exception as error:
            self._bug(error)
            return
        self._steps += 1
        self._events += handled
        self._flush()
        self._set_alarm()

    def _flush(self) -> None:
        if self._traced:
            try:
                self._trace.write(self._now, self._traced)
            except OSError as error:
                log.error("%s: its trace cannot be written: %s; it stops, as nothing may happen unseen",
                          self._config.node, error.strerror)  # fmt: skip
                self.stop(os.EX_IOERR)
                return
            self._traced.clear()
        if self._to_persist:
            for write in self._to_persist:
                assert self._disk is not None, f"kind {self._config.kind!r} has no record type"
                self._disk.persist(write.token, write.records, anew=type(write) is Snapshot)
            self._to_persist.clear()
        if self._to_send:
            for peer, messages in self._to_send.items():
                self._net.send(peer, messages)
            self._to_send.clear()
        if self._to_reply:
            for client, results in self._to_reply.items():
                local = self._local.get(client)
                if local is None:
                    self._net.reply(client, results)
                else:
                    local(results)
            self._to_reply.clear()

    def _set_alarm(self) -> None:
        deadline = self._timers.next
        if deadline is None or (self._alarm is not None and self._alarm_at <= deadline):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        # The loop counts in milliseconds: one more, so that the alarm does not ring before the deadline.
        delay_ms = max(0, deadline - self._now) // 1_000_000 + 1
        self._alarm_at = deadline
        self._alarm = self._loop.call_later(delay_ms / 1000, self._alarm_rang)

    def _alarm_rang(self) -> None:
        self._alarm = None
        # A turn of the loop later: after a pause (of the machine, say) sockets hold what came in time, and a heartbeat
        # that is there already must be seen before the timeout that waits for it.
        self._loop.call_soon(self._wake)

    def _persisted(self, token: int) -> None:
        self.deliver((Persisted(token),))

    def _disk_failed(self, error: Exception) -> None:
        if isinstance(error, JournalError):
            log.error("%s", error)
            self.stop(os.EX_IOERR)
        else:
            self._bug(error)

    def _bug(self, error: BaseException | None, what: str = "the process failed") -> None:
        log.error("%s: %s; this is a bug in it", self._config.node, what, exc_info=error)
        self.stop(os.EX_SOFTWARE)

    def _figures(self) -> tuple[dict[str, Any], list[int]]:
        syncs: list[int] = []
        if self._disk is not None:
            syncs, self._disk.latencies = self._disk.latencies, []
        figures = {"steps": self._steps, "events": self._events, **msgspec.to_builtins(self._net.counters)}
        return figures, syncs
