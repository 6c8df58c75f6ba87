"""What a quorum store promises of every execution, decided from the traces of its nodes (docs/quorum.md).

`QuorumProperties` is fed one event at a time, all nodes' events in the order of their time, and answers at once with
what the event violates. It keeps a copy of what every node keeps, as its trace tells it, across restarts. `finish` says
what is wrong with it at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from apps.quorum import QuorumConfig, Ring
from experiments.checking.raft_properties import Violation
from experiments.checking.trace import Acknowledged, Boot, Handoff, Keep, Put, Read, TraceError, Witness

PROPERTIES = (
    "DotsAreUnique",
    "ContextsAreHonest",
    "NothingGoesBack",
    "AcknowledgedIsOnDisk",
    "QuorumsAreMet",
    "NothingLost",
)

Dot: TypeAlias = tuple[str, int]
Dots: TypeAlias = tuple[Dot, ...]


class QuorumProperties:
    """``nodes``: all of the store, tuned by ``config``.

    Read-only for observers: ``writes``, ``acknowledged``, ``reads``: how many there were; ``keys``: those ever written.
    """

    def __init__(self, nodes: Sequence[str], config: QuorumConfig) -> None:
        self.acknowledged = self.reads = 0
        self._config = config
        self._ring = Ring(nodes, config.virtual_nodes)
        self._puts: dict[Dot, tuple[Put, Witness]] = {}
        self._last: dict[tuple[str, str], int] = {}
        self._before: dict[Dot, int] = {}
        self._kept: dict[str, dict[str, tuple[Dots, Witness]]] = {node: {} for node in nodes}
        self._hints: dict[str, dict[tuple[str, str], Dots]] = {node: {} for node in nodes}
        self._vouched: dict[str, dict[str, tuple[Dot, Witness]]] = {node: {} for node in nodes}
        self._acked: dict[str, dict[Dot, Witness]] = {}

    @property
    def writes(self) -> int:
        return len(self._puts)

    @property
    def keys(self) -> list[str]:
        return sorted({put.key for put, _ in self._puts.values()})

    def replicas(self, key: str) -> tuple[str, ...]:
        return self._ring.walk(key)[: self._config.n]

    def feed(self, witness: Witness) -> list[Violation]:
        """What this event violates. Raises `TraceError` for one that cannot be."""
        match witness.event:
            case Put() as put:
                return self._put(witness, put)
            case Keep(key=key, dots=dots, owner=owner):
                return self._keep(witness, key, _dots(dots), owner)
            case Handoff(key=key, owner=owner):
                self._hints[witness.node].pop((owner, key), None)
            case Acknowledged(key=key, actor=actor, counter=counter, by=by):
                return self._acknowledge(witness, key, (actor, counter), by)
            case Read(key=key, by=by):
                self.reads += 1
                return self._met(witness, key, by, self._config.r, "read")
            case Boot(kept=kept, hints=hints):
                return self._boot(witness, kept, hints)
        return []

    def _put(self, witness: Witness, put: Put) -> list[Violation]:
        dot = put.actor, put.counter
        if dot in self._puts:
            message = f"{put.actor} gave {put.counter} to two writes"
            return [Violation("DotsAreUnique", message, (self._puts[dot][1], witness))]
        self._puts[dot] = put, witness
        written = put.actor, put.key
        self._before[dot] = self._last.get(written, 0)
        self._last[written] = put.counter
        return []

    def _keep(self, witness: Witness, key: str, dots: Dots, owner: str | None) -> list[Violation]:
        dishonest = self._dishonest(witness, key, dots)
        if owner is not None:
            self._hints[witness.node][owner, key] = dots
            return dishonest
        shelf = self._kept[witness.node]
        before, origin = shelf.get(key, ((), witness))
        shelf[key] = dots, witness
        gone = [dot for dot in before if not self._is_there(dot, dots, witness)]
        if not gone:
            return dishonest
        message = f"{witness.node} let go of {_said(gone)} of {key} for {_said(dots)}, whose writers had not seen it"
        return [*dishonest, Violation("NothingGoesBack", message, (origin, witness))]

    def _dishonest(self, witness: Witness, key: str, dots: Dots) -> list[Violation]:
        """What is kept without the same actor's version before it: who reads it there will be taken to have seen both.

        That one is enough, as it has one before it in turn (Preguiça et al. 2012).
        """
        if self._config.versions != "siblings":
            return []
        for dot in dots:
            self._of(dot, witness)
            before = dot[0], self._before[dot]
            if before[1] and not self._is_there(before, dots, witness):
                message = (
                    f"{witness.node} keeps {_said([dot])} of {key} without {_said([before])}, which whoever reads it "
                    "there will seem to have seen"
                )
                return [Violation("ContextsAreHonest", message, (self._puts[before][1], witness))]
        return []

    def _acknowledge(self, witness: Witness, key: str, dot: Dot, by: Sequence[str]) -> list[Violation]:
        self.acknowledged += 1
        self._acked.setdefault(key, {})[dot] = witness
        replicas = self.replicas(key)
        for node in by:
            if node in replicas:
                self._vouch(node, key, dot, witness)
        return self._met(witness, key, by, self._config.w, "write")

    def _vouch(self, node: str, key: str, dot: Dot, witness: Witness) -> None:
        """``node`` must have ``dot``, or what replaces it, from now on: of several, where the last writer wins, the
        last one is enough to remember.
        """
        before = self._vouched[node].get(key)
        if before is None or self._rank(dot, witness) >= self._rank(before[0], witness):
            self._vouched[node][key] = dot, witness

    def _met(self, witness: Witness, key: str, by: Sequence[str], needed: int, what: str) -> list[Violation]:
        replicas = self.replicas(key)
        if len(set(by)) < needed:
            message = f"{witness.node} answered a {what} of {key} on the word of {_names(by)}, and {needed} are needed"
            return [Violation("QuorumsAreMet", message, (witness,))]
        strangers = [node for node in by if node not in replicas]
        if strangers and self._config.quorum != "sloppy":
            message = (
                f"{witness.node} counted {_names(strangers)} for a {what} of {key}, whose replicas are "
                f"{_names(replicas)}: a {self._config.quorum} quorum has none but those"
            )
            return [Violation("QuorumsAreMet", message, (witness,))]
        return []

    def _boot(
        self, witness: Witness, kept: Mapping[str, list[Dot]], hints: Mapping[str, Mapping[str, list[Dot]]]
    ) -> list[Violation]:
        node = witness.node
        self._kept[node] = {key: (_dots(dots), witness) for key, dots in kept.items()}
        self._hints[node] = {(owner, key): _dots(dots) for owner, shelf in hints.items() for key, dots in shelf.items()}
        found: list[Violation] = []
        for key, (dot, origin) in self._vouched[node].items():
            if not self._is_there(dot, self._kept[node].get(key, ((), witness))[0], witness):
                message = (
                    f"{node} had {_said([dot])} of {key} on disk, as {origin.node} told a client, and came up without"
                )
                found.append(Violation("AcknowledgedIsOnDisk", message, (origin, witness)))
        return found

    # ---- at the end ----------------------------------------------------------------------------------------------

    def finish(self) -> list[Violation]:
        """Acknowledged writes that nobody has any more, nor anything that replaces them."""
        found: list[Violation] = []
        for key, acknowledged in sorted(self._acked.items()):
            there = [dot for shelf in self._kept.values() for dot in shelf.get(key, ((),))[0]]
            there += [
                dot
                for shelf in self._hints.values()
                for (_, kept), dots in shelf.items()
                if kept == key
                for dot in dots
            ]
            for dot, witness in acknowledged.items():
                if not self._is_there(dot, there, witness):
                    message = f"{_said([dot])} of {key} was acknowledged, and is gone: there is {_said(there)}"
                    found.append(Violation("NothingLost", message, (witness,)))
        return found

    def differing(self) -> dict[str, dict[str, Dots]]:
        """The keys that their replicas keep different versions of, with what each keeps."""
        found: dict[str, dict[str, Dots]] = {}
        for key in self.keys:
            kept = {node: self._kept[node].get(key, ((),))[0] for node in self.replicas(key)}
            if len(set(kept.values())) > 1:
                found[key] = kept
        return found

    # ---- versions ------------------------------------------------------------------------------------------------

    def _is_there(self, dot: Dot, dots: Iterable[Dot], witness: Witness) -> bool:
        """Whether ``dot`` is among ``dots``, or one that replaces it."""
        if self._config.versions == "last-writer-wins":
            rank = self._rank(dot, witness)
            return any(self._rank(other, witness) >= rank for other in dots)
        actor, counter = dot
        return any(other == dot or self._of(other, witness).context.get(actor, 0) >= counter for other in dots)

    def _rank(self, dot: Dot, witness: Witness) -> tuple[tuple[int, int], Dot]:
        return self._of(dot, witness).time, dot

    def _of(self, dot: Dot, witness: Witness) -> Put:
        known = self._puts.get(dot)
        if known is None:
            where = f"nodes/{witness.node}/trace/{witness.incarnation}.ndjson:{witness.line}"
            raise TraceError(f"{where}: {_said([dot])}, which nobody wrote; nothing can be decided from such a trace")
        return known[0]


def _dots(dots: Iterable[Dot]) -> Dots:
    return tuple((actor, counter) for actor, counter in dots)


def _said(dots: Iterable[Dot]) -> str:
    return " ".join(f"{actor}:{counter}" for actor, counter in dots) or "nothing"


def _names(nodes: Sequence[str]) -> str:
    return " ".join(nodes) or "nobody"
