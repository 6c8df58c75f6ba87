"""Following the nodes' traces while they run: who leads, and what is committed. Reads files, touches no network."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from apps.raft.quorum import Configuration


class _Line(msgspec.Struct):
    t: int
    ev: str
    role: str = ""
    term: int = 0
    index: int = 0
    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    outgoing: tuple[str, ...] = ()


class TraceWatch:
    """What the traces under ``<run>/nodes`` say so far. Call `update` and then read the attributes."""

    def __init__(self, run: Path, nodes: Iterable[str]) -> None:
        self._decoder = msgspec.json.Decoder(_Line)
        self._folders = {node: run / "nodes" / node / "trace" for node in nodes}
        self._read: dict[Path, int] = {}
        #: The last role event of every node: (role, term).
        self.roles: dict[str, tuple[str, int]] = {}
        #: ``{term: node}`` of every leader seen.
        self.leaders: dict[int, str] = {}
        #: The highest (term, index) that a leader has committed in its own term.
        self.committed: tuple[int, int] = (0, 0)
        #: The members that count for every node.
        self.configurations: dict[str, Configuration] = {}

    def update(self) -> None:
        """Read what has been written since the last time; an unfinished last line is left for the next."""
        for node, folder in self._folders.items():
            for path in sorted(folder.glob("*.ndjson")):
                with path.open("rb") as file:
                    file.seek(self._read.get(path, 0))
                    text = file.read()
                whole = text[: text.rfind(b"\n") + 1]
                self._read[path] = self._read.get(path, 0) + len(whole)
                for line in whole.splitlines():
                    if b'"role"' in line or b'"commit"' in line or b'"started"' in line or b'"configure"' in line:
                        self._take(node, self._decoder.decode(line))

    def _take(self, node: str, line: _Line) -> None:
        if line.ev == "role":
            self.roles[node] = (line.role, line.term)
            if line.role == "leader":
                self.leaders[line.term] = node
        elif line.ev == "started":
            self.roles[node] = ("follower", line.term)
        elif line.ev == "configure":
            self.configurations[node] = Configuration(line.index, line.voters, line.learners, line.outgoing)
        elif line.ev == "commit":
            self.committed = max(self.committed, (line.term, line.index))

    def leader(self, alive: Iterable[str]) -> str | None:
        """The node among ``alive`` that leads the highest term, or None."""
        leading = [(term, node) for node in alive for role, term in [self.roles.get(node, ("", 0))] if role == "leader"]
        return max(leading)[1] if leading else None
