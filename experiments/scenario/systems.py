"""``[system]``: what runs in the hosts. Each kind says what its nodes are given (`apps.runtime.kinds`)."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import msgspec

from apps.detectors import DetectorConfigError, HeartbeatConfig, PhiConfig, SwimConfig
from apps.failover import FailoverConfig, FailoverConfigError
from apps.quorum import QuorumConfig, QuorumConfigError
from experiments.scenario.reading import (
    Table,
    choice,
    coerce,
    duration,
    flag,
    function,
    number,
    positive_duration,
    span,
    texts,
    whole,
)
from topologies.units import UnitError, format_duration, parse_share

#: A node dials a peer anew that has been silent for this many of its longest election timeouts.
SILENT_TIMEOUTS = 2

#: The same for failure detectors, in heartbeats or probes: what they judge by must not wait for a dead connection.
SILENT_INTERVALS = 5


class Raft(msgspec.Struct, frozen=True, tag="raft", tag_field="kind"):
    """A Raft cluster. ``placement`` names one host a node, in order; empty means spread over the leaves.

    ``heartbeat_interval`` 0 means a fifth of the shortest election timeout. ``voters``: who has a vote in the
    beginning, all nodes if none are named; the others wait until they are made members. ``reads``, ``follower_reads``
    and ``snapshot_entries`` as in `apps.raft.RaftConfig`. ``implementation`` runs another Raft than ours in the nodes:
    ``module:function`` as in `apps.runtime.kinds`.
    """

    #: Whether the nodes have a leader; the world waits for one before the workload starts.
    elects: ClassVar[bool] = True
    #: Whether the nodes keep a log on disk, which faults can strike.
    keeps_log: ClassVar[bool] = True
    #: Whether clients are promised a linearizable register.
    linearizable: ClassVar[bool] = True
    #: What clients can ask for.
    operations: ClassVar[tuple[str, ...]] = ("read", "write", "cas", "delete")
    #: Whether a request that is sent again takes effect once, so that clients may do so.
    has_sessions: ClassVar[bool] = True
    #: The kind of process that clients of it are (`apps.runtime.kinds`).
    client: ClassVar[str] = "client"

    nodes: int = 5
    placement: tuple[str, ...] = ()
    election_timeout: tuple[int, int] = (150_000_000, 300_000_000)
    heartbeat_interval: int = 0
    pre_vote: bool = True
    check_quorum: bool = True
    voters: tuple[str, ...] = ()
    reads: Literal["read-index", "lease"] = "read-index"
    follower_reads: bool = False
    snapshot_entries: int = 50_000
    implementation: str = ""

    def __post_init__(self) -> None:
        low, high = self.election_timeout
        coerce(self, election_timeout=(duration(low), duration(high)))
        coerce(self, heartbeat_interval=duration(self.heartbeat_interval) or self.election_timeout[0] // 5)

    @property
    def names(self) -> tuple[str, ...]:
        return _named(self.nodes)

    @property
    def silence(self) -> int:
        """After so many nanoseconds without a word from a peer, it is dialled anew."""
        return SILENT_TIMEOUTS * self.election_timeout[1]

    @property
    def timeouts(self) -> tuple[int, int]:
        """The shortest and the longest silence after which a node acts, in nanoseconds. A machine on which event loops
        are late beside the shortest makes the result itself.
        """
        return self.election_timeout

    def process(self) -> dict[str, Any]:
        """A node's ``process``, as `apps.runtime.config` reads it."""
        return {
            "kind": self.implementation or "raft",
            "election_timeout": self.election_timeout,
            "heartbeat_interval": self.heartbeat_interval,
            "pre_vote": self.pre_vote,
            "check_quorum": self.check_quorum,
            "voters": self.voters,
            "reads": self.reads.replace("-", "_"),
            "follower_reads": self.follower_reads,
            "snapshot_entries": self.snapshot_entries,
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
        voters=table.take("voters", texts, default=()),
        reads=table.take("reads", choice("read-index", "lease"), default=default.reads),
        follower_reads=table.take("follower_reads", flag, default=False),
        snapshot_entries=table.take("snapshot_entries", whole(1), default=default.snapshot_entries),
        implementation=table.take("implementation", function, default=""),
    )
    strangers = [name for name in system.voters if name not in system.names]
    if strangers or len(set(system.voters)) < len(system.voters):
        table.wrong("voters", f"names each once, and none but the nodes {', '.join(system.names)}")
    if system.heartbeat_interval >= system.election_timeout[0]:
        table.wrong(
            "heartbeat_interval",
            f"{format_duration(system.heartbeat_interval)} must be shorter than the shortest election timeout, "
            f"{format_duration(system.election_timeout[0])}, or followers never stop electing",
        )
    return system


