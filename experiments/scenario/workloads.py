"""``[workload]``: what clients ask of the system. Each kind says what its clients are given (`apps.runtime.kinds`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import msgspec

from experiments.scenario.reading import Table, choice, coerce, duration, mix, number, positive_duration, texts, whole
from experiments.scenario.systems import System


class Register(msgspec.Struct, frozen=True, tag="register", tag_field="kind"):
    """Reads, writes and compare-and-sets on ``keys`` registers, ``rate`` operations a second over all clients.

    ``placement`` names one host a client, in order; empty gives each a host of its own, away from the nodes;
    ``("beside",)`` puts the i-th client into the i-th node's host.
    """

    clients: int = 5
    rate: float = 200.0
    keys: int = 5
    mix: dict[str, float] = msgspec.field(default_factory=lambda: {"read": 0.5, "write": 0.4, "cas": 0.1})
    timeout: int = 1_000_000_000
    placement: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        coerce(self, timeout=duration(self.timeout))

    @property
    def names(self) -> tuple[str, ...]:
        return _named(self.clients)

    def process(self, name: str, system: System) -> dict[str, Any]:
        """The ``process`` of the client ``name`` of ``system``, as `apps.runtime.config` reads it."""
        return {
            "kind": system.client,
            "thread": self.names.index(name),
            "threads": self.clients,
            "rate": self.rate / self.clients,
            "keys": self.keys,
            "mix": self.mix,
            "timeout": self.timeout,
            "retry": system.has_sessions,
        }

    def stretched(self, factor: float) -> Register:
        """Every duration times ``factor``, and the rate divided by it."""
        return msgspec.structs.replace(self, timeout=round(self.timeout * factor), rate=self.rate / factor)


def _register(table: Table, system: System) -> Register:
    default = Register()
    known = "cas" in system.operations
    return Register(
        clients=table.take("clients", whole(1), default=default.clients),
        rate=table.take("rate", number(0.001), default=default.rate),
        keys=table.take("keys", whole(1), default=default.keys),
        mix=table.take("mix", mix(*system.operations), default=default.mix if known else {"read": 0.5, "write": 0.5}),
        timeout=table.take("timeout", positive_duration, default=default.timeout),
        placement=table.take("placement", texts, default=()),
    )


class Echo(msgspec.Struct, frozen=True, tag="echo", tag_field="kind"):
    """Numbers that must come back as they were called, ``rate`` a second over all clients; the i-th client calls the
    i-th node. ``placement`` as in `Register`.
    """

    clients: int = 5
    rate: float = 100.0
    timeout: int = 1_000_000_000
    placement: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        coerce(self, timeout=duration(self.timeout))

    @property
    def names(self) -> tuple[str, ...]:
        return _named(self.clients)

    def process(self, name: str, system: System) -> dict[str, Any]:
        return {
            "kind": system.client,
            "thread": self.names.index(name),
            "threads": self.clients,
            "rate": self.rate / self.clients,
            "timeout": self.timeout,
        }

    def stretched(self, factor: float) -> Echo:
        return msgspec.structs.replace(self, timeout=round(self.timeout * factor), rate=self.rate / factor)


def _echo(table: Table, system: System) -> Echo:
    default = Echo()
    return Echo(
        clients=table.take("clients", whole(1), default=default.clients),
        rate=table.take("rate", number(0.001), default=default.rate),
        timeout=table.take("timeout", positive_duration, default=default.timeout),
        placement=table.take("placement", texts, default=()),
    )


class NoWorkload(msgspec.Struct, frozen=True, tag="none", tag_field="kind"):
    """Nobody asks for anything: the nodes have enough to say to each other."""

    names: ClassVar[tuple[str, ...]] = ()
    placement: ClassVar[tuple[str, ...]] = ()
    timeout: ClassVar[int] = 0

    def process(self, name: str, system: System) -> dict[str, Any]:
        raise AssertionError(f"there is no client {name}")

    def stretched(self, factor: float) -> NoWorkload:
        return self


def _none(table: Table, system: System) -> NoWorkload:
    return NoWorkload()


def _named(clients: int) -> tuple[str, ...]:
    return tuple(f"c{number}" for number in range(1, clients + 1))


Workload: TypeAlias = Register | Echo | NoWorkload

_KINDS: dict[str, Callable[[Table, System], Workload]] = {"register": _register, "echo": _echo, "none": _none}

#: What a system must be able to do for a workload of that kind.
_NEEDS = {"register": "read", "echo": "echo"}


def read_workload(table: Table, system: System) -> Workload:
    """``[workload]`` for ``system``. What is wrong with it is noted in the table."""
    kinds = [kind for kind in _KINDS if kind == "none" or _NEEDS[kind] in system.operations]
    kind = table.take("kind", choice(*kinds), default=kinds[0])
    workload = _KINDS[kind](table, system)
    table.finish()
    return workload
