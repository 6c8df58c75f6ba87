"""What Raft promises of every execution (Ongaro & Ousterhout 2014, Figure 3), decided from the traces of its nodes.

`RaftProperties` is fed one event at a time, all nodes' events in the order of their time, and answers at once with what
the event violates. It keeps a copy of every node's log as its trace tells it, across restarts.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from experiments.checking.trace import Append, Apply, Commit, Install, Role, Started, TraceError, Truncate, Witness

Property: TypeAlias = Literal[
    "ElectionSafety", "LeaderAppendOnly", "LogMatching", "LeaderCompleteness", "StateMachineSafety"
]

PROPERTIES: tuple[Property, ...] = (
    "ElectionSafety",
    "LeaderAppendOnly",
    "LogMatching",
    "LeaderCompleteness",
    "StateMachineSafety",
)

#: An entry as a trace shows it: its term, and the digest of its command.
Entry: TypeAlias = tuple[int, str]


class Violation(msgspec.Struct, frozen=True):
    """``events`` contradict each other; ``index`` is the log position they are about, 0 where they are about none."""

    property: str
    message: str
    events: tuple[Witness, ...]
    index: int = 0

    def as_data(self) -> dict[str, Any]:
        """``details`` of a check in ``results.json``: of entries, only the one that matters."""
        return {
            "property": self.property,
            "message": self.message,
            "events": [_only(witness.as_data(), self.index) for witness in self.events],
        }


def _only(event: dict[str, Any], index: int) -> dict[str, Any]:
    at = index - event.get("first", index + 1)
    if "digests" in event and 0 <= at < len(event["digests"]):
        event |= {"first": index, "terms": [event["terms"][at]], "digests": [event["digests"][at]]}
    return event


class _Node:
    """What a node's trace has told so far. ``leading``: the event that made it the leader it still is."""

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.term = 0
        self.commit = 0
        self.leading: Witness | None = None
        self.undo: list[tuple[int, list[Entry]]] = []

    def recover(self, witness: Witness, event: Started) -> None:
        """Go back to what was on disk: the log as it was at some earlier moment, the latest that fits what was found.

        Neither appending nor removing need have reached the disk when the node died, but what did is always a beginning
        of what was done (`apps.process`).
        """
        last, log = event.last, self.log
        while not (
            (self.undo[-1][0] - 1 if self.undo else 0) <= last <= len(log)
            and (last == 0 or log[last - 1][0] == event.last_term)
        ):
            if not self.undo:
                raise _impossible(witness, f"recovered a log that ends at {last} with term {event.last_term}; none did")
            first, removed = self.undo.pop()
            log[first - 1 :] = removed
        del log[last:]
        self.undo.clear()
        self.term, self.commit, self.leading = event.term, 0, None


class _Leader:
    """A leader as it was elected: its log from position ``base`` + 1 on; what is before was found to be committed."""

    def __init__(self, elected: Witness, base: int, tail: list[Entry]) -> None:
        self.elected = elected
        self.base = base
        self.tail = tail

    def lacks(self, index: int, entry: Entry) -> bool:
        at = index - 1 - self.base
        return at >= 0 and (at >= len(self.tail) or self.tail[at] != entry)


