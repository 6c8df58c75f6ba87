"""``[system]``: what runs in the hosts. Each kind says what its nodes are given (`apps.runtime.kinds`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from experiments.scenario.reading import (
    Table,
    choice,
    coerce,
    duration,
    flag,
    function,
    positive_duration,
    span,
    texts,
    whole,
)
from topologies.units import format_duration

#: A node dials a peer anew that has been silent for this many of its longest election timeouts.
SILENT_TIMEOUTS = 2


class Raft(msgspec.Struct, frozen=True, tag="raft", tag_field="kind"):
    """A Raft cluster. ``placement`` names one host a node, in order; empty means spread over the leaves.

    ``heartbeat_interval`` 0 means a fifth of the shortest election timeout. ``implementation`` runs another Raft than
    ours in the nodes: ``module:function`` as in `apps.runtime.kinds`.
    """

    nodes: int = 5
    placement: tuple[str, ...] = ()
    election_timeout: tuple[int, int] = (150_000_000, 300_000_000)
    heartbeat_interval: int = 0
    pre_vote: bool = True
    check_quorum: bool = True
    implementation: str = ""

    def __post_init__(self) -> None:
        low, high = self.election_timeout
        coerce(self, election_timeout=(duration(low), duration(high)))
        coerce(self, heartbeat_interval=duration(self.heartbeat_interval) or self.election_timeout[0] // 5)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"n{number}" for number in range(1, self.nodes + 1))

    @property
    def silence(self) -> int:
        """After so many nanoseconds without a word from a peer, it is dialled anew."""
        return SILENT_TIMEOUTS * self.election_timeout[1]

    @property
    def elects(self) -> bool:
        """Whether the nodes have a leader; the world waits for one before the workload starts."""
        return True

    def process(self) -> dict[str, Any]:
        """A node's ``process``, as `apps.runtime.config` reads it."""
        return {
            "kind": self.implementation or "raft",
            "election_timeout": self.election_timeout,
            "heartbeat_interval": self.heartbeat_interval,
            "pre_vote": self.pre_vote,
            "check_quorum": self.check_quorum,
        }

    def stretched(self, factor: float) -> Raft:
        """Every duration times ``factor``."""
        low, high = self.election_timeout
        return msgspec.structs.replace(
            self,
            election_timeout=(round(low * factor), round(high * factor)),
            heartbeat_interval=round(self.heartbeat_interval * factor),
        )


def _raft(table: Table) -> Raft:
    default = Raft()
    system = Raft(
        nodes=table.take("nodes", whole(1), default=default.nodes),
        placement=table.take("placement", texts, default=()),
        election_timeout=table.take("election_timeout", span, default=default.election_timeout),
        heartbeat_interval=table.take("heartbeat_interval", positive_duration, default=0),
        pre_vote=table.take("pre_vote", flag, default=True),
        check_quorum=table.take("check_quorum", flag, default=True),
        implementation=table.take("implementation", function, default=""),
    )
    if system.heartbeat_interval >= system.election_timeout[0]:
        table.wrong(
            "heartbeat_interval",
            f"{format_duration(system.heartbeat_interval)} must be shorter than the shortest election timeout, "
            f"{format_duration(system.election_timeout[0])}, or followers never stop electing",
        )
    return system


System: TypeAlias = Raft

_KINDS: dict[str, Callable[[Table], System]] = {"raft": _raft}


def read_system(table: Table) -> System:
    """``[system]``. What is wrong with it is noted in the table."""
    kind = table.take("kind", choice(*_KINDS), default="raft")
    system = _KINDS[kind](table)
    table.finish()
    return system
