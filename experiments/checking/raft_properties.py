"""What Raft promises of every execution, decided from the traces of its nodes.

The five properties of Figure 3 (Ongaro & Ousterhout 2014), and the rules that carry them: a broken rule shows the bug
in the step that makes it, where a broken property needs bad luck besides. `RaftProperties` is fed one event at a time,
all nodes' events in the order of their time, and answers at once with what the event violates. It keeps a copy of every
node's log as its trace tells it, across restarts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from apps.raft.quorum import Configuration, majority, may_follow
from experiments.checking.trace import (
    Append,
    Apply,
    Commit,
    Configure,
    Install,
    Role,
    Started,
    TraceError,
    Truncate,
    Vote,
    Witness,
)

PROPERTIES = ("ElectionSafety", "LeaderAppendOnly", "LogMatching", "LeaderCompleteness", "StateMachineSafety")

#: Decided only where traces tell of votes and configurations; those of other implementations need not.
RULES = (
    "OneVoteATerm",
    "VotesAreKept",
    "ElectedByQuorum",
    "OnlyConflictsRemove",
    "CommittedByQuorum",
    "CommittedIsOnDisk",
    "OneChangeAtATime",
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
    """What a node's trace has told so far. ``leading``: the event that made it the leader it still is. ``voted``: the
    last vote that it cast. ``removed``: the event with which it has removed entries from an index on, and the first of
    them, as long as nothing was put in their place.
    """

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.term = 0
        self.commit = 0
        self.leading: Witness | None = None
        self.voted: Witness | None = None
        self.removed: tuple[int, Entry, Witness] | None = None
        self.configuration: Configuration | None = None
        self.undo: list[tuple[int, list[Entry]]] = []

    def recover(self, witness: Witness, event: Started) -> None:
        """Go back to what was on disk: the log as it was at some earlier moment, the latest that fits what was found.

        Neither appending nor removing need have reached the disk when the node died, but what did is always a beginning
        of what was done (`apps.process`).
        """
        last, log = event.last, self.log
        self.removed = None
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

    def has(self, index: int, entry: Entry) -> bool:
        return index <= len(self.log) and self.log[index - 1] == entry


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

    And the rules, of nodes whose traces tell their configuration (`apps.raft.quorum`). A quorum is a majority of its
    voters, and one of its outgoing voters too while it is joint.

    - **OneVoteATerm**: a node votes for one candidate in a term, restarts included (§5.2).
    - **VotesAreKept**: a node comes up in no earlier term than it last voted in, and in that one with its vote: both
      are on disk before the vote is cast (Figure 2).
    - **ElectedByQuorum**: who becomes leader has the votes of a quorum of its configuration (§5.2, §6).
    - **OnlyConflictsRemove**: a node removes entries of its log only for an entry of another term in place of the first
      of them (Figure 2), and installs a snapshot without removing what its log agrees with (§7): what is removed
      without need may have been acknowledged.
    - **CommittedByQuorum**: what a leader commits ends with an entry of its own term, and a quorum of its configuration
      has it in their logs (§5.3, §5.4.2).
    - **CommittedIsOnDisk**: a quorum of the configuration by which an entry was committed has it for good. What a node
      has written shows when it comes up again, and what it lacks then it had acknowledged before it was on disk.
    - **OneChangeAtATime**: a leader begins a change of members when the last one and an entry of its own term are
      committed, and by a step after which quorums still meet (§6, thesis §4.1, and raft-dev, July 2015).

    A rule needs every event to come after those that led to it, which the order of time grants; properties do not.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}
        self._leaders: dict[int, _Leader] = {}
        self._entries: dict[tuple[int, int], tuple[Entry, int, Witness]] = {}
        self._committed: list[Entry] = []
        self._committed_in: list[int] = []
        self._committed_by: list[Witness] = []
        self._committed_under: list[Configuration | None] = []
        self._latest_commit_term = 0
        self._applied: dict[int, tuple[Entry, Witness]] = {}
        self._votes: dict[tuple[int, str], tuple[str, Witness]] = {}
        #: How many steps of changes of members leaders have taken.
        self.steps = 0

    @property
    def judged(self) -> tuple[str, ...]:
        """Which properties and rules the events so far are enough for."""
        configured = any(node.configuration is not None for node in self._nodes.values())
        return (*PROPERTIES, *RULES) if configured else PROPERTIES

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
                return self._start(node, witness, event)
            case Vote(term=term, candidate=candidate):
                return self._vote(node, witness, term, candidate)
            case Configure() as event:
                return self._configure(node, witness, event)
        return []

    def _start(self, node: _Node, witness: Witness, event: Started) -> list[Violation]:
        before = node.log[: len(self._committed)]
        node.recover(witness, event)
        if node.configuration is None:
            return []
        return [*self._votes_are_kept(node, witness, event), *self._committed_is_on_disk(node, witness, before)]

    def _votes_are_kept(self, node: _Node, witness: Witness, event: Started) -> list[Violation]:
        if node.voted is None or not isinstance(node.voted.event, Vote):
            return []
        term, candidate = node.voted.event.term, node.voted.event.candidate
        if event.term > term or (event.term == term and event.vote == candidate):
            return []
        found = f"term {event.term}, with a vote for {event.vote or 'nobody'}"
        message = f"{witness.node} voted for {candidate} in term {term}, and came up in {found}"
        return [Violation("VotesAreKept", message, (node.voted, witness))]

    def _committed_is_on_disk(self, node: _Node, witness: Witness, before: list[Entry]) -> list[Violation]:
        """``before``: the node's log when it died, as far as entries are known to be committed."""
        if node.log[: len(before)] == before:
            return []
        for index, (entry, committed) in enumerate(zip(before, self._committed, strict=False), 1):
            configuration = self._committed_under[index - 1]
            if entry != committed or node.has(index, entry):
                continue
            voters = self._lacks_quorum(configuration, self._who_has(index, entry))
            if voters:
                having = list(filter(self._who_has(index, entry), voters))
                message = (
                    f"{witness.node} came up without entry {index}, which was committed: of {', '.join(voters)} only "
                    f"{', '.join(having) or 'none'} still {'has' if len(having) == 1 else 'have'} it"
                )
                return [Violation("CommittedIsOnDisk", message, (self._committed_by[index - 1], witness), index)]
        return []

    def _vote(self, node: _Node, witness: Witness, term: int, candidate: str) -> list[Violation]:
        node.voted = witness
        first, cast = self._votes.setdefault((term, witness.node), (candidate, witness))
        if first == candidate:
            return []
        message = f"{witness.node} voted for {first} and for {candidate} in term {term}"
        return [Violation("OneVoteATerm", message, (cast, witness))]

    def _configure(self, node: _Node, witness: Witness, event: Configure) -> list[Violation]:
        before = node.configuration
        after = node.configuration = Configuration(event.index, event.voters, event.learners, event.outgoing)
        if node.leading is None or before is None or after.index <= before.index:
            return []
        self.steps += 1
        wrong = ""
        if not may_follow(before, after):
            wrong = f"from voters {', '.join(before.voters)} to {', '.join(after.voters)} in one step"
        elif before.index > node.commit:
            wrong = f"before the change at {before.index} was committed"
        elif not node.commit or node.log[node.commit - 1][0] < node.term:
            wrong = f"before an entry of its term {node.term} was committed"
        if not wrong:
            return []
        message = f"{witness.node} changed the members at {after.index} {wrong}"
        return [Violation("OneChangeAtATime", message, (node.leading, witness), after.index)]

    def _who_has(self, index: int, entry: Entry) -> Callable[[str], bool]:
        return lambda name: (node := self._nodes.get(name)) is not None and node.has(index, entry)

    def _lacks_quorum(self, configuration: Configuration | None, having: Callable[[str], bool]) -> list[str]:
        """The voters of ``configuration`` of which a majority is not ``having`` it; empty if one is."""
        if configuration is not None:
            for voters in (configuration.voters, configuration.outgoing):
                if voters and sum(map(having, voters)) < majority(len(voters)):
                    return list(voters)
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
        voters = self._lacks_quorum(
            node.configuration, lambda voter: self._votes.get((event.term, voter), ("",))[0] == witness.node
        )
        if voters:
            cast = [vote for (term, _), (to, vote) in self._votes.items() if (term, to) == (event.term, witness.node)]
            message = f"{witness.node} became leader of term {event.term} with {len(cast)} votes of {', '.join(voters)}"
            found.append(Violation("ElectedByQuorum", message, (*cast, witness)))
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
        found += self._only_conflicts_remove(node, witness, event)
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

    def _only_conflicts_remove(self, node: _Node, witness: Witness, event: Append) -> list[Violation]:
        removed, node.removed = node.removed, None
        if node.configuration is None or removed is None or not event.terms:
            return []
        first, (term, _), by = removed
        if (first, term) != (event.first, event.terms[0]):
            return []
        message = f"{witness.node} removed its entries from {first} on, and put another of the same term {term} there"
        return [Violation("OnlyConflictsRemove", message, (by, witness) if by is not witness else (witness,), first)]

    def _truncate(self, node: _Node, witness: Witness, first: int) -> list[Violation]:
        gone = len(node.log) - first + 1
        if gone <= 0:
            return []
        node.undo.append((first, node.log[first - 1 :]))
        node.removed = first, node.log[first - 1], witness
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
            node.removed = None
        node.commit = max(node.commit, index)
        return []

    def _commit(self, node: _Node, witness: Witness, upto: int, term: int) -> list[Violation]:
        if upto > len(node.log):
            raise _impossible(witness, f"committed up to {upto} in a log that ends at {len(node.log)}")
        found = self._committed_by_quorum(node, witness, upto) if upto > node.commit else []
        incomplete: list[Violation] = []
        self._latest_commit_term = max(self._latest_commit_term, term)
        later = [leader for elected_in, leader in self._leaders.items() if elected_in > term]
        for index in range(node.commit + 1, upto + 1):
            entry = node.log[index - 1]
            if index > len(self._committed):
                self._committed.append(entry)
                self._committed_in.append(term)
                self._committed_by.append(witness)
                self._committed_under.append(node.configuration if node.leading else None)
            elif self._committed[index - 1] == entry:
                if term >= self._committed_in[index - 1]:
                    continue
                self._committed_in[index - 1] = term
                self._committed_by[index - 1] = witness
            if later and not incomplete:
                lacking = [leader for leader in later if leader.lacks(index, entry)]
                incomplete = [self._incomplete(witness, index, term, leader.elected) for leader in lacking[:1]]
        node.commit = max(node.commit, upto)
        return found + incomplete

    def _committed_by_quorum(self, node: _Node, witness: Witness, upto: int) -> list[Violation]:
        if node.configuration is None or node.leading is None:
            return []
        entry = node.log[upto - 1]
        if entry[0] != node.term:
            message = f"{witness.node}, leader of term {node.term}, committed up to {upto}, an entry of term {entry[0]}"
            return [Violation("CommittedByQuorum", message, (node.leading, witness), upto)]
        voters = self._lacks_quorum(node.configuration, self._who_has(upto, entry))
        if not voters:
            return []
        having = list(filter(self._who_has(upto, entry), voters))
        message = (
            f"{witness.node} committed {upto} when of {', '.join(voters)} only {', '.join(having) or 'none'} had it"
        )
        return [Violation("CommittedByQuorum", message, (node.leading, witness), upto)]

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
