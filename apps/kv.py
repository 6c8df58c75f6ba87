"""A key-value map: the commands clients send, the answers they get, and the state machine that nodes replicate."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from apps.process import NodeId


class Read(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    key: str


class Write(msgspec.Struct, frozen=True, array_like=True, tag="w"):
    key: str
    value: Any


class Cas(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """Set ``key`` to ``new`` if it is ``old``, else be refused and change nothing."""

    key: str
    old: Any
    new: Any


class Delete(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    key: str


Operation: TypeAlias = Read | Write | Cas | Delete


class Command(msgspec.Struct, frozen=True, array_like=True, tag="cmd"):
    """An operation of a session (Ongaro's thesis, §6.3): sent again with the same ``sequence``, it takes effect once.

    ``acknowledged``: the client has the answers to all its sequence numbers below this one, so they can be forgotten.
    """

    session: str
    sequence: int
    acknowledged: int
    operation: Operation


class Done(msgspec.Struct, frozen=True, array_like=True, tag="ok"):
    """It took effect. ``value``: what a read found, ``None`` for an absent key."""

    value: Any = None


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="no"):
    """It did not take effect and never will, for example a `Cas` that found another value."""

    reason: str


class NotLeader(msgspec.Struct, frozen=True, array_like=True, tag="nl"):
    """This node did not take the request; ask ``leader`` if it is known."""

    leader: NodeId | None


class Unsure(msgspec.Struct, frozen=True, array_like=True, tag="??"):
    """The node lost its leadership while the request was under way: it may yet take effect. Retry in the session."""

    reason: str


Result: TypeAlias = Done | Refused | NotLeader | Unsure
