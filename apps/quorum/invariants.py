"""What must hold of a quorum store: for whoever has the nodes at hand, tests and simulators.

`Invariants.observe` looks at one node after each of its steps; `convergence` and `nothing_lost` are asked for when the
network has been whole and quiet for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from apps.process import NodeId
from apps.quorum.core import Quorum
from apps.quorum.versions import Version, Versions, covers, merge


class Violation(msgspec.Struct, frozen=True):
    property: str
    detail: str


class Invariants:
    """Watches one store, through crashes and restarts. ``last_writer_wins``: how its versions are merged."""

    def __init__(self, last_writer_wins: bool) -> None:
        self._last_writer_wins = last_writer_wins
        self._dots: dict[tuple[str, str, int], Version] = {}
        self._kept: dict[NodeId, tuple[Quorum, dict[str, Versions]]] = {}

    def observe(self, node: Quorum) -> list[Violation]:
        """What ``node`` violates as it stands. Costs what it keeps."""
        seen, kept = self._kept.get(node.node, (node, {}))
        if seen is not node:
            kept = {}  # a crash takes what was not on disk yet
        found: list[Violation | None] = []
        for key, versions in node.store.items():
            if kept.get(key) is not versions:
                found += [self.dots_are_unique(key, version) for version in versions]
                found.append(self.nothing_goes_back(node, key, kept.get(key, ()), versions))
        self._kept[node.node] = node, dict(node.store)
        return [violation for violation in found if violation]

    def dots_are_unique(self, key: str, version: Version) -> Violation | None:
        """No two versions of a key have the same dot, or one would be lost for the other."""
        first = self._dots.setdefault((key, version.actor, version.counter), version)
        if first == version:
            return None
        return Violation("DotsAreUnique", f"{key}: {version.actor} gave {version.counter} to two writes")

    def nothing_goes_back(self, node: Quorum, key: str, before: Versions, after: Versions) -> Violation | None:
        """A replica lets go of a version only for one that replaces it."""
        if merge([*before, *after], self._last_writer_wins) == after:
            return None
        return Violation("NothingGoesBack", f"{node.node} had {_dots(before)} of {key}, and now {_dots(after)}")


def convergence(nodes: Sequence[Quorum]) -> list[Violation]:
    """All replicas of a key keep the same versions of it."""
    found = []
    for key in sorted({key for node in nodes for key in node.store}):
        replicas = nodes[0].replicas(key)
        kept = {node.node: node.store.get(key, ()) for node in nodes if node.node in replicas}
        if len({_dots(versions) for versions in kept.values()}) > 1:
            differ = ", ".join(f"{name} {_dots(versions)}" for name, versions in kept.items())
            found.append(Violation("Convergence", f"{key}: {differ}"))
    return found


def nothing_lost(nodes: Sequence[Quorum], acknowledged: Mapping[str, Iterable[Version]]) -> list[Violation]:
    """Every acknowledged version of a key is there, or one that saw it, or, where the last writer wins, a later one."""
    found = []
    for key, versions in acknowledged.items():
        present = [version for node in nodes for version in node.store.get(key, ())]
        for version in versions:
            if not any(_replaces(other, version, nodes[0]) for other in present):
                found.append(Violation("NothingLost", f"{key}: {_dots((version,))} was acknowledged, and is gone"))
    return found


def _replaces(other: Version, version: Version, node: Quorum) -> bool:
    if node.last_writer_wins:
        return other.rank >= version.rank
    return covers(other, version) or (other.actor, other.counter) == (version.actor, version.counter)


def _dots(versions: Versions) -> str:
    return " ".join(f"{version.actor}:{version.counter}" for version in versions) or "nothing"