# ---------------------------------------------------------------------------------------------------------------------
# A store on quorums


class Quorum(msgspec.Struct, frozen=True, tag="quorum", tag_field="kind"):
    """A store on quorums, tuned by ``config``; it has no leader. ``placement`` and ``implementation`` as in `Raft`."""

    elects: ClassVar[bool] = False
    keeps_log: ClassVar[bool] = True
    operations: ClassVar[tuple[str, ...]] = ("read", "write", "delete")
    has_sessions: ClassVar[bool] = False
    client: ClassVar[str] = "client"

    nodes: int = 5
    placement: tuple[str, ...] = ()
    config: QuorumConfig = QuorumConfig()
    implementation: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return _named(self.nodes)

    @property
    def silence(self) -> int:
        return SILENT_TIMEOUTS * self.config.timeout

    @property
    def timeouts(self) -> tuple[int, int]:
        return self.config.patience, self.config.timeout

    @property
    def linearizable(self) -> bool:
        return self.config.linearizable

    def process(self) -> dict[str, Any]:
        return {"kind": self.implementation or "quorum", **msgspec.to_builtins(self.config)}

    def stretched(self, factor: float) -> Quorum:
        return msgspec.structs.replace(self, config=_stretched(self.config, _QUORUM, factor))


def _quorum(table: Table) -> Quorum:
    system = Quorum(
        nodes=table.take("nodes", whole(1), default=5),
        placement=table.take("placement", texts, default=()),
        config=_settings(table, QuorumConfig(), _QUORUM),
        implementation=table.take("implementation", function, default=""),
    )
    if system.config.n > system.nodes:
        table.wrong("n", f"{system.config.n} copies of a key need as many nodes, and there are {system.nodes}")
    return system


# ---------------------------------------------------------------------------------------------------------------------
# Failure detectors: the nodes are the members, and watch each other


class _Unasked(msgspec.Struct, frozen=True, tag_field="kind"):
    """What nodes have in common that no client asks for anything."""

    elects: ClassVar[bool] = False
    keeps_log: ClassVar[bool] = False
    linearizable: ClassVar[bool] = False
    operations: ClassVar[tuple[str, ...]] = ()
    has_sessions: ClassVar[bool] = False
    client: ClassVar[str] = "client"

    nodes: int = 5
    placement: tuple[str, ...] = ()
    implementation: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return _named(self.nodes)


class Heartbeat(_Unasked, frozen=True, tag="heartbeat"):
    """Everybody beats, and is given up after a fixed silence (`apps.detectors.heartbeat`)."""

    config: HeartbeatConfig = HeartbeatConfig()

    @property
    def silence(self) -> int:
        return SILENT_INTERVALS * self.config.interval

    @property
    def timeouts(self) -> tuple[int, int]:
        return self.config.timeout - self.config.interval, self.config.timeout

    @property
    def memory(self) -> int:
        """How long after a silence is over it may still be what a judgement comes from, in nanoseconds."""
        return self.config.timeout

    def process(self) -> dict[str, Any]:
        return {"kind": self.implementation or "heartbeat", **msgspec.to_builtins(self.config)}

    def stretched(self, factor: float) -> Heartbeat:
        return msgspec.structs.replace(self, config=_stretched(self.config, _HEARTBEAT, factor))


class Phi(_Unasked, frozen=True, tag="phi"):
    """Everybody beats, and is given up after a silence unlikely enough (`apps.detectors.phi`)."""

    config: PhiConfig = PhiConfig()

    @property
    def silence(self) -> int:
        return SILENT_INTERVALS * self.config.interval

    @property
    def timeouts(self) -> tuple[int, int]:
        # What it allows beyond the next heartbeat when all come by the clock: its least deviation, 5.6 times for φ = 8.
        return 5 * self.config.least_deviation, 2 * self.config.interval

    @property
    def memory(self) -> int:
        return 2 * self.config.interval

    def process(self) -> dict[str, Any]:
        return {"kind": self.implementation or "phi", **msgspec.to_builtins(self.config)}

    def stretched(self, factor: float) -> Phi:
        return msgspec.structs.replace(self, config=_stretched(self.config, _PHI, factor))


