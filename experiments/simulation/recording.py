"""What a simulated run leaves: the same evidence as on the fabric, as files, as text, or straight to the checkers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import UNSET

from apps.detectors import trace as detectors
from apps.failover import trace as failover
from apps.maelstrom.bridge import Gone, Rejected
from apps.process import Nanoseconds, NodeId
from apps.quorum import trace as quorum
from apps.raft import trace
from apps.workload import HistoryEvent
from experiments.checking import trace as evidence
from experiments.checking.binaries import Finding
from experiments.checking.history import Event
from experiments.checking.live import LiveCheck
from experiments.checking.trace import TraceEvent, Witness
from experiments.scenario import System


class Recorder(Protocol):
    """Takes evidence as it arises, in the order of time."""

    def begin_node(self, moment: Nanoseconds, node: NodeId, incarnation: int, protocol: str) -> None: ...
    def node(self, moment: Nanoseconds, node: NodeId, incarnation: int, event: Any) -> None: ...
    def client(self, moment: Nanoseconds, client: NodeId, event: HistoryEvent) -> None: ...


class TextRecorder:
    """Keeps the lines of every file that a run on the fabric would have, by the file's path in the run's folder."""

    def __init__(self) -> None:
        self.files: dict[str, list[bytes]] = {}
        self._encode = msgspec.json.Encoder().encode

    def begin_node(self, moment: Nanoseconds, node: NodeId, incarnation: int, protocol: str) -> None:
        header = {"ev": "trace", "schema": evidence.SCHEMA, "node": node, "incarnation": incarnation}
        self.node(moment, node, incarnation, {**header, "protocol": protocol})

    def node(self, moment: Nanoseconds, node: NodeId, incarnation: int, event: Any) -> None:
        self._line(f"nodes/{node}/trace/{incarnation}.ndjson", b"t", moment, event)

    def client(self, moment: Nanoseconds, client: NodeId, event: HistoryEvent) -> None:
        self._line(f"clients/{client}/trace/history.ndjson", b"time", moment, event)

    def _line(self, path: str, clock: bytes, moment: Nanoseconds, event: Any) -> None:
        line = b'{"%b":%d,' % (clock, moment) + self._encode(event)[1:] + b"\n"
        self.files.setdefault(path, []).append(line)
        self.wrote(path, line)

    def wrote(self, path: str, line: bytes) -> None:
        """Called with every line."""

    def digest(self) -> str:
        """SHA-256 of all files, one after another in the order of their paths."""
        digest = hashlib.sha256()
        for path in sorted(self.files):
            digest.update(b"".join(self.files[path]))
        return digest.hexdigest()


class FolderRecorder(TextRecorder):
    """Writes the files too, into the folder of a run, and has what the nodes say checked."""

    def __init__(self, run: Path, live: LiveCheck) -> None:
        super().__init__()
        self._run, self._live = run, live

    def node(self, moment: Nanoseconds, node: NodeId, incarnation: int, event: Any) -> None:
        super().node(moment, node, incarnation, event)
        as_read = _AS_READ.get(type(event))
        if as_read is not None:
            line = len(self.files[f"nodes/{node}/trace/{incarnation}.ndjson"])
            self._live.feed(Witness(node, incarnation, line, as_read(moment, event)))

    def wrote(self, path: str, line: bytes) -> None:
        if len(self.files[path]) == 1:
            (self._run / path).parent.mkdir(parents=True, exist_ok=True)
        with (self._run / path).open("ab", buffering=0) as file:
            file.write(line)


class Both:
    """Tells two recorders of everything."""

    def __init__(self, one: Recorder, other: Recorder) -> None:
        self._one, self._other = one, other

    def begin_node(self, moment: Nanoseconds, node: NodeId, incarnation: int, protocol: str) -> None:
        self._one.begin_node(moment, node, incarnation, protocol)
        self._other.begin_node(moment, node, incarnation, protocol)

    def node(self, moment: Nanoseconds, node: NodeId, incarnation: int, event: Any) -> None:
        self._one.node(moment, node, incarnation, event)
        self._other.node(moment, node, incarnation, event)

    def client(self, moment: Nanoseconds, client: NodeId, event: HistoryEvent) -> None:
        self._one.client(moment, client, event)
        self._other.client(moment, client, event)


class OnlineRecorder(LiveCheck):
    """Keeps nothing as text: histories for their checker, and the nodes' traces checked as they grow.

    ``findings`` about binaries (`checking.binaries`).
    """

    def __init__(self, system: System) -> None:
        super().__init__(system)
        self.histories: dict[NodeId, list[Event]] = {}
        self.witnesses: list[Witness] = []
        self.findings: list[Finding] = []
        self._lines: dict[tuple[NodeId, int], int] = {}

    def begin_node(self, moment: Nanoseconds, node: NodeId, incarnation: int, protocol: str) -> None:
        header = evidence.Header(moment, evidence.SCHEMA, node, incarnation, protocol)
        self._lines[node, incarnation] = 1
        self._take(Witness(node, incarnation, 1, header))

    def node(self, moment: Nanoseconds, node: NodeId, incarnation: int, event: Any) -> None:
        line = self._lines[node, incarnation] = self._lines[node, incarnation] + 1
        as_read = _AS_READ.get(type(event))
        if as_read is not None:
            self._take(Witness(node, incarnation, line, as_read(moment, event)))
        elif isinstance(event, Rejected | Gone):
            self.findings.append(Finding(node, moment, event))

    def client(self, moment: Nanoseconds, client: NodeId, event: HistoryEvent) -> None:
        error = UNSET if event.error is None else event.error
        seen = Event(event.process, event.type, event.f, event.value, moment, -1, error)
        self.histories.setdefault(client, []).append(seen)

    def _take(self, witness: Witness) -> None:
        self.witnesses.append(witness)
        self.feed(witness)


#: What a node says, as it would be read from its trace (docs/trace.md).
_AS_READ: dict[type, Callable[[Nanoseconds, Any], TraceEvent]] = {
    trace.Started: lambda t, said: evidence.Started(t, said.term, said.vote, said.last, said.last_term),
    trace.RoleChanged: lambda t, said: evidence.Role(t, str(said.role), said.term, said.last, said.last_term),
    trace.Voted: lambda t, said: evidence.Vote(t, said.term, said.candidate),
    trace.Truncated: lambda t, said: evidence.Truncate(t, said.first),
    trace.Appended: lambda t, said: evidence.Append(t, said.first, said.terms, said.digests),
    trace.Committed: lambda t, said: evidence.Commit(t, said.index, said.term),
    trace.Installed: lambda t, said: evidence.Install(t, said.index, said.term),
    trace.Applied: lambda t, said: evidence.Apply(t, said.first, said.terms, said.digests),
    trace.Configured: lambda t, said: evidence.Configure(t, said.index, said.voters, said.learners, said.outgoing),
    trace.Rejected: lambda t, said: evidence.Reject(t, said.sender, said.message, said.why, said.count),
    quorum.Booted: lambda t, said: evidence.Boot(t, said.actor, said.kept, said.hints),
    quorum.Written: lambda t, said: evidence.Put(t, said.key, said.actor, said.counter, said.time, said.context),
    quorum.Kept: lambda t, said: evidence.Keep(t, said.key, said.dots, said.owner),
    quorum.Acknowledged: lambda t, said: evidence.Acknowledged(t, said.key, said.actor, said.counter, said.by),
    quorum.Answered: lambda t, said: evidence.Read(t, said.key, said.dots, said.by),
    quorum.Repaired: lambda t, said: evidence.Repair(t, said.key, said.replica),
    quorum.Failed: lambda t, said: evidence.Short(t, said.key, said.write, said.answered, said.needed),
    quorum.HandedOver: lambda t, said: evidence.Handoff(t, said.key, said.owner),
    detectors.Believed: lambda t, said: evidence.Believe(t, said.member, said.standing, said.incarnation, said.after),
    detectors.Incarnated: lambda t, said: evidence.Incarnation(t, said.incarnation, said.accused),
    detectors.Asked: lambda t, said: evidence.Ask(t, said.member, list(said.helpers)),
    detectors.Load: lambda t, said: evidence.Load(t, said.sent, said.received),
    failover.Leased: lambda t, said: evidence.Lease(t, said.shards, said.lasts, said.grant),
    failover.Granted: lambda t, said: evidence.Grant(t, said.member, said.shards, said.grant),
    failover.Weighed: lambda t, said: evidence.Weigh(t, said.member, said.weight),
}
