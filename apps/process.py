"""What a protocol is here: a `Process`, which is handed one event at a time and answers with effects.

A process does no I/O. It never reads a clock, opens a socket, starts a thread, logs, or draws from a global random
generator: the time comes with every event, a seeded `random.Random` comes at construction, and whatever it wants done
it returns. So the same object runs on real sockets in the fabric, in a simulator's virtual time, and under Maelstrom.

What a driver promises:

- `Started` is the first event, once per incarnation, with every record that had been made durable before, in order.
- After the event at hand, or all that are at hand together (the frames of one socket read, say), it hands over `Idle`
  before it waits or lets time pass; what lies between two `Idle` is a step, and `step` takes one. A process may keep
  back what it has to say until then, so that a thousand requests become one `Persist` and one message to each peer.
- Effects are carried out in the order they are returned. `Trace` effects reach the kernel before any other effect of
  the same step leaves the process, so a ``kill -9`` loses no evidence.
- `Persist` is asynchronous: `Persisted` with its token follows once the records, and all before them, are on disk.
  A process that must not speak before it has written (Raft §5.1: persistent state before responding to RPCs)
  keeps back its `Send` until then. After a crash, records whose `Persisted` had not been delivered may be there or not,
  but always a prefix of what was asked for; a `Snapshot` counts as one record here.
- Messages may be lost, repeated, delayed and reordered. A sender's name can be trusted, its content only as far as
  its codec goes.
- ``now`` is monotonic: it never goes back in an incarnation, and means nothing elsewhere. A process that needs the time
  of day, to compare it with another node's, has ``reads_wall_clock = True``: it is handed `WallClock` first in every
  step, and asks for nothing then. No other process sees one.
- A timer name has at most one deadline: `SetTimer` replaces it. A `TimerFired` that was overtaken by `SetTimer` or
  `CancelTimer` is never delivered, unless it was at hand in the step that returned them.

What a process promises: `handle` is deterministic in (construction arguments, sequence of events), and never iterates
in an order that depends on hashing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

#: The name of a node or client: unique in its cluster, and what addresses are looked up by.
NodeId: TypeAlias = str

#: A point in time or a span, in integer nanoseconds of a monotonic clock.
Nanoseconds: TypeAlias = int


class Halt(Exception):  # noqa: N818
    """Raised by a process that must not go on, for no fault of its own; the message says why and what to do.

    Its driver ends it, as with a damaged log. Any other exception is a bug in the process.
    """


class Started(msgspec.Struct, frozen=True, gc=False):
    """The first event. ``records``: what the durable log held, oldest first; empty on a first start."""

    records: Sequence[Any] = ()


class Received(msgspec.Struct, frozen=True, gc=False):
    sender: NodeId
    message: Any


class TimerFired(msgspec.Struct, frozen=True, gc=False):
    timer: str


class Requested(msgspec.Struct, frozen=True, gc=False):
    """A client's request. ``request`` is the client's own number for it; `Reply` carries both back."""

    client: NodeId
    request: int
    command: Any


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a client, a process too, sends to a node: the node gets it as `Requested`.

    ``request`` is never used twice under the client's name, so that a late answer cannot be taken for another's.
    """

    request: int
    command: Any


class Response(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A node's `Reply`, as the client receives it."""

    request: int
    result: Any


class Persisted(msgspec.Struct, frozen=True, gc=False):
    token: int


class WallClock(msgspec.Struct, frozen=True, gc=False):
    """The time of day, in nanoseconds since 1970 as this node has it: it may be wrong, and may have been set back."""

    time: Nanoseconds


class Idle(msgspec.Struct, frozen=True, gc=False):
    """No other event is at hand: what was kept back to go out together goes now."""


Event: TypeAlias = Started | Received | TimerFired | Requested | Persisted | WallClock | Idle

IDLE = Idle()


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send ``message`` to a peer. A broadcast repeats one message object, so a driver can encode it once."""

    to: NodeId
    message: Any


class SetTimer(msgspec.Struct, frozen=True, gc=False):
    """Fire ``timer`` once, ``after`` nanoseconds from now."""

    timer: str
    after: Nanoseconds


class CancelTimer(msgspec.Struct, frozen=True, gc=False):
    timer: str


class Persist(msgspec.Struct, frozen=True, gc=False):
    """Append ``records`` to the durable log. Tokens of one process rise; one `Persisted` may stand for all up to it."""

    token: int
    records: Sequence[Any]


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """Put ``records`` in the place of all that was asked to be durable before, so that a log need not grow for ever.

    At once: after a crash, either all of them are there or what was there before. `Persisted` follows as for `Persist`.
    """

    token: int
    records: Sequence[Any]


class Reply(msgspec.Struct, frozen=True, gc=False):
    client: NodeId
    request: int
    result: Any


class Trace(msgspec.Struct, frozen=True, gc=False):
    """Evidence for the checkers: a struct with a tag, see ``docs/trace.md``."""

    event: Any


Effect: TypeAlias = Send | SetTimer | CancelTimer | Persist | Snapshot | Reply | Trace


class Process(Protocol):
    """One participant of a protocol. Its ``Message`` and ``Record`` types are what drivers encode."""

    def handle(self, now: Nanoseconds, event: Event) -> list[Effect]:
        """Take one event at ``now``, which never goes back in an incarnation; return what is to be done."""
        ...


def step(process: Process, now: Nanoseconds, events: Iterable[Event]) -> list[Effect]:
    """Hand over ``events``, all at hand at ``now``, and then `Idle`; return what is to be done, in order."""
    effects: list[Effect] = []
    for event in events:
        effects += process.handle(now, event)
    effects += process.handle(now, IDLE)
    return effects
