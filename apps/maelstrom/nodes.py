"""The processes that run as Maelstrom binaries, by name, with the types of what clients ask and peers say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from apps.process import NodeId, Process

#: Maelstrom's network takes milliseconds, and its nodes share a machine: a leader is given more time than on a fabric.
ELECTION_TIMEOUT = (300_000_000, 600_000_000)


@dataclass(frozen=True)
class Node:
    """``workloads``: Maelstrom's names of those that it fits. ``requests``: the bodies that clients send. ``message``:
    what nodes say to each other. ``record``: what is kept on disk, None for nothing.
    """

    workloads: tuple[str, ...]
    requests: Any
    make: Callable[[NodeId, Sequence[NodeId], Random], Process]
    message: Any = None
    record: Any = None


def _echo() -> Node:
    from apps.maelstrom.simple import Echo, Echoes

    return Node(("echo",), Echo, lambda node, nodes, random: Echoes())


def _unique_ids() -> Node:
    from apps.maelstrom.simple import Generate, UniqueIds

    return Node(("unique-ids",), Generate, lambda node, nodes, random: UniqueIds(node, random))


def _broadcast() -> Node:
    from apps.maelstrom import crdt

    requests = crdt.Broadcast | crdt.Read | crdt.Topology
    return Node(("broadcast",), requests, lambda node, nodes, random: crdt.BroadcastNode(node, nodes), crdt.SetMessage)


def _g_set() -> Node:
    from apps.maelstrom import crdt

    requests = crdt.AddElement | crdt.Read | crdt.Topology
    return Node(("g-set",), requests, lambda node, nodes, random: crdt.GSetNode(node, nodes), crdt.SetMessage)


def _counter() -> Node:
    from apps.maelstrom import crdt

    requests = crdt.AddDelta | crdt.Read | crdt.Topology
    return Node(
        ("g-counter", "pn-counter"),
        requests,
        lambda node, nodes, random: crdt.CounterNode(node, nodes),
        crdt.CounterMessage,
    )


def _raft() -> Node:
    from apps.maelstrom.lin_kv import Cas, LinKv, LinKvMessage, Read, Write
    from apps.raft import RaftConfig, Record

    config = RaftConfig(election_timeout=ELECTION_TIMEOUT, heartbeat_interval=ELECTION_TIMEOUT[0] // 5)
    return Node(
        ("lin-kv",),
        Read | Write | Cas,
        lambda node, nodes, random: LinKv(node, nodes, config, random),
        LinKvMessage,
        Record,
    )


#: Imported when asked for, so that an echo does not load Raft.
NODES: dict[str, Callable[[], Node]] = {
    "echo": _echo,
    "unique-ids": _unique_ids,
    "broadcast": _broadcast,
    "g-set": _g_set,
    "counter": _counter,
    "raft": _raft,
}