class Swim(_Unasked, frozen=True, tag="swim"):
    """Each probes one other a period, and tells the others what it found (`apps.detectors.swim`)."""

    config: SwimConfig = SwimConfig()

    @property
    def silence(self) -> int:
        return SILENT_INTERVALS * self.config.probe_timeout

    @property
    def timeouts(self) -> tuple[int, int]:
        return self.config.probe_timeout, self.config.interval

    @property
    def memory(self) -> int:
        return 2 * self.config.interval + self.config.suspicion_timeout(self.nodes, 0)

    def process(self) -> dict[str, Any]:
        return {"kind": self.implementation or "swim", **msgspec.to_builtins(self.config)}

    def stretched(self, factor: float) -> Swim:
        return msgspec.structs.replace(self, config=_stretched(self.config, _SWIM, factor))


D = TypeVar("D", Heartbeat, Phi, Swim, "Failover")


def _unasked(kind: type[D], parsers: _Parsers) -> Callable[[Table], D]:
    def read(table: Table) -> D:
        return kind(
            nodes=table.take("nodes", whole(2), default=5),
            placement=table.take("placement", texts, default=()),
            implementation=table.take("implementation", function, default=""),
            config=_settings(table, kind().config, parsers),
        )

    return read


# ---------------------------------------------------------------------------------------------------------------------
# Anybody's program that speaks Maelstrom's protocol


class Maelstrom(msgspec.Struct, frozen=True, tag="maelstrom", tag_field="kind"):
    """Every node is a process of ``command``, as Maelstrom would run it for its ``workload`` (docs/maelstrom.md).

    ``own_timers``: whether it does things by itself as time passes, so that a simulation must keep to the wall clock.
    ``init_timeout``: how long it may take to answer ``init``.
    """

    elects: ClassVar[bool] = False  # if they do, nobody outside is told
    keeps_log: ClassVar[bool] = False  # what a binary writes is its own affair
    has_sessions: ClassVar[bool] = False

    command: tuple[str, ...]
    nodes: int = 5
    placement: tuple[str, ...] = ()
    workload: Literal["lin-kv", "echo"] = "lin-kv"
    own_timers: bool = True
    init_timeout: int = 10_000_000_000

    implementation: ClassVar[str] = ""

    def __post_init__(self) -> None:
        coerce(self, init_timeout=duration(self.init_timeout))

    @property
    def names(self) -> tuple[str, ...]:
        return _named(self.nodes)

    @property
    def silence(self) -> int:
        return SILENT_TIMEOUTS * self.timeouts[1]

    @property
    def timeouts(self) -> tuple[int, int]:
        return Raft().timeouts  # nobody outside knows its own: those usual for what replicates

    @property
    def linearizable(self) -> bool:
        return self.workload == "lin-kv"

    @property
    def operations(self) -> tuple[str, ...]:
        return ("read", "write", "cas") if self.workload == "lin-kv" else ("echo",)

    @property
    def client(self) -> str:
        return self.workload

    def process(self) -> dict[str, Any]:
        command = self.command
        if command[:2] == ("splitbrain", "maelstrom"):  # ours, whatever the path is set to in the hosts
            command = (sys.executable, "-P", "-m", "apps.maelstrom", *command[2:])
        return {
            "kind": "maelstrom",
            "command": command,
            "own_timers": self.own_timers,
            "init_timeout": self.init_timeout,
        }

    def stretched(self, factor: float) -> Maelstrom:
        return msgspec.structs.replace(self, init_timeout=round(self.init_timeout * factor))


def _maelstrom(table: Table) -> Maelstrom:
    return Maelstrom(
        command=table.take("command", _command, default=("",), required=True),
        nodes=table.take("nodes", whole(1), default=5),
        placement=table.take("placement", texts, default=()),
        workload=table.take("workload", choice("lin-kv", "echo"), default="lin-kv"),
        own_timers=table.take("own_timers", flag, default=True),
        init_timeout=table.take("init_timeout", positive_duration, default=10_000_000_000),
    )


def _command(value: object) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(value)) if isinstance(value, str) else texts(value)
    except ValueError as error:
        raise UnitError(f"{value!r} is not a command: {error}") from None
    if not words:
        raise UnitError('the command is empty; it is what starts a node, for example ["python3", "node.py"]')
    if words[:2] != ("splitbrain", "maelstrom") and shutil.which(words[0]) is None:
        raise UnitError(f"there is no program {words[0]!r} that could be run, in the PATH or from the current folder")
    return words


