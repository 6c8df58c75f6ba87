"""The kinds of process the runtime can run, each with the types its driver needs to encode and decode.

A kind is named in the configuration: ``raft``, ``quorum``, ``client`` and the others below, or ``module:function`` for
one from elsewhere, where the function takes the `Config` and returns a `Kind`. Imports are made when a kind is asked
for, so that a client does not load Raft.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apps.process import Process
from apps.runtime.config import Config, ConfigError, parameters

if TYPE_CHECKING:
    from apps.detectors import Swim
    from apps.quorum import Quorum
    from apps.raft import Raft


@dataclass(frozen=True)
class Kind:
    """``protocol``: its name in the trace's header. ``message``, ``record``, ``command``, ``result``: what travels
    between nodes, is kept on disk, comes from clients and goes back to them, as types that msgspec can decode.
    ``child``: the command of a program that the driver keeps beside it, as `apps.maelstrom.bridge` has it.
    ``client``: it sends requests rather than messages, leaves a history rather than a trace, and is told on its
    standard input when to start and to stop.
    """

    protocol: str
    make: Callable[[], Process]
    message: Any = None
    record: Any = None
    command: Any = None
    result: Any = None
    child: tuple[str, ...] = ()
    client: bool = False


def kind_of(config: Config) -> Kind:
    """What ``config`` asks for. Raises `ConfigError`."""
    name = config.kind
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            build: Callable[[Config], Kind] = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError, TypeError) as error:  # the last two for a name like '.x'
            raise ConfigError(f"process: kind {name!r} cannot be loaded: {error}") from error
    else:
        try:
            build = _KINDS[name]
        except KeyError:
            raise ConfigError(
                f"process: unknown kind {name!r}; there are {', '.join(_KINDS)}, or 'module:function'"
            ) from None
    return build(config)


def raft(config: Config, core: type[Raft] | None = None) -> Kind:
    """A Raft node; ``core``: another class than ours with its constructor, for a kind of one's own."""
    from apps import kv
    from apps.raft import Command, Message, Raft, RaftConfig, Record

    _needs_listen(config)
    settings = parameters(config, RaftConfig)
    if strangers := sorted(set(settings.voters) - set(config.nodes)):
        raise ConfigError(f"process: voters {', '.join(strangers)} are not among the nodes {', '.join(config.nodes)}")
    return Kind(
        protocol="raft",
        make=lambda: (core or Raft)(config.node, config.nodes, settings, _random(config)),
        message=Message,
        record=Record,
        command=Command,
        result=kv.Result,
    )


def _operator(config: Config) -> Kind:
    from apps import kv
    from apps.raft import Command
    from apps.raft.operator import Operator, OperatorConfig

    settings = parameters(config, OperatorConfig)
    return Kind(
        protocol="operator",
        make=lambda: Operator(config.nodes, settings, first_request=_first_request(config)),
        command=Command,
        result=kv.Result,
        client=True,
    )


def quorum(config: Config, core: type[Quorum] | None = None) -> Kind:
    """A node of a quorum store; ``core`` as for `raft`."""
    from apps.quorum import Command, Message, Quorum, QuorumConfig, Record, Result

    _needs_listen(config)
    settings = parameters(config, QuorumConfig)
    if len(config.nodes) < settings.n:
        raise ConfigError(f"process: n is {settings.n}, but there are only {len(config.nodes)} nodes to keep copies")
    return Kind(
        protocol="quorum",
        make=lambda: (core or Quorum)(config.node, config.nodes, settings, _random(config)),
        message=Message,
        record=Record,
        command=Command,
        result=Result,
    )


def swim(config: Config, core: type[Swim] | None = None) -> Kind:
    """A member of a SWIM group; ``core`` as for `raft`."""
    from apps.detectors import Roster, Swim, SwimConfig

    _needs_listen(config)
    settings = parameters(config, SwimConfig)
    return Kind(
        protocol="swim",
        make=lambda: (core or Swim)(config.node, Roster(config.nodes), settings, _random(config)),
        message=Swim.Message,
    )


