"""A key-value map: the commands clients send, the answers they get, and the state machine that nodes replicate.

A key that was never written, or was deleted, reads as ``None``, and a `Cas` from ``None`` creates it.
"""

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


#: Why a `Cas` from some value is refused where there is none.
ABSENT = "the key does not exist"


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


class Busy(msgspec.Struct, frozen=True, array_like=True, tag="busy"):
    """This node leads but did not take the request now: nothing happened. Ask it again after a pause."""

    reason: str


Result: TypeAlias = Done | Refused | NotLeader | Unsure | Busy

_DONE = Done()

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[list[tuple[str, Any]], list[tuple[str, int, list[tuple[int, Result]]]]]).decode


class _Session:
    """What is remembered of one client: the results of those of its commands it may still send again."""

    __slots__ = ("acknowledged", "results")

    def __init__(self) -> None:
        self.acknowledged = 0
        self.results: dict[int, Result] = {}

    def forget_below(self, sequence: int) -> None:
        # The usual step is one; a client that leaps must not make every node count its way there.
        leap = sequence - self.acknowledged
        below = range(self.acknowledged, sequence) if leap <= len(self.results) else list(self.results)
        for number in below:
            if number < sequence:
                self.results.pop(number, None)
        self.acknowledged = sequence


class Store:
    """The replicated state machine: deterministic, and a command sent again in its session takes effect once.

    Linearizable semantics by sessions as in Ongaro's thesis, §6.3. A session begins with its first command and is
    never expired, so its memory is the window of results that its client has not acknowledged.
    """

    __slots__ = ("_sessions", "_values")

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._sessions: dict[str, _Session] = {}

    def read(self, key: str) -> Any:
        """The value of ``key``, ``None`` when absent."""
        return self._values.get(key)

    def apply(self, command: Command) -> Result:
        """Carry out ``command``, or return what it returned the first time.

        A sequence number below the session's ``acknowledged`` is `Refused`: the client has had its answer, and what
        arrives so late is a copy that the network kept.
        """
        session = self._sessions.get(command.session)
        if session is None:
            session = self._sessions[command.session] = _Session()
        sequence = command.sequence
        known = session.results.get(sequence)
        if known is not None:
            return known
        if sequence < session.acknowledged:
            return Refused(f"sequence {sequence} was acknowledged before")
        if command.acknowledged > session.acknowledged:
            session.forget_below(command.acknowledged)
        result = session.results[sequence] = self._execute(command.operation)
        return result

    def dump(self) -> bytes:
        """All of the state, for `load`. Equal states give equal bytes, whatever led to them."""
        values = sorted(self._values.items())
        sessions = [
            (name, session.acknowledged, sorted(session.results.items()))
            for name, session in sorted(self._sessions.items())
        ]
        return _encode((values, sessions))

    @classmethod
    def load(cls, data: bytes) -> Store:
        """The state that `dump` gave. Raises `msgspec.MsgspecError` for anything else."""
        store = cls()
        values, sessions = _decode(data)
        store._values = dict(values)
        for name, acknowledged, results in sessions:
            session = store._sessions[name] = _Session()
            session.acknowledged, session.results = acknowledged, dict(results)
        return store

    def _execute(self, operation: Operation) -> Result:
        key = operation.key
        match operation:
            case Write():
                self._values[key] = operation.value
            case Read():
                return Done(self._values.get(key))
            case Cas():
                if self._values.get(key) != operation.old:
                    return Refused(f"{key} has another value" if key in self._values else ABSENT)
                self._values[key] = operation.new
            case Delete():
                self._values.pop(key, None)
        return _DONE