# ---------------------------------------------------------------------------------------------------------------------
# Failing over


class Failover(_Unasked, frozen=True, tag="failover"):
    """The first node gives the work's shards to the others, as long as they are there (`apps.failover`)."""

    config: FailoverConfig = FailoverConfig()

    @property
    def silence(self) -> int:
        return SILENT_INTERVALS * self.config.interval

    @property
    def timeouts(self) -> tuple[int, int]:
        return self.config.lease - self.config.interval, self.config.lease

    def process(self) -> dict[str, Any]:
        return {"kind": self.implementation or "failover", **msgspec.to_builtins(self.config)}

    def stretched(self, factor: float) -> Failover:
        return msgspec.structs.replace(self, config=_stretched(self.config, _FAILOVER, factor))


# ---------------------------------------------------------------------------------------------------------------------
# Settings of cores that check themselves

_Parsers: TypeAlias = Mapping[str, Callable[[Any], Any]]

_QUORUM: _Parsers = {
    "n": whole(1),
    "r": whole(1),
    "w": whole(1),
    "quorum": choice("strict", "partial", "sloppy"),
    "versions": choice("last-writer-wins", "siblings"),
    "linearizable": flag,
    "max_clock_offset": positive_duration,
    "virtual_nodes": whole(1),
    "timeout": positive_duration,
    "patience": positive_duration,
    "read_repair": flag,
    "hinted_handoff": flag,
    "handoff_interval": positive_duration,
    "anti_entropy": flag,
    "anti_entropy_interval": positive_duration,
}

_HEARTBEAT: _Parsers = {"interval": positive_duration, "timeout": positive_duration}

_PHI: _Parsers = {
    "interval": positive_duration,
    "threshold": number(0.31),
    "window": whole(2),
    "least_deviation": positive_duration,
}

_FAILOVER: _Parsers = {
    "shards": whole(1),
    "interval": positive_duration,
    "lease": positive_duration,
    "drift": parse_share,
    "ramp": positive_duration,
    "first_weight": parse_share,
    "virtual_nodes": whole(1),
}

_SWIM: _Parsers = {
    "interval": positive_duration,
    "probe_timeout": positive_duration,
    "indirect_probes": whole(0),
    "suspicion_multiplier": number(0.001),
    "suspicion_max_multiplier": number(1),
    "retransmit_multiplier": whole(1),
    "max_gossip": whole(1),
    "reconnect_every": whole(1),
    "local_health": flag,
    "dynamic_suspicion": flag,
    "buddy": flag,
    "max_health": whole(0),
}

C = TypeVar("C", bound=msgspec.Struct)


def _settings(table: Table, default: C, parsers: _Parsers) -> C:
    """The table's keys as a configuration; one that it refuses is a problem of the key that its refusal begins with."""
    given = {name: table.take(name, parse, default=getattr(default, name)) for name, parse in parsers.items()}
    try:
        return type(default)(**given)
    except (QuorumConfigError, DetectorConfigError, FailoverConfigError) as error:
        first = str(error).split()[0]
        table.wrong(first if first in parsers else next(iter(parsers)), str(error))
        return default


def _stretched(config: C, parsers: _Parsers, factor: float) -> C:
    durations = [name for name, parse in parsers.items() if parse is positive_duration]
    return msgspec.structs.replace(config, **{name: round(getattr(config, name) * factor) for name in durations})


def _named(nodes: int) -> tuple[str, ...]:
    return tuple(f"n{number}" for number in range(1, nodes + 1))


System: TypeAlias = Raft | Quorum | Swim | Heartbeat | Phi | Failover | Maelstrom

_KINDS: dict[str, Callable[[Table], System]] = {
    "raft": _raft,
    "quorum": _quorum,
    "swim": _unasked(Swim, _SWIM),
    "heartbeat": _unasked(Heartbeat, _HEARTBEAT),
    "phi": _unasked(Phi, _PHI),
    "failover": _unasked(Failover, _FAILOVER),
    "maelstrom": _maelstrom,
}


def read_system(table: Table) -> System:
    """``[system]``. What is wrong with it is noted in the table."""
    kind = table.take("kind", choice(*_KINDS), default="raft")
    system = _KINDS[kind](table)
    table.finish()
    return system