def _heartbeat(config: Config) -> Kind:
    from apps.detectors import Beat, FixedTimeout, HeartbeatConfig, Heartbeats

    _needs_listen(config)
    settings = parameters(config, HeartbeatConfig)
    return Kind(
        protocol="heartbeat",
        make=lambda: Heartbeats(config.node, config.nodes, settings.interval, lambda: FixedTimeout(settings.timeout)),
        message=Beat,
    )


def _failover(config: Config) -> Kind:
    from apps.failover import Failover, FailoverConfig

    _needs_listen(config)
    settings = parameters(config, FailoverConfig)
    return Kind(
        protocol="failover",
        make=lambda: Failover(config.node, config.nodes, settings),
        message=Failover.Message,
    )


def _phi(config: Config) -> Kind:
    from apps.detectors import Accrual, Beat, Heartbeats, PhiConfig

    _needs_listen(config)
    settings = parameters(config, PhiConfig)
    return Kind(
        protocol="phi",
        make=lambda: Heartbeats(config.node, config.nodes, settings.interval, lambda: Accrual(settings)),
        message=Beat,
    )


def _maelstrom(config: Config) -> Kind:
    from apps.maelstrom.bridge import Bridge, BridgeConfig, Call, CallResult, Carried

    _needs_listen(config)
    settings = parameters(config, BridgeConfig)
    return Kind(
        protocol="maelstrom",
        make=lambda: Bridge(config.node, config.nodes, settings, _random(config)),
        message=Carried,
        command=Call,
        result=CallResult,
        child=settings.command,
    )


def _client(config: Config) -> Kind:
    from apps import kv, workload

    settings = parameters(config, workload.RegisterConfig)
    return Kind(
        protocol="register",
        make=lambda: workload.RegisterClient(
            config.node, config.nodes, settings, _random(config), first_request=_first_request(config)
        ),
        command=kv.Command,
        result=kv.Result,
        client=True,
    )


def _lin_kv(config: Config) -> Kind:
    from apps import workload
    from apps.maelstrom.bridge import Call, CallResult
    from apps.maelstrom.clients import LinKvClient

    settings = parameters(config, workload.RegisterConfig)
    return Kind(
        protocol="lin-kv",
        make=lambda: LinKvClient(
            config.node, config.nodes, settings, _random(config), first_request=_first_request(config)
        ),
        command=Call,
        result=CallResult,
        client=True,
    )


def _echo(config: Config) -> Kind:
    from apps.maelstrom.bridge import Call, CallResult
    from apps.maelstrom.clients import EchoClient, EchoConfig

    settings = parameters(config, EchoConfig)
    return Kind(
        protocol="echo",
        make=lambda: EchoClient(config.nodes, settings, _random(config), first_request=_first_request(config)),
        command=Call,
        result=CallResult,
        client=True,
    )


def _flood(config: Config) -> Kind:
    from apps import kv, workload

    settings = parameters(config, workload.FloodConfig)
    return Kind(
        protocol="flood",
        make=lambda: workload.Flood(config.node, config.nodes, settings, first_request=_first_request(config)),
        command=kv.Command,
        result=kv.Result,
        client=True,
    )


_KINDS: dict[str, Callable[[Config], Kind]] = {
    "raft": raft,
    "operator": _operator,
    "client": _client,
    "flood": _flood,
    "quorum": quorum,
    "swim": swim,
    "heartbeat": _heartbeat,
    "phi": _phi,
    "failover": _failover,
    "maelstrom": _maelstrom,
    "lin-kv": _lin_kv,
    "echo": _echo,
}


def _random(config: Config) -> random.Random:
    # A string is hashed with SHA-512, whatever PYTHONHASHSEED; another node or incarnation draws other numbers.
    return random.Random(f"{config.seed} {config.node} {config.incarnation}")


def _first_request(config: Config) -> int:
    return config.incarnation << 32


def _needs_listen(config: Config) -> None:
    if config.listen is None:
        raise ConfigError(f"listen: a node of kind {config.kind!r} must have an address, like '10.0.0.1:7000'")
