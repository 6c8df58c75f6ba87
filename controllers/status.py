"""What the controller tells the rest of the run, one JSON object a line: who waits for the fabric waits for these.

``t`` is integer nanoseconds of the machine's monotonic clock, when the controller knew.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class _Event(msgspec.Struct, frozen=True, tag_field="event", tag=str.lower):
    t: int


class Listening(_Event, frozen=True):
    """Switches can connect to ``address`` (``127.0.0.1:6653``); ``framework`` is ``ryu`` or ``os_ken``."""

    address: str
    framework: str


class Connected(_Event, frozen=True):
    switch: str


class Disconnected(_Event, frozen=True):
    """The switch goes on forwarding by what it has."""

    switch: str


class Ready(_Event, frozen=True):
    """``switch`` has confirmed, by a barrier, all it was sent: ``changes`` messages, 0 if it had everything already.

    ``ready`` names every switch of which this is now true.
    """

    switch: str
    changes: int
    ready: tuple[str, ...]


class LinkDown(_Event, frozen=True, tag="link_down"):
    link: str


class LinkUp(_Event, frozen=True, tag="link_up"):
    link: str


class Repaired(_Event, frozen=True):
    """Every connected switch has confirmed its routes around the ``dead`` links.

    ``since`` is the ``t`` of the first link change it answers, ``changes`` the messages it took.
    """

    since: int
    dead: tuple[str, ...]
    changes: int


class Refused(_Event, frozen=True):
    """The switch answered a message of ours with an error."""

    switch: str
    reason: str


Event: TypeAlias = Listening | Connected | Disconnected | Ready | LinkDown | LinkUp | Repaired | Refused

_decoder = msgspec.json.Decoder(Event)


def read(data: bytes) -> list[Event]:
    """The events of a status file. A last line that is still being written is left out.

    Raises `msgspec.DecodeError` for a line that is no event.
    """
    return [_decoder.decode(line) for line in data.split(b"\n")[:-1]]
