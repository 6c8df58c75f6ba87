"""Following the nodes' traces while they run: who leads, what is committed, and whether promises are kept.

Reads files, touches no network.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

from apps.raft.quorum import Configuration
from experiments.checking.live import LiveCheck
from experiments.checking.trace import Commit, Configure, Role, Started, TraceReader, Witness


class TraceWatch:
    """What the traces under ``<run>/nodes`` say so far. Call `update` and then read the attributes.

    ``live`` is fed all of it, in an order in which every event comes after those that led to it. Node A's event led to
    one of B's only by a message, which A sent when its event was in the file, and B's event bears a time after that. So
    of what is read, whatever is not younger than the beginning of the reading has all its causes read as well.
    """

    def __init__(self, run: Path, nodes: Iterable[str], live: LiveCheck) -> None:
        self._folders = {node: run / "nodes" / node / "trace" for node in nodes}
        self._readers: dict[Path, TraceReader] = {}
        self._live = live
        self._young: list[Witness] = []
        #: The last role event of every node: (role, term).
        self.roles: dict[str, tuple[str, int]] = {}
        #: ``{term: node}`` of every leader seen.
        self.leaders: dict[int, str] = {}
        #: The highest (term, index) that a leader has committed in its own term.
        self.committed: tuple[int, int] = (0, 0)
        #: The members that count for every node.
        self.configurations: dict[str, Configuration] = {}

    def update(self, now: int) -> None:
        """Read what has been written since the last time; ``now`` is the time on the nodes' clock.

        Raises `TraceError` for what is no trace.
        """
        read: list[Witness] = []
        for folder in self._folders.values():
            for path in sorted(folder.glob("[0-9]*.ndjson"), key=lambda path: int(path.stem)):
                reader = self._readers.get(path)
                if reader is None:
                    reader = self._readers[path] = TraceReader(path)
                read += reader.read()
        for witness in read:
            self._take(witness)
        known = self._young + read
        self._young = [witness for witness in known if witness.t > now]
        for witness in sorted((witness for witness in known if witness.t <= now), key=attrgetter("t")):
            self._live.feed(witness)

    def _take(self, witness: Witness) -> None:
        node = witness.node
        match witness.event:
            case Role(role=role, term=term):
                self.roles[node] = (role, term)
                if role == "leader":
                    self.leaders[term] = node
            case Started(term=term):
                self.roles[node] = ("follower", term)
            case Commit(index=index, term=term):
                self.committed = max(self.committed, (term, index))
            case Configure(index=index, voters=voters, learners=learners, outgoing=outgoing):
                self.configurations[node] = Configuration(index, voters, learners, outgoing)

    def leader(self, alive: Iterable[str]) -> str | None:
        """The node among ``alive`` that leads the highest term, or None."""
        leading = [(term, node) for node in alive for role, term in [self.roles.get(node, ("", 0))] if role == "leader"]
        return max(leading)[1] if leading else None