class RaftProperties:
    """The five properties, over all that was fed so far.

    - **ElectionSafety**: at most one leader can be elected in a given term. A node elected a second time in a term,
      after a restart say, counts as two.
    - **LeaderAppendOnly**: a leader never overwrites or deletes entries in its log.
    - **LogMatching**: if two logs hold an entry with the same index and term, they are identical up to it. Decided
      entry by entry: all entries of an index and term have one digest and one predecessor, in every log there ever was
      (the ``allLogs`` of the thesis's proof, appendix B), from which the rest follows by induction.
    - **LeaderCompleteness**: an entry committed in a term is in the logs of the leaders of all higher terms. Committed
      is what a node's trace says, in no later term than the node was in; who says so may be late, so an entry is also
      compared with the logs of leaders that had been elected before it was known to be committed.
    - **StateMachineSafety**: no two nodes apply different entries at the same index, nor does one after a restart.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}
        self._leaders: dict[int, _Leader] = {}
        self._entries: dict[tuple[int, int], tuple[Entry, int, Witness]] = {}
        self._committed: list[Entry] = []
        self._committed_in: list[int] = []
        self._committed_by: list[Witness] = []
        self._latest_commit_term = 0
        self._applied: dict[int, tuple[Entry, Witness]] = {}

    @property
    def terms(self) -> int:
        """In how many terms a leader was elected."""
        return len(self._leaders)

    @property
    def committed(self) -> int:
        """How many entries are known to be committed."""
        return len(self._committed)

    def feed(self, witness: Witness) -> list[Violation]:
        """Take the next event; return what it violates, given all before it.

        Raises `TraceError` when the event cannot follow what the node's trace said before, so that nothing can be
        decided from it.
        """
        node = self._nodes.get(witness.node)
        if node is None:
            node = self._nodes[witness.node] = _Node()
        match witness.event:
            case Append() as event:
                return self._append(node, witness, event)
            case Commit(index=index, term=term):
                return self._commit(node, witness, index, term)
            case Apply() as event:
                return self._apply(node, witness, event)
            case Role() as event:
                return self._role(node, witness, event)
            case Truncate(first=first):
                return self._truncate(node, witness, first)
            case Install(index=index, term=term):
                return self._install(node, witness, index, term)
            case Started() as event:
                node.recover(witness, event)
        return []

    def _role(self, node: _Node, witness: Witness, event: Role) -> list[Violation]:
        node.term = event.term
        if event.role != "leader":
            node.leading = None
            return []
        if node.leading is not None and isinstance(node.leading.event, Role) and node.leading.event.term == event.term:
            return []
        node.leading = witness
        found: list[Violation] = []
        other = self._leaders.get(event.term)
        if other is not None:
            found.append(
                Violation(
                    "ElectionSafety",
                    f"{other.elected.node} and {witness.node} were both elected in term {event.term}"
                    if other.elected.node != witness.node
                    else f"{witness.node} was elected twice in term {event.term}",
                    (other.elected, witness),
                )
            )
        missing = self._first_missing(node.log, event.term)
        if missing:
            committed = self._committed_by[missing - 1]
            found.append(self._incomplete(committed, missing, self._committed_in[missing - 1], witness))
        base = len(self._committed) if self._latest_commit_term < event.term else 0
        self._leaders[event.term] = _Leader(witness, base, node.log[base:])
        return found

    def _first_missing(self, log: list[Entry], term: int) -> int:
        """The first index committed in a term before ``term`` at which ``log`` holds something else, or 0."""
        if self._latest_commit_term < term and log[: len(self._committed)] == self._committed:
            return 0
        for index, (entry, committed_in) in enumerate(zip(self._committed, self._committed_in, strict=True), 1):
            if committed_in < term and (index > len(log) or log[index - 1] != entry):
                return index
        return 0

    def _incomplete(self, committed: Witness, index: int, term: int, elected: Witness) -> Violation:
        assert isinstance(elected.event, Role)
        return Violation(
            "LeaderCompleteness",
            f"the entry at {index}, which {committed.node} knew to be committed in term {term}, is not in the log of "
            f"{elected.node}, leader of term {elected.event.term}",
            (committed, elected),
            index,
        )

    def _append(self, node: _Node, witness: Witness, event: Append) -> list[Violation]:
        log, first = node.log, event.first
        if not 1 <= first <= len(log) + 1:
            raise _impossible(witness, f"appended at {first} to a log that ends at {len(log)}")
        found = self._truncate(node, witness, first) if first <= len(log) else []
        previous = log[-1][0] if log else 0
        differs = False
        for index, (term, digest) in enumerate(zip(event.terms, event.digests, strict=True), first):
            known = self._entries.get((index, term))
            if known is None:
                entry = (term, digest)
                self._entries[index, term] = (entry, previous, witness)
            else:
                entry, before, origin = known
                if (entry[1] != digest or before != previous) and not differs:
                    differs = True
                    what = "different commands" if entry[1] != digest else f"different terms at {index - 1}"
                    found.append(
                        Violation(
                            "LogMatching",
                            f"{origin.node} and {witness.node} hold entry {index} of term {term} with {what}",
                            (origin, witness),
                            index,
                        )
                    )
                if entry[1] != digest:
                    entry = (term, digest)
            log.append(entry)
            previous = term
        return found

    def _truncate(self, node: _Node, witness: Witness, first: int) -> list[Violation]:
        gone = len(node.log) - first + 1
        if gone <= 0:
            return []
        node.undo.append((first, node.log[first - 1 :]))
        del node.log[first - 1 :]
        if node.leading is None:
            return []
        message = f"{witness.node} removed {gone} of its entries, from {first} on, while it led term {node.term}"
        return [Violation("LeaderAppendOnly", message, (node.leading, witness), first)]

    def _install(self, node: _Node, witness: Witness, index: int, term: int) -> list[Violation]:
        """A snapshot stands for what was committed; a log that agrees with it there keeps what follows."""
        if index > len(self._committed) or self._committed[index - 1][0] != term:
            message = f"{witness.node} installed a snapshot at {index} of term {term}, which nobody had committed"
            return [Violation("StateMachineSafety", message, (witness,), index)]
        if not (index <= len(node.log) and node.log[index - 1][0] == term):
            node.undo.append((1, node.log[:]))
            node.log[:] = self._committed[:index]
        node.commit = max(node.commit, index)
        return []

    def _commit(self, node: _Node, witness: Witness, upto: int, term: int) -> list[Violation]:
        if upto > len(node.log):
            raise _impossible(witness, f"committed up to {upto} in a log that ends at {len(node.log)}")
        found: list[Violation] = []
        self._latest_commit_term = max(self._latest_commit_term, term)
        later = [leader for elected_in, leader in self._leaders.items() if elected_in > term]
        for index in range(node.commit + 1, upto + 1):
            entry = node.log[index - 1]
            if index > len(self._committed):
                self._committed.append(entry)
                self._committed_in.append(term)
                self._committed_by.append(witness)
            elif self._committed[index - 1] == entry:
                if term >= self._committed_in[index - 1]:
                    continue
                self._committed_in[index - 1] = term
                self._committed_by[index - 1] = witness
            if later and not found:
                lacking = [leader for leader in later if leader.lacks(index, entry)]
                found = [self._incomplete(witness, index, term, leader.elected) for leader in lacking[:1]]
        node.commit = max(node.commit, upto)
        return found

    def _apply(self, node: _Node, witness: Witness, event: Apply) -> list[Violation]:
        found: list[Violation] = []
        last = event.first + len(event.terms) - 1
        if last > node.commit:
            # Who applies an entry takes it for committed, whatever else it says.
            found += self._commit(node, witness, min(last, len(node.log)), node.term)
        for index, entry in enumerate(zip(event.terms, event.digests, strict=True), event.first):
            applied, by = self._applied.setdefault(index, (entry, witness))
            if applied != entry:
                message = f"{by.node} and {witness.node} applied different entries at {index}"
                if by.node == witness.node:
                    message = f"{by.node} applied two different entries at {index}"
                found.append(Violation("StateMachineSafety", message, (by, witness), index))
                break
        return found


def _impossible(witness: Witness, what: str) -> TraceError:
    where = f"nodes/{witness.node}/trace/{witness.incarnation}.ndjson:{witness.line}"
    return TraceError(f"{where}: {what}; nothing can be decided from such a trace")
